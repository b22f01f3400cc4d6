"""`genie bench`: measure this installation."""

from __future__ import annotations

from pathlib import Path

import click

from genie.cli.common import json_option, print_json

__all__ = ["command"]


@click.command("bench")
@click.argument("suites", nargs=-1, metavar="[SUITE]…")
@click.option("--quick", is_flag=True, help="Take fewer samples.")
@click.option("--list", "listed", is_flag=True, help="Name the suites and end.")
@click.option(
    "--plot",
    "picture",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE.svg",
    help="Draw throughput by message size (suite transport).",
)
@click.option(
    "--write",
    "page",
    type=click.Path(file_okay=False, exists=True, writable=True, path_type=Path),
    metavar="FOLDER",
    help="Write semantics.md with its plots and samples there (suite semantics).",
)
@json_option
def command(
    suites: tuple[str, ...],
    quick: bool,
    listed: bool,
    picture: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
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

    if picture is not None and suites and "transport" not in suites:
        raise click.BadParameter("only the suite transport has a plot", param_hint="--plot")
    if page is not None and suites and "semantics" not in suites:
        raise click.BadParameter("only the suite semantics has a page", param_hint="--write")

    def progress(name: str) -> None:
        click.echo(f"measuring {name} …", err=True)

    report = run_suites(suites or tuple(SUITES), quick, progress)
    if picture is not None:
        from genie.bench.transport._plot import plot

        picture.write_text(plot(report.rows), encoding="utf-8")
    if page is not None:
        from genie.bench.semantics._page import write

        for path in write(report, page):
            click.echo(f"wrote {path}", err=True)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report.to_text())
