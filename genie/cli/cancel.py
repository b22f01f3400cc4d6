"""`genie cancel`: stop a run on a daemon."""

from __future__ import annotations

from pathlib import Path

import click

from genie.cli.common import json_option, print_json

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command("cancel")
@click.argument("run_id")
@click.option("--on", metavar="ENDPOINT", help="The daemon; by default this user's own.")
@click.option("--tls-dir", type=_PATH, envvar="GENIE_TLS_DIR", help="As `genie auth init` made.")
@click.option("--token-file", type=_PATH, envvar="GENIE_TOKEN_FILE", help="The daemon's token.")
@json_option
def command(
    run_id: str, on: str | None, tls_dir: Path | None, token_file: Path | None, as_json: bool
) -> None:
    """Stop the run RUN_ID; nothing of it is published. `genie status` lists what is going on."""
    from genie.client.admin import cancel

    stopped = cancel(run_id, on, tls_dir, token_file)
    if as_json:
        print_json({"run_id": run_id, "cancelled": stopped})
    else:
        click.echo(f"{run_id}: stopped")
