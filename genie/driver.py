"""The whole compiler on one screen: `STAGES` run in order, each from one value to the next.

A stage is a function `Work -> Work`; nothing else carries state. Model loading and capture run the
user's code, so they happen in a child process (`genie.driver_child`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from genie.graph import check
from genie.graph.entries import Entries, entries_from
from genie.graph.ir import Graph
from genie.plan.emit import Emitted, emit
from genie.plan.semantics import advice
from genie.plan.store import Written, write
from genie.schedule import Scheduled, schedule_entries
from genie.schedule.placement import stage_modules
from genie.semantics import Region, assign_regions
from genie.semantics.annotate import Analysis, analyze
from genie.spec import LoadedSpec, load_spec
from genie_schemas.constants import file_digest
from genie_schemas.errors import GenieError, GenieErrors, InternalError, Place
from genie_schemas.plan import ExecutionPlan
from genie_schemas.verify import verify

T = TypeVar("T")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to compile. `scratch` is a folder that the caller made and removes."""

    model: Path
    spec: Path
    settings: Mapping[str, str]
    scratch: Path
    progress: Progress = lambda stage: None


@dataclass(frozen=True)
class Work:
    """What is known after each stage; a field is set by the stage of that name."""

    request: Request
    spec: LoadedSpec | None = None
    entries: Entries | None = None
    constants: Path | None = None
    """The file whose content the constants are: the spec's weights, or a fresh one in scratch."""
    regions: tuple[Region, ...] = ()
    node_regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Entry point → the region of each of its nodes."""
    analyses: Mapping[str, Analysis] = field(default_factory=dict)
    """Entry point → what its calls and values are for."""
    scheduled: Scheduled | None = None
    plan: ExecutionPlan | None = None
    seconds: tuple[tuple[str, float], ...] = ()

    @property
    def graph(self) -> Graph | None:
        """The graph of the first entry point: of the forward, or of a language model's prefill."""
        return None if self.entries is None else self.entries.first


def read_spec(work: Work) -> Work:
    """spec: read, render and check the file."""
    return dataclasses.replace(work, spec=load_spec(work.request.spec, work.request.settings))


def capture(work: Work) -> Work:
    """capture: load the model and export it, in a child process."""
    loaded = _need(work.spec)
    entries, constants, seconds = _run_child(work.request, loaded)
    for graph in entries.graphs.values():
        check(graph, "capture")
    return dataclasses.replace(
        work, entries=entries, constants=constants, seconds=(*work.seconds, *seconds)
    )


def semantics(work: Work) -> Work:
    """semantics: regions from the module hierarchy; what calls and values are for."""
    spec, entries = _need(work.spec).spec, _need(work.entries)
    splits = stage_modules(spec)
    found = {n: assign_regions(g, splits) for n, g in entries.graphs.items()}
    regions: dict[str, Region] = {}
    for _, some in found.values():
        for region in some:
            regions.setdefault(region.path, region)
    return dataclasses.replace(
        work,
        node_regions={name: tuple(nodes) for name, (nodes, _) in found.items()},
        regions=tuple(regions.values()),
        analyses={name: analyze(g, spec.workload) for name, g in entries.graphs.items()},
    )


def schedule_steps(work: Work) -> Work:
    """schedule: place nodes on devices, cut them into segments, order the steps."""
    loaded, entries = _need(work.spec), _need(work.entries)
    made = schedule_entries(entries, work.node_regions, loaded.spec, str(loaded.path))
    for graph in made.entries.graphs.values():
        check(graph, "schedule")
    return dataclasses.replace(work, entries=made.entries, scheduled=made)


def emit_plan(work: Work) -> Work:
    """plan: programs, values and steps as the file has them."""
    spec = _need(work.spec)
    digest = file_digest(_need(work.constants)).removeprefix("blake3:")[:16]
    facts = Emitted(
        spec=spec.spec,
        spec_digest=f"sha256:{spec.digest}",
        passes=tuple(f"{name}@1" for name, _ in STAGES),
        semantics=advice(work.analyses, work.regions, work.node_regions),
        constants_file=f"{spec.spec.name}.{digest}.safetensors",
    )
    return dataclasses.replace(work, plan=emit(_need(work.scheduled), facts))


def verify_plan(work: Work) -> Work:
    """verify: the daemon's own verifier; only a device too small is the user's to mend."""
    try:
        verify(_need(work.plan))
    except GenieErrors as errors:
        if all(e.code == "GEN0324" for e in errors.errors):
            raise GenieErrors([_in_spec(e, _need(work.spec)) for e in errors.errors]) from None
        raise InternalError(f"the compiler wrote a plan that does not verify: {errors}") from errors
    return work


STAGES: tuple[tuple[str, Callable[[Work], Work]], ...] = (
    ("spec", read_spec),
    ("capture", capture),
    ("semantics", semantics),
    ("schedule", schedule_steps),
    ("plan", emit_plan),
    ("verify", verify_plan),
)


def run(request: Request, stop_after: str | None = None) -> Work:
    """Run the stages, to the last or to `stop_after`; raises the stages' GenieErrors."""
    work = Work(request)
    for name, stage in STAGES:
        request.progress(name)
        start = time.perf_counter()
        work = stage(work)
        spent = time.perf_counter() - start
        spent -= sum(s for n, s in work.seconds if n in _CHILD_STAGES and name == "capture")
        work = dataclasses.replace(work, seconds=(*work.seconds, (name, spent)))
        if name == stop_after:
            break
    return work


def compile_model(
    model: Path,
    spec: Path,
    out: Path | None,
    settings: Mapping[str, str] | None = None,
    progress: Progress = lambda stage: None,
) -> tuple[Work, Written | None]:
    """Compile `model` under `spec`; write plan and constants to `out` unless it is None.

    Raises GenieError for everything that is the user's to mend (GEN01xx spec, GEN02xx model,
    GEN0324 device too small, GEN0330 and GEN0331 writing).
    """
    parent = out.parent if out is not None and out.parent.is_dir() else None
    with tempfile.TemporaryDirectory(prefix=".genie-", dir=_writable(parent)) as scratch:
        work = run(Request(model, spec, settings or {}, Path(scratch), progress))
        if out is None:
            return work, None
        progress("write")
        return work, write(_need(work.plan), _need(work.constants), out)


def _writable(folder: Path | None) -> Path | None:
    return folder if folder is not None and os.access(folder, os.W_OK) else None


def _need(value: T | None) -> T:
    if value is None:
        raise InternalError("a stage ran before the one that it needs")
    return value


def _in_spec(error: GenieError, spec: LoadedSpec) -> GenieError:
    place = Place(file=str(spec.path), path=error.place.path if error.place else None)
    return dataclasses.replace(error, place=place)


_CHILD_STAGES = ("model", "capture", "constants")
_PATIENCE = 0.2
"""Seconds between looks at whether the child still lives, while it announces nothing."""


def _run_child(
    request: Request, loaded: LoadedSpec
) -> tuple[Entries, Path, Sequence[tuple[str, float]]]:
    """Run `genie.driver_child`; its stages' seconds come back with the graphs."""
    read_end, write_end = os.pipe()
    message = json.dumps(
        {
            "folder": str(request.scratch),
            "model": str(request.model.absolute()),
            "shown": str(request.model),
            "spec": loaded.spec.dumps(),
            "spec_file": str(loaded.path),
            "weights": str(loaded.weights.absolute()) if loaded.weights else None,
            "progress_fd": write_end,
        }
    )
    argv = [sys.executable, "-P", "-m", "genie.driver_child"]
    child = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=None, pass_fds=(write_end,), text=True
    )
    os.close(write_end)
    try:
        seconds = _follow(child, message, read_end, request.progress)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    failed = request.scratch / "error.json"
    if failed.exists():
        items = json.loads(failed.read_text(encoding="utf-8"))
        errors = [_as_given(GenieError.from_json(item), loaded) for item in items]
        raise errors[0] if len(errors) == 1 else GenieErrors(errors)
    bug = request.scratch / "bug.json"
    if bug.exists():
        raise InternalError(json.loads(bug.read_text(encoding="utf-8")), stage="capture")
    made = request.scratch / "entries.json"
    if child.returncode != 0 or not made.exists():
        raise _died(child.returncode, str(request.model))
    entries = entries_from(json.loads(made.read_text(encoding="utf-8")))
    fresh = request.scratch / "constants.safetensors"
    return entries, fresh if fresh.exists() else _need(loaded.weights), seconds


def _as_given(error: GenieError, loaded: LoadedSpec) -> GenieError:
    """The error with the weights file named as the spec's reader knows it, not absolutely."""
    weights, place = loaded.weights, error.place
    if weights is None or place is None or place.file != str(weights.absolute()):
        return error
    return dataclasses.replace(error, place=dataclasses.replace(place, file=str(weights)))


def _follow(
    child: subprocess.Popen[str], message: str, read_end: int, progress: Progress
) -> list[tuple[str, float]]:
    """Hand over the request and time the child's stages from their announcements."""
    seconds: list[tuple[str, float]] = []
    started, stage = time.perf_counter(), "start"
    assert child.stdin is not None  # noqa: S101 - opened as a pipe above
    try:
        child.stdin.write(message)
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died: its exit status tells
    for line in _lines(read_end, child):
        now = time.perf_counter()
        seconds.append((stage, now - started))
        started, stage = now, line
        progress(stage)
    child.wait()
    seconds.append((stage, time.perf_counter() - started))
    return [s for s in seconds if s[0] in _CHILD_STAGES]


def _lines(read_end: int, child: subprocess.Popen[str]) -> Iterator[str]:
    """Lines of a pipe until its end, or until the child is gone.

    The end alone does not do: a process that the user's code forked holds the pipe open.
    """
    pending = b""
    try:
        while True:
            if select.select([read_end], [], [], _PATIENCE)[0]:
                block = os.read(read_end, 4096)
                if not block:
                    return
                *lines, pending = (pending + block).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
            elif child.poll() is not None:
                return
    finally:
        os.close(read_end)


def _died(status: int, shown: str) -> GenieError:
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return GenieError(
        "GEN0228",
        "the process that loads and captures the model ended without an answer",
        Place(file=shown),
        how + (" (killed; perhaps out of memory)" if status == -9 else ""),
        "its last output is above; run the model file with Python to see more",
    )
