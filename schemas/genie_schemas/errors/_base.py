"""The exception types. Rendering for a terminal is the CLI's; `str()` is complete without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from genie_schemas.errors._registry import CODES, ExitCode

__all__ = ["ExitCode", "GenieError", "GenieErrors", "InternalError", "Place"]


@dataclass(frozen=True)
class Place:
    """Where a failure is: a file position, or a path inside a document ("steps[3].reads").

    `line` and `column` count from 1. `text` is the offending source line, without its newline,
    and `length` how many of its characters are at fault, for the caret.
    """

    file: str | None = None
    line: int | None = None
    column: int | None = None
    text: str | None = None
    length: int = 1
    path: str | None = None

    def __str__(self) -> str:
        parts = [self.file] if self.file else []
        if self.line is not None:
            parts.append(str(self.line))
            if self.column is not None:
                parts.append(str(self.column))
        where = ":".join(p for p in parts if p)
        if self.path:
            where = f"{where} at {self.path}" if where else self.path
        return where


@dataclass(eq=False)
class GenieError(Exception):
    """One diagnosed failure.

    `message` says what is wrong, `cause` why (when that is not the same), `remedy` what to do.
    `context` holds plain JSON values for `--json` and logs: never a secret.
    """

    code: str
    message: str
    place: Place | None = None
    cause: str | None = None
    remedy: str | None = None
    context: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise KeyError(f"error code {self.code} is not in the catalog")
        super().__init__(self.code, self.message)

    @property
    def exit_code(self) -> ExitCode:
        return CODES[self.code].exit

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}"]
        if self.place is not None and str(self.place):
            lines.append(f"  at {self.place}")
        if self.cause:
            lines.append(f"  cause: {self.cause}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The error as plain JSON values: what `--json` prints and the control channel sends."""
        place = self.place
        return {
            "code": self.code,
            "message": self.message,
            "place": None
            if place is None
            else {k: v for k, v in vars(place).items() if v is not None},
            "cause": self.cause,
            "remedy": self.remedy,
            "context": self.context,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> GenieError:
        """Rebuild an error that a peer sent; an unknown code becomes GEN0500 and keeps its text."""
        code = str(data.get("code", ""))
        message = str(data.get("message", ""))
        if code not in CODES:
            code, message = "GEN0500", f"{code}: {message}"
        place = data.get("place")
        known = (
            {k: v for k, v in place.items() if k in Place.__dataclass_fields__} if place else None
        )
        return cls(
            code,
            message,
            Place(**known) if known else None,
            data.get("cause"),
            data.get("remedy"),
            dict(data.get("context") or {}),
        )


class GenieErrors(GenieError):
    """All failures of one input at once; its exit code is that of the first."""

    def __init__(self, errors: Sequence[GenieError]) -> None:
        if not errors:
            raise ValueError("GenieErrors needs at least one error")
        self.errors = tuple(errors)
        first = errors[0]
        super().__init__(
            first.code, first.message, first.place, first.cause, first.remedy, first.context
        )

    def __str__(self) -> str:
        return "\n".join(str(e) for e in self.errors)


class InternalError(Exception):
    """A broken invariant of ours: report it. `stage` names the pass and what ran before it."""

    def __init__(self, message: str, *, stage: str | None = None) -> None:
        super().__init__(message if stage is None else f"{message} (in {stage})")
        self.stage = stage
