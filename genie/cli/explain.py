"""`genie explain`: what an error code means and what to do about it."""

from __future__ import annotations

import textwrap
from difflib import get_close_matches
from typing import Any

import click

from genie.cli.common import json_option, print_json
from genie_schemas.errors import CODES, CodeInfo, GenieError, explain

__all__ = ["command"]


def _json(info: CodeInfo) -> dict[str, Any]:
    return {
        "code": info.code,
        "title": info.title,
        "exit_code": int(info.exit),
        "text": info.text,
    }


@click.command("explain")
@click.argument("code", required=False)
@json_option
def command(code: str | None, as_json: bool) -> None:
    """Tell more about the error CODE; without one, list all codes."""
    if code is None:
        if as_json:
            print_json({"codes": [_json(info) for info in CODES.values()]})
            return
        for info in CODES.values():
            click.echo(f"{info.code}  {info.title}")
        return
    found = explain(code)
    if found is None:
        begun = [known for known in CODES if known.startswith(code.upper())]
        close = begun or get_close_matches(code.upper(), CODES, n=1)
        raise GenieError(
            "GEN0132",
            f"there is no error code {code!r}",
            remedy=f"did you mean {close[0]}?" if close else "`genie explain` lists them all",
        )
    if as_json:
        print_json(_json(found))
        return
    click.echo(f"{found.code}: {found.title}\n")
    click.echo(textwrap.fill(found.text, width=80))
    click.echo(f"\nExit status: {int(found.exit)}")
