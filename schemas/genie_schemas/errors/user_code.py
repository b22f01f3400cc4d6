"""Exceptions of the user's own code: which of their lines raised, and the error that says so."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path
from types import TracebackType

from genie_schemas.errors._base import GenieError, Place


def user_place(trace: TracebackType | None, path: Path, shown: str) -> Place | None:
    """The innermost frame of `path` in a traceback, else of its folder, with its source line."""
    best: traceback.FrameSummary | None = None
    beside: traceback.FrameSummary | None = None
    for frame in traceback.extract_tb(trace):
        if not Path(frame.filename).is_absolute():
            continue
        where = Path(frame.filename).resolve()
        if where == path.resolve():
            best = frame
        elif path.resolve().parent in where.parents and "site-packages" not in where.parts:
            beside = frame
    frame_found = best or beside
    if frame_found is None or frame_found.lineno is None:
        return None
    name = shown if frame_found is best else Path(frame_found.filename).name
    text = linecache.getline(frame_found.filename, frame_found.lineno).rstrip("\n")
    indent = len(text) - len(text.lstrip())
    return Place(name, frame_found.lineno, indent + 1, text, max(1, len(text) - indent))


def _syntax_place(error: SyntaxError, path: Path, shown: str) -> Place | None:
    """Where a file could not be parsed: no frame of it ever ran."""
    if error.filename is None or error.lineno is None:
        return None
    where = Path(error.filename)
    name = shown if where.resolve() == path.resolve() else where.name
    text = (error.text or "").rstrip("\n")
    return Place(name, error.lineno, max(1, error.offset or 1), text)


def user_error(error: BaseException, path: Path, shown: str, what: str) -> GenieError:
    """GEN0202 for an exception of the user's own code, with the user's frames as its cause."""
    if isinstance(error, SyntaxError):
        return GenieError(
            "GEN0202",
            f"{what} {type(error).__name__}: {error.msg}",
            _syntax_place(error, path, shown) or Place(file=shown),
            remedy="mend the file so that Python can read it",
        )
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    lines = [f"{shown}:{f.lineno} in {f.name}" for f in frames]
    return GenieError(
        "GEN0202",
        f"{what} {type(error).__name__}: {error}",
        user_place(error.__traceback__, path, shown) or Place(file=shown),
        " → ".join(lines) or None,
        "run the file with Python and mend it there first",
    )
