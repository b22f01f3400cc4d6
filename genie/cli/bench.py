"""`genie bench`: measure this installation."""

from __future__ import annotations

import click

from genie.cli.common import json_option, print_json

__all__ = ["command"]


@click.command("bench")
@click.argument("suites", nargs=-1, metavar="[SUITE]…")
@click.option("--quick", is_flag=True, help="Take fewer samples.")
@click.option("--list", "listed", is_flag=True, help="Name the suites and end.")
@json_option
def command(suites: tuple[str, ...], quick: bool, listed: bool, as_json: bool) -> None:
    """Measure SUITEs (all of them by default) and print medians, ratios and spreads.

    Run it on an idle machine. Ratios compare runs that alternated in this very run; absolute times
    depend on the machine.
    """
    from genie.bench import SUITES, run_suites

    if listed:
        for name, (about, _) in SUITES.items():
            click.echo(f"{name:10}{about}")
        return
    unknown = [name for name in suites if name not in SUITES]
    if unknown:
        raise click.BadParameter(
            f"there is no suite {unknown[0]!r}; there are {', '.join(SUITES)}",
            param_hint="SUITE",
        )

    def progress(name: str) -> None:
        click.echo(f"measuring {name} …", err=True)

    report = run_suites(suites or tuple(SUITES), quick, progress)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report.to_text())
