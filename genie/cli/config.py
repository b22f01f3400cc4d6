"""Defaults for options from genie.toml, below the command line and the environment.

An option's value is taken from the first of: the command line; GENIE_<COMMAND>_<OPTION>; the
nearest genie.toml, from the working directory upward; $XDG_CONFIG_HOME/genie/config.toml; the
option's own default. A file has a table for each command, with keys spelt like the long options:

    [execute]
    on = ["unix:///run/genie/genied.sock"]
    deadline = 60

Relative paths are relative to the file that holds them. Whatever is not an option is refused, and
so is --json, which belongs to one call and not to a place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from genie.spec.document import Entry, MapNode, Node, Report

__all__ = ["config_files", "load_defaults"]

_FILE = "genie.toml"


def _trusted(path: Path) -> bool:
    """Whether nobody but this user or root can have put `path` where it is."""
    # A genie.toml in /tmp would otherwise let any local user choose where plans are sent.
    if path.stat().st_uid in (os.geteuid(), 0):
        return True
    return not path.parent.stat().st_mode & stat.S_IWOTH


def config_files(start: Path) -> Iterator[Path]:
    """Existing configuration files, the one of least precedence first."""
    from platformdirs import user_config_path

    user = user_config_path("genie") / "config.toml"
    if user.is_file():
        yield user
    for folder in (start, *start.parents):
        candidate = folder / _FILE
        if candidate.is_file() and _trusted(candidate):
            yield candidate
            return


def _read(path: Path) -> tuple[MapNode, Report]:
    from genie.spec.document import MapNode, Report, read_source
    from genie.spec.toml_reader import read_toml
    from genie_schemas.errors import GenieError, GenieErrors

    try:
        report = Report(read_source(path, what="configuration file"))
        root = read_toml(report)
        report.raise_found()
    except GenieError as error:
        # Not a spec: say so, and end with the status of a usage error.
        found = error.errors if isinstance(error, GenieErrors) else (error,)
        raise GenieErrors(
            [GenieError("GEN0130", e.message, e.place, e.cause, e.remedy) for e in found]
        ) from None
    if not isinstance(root, MapNode):
        raise TypeError("a TOML document is a table")
    return root, report


def _suggest(word: str, candidates: list[str]) -> str:
    close = get_close_matches(word, candidates, n=1)
    return f"did you mean {close[0]!r}?" if close else f"possible: {', '.join(candidates)}"


def _option_value(
    ctx: click.Context, option: click.Option, entry: Entry, file: Path, report: Report
) -> Any:
    from genie.spec.document import to_plain

    value = to_plain(entry.value, {})
    many = option.multiple or option.nargs != 1
    problem = None
    if isinstance(value, dict):
        problem = "must be a value, not a table"
    elif option.is_flag and not isinstance(value, bool):
        problem = "must be true or false"
    elif many != isinstance(value, list):
        problem = "must be a list" if many else "must be one value, not a list"
    elif not option.is_flag and isinstance(value, bool):
        problem = "must not be true or false"
    if problem is None:
        if isinstance(option.type, click.Path):
            parts = value if isinstance(value, list) else [value]
            joined = [str(file.parent / part) if isinstance(part, str) else part for part in parts]
            value = joined if isinstance(value, list) else joined[0]
        try:
            option.type_cast_value(ctx, value)
        except click.BadParameter as error:
            problem = f"is not usable: {error.message.rstrip('.')}"
    if problem is not None:
        report.add("GEN0130", f"{entry.key} {problem}", entry.value.span)
    return value


def _command_defaults(
    command: click.Command, ctx: click.Context, table: Node, file: Path, report: Report
) -> dict[str, Any]:
    """Values for `command` by parameter name, as click's default_map wants them."""
    from genie.spec.document import MapNode

    if not isinstance(table, MapNode):
        report.add("GEN0130", "a command's defaults are a table", table.span)
        return {}
    options = {
        name.removeprefix("--"): param
        for param in command.params
        if isinstance(param, click.Option) and param.allow_from_autoenv
        for name in param.opts
        if name.startswith("--")
    }
    subcommands = command.list_commands(ctx) if isinstance(command, click.Group) else []
    defaults: dict[str, Any] = {}
    for entry in table.entries:
        subcommand = (
            command.get_command(ctx, entry.key)
            if isinstance(command, click.Group) and entry.key in subcommands
            else None
        )
        if subcommand is not None:
            inner = click.Context(subcommand, parent=ctx, info_name=entry.key)
            defaults[entry.key] = _command_defaults(subcommand, inner, entry.value, file, report)
        elif entry.key in options:
            option = options[entry.key]
            value = _option_value(ctx, option, entry, file, report)
            if option.name is not None:
                defaults[option.name] = value
        else:
            report.add(
                "GEN0130",
                f"{command.name} has no option {entry.key!r}",
                entry.key_span,
                remedy=_suggest(entry.key, sorted([*options, *subcommands])),
            )
    return defaults


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merge(below, value) if nested else value  # type: ignore[arg-type]
    return merged


def load_defaults(group: click.Group, ctx: click.Context, name: str) -> dict[str, Any]:
    """Defaults for the command `name` of `group`, from all configuration files.

    Tables of other commands are only checked to belong to a command, because checking their keys
    would import those commands.

    Raises:
        GenieErrors: GEN0130, everything that is wrong in a file, with its place.
    """
    defaults: dict[str, Any] = {}
    for file in config_files(Path.cwd()):
        root, report = _read(file)
        known = group.list_commands(ctx)
        for entry in root.entries:
            command = group.get_command(ctx, name) if entry.key == name else None
            if command is not None:
                inner = click.Context(command, parent=ctx, info_name=name)
                found = _command_defaults(command, inner, entry.value, file, report)
                defaults = _merge(defaults, {name: found})
            elif entry.key not in known:
                report.add(
                    "GEN0130",
                    f"there is no command {entry.key!r}",
                    entry.key_span,
                    remedy=_suggest(entry.key, known),
                )
        report.raise_found()
    return defaults
