"""A short way to make the errors of this package."""

from __future__ import annotations

from genie_schemas.errors import GenieError, Place


def problem(code: str, path: str, message: str, cause: str | None = None) -> GenieError:
    """An error at a path of the plan, with the remedy that all of them share."""
    return GenieError(
        code,
        message,
        Place(path=path),
        cause,
        "compile the plan again; if the compiler wrote it like this, please report it",
    )
