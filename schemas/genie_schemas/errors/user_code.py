"""Exceptions of the user's own code: which of their lines raised, and the error that says so."""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

from genie_schemas.errors._base import GenieError, Place

MAX_TEXT = 2000
SHOWN_FRAMES = 4
"""Of a long chain of calls, how many are shown at each end."""


def is_users(file: str, path: Path) -> bool:
    """Whether a frame's file is the model file `path` or lies beneath its folder.

    Libraries and Genie itself are nobody's own code, even where they are installed beneath it.
    """
    where, own = Path(file), path.resolve()
    if not where.is_absolute():
        return False
    where = where.resolve()
    if where == own:
        return True
    if own.parent not in where.parents or _INSTALLED.intersection(where.parts):
        return False
    return not any(where.is_relative_to(folder) for folder in _not_users())


_INSTALLED = frozenset({"site-packages", "dist-packages"})


def _not_users() -> list[Path]:
    """Folders of Genie's own packages and of Python's library."""
    ours = (sys.modules.get(name) for name in ("genie", "genie_runtime", "genie_schemas"))
    found = [Path(m.__file__).resolve().parent for m in ours if m is not None and m.__file__]
    return [*found, Path(linecache.__file__).resolve().parent]


def shown_name(file: str, path: Path, shown: str) -> str:
    """A file of the user's as they would name it: `shown` for `path`, others relative to it."""
    where, own = Path(file).resolve(), path.resolve()
    return shown if where == own else str(Path(shown).parent / where.relative_to(own.parent))


def line_place(file: str, line: int, path: Path, shown: str) -> Place:
    """A line of the user's with its text, all of it marked."""
    text = linecache.getline(file, line).rstrip("\n")
    indent = len(text) - len(text.lstrip())
    name = shown_name(file, path, shown)
    return Place(name, line, indent + 1, text, max(1, len(text) - indent))


def user_place(trace: TracebackType | None, path: Path, shown: str) -> Place | None:
    """The innermost frame of the user's own code in a traceback, with its source line."""
    frames = [f for f in traceback.extract_tb(trace) if is_users(f.filename, path)]
    if not frames or frames[-1].lineno is None:
        return None
    return line_place(frames[-1].filename, frames[-1].lineno, path, shown)


def traced_place(trace: str, path: Path, shown: str) -> Place | None:
    """`user_place` of a traceback that was kept as text."""
    frames = [(f, int(n)) for f, n in _FRAME.findall(trace) if is_users(f, path)]
    return line_place(*frames[-1], path, shown) if frames else None


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def _syntax_place(error: SyntaxError, path: Path, shown: str) -> Place | None:
    """Where a file could not be parsed: no frame of it ever ran."""
    if error.filename is None or error.lineno is None:
        return None
    where = Path(error.filename)
    name = shown if where.resolve() == path.resolve() else where.name
    text = (error.text or "").rstrip("\n")
    return Place(name, error.lineno, max(1, error.offset or 1), text)


def error_text(error: BaseException) -> str:
    """What an exception says, shortened; its own __str__ may fail."""
    try:
        text = str(error)
    except Exception:
        return "(its text cannot be shown)"
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …"


def user_error(error: BaseException, path: Path, shown: str, what: str) -> GenieError:
    """GEN0202 for an exception of the user's own code, with the user's frames as its cause."""
    if isinstance(error, SyntaxError):
        return GenieError(
            "GEN0202",
            f"{what} {type(error).__name__}: {error.msg}",
            _syntax_place(error, path, shown) or Place(file=shown),
            remedy="mend the file so that Python can read it",
        )
    lines = [
        f"{shown_name(f.filename, path, shown)}:{f.lineno} in {f.name}"
        for f in traceback.extract_tb(error.__traceback__)
        if is_users(f.filename, path)
    ]
    if len(lines) > 2 * SHOWN_FRAMES:
        left_out = f"({len(lines) - 2 * SHOWN_FRAMES} more)"
        lines = [*lines[:SHOWN_FRAMES], left_out, *lines[-SHOWN_FRAMES:]]
    return GenieError(
        "GEN0202",
        f"{what} {type(error).__name__}: {error_text(error)}".removesuffix(": "),
        user_place(error.__traceback__, path, shown) or Place(file=shown),
        " → ".join(lines) or None,
        "run the file with Python and mend it there first",
    )
