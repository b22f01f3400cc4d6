"""Errors as text for a terminal or a log: code, place, source line with a caret, cause, remedy."""

from __future__ import annotations

import os
import unicodedata
from typing import TextIO

from genie_schemas.errors import GenieError, GenieErrors, Place

__all__ = ["printable", "render_error", "use_colour"]

_WIDTH = 96  # columns of a source line that are shown
_LEAD = 40  # columns kept before the caret when a line is longer than that
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_STYLES = {"error": "1;31", "place": "36", "gutter": "34", "label": "1", "caret": "1;31"}


def use_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that wants colour (https://no-color.org is honoured)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def _safe(char: str) -> str:
    if char == "\t":
        return "    "
    if unicodedata.category(char) in _UNSAFE:
        return char.encode("unicode_escape", "backslashreplace").decode("ascii")
    return char


def printable(text: str) -> str:
    """`text` without characters that drive a terminal or reorder text; line ends are kept.

    Messages quote files that others wrote: an escape sequence in one must not reach the terminal.
    """
    return "\n".join("".join(map(_safe, line)) for line in text.split("\n"))


def _cells(text: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


class _Painter:
    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour else text


def _excerpt(place: Place, paint: _Painter) -> list[str]:
    """The source line and a caret below it; long lines are cut around the caret."""
    if place.line is None or place.column is None or place.text is None:
        return []
    start = min(place.column - 1, len(place.text))
    first = 0 if start < _WIDTH - 16 else start - _LEAD
    last = min(len(place.text), first + _WIDTH)
    before = ("…" if first else "") + printable(place.text[first:start])
    marked = printable(place.text[start : min(start + place.length, last)])
    after = printable(place.text[start + place.length : last])
    end = "…" if last < len(place.text) else ""
    number = str(place.line)
    bar = paint("gutter", "|")
    blank = " " * len(number)
    caret = " " * _cells(before) + paint("caret", "^" * max(1, _cells(marked)))
    return [
        f" {blank} {bar}",
        f" {paint('gutter', number)} {bar} {before}{marked}{after}{end}".rstrip(),
        f" {blank} {bar} {caret}",
    ]


def _one(error: GenieError, paint: _Painter) -> list[str]:
    message = printable(error.message).replace("\n", "\n    ")
    lines = [f"{paint('error', f'error {error.code}')}: {paint('label', message)}"]
    if error.place is not None and str(error.place):
        lines.append(f"  {paint('gutter', '-->')} {paint('place', printable(str(error.place)))}")
        lines += _excerpt(error.place, paint)
    for label, text in (("cause", error.cause), ("remedy", error.remedy)):
        if text:
            shown = printable(text).replace("\n", "\n    ")
            lines.append(f"  {paint('label', f'{label}:')} {shown}")
    return lines


def render_error(error: GenieError, *, colour: bool) -> str:
    """All of `error` as lines of text, ending with where to read more."""
    errors = error.errors if isinstance(error, GenieErrors) else (error,)
    paint = _Painter(colour)
    lines: list[str] = []
    for each in errors:
        lines += [*_one(each, paint), ""]
    further = errors[0].context.get("further_errors", 0)
    total = len(errors) + (further if isinstance(further, int) else 0)
    if total > 1:
        lines.append(f"{total} errors" + (f", the first {len(errors)} shown" if further else ""))
    lines.append(f"To read more: genie explain {errors[0].code}")
    return "\n".join(lines)
