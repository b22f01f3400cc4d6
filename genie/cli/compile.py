"""`genie compile`: a model and a spec become a plan; with --check, compared with a golden one."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from genie.cli.common import json_option, print_json, settings_option
from genie_schemas.errors import ExitCode

if TYPE_CHECKING:
    from genie.driver import Work
    from genie.plan.store import Written
    from genie.schedule import Scheduled
    from genie_schemas.plan import ExecutionPlan, Step

__all__ = ["command"]

# As in genie.driver.STAGES, which is too heavy to import for --help; a test compares them.
_STAGES = ("spec", "capture", "semantics", "schedule", "plan", "verify")


@click.command("compile")
@click.argument("model", metavar="MODEL.py", type=click.Path(path_type=Path))
@click.option(
    "--spec", required=True, metavar="SPEC", type=click.Path(path_type=Path), help="YAML or TOML."
)
@click.option(
    "-o",
    "--output",
    "out",
    metavar="PLAN",
    type=click.Path(path_type=Path),
    help="Where the plan goes. Default: NAME.plan.json here, NAME being the spec's name.",
)
@settings_option
@click.option(
    "--check",
    "golden",
    metavar="GOLDEN",
    type=click.Path(path_type=Path),
    help="Compare with this plan; exit with status 3 and the difference when they differ.",
)
@click.option(
    "--stop-after",
    type=click.Choice(_STAGES),
    help="Print what this stage gives and write nothing.",
)
@json_option
def command(
    model: Path,
    spec: Path,
    out: Path | None,
    settings: dict[str, str],
    golden: Path | None,
    stop_after: str | None,
    as_json: bool,
) -> int:
    r"""Compile MODEL.py under SPEC into an execution plan.

    The plan's constants are written beside it, under a name made of their content; weights that
    the spec names and the model leaves unchanged are linked. With --check and without -o, nothing
    is written.

    \b
      genie compile model.py --spec vision.yaml -o vision.plan.json
      genie compile model.py --spec vision.yaml --check golden/vision.plan.json
      genie compile model.py --spec vision.yaml --stop-after capture
    """
    if stop_after is not None and (out is not None or golden is not None):
        raise click.UsageError("--stop-after writes and compares nothing: leave out -o and --check")
    with _interruptible():
        if stop_after is not None:
            _stopped(model, spec, settings, stop_after, as_json)
            return int(ExitCode.OK)
        return _compile(model, spec, settings, out, golden, as_json)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, so that the child and scratch files go too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread, where an embedding program handles them
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _compile(
    model: Path,
    spec: Path,
    settings: dict[str, str],
    out: Path | None,
    golden: Path | None,
    as_json: bool,
) -> int:
    from genie.cli.progress import Progress
    from genie.driver import compile_model
    from genie.plan.diff import diff_plans
    from genie.plan.diff_text import difference_json, difference_text
    from genie.spec import load_spec
    from genie_schemas.reader import load_plan

    # Before the minutes that a large model takes.
    loaded = load_spec(spec, settings)
    expected = load_plan(golden) if golden is not None else None
    if out is None and golden is None:
        out = Path(f"{loaded.spec.name}.plan.json")
    with Progress() as progress:
        work, written = compile_model(model, spec, out, settings, progress)
    plan = _made(work)
    if len(loaded.spec.devices) > 1 and loaded.spec.placement == "auto":
        for reason in plan.advisory.get("placement", ()):
            click.echo(f"note: {reason}", err=True)
    found = diff_plans(expected, plan) if expected is not None else None
    if as_json:
        print_json(_json(work, plan, written) | (difference_json(found) if found else {}))
    else:
        if written is not None:
            click.echo(_text(work, plan, written))
        if found is not None:
            click.echo(difference_text(found, str(golden), "this model and spec"), nl=False)
            if not found.equal:
                click.echo(f"To accept it: genie compile … -o {golden}")
    return int(ExitCode.OK if found is None or found.equal else ExitCode.DIFFERENCE)


def _made(work: Work) -> ExecutionPlan:
    if work.plan is None:
        raise TypeError("the driver made no plan")
    return work.plan


def _seconds(work: Work) -> dict[str, float]:
    """Seconds by stage; parts of one name are added up."""
    totals: dict[str, float] = {}
    for name, spent in work.seconds:
        totals[name] = totals.get(name, 0.0) + spent
    return {name: round(spent, 6) for name, spent in totals.items()}


def _json(work: Work, plan: ExecutionPlan, written: Written | None) -> dict[str, Any]:
    from genie.plan.emit import bytes_of

    semantics = plan.advisory["semantics"]
    return {
        "plan": None if written is None else str(written.plan),
        "plan_digest": plan.plan_digest,
        "workload": {
            "kind": semantics["kind"],
            "confidence": float(semantics["confidence"]),
        },
        "steps": len(plan.steps),
        "programs": len(plan.programs),
        "devices": list(plan.devices),
        "constants_bytes": bytes_of(plan),
        "seconds": _seconds(work),
    }


def _text(work: Work, plan: ExecutionPlan, written: Written) -> str:
    from genie.plan.emit import bytes_of
    from genie.plan.text import columns, count, short_digest, size_text

    how = {
        "written": "",
        "linked": ", linked to the spec's weights",
        "kept": ", which was there already",
    }[written.how]
    constants = size_text(bytes_of(plan))
    if written.constants != written.plan:
        constants += f" in {written.constants.name}{how}"
    peaks = ", ".join(f"{name} {size_text(device.needs)}" for name, device in plan.devices.items())
    rows = [
        ("steps", f"{len(plan.steps)} on {', '.join(plan.devices)}"),
        ("programs", str(len(plan.programs))),
        ("constants", constants),
        ("peak memory", peaks),
        ("compiled in", f"{sum(_seconds(work).values()):.1f} s"),
    ]
    called = sum(step.kind == "compute" for step in plan.steps)
    if called != len(plan.programs):
        rows[1] = ("programs", f"{len(plan.programs)}, shared by {count(called, 'compute step')}")
    return "\n".join([f"{written.plan}  {short_digest(plan.plan_digest)}", *columns(rows)])


def _stopped(model: Path, spec: Path, settings: dict[str, str], stage: str, as_json: bool) -> None:
    """Run to `stage` and print what it gave, as text or as JSON."""
    from genie.cli.progress import Progress
    from genie.driver import Request, run

    with Progress() as progress, tempfile.TemporaryDirectory(prefix="genie-") as scratch:
        work = run(Request(model, spec, settings, Path(scratch), progress), stage)
    if as_json:
        print_json({"stage": stage, **_stage_json(work, stage), "seconds": _seconds(work)})
    else:
        click.echo(_stage_text(work, stage), nl=False)


def _stage_json(work: Work, stage: str) -> dict[str, Any]:
    from genie.graph.entries import entries_data
    from genie.graph.ir import to_data
    from genie_schemas import writer

    if stage == "spec" and work.spec is not None:
        return {"spec": work.spec.spec.model_dump(mode="json", by_alias=True)}
    if stage == "capture" and work.entries is not None:
        several = len(work.entries.graphs) > 1
        return entries_data(work.entries) if several else {"graph": to_data(work.entries.first)}
    if stage == "semantics":
        from genie.semantics.export import analysis_json

        return {
            "regions": [{"module": r.path, "class": r.kind, "ops": r.ops} for r in work.regions],
            "entrypoints": {name: analysis_json(a) for name, a in work.analyses.items()},
        }
    if stage == "schedule" and work.scheduled is not None:
        return {"steps": [writer.step_data(step) for step in _steps(work.scheduled)]}
    return {"plan": writer.plan_data(_made(work))}


def _steps(scheduled: Scheduled) -> Iterator[Step]:
    """Every entry point's steps."""
    for schedule in scheduled.schedules.values():
        yield from schedule.steps


def _stage_text(work: Work, stage: str) -> str:
    from genie.graph import print_graph
    from genie.plan.text import columns, count
    from genie_schemas import canonical, writer

    if stage == "spec" and work.spec is not None:
        return work.spec.spec.model_dump_json(by_alias=True, indent=2) + "\n"
    if stage == "capture" and work.entries is not None:
        graphs = work.entries.graphs
        titled = len(graphs) > 1
        return "\n".join(
            (f"# {name}\n" if titled else "") + print_graph(graph) for name, graph in graphs.items()
        )
    if stage == "semantics":
        from genie.semantics.export import analysis_text

        rows = [(r.path or "(model)", r.kind, count(r.ops, "op")) for r in work.regions]
        texts = [f"entry point {n}: {analysis_text(a)}" for n, a in work.analyses.items()]
        return "\n".join([*columns(rows, ""), "", *texts])
    if stage == "schedule" and work.scheduled is not None:
        # A program has its key only once it is emitted; here the step has the draft's.
        steps = [writer.step_data(step) for step in _steps(work.scheduled)]
        return "".join(
            canonical.compact({k: v for k, v in step.items() if k != "program"}) + "\n"
            for step in steps
        )
    return writer.dumps(_made(work))
