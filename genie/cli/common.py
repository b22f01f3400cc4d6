"""What commands share: options and output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

__all__ = ["json_option", "json_wanted", "parse_settings", "print_json", "settings_option"]


def json_wanted(argv: list[str]) -> bool:
    """Whether results, and so errors, are to be JSON on stdout.

    The raw arguments tell, because a command line that does not parse has no options; hence --json
    can only be given there, not by the environment or a configuration file.
    """
    options = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in options


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    allow_from_autoenv=False,
    help="Print the result, or the error, as JSON on stdout.",
)
"""Adds --json as the argument `as_json: bool`."""


def parse_settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """Name to value of `NAME=VALUE` texts; a later one replaces an earlier one.

    Raises:
        GenieError: GEN0124, a text without a name or without `=`.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            from genie_schemas.errors import GenieError

            raise GenieError(
                "GEN0124",
                f"--set {pair!r} is not NAME=VALUE",
                remedy="write it as in --set width=32",
            )
        settings[name] = value
    return settings


settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda _ctx, _param, pairs: parse_settings(pairs),
    help="Give a template variable of the spec a value, or what generates a parameter; may be "
    "repeated.",
)
"""Adds --set as the argument `settings: dict[str, str]`, ready for `load_spec`."""


def print_json(value: Mapping[str, Any], *, one_line: bool = False) -> None:
    """Print one JSON document on stdout; a value that JSON cannot hold is a bug and raises."""
    click.echo(json.dumps(value, indent=None if one_line else 2, allow_nan=False))
