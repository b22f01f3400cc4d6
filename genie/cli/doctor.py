"""`genie doctor`: what this machine can do, what is missing, and the command that mends it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    from genie.doctor import Check

__all__ = ["command"]


@click.command("doctor")
@click.option("--strict", is_flag=True, help="Require the optional parts too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.pass_context
def command(ctx: click.Context, strict: bool, as_json: bool) -> None:
    """Check this machine against the support matrix.

    Exits 0 when everything required is there, 1 when something is missing; each missing part comes
    with the one command that mends it. Optional parts count only with --strict.
    """
    from genie.doctor import diagnose

    checks = diagnose(strict=strict)
    failed = [check for check in checks if not check.ok]
    if as_json:
        click.echo(json.dumps({"checks": [check.to_json() for check in checks]}, indent=2))
        ctx.exit(1 if failed else 0)
    _print_table(checks)
    if failed:
        raise GenieError(
            "GEN0590",
            f"{len(failed)} of {len(checks)} checks fail: {', '.join(c.name for c in failed)}",
            cause="this machine is outside the support matrix" + (" (--strict)" if strict else ""),
            remedy=next((c.remedy for c in failed if c.remedy), None),
        )


def _print_table(checks: tuple[Check, ...]) -> None:
    """One line a check with its remedy below, so that commands can be copied in one piece."""
    colours = {"ok": "green", "absent": "yellow", "FAILS": "red"}
    coloured = _on_terminal() and not os.environ.get("NO_COLOR")
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = ("ok" if check.present else "absent") if check.ok else "FAILS"
        shown = click.style(f"{mark:7}", fg=colours[mark]) if coloured else f"{mark:7}"
        click.echo(f"{shown} {check.name:{width}}  {check.found}  [{check.required}]")
        if check.remedy:
            click.echo(f"{'':7} {'':{width}}  to mend: {check.remedy}")


def _on_terminal() -> bool:
    return sys.stdout.isatty()
