"""Errors that a user can meet: a code, a place, a cause and a remedy.

    GenieError                one diagnosed failure; carries its code's exit status
    └── GenieErrors           several failures of one input, reported at once
    InternalError             a bug of ours (exit 70); never used for a user's mistake

Codes live in `genie_schemas.errors.catalog`, one module an area; `genie explain CODE` prints them.
"""

from genie_schemas.errors._base import (
    ExitCode,
    GenieError,
    GenieErrors,
    InternalError,
    Place,
)
from genie_schemas.errors._registry import CODES, CodeInfo, explain

__all__ = [
    "CODES",
    "CodeInfo",
    "ExitCode",
    "GenieError",
    "GenieErrors",
    "InternalError",
    "Place",
    "explain",
]
