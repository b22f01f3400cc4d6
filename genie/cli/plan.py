"""`genie plan`: show, compare and verify plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genie.cli.common import json_option, print_json
from genie.cli.render import printable
from genie_schemas.errors import ExitCode, GenieError, GenieErrors, Place

if TYPE_CHECKING:
    from genie.plan.check import Verified
    from genie.plan.show import Shown

__all__ = ["command"]

_FILE = click.Path(path_type=Path)


@click.group("plan")
def command() -> None:
    """Show, compare and verify execution plans; nothing is executed and no model is needed."""


@command.command("show")
@click.argument("plan", type=_FILE)
@click.option("--semantics", is_flag=True, help="Show what the compiler understood of the model.")
@click.option("--dot", is_flag=True, help="With --semantics: draw it, in Graphviz's language.")
@click.option("--program", "key", metavar="KEY", help="Show the operators of one program.")
@click.option("--step", metavar="ID", help="Show the operators that a compute step runs.")
@json_option
def show(
    plan: Path, semantics: bool, dot: bool, key: str | None, step: str | None, as_json: bool
) -> None:
    """Show PLAN, also one that is too new, stale or damaged to run.

    Sizes are those at the largest sizes of the plan's dimensions.
    """
    from genie.plan.show import load, show_json, show_text
    from genie.plan.show_semantics import semantics_dot, semantics_text

    if sum(map(bool, (semantics, key, step))) > 1:
        raise click.UsageError("give one of --semantics, --program and --step")
    if dot and (not semantics or as_json):
        raise click.UsageError("--dot goes with --semantics, and not with --json")
    shown = load(plan)
    if key is not None or step is not None:
        _show_program(shown, plan, key, step, as_json)
    elif as_json:
        print_json(dict(shown.summary.semantics) if semantics else show_json(shown))
    elif dot:
        click.echo(printable(semantics_dot(shown)), nl=False)
    else:
        click.echo(printable(semantics_text(shown) if semantics else show_text(shown)), nl=False)


def _show_program(
    shown: Shown, plan: Path, key: str | None, step: str | None, as_json: bool
) -> None:
    from genie.plan.show import program_of, show_program

    programs = [p.key for p in shown.summary.programs]
    steps = [s.id for s in shown.summary.steps if s.kind == "compute"]
    wanted, known, what = (step, steps, "step") if step else (key, programs, "program")
    found = wanted if wanted in known else None
    # A program may also be named by the first digits of its key, as the table's reader types it.
    if found is None and key:
        close = [k for k in programs if k.startswith(key)]
        found = close[0] if len(close) == 1 else None
    text = show_program(shown, found) if found is not None else None
    if found is None or text is None:
        from difflib import get_close_matches

        near = get_close_matches(str(wanted), known, n=1, cutoff=0.3)
        raise GenieError(
            "GEN0333",
            f"the plan has no compute {what} {wanted!r}" if step else f"no program {wanted!r}",
            Place(file=str(plan)),
            remedy=f"did you mean {near[0]!r}?" if near else f"`genie plan show {plan}` lists them",
        )
    if as_json:
        print_json(program_of(shown, found) or {})
    else:
        click.echo(printable(text), nl=False)


@command.command("diff")
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@json_option
def diff(a: Path, b: Path, as_json: bool) -> int:
    """Tell what changes from plan A to plan B: steps, layers, devices, bytes.

    Exits with status 0 when they are equal in all that is executed, and with 3 when they differ.
    """
    from genie.plan.diff import diff_plans
    from genie.plan.diff_text import difference_json, difference_text
    from genie_schemas.reader import load_plan

    found = diff_plans(load_plan(a), load_plan(b))
    if as_json:
        print_json(difference_json(found))
    else:
        click.echo(printable(difference_text(found, str(a), str(b))), nl=False)
    return int(ExitCode.OK if found.equal else ExitCode.DIFFERENCE)


@command.command("verify")
@click.argument("plans", metavar="PLAN…", nargs=-1, required=True, type=_FILE)
@click.option(
    "--without-constants",
    is_flag=True,
    help="Check the plan alone, such as a golden one that is kept without its weights.",
)
@json_option
def verify(plans: tuple[Path, ...], without_constants: bool, as_json: bool) -> None:
    """Check each PLAN as a daemon does, and that its constants lie beside it, intact.

    In order: version, schema, digest, names, dataflow and transfers, operators, memory, policies;
    then the constants' digests. All plans are checked and all errors reported. Exits with status
    0 when all are sound, 4 when one is not, 8 when one is too new.
    """
    from genie.plan.check import verify_file

    good: list[Verified] = []
    errors: list[GenieError] = []
    for path in plans:
        try:
            good.append(verify_file(path, constants=not without_constants))
        except GenieErrors as several:
            errors += several.errors
        except GenieError as error:
            errors.append(error)
    if as_json and not errors:
        print_json({"plans": [_verified_json(v) for v in good]})
    elif not as_json:
        for v in good:
            click.echo(printable(_verified_text(v)))
    if errors:
        raise GenieErrors(errors)


def _verified_text(v: Verified) -> str:
    from genie.plan.text import count, short_digest, size_text

    constants = f"{count(v.constants, 'constant')}, {size_text(v.constant_bytes)}"
    checked = "intact" if v.checked else "not checked"
    digest = short_digest(v.plan.plan_digest)
    return f"{v.path}: ok  {digest}  {count(len(v.plan.steps), 'step')}  {constants} {checked}"


def _verified_json(v: Verified) -> dict[str, Any]:
    return {
        "plan": str(v.path),
        "plan_digest": v.plan.plan_digest,
        "steps": len(v.plan.steps),
        "programs": len(v.plan.programs),
        "constants": v.constants,
        "constants_bytes": v.constant_bytes,
        "constants_checked": v.checked,
    }
