"""The table of error codes, assembled from the catalog; the single source of exit codes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every command (architecture.md, "CLI contract")."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    DIFFERENCE = 3
    INVALID = 4
    UNREACHABLE = 5
    AUTHENTICATION = 6
    DEADLINE = 7
    VERSION = 8
    INTERNAL = 70
    INTERRUPTED = 130


@dataclass(frozen=True)
class CodeInfo:
    """What a code means. `text` is what `genie explain` prints below the title."""

    code: str
    title: str
    exit: ExitCode
    text: str


def _assemble() -> dict[str, CodeInfo]:
    from genie_schemas.errors.catalog import daemon, model, plan, run, spec, transfer

    table: dict[str, CodeInfo] = {}
    for module in (spec, model, plan, run, daemon, transfer):
        for code, (title, exit_code, text) in module.TABLE.items():
            if code in table:
                raise ValueError(f"error code {code} is defined twice")
            table[code] = CodeInfo(code, title, exit_code, " ".join(text.split()))
    return dict(sorted(table.items()))


CODES: dict[str, CodeInfo] = _assemble()


def explain(code: str) -> CodeInfo | None:
    """Return the catalog entry of `code` (case-insensitive), or None when there is none."""
    return CODES.get(code.upper())
