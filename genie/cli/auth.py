"""`genie auth`: certificates and tokens for daemons on a network."""

from __future__ import annotations

from pathlib import Path

import click

from genie.cli.common import json_option, print_json

__all__ = ["command"]


@click.group("auth")
def command() -> None:
    """Make certificates and tokens for daemons on a network."""


@command.command("init")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    help="Where to; by default this user's configuration directory.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name or address under which daemons are reached; may be repeated.",
)
@json_option
def init(folder: Path | None, hosts: tuple[str, ...], as_json: bool) -> None:
    """Make a CA, certificates for daemons and clients, and a token. Overwrites nothing.

    Daemons take the folder as --tls-dir and its `token` as --token-file; clients too, with
    client.pem and client.key. ca.key signs further certificates: keep it elsewhere.
    """
    from genie_runtime import auth
    from genie_runtime.secrets_files import config_home

    target = folder or config_home()
    files = auth.init(target, hosts)
    if as_json:
        print_json({"dir": str(target), "files": [path.name for path in files]})
        return
    click.echo(f"made in {target}:")
    for path in files:
        click.echo(f"  {path.name}")
    click.echo(f"serve:   genied --listen HOST:PORT --tls-dir {target} --token-file {target}/token")
    click.echo("connect: copy ca.pem, client.pem, client.key and token to the client's machine")
