"""A parsed file whose every value still knows where it was written.

Readers (`yaml_reader`, `toml_reader`) turn text into nodes and hold the limits while they do so;
`Report` gathers what is wrong, with places, so that a user sees all of it at once.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from genie_schemas.errors import GenieError, GenieErrors, Place

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "Entry",
    "ListNode",
    "MapNode",
    "Node",
    "PathItem",
    "Report",
    "ScalarNode",
    "Source",
    "Span",
    "locate",
    "quoted",
    "read_source",
    "to_plain",
]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000
_MAX_REPORTED = 50
_MAX_RECORDED = 1000  # bounds the work spent on a file that is wrong everywhere
_MAX_SHOWN_LINE = 2000  # characters of a source line kept for the caret

PathItem = str | int
Scalar = str | int | float | bool | None
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Span:
    """Half-open range of character offsets in the text."""

    start: int
    end: int


@dataclass(frozen=True, eq=False)
class ScalarNode:
    """Text, a number, a boolean or null."""

    value: Scalar
    span: Span


@dataclass(frozen=True, eq=False)
class ListNode:
    """A list of nodes."""

    items: tuple[Node, ...]
    span: Span


@dataclass(frozen=True)
class Entry:
    """One key of a mapping, and its value."""

    key: str
    key_span: Span
    value: Node


@dataclass(frozen=True, eq=False)
class MapNode:
    """A mapping with text keys, in the order of the file."""

    entries: tuple[Entry, ...]
    span: Span


Node = ScalarNode | ListNode | MapNode


def quoted(text: str, limit: int = 60) -> str:
    """`text` as a quoted, printable literal of bounded length, for messages."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


@dataclass(frozen=True)
class Source:
    """The text of a file, and the name that the user gave it."""

    file: str
    text: str

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in _LINE_END.finditer(self.text))]

    def offset(self, line: int, column: int) -> int:
        """Character offset of a position; lines and columns count from 1, both are clamped."""
        starts = self._starts
        start = starts[min(max(line, 1), len(starts)) - 1]
        return min(start + max(column, 1) - 1, len(self.text))

    def place(self, span: Span, path: str | None = None) -> Place:
        """File, line, column and source line of `span`, cut at the end of its first line."""
        start = min(span.start, len(self.text))
        line = bisect_right(self._starts, start)
        begin = self._starts[line - 1]
        column = start - begin + 1
        # A hostile file may be one huge line with many errors: look no further than is shown.
        text = _LINE_END.split(self.text[begin : begin + _MAX_SHOWN_LINE], maxsplit=1)[0]
        return Place(
            file=self.file,
            line=line,
            column=column,
            text=text if column <= len(text) + 1 else None,
            length=max(1, min(span.end - start, len(text) - column + 1)),
            path=path,
        )


class Report:
    """The errors of one file, gathered while it is read and checked."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._found: list[tuple[Span, GenieError]] = []
        self._unrecorded = 0
        self._while_reading = 0

    def add(
        self,
        code: str,
        message: str,
        span: Span,
        *,
        cause: str | None = None,
        remedy: str | None = None,
    ) -> None:
        """Record an error at `span`; reading goes on."""
        if len(self._found) >= _MAX_RECORDED:
            self._unrecorded += 1
            return
        error = GenieError(code, message, self.source.place(span), cause, remedy)
        self._found.append((span, error))

    def fatal(self, code: str, message: str, span: Span, *, remedy: str | None = None) -> NoReturn:
        """Record an error after which the rest of the file cannot be understood, and raise all."""
        self.add(code, message, span, remedy=remedy)
        raise self._error()

    def reading_done(self) -> None:
        """Separate the errors recorded so far, whose values are not what the user meant."""
        self._while_reading = len(self._found)

    def covers(self, span: Span) -> bool:
        """Whether `span` could not be read as meant: what else is wrong there follows from that."""
        end = max(span.end, span.start + 1)
        return any(span.start <= bad.start < end for bad, _ in self._found[: self._while_reading])

    def raise_found(self) -> None:
        """Raise `GenieErrors`, in the order of the file, if anything was recorded."""
        if self._found:
            raise self._error()

    def _error(self) -> GenieErrors:
        ordered = [error for _, error in sorted(self._found, key=lambda item: item[0].start)]
        hidden = len(ordered) - _MAX_REPORTED + self._unrecorded
        if hidden > 0:
            ordered[0].context["further_errors"] = hidden
        return GenieErrors(ordered[:_MAX_REPORTED])


def read_source(path: Path, *, code: str = "GEN0101", what: str = "spec") -> Source:
    """Read a UTF-8 text file of at most `MAX_BYTES`.

    Raises:
        GenieError: `code` when it cannot be read, GEN0104 when it is too large, GEN0103 when it is
            not text.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise GenieError(
            code, f"cannot read the {what}: {reason}", Place(file=name), remedy=_similar(path)
        ) from None
    if len(data) > MAX_BYTES:
        raise GenieError(
            "GEN0104",
            f"the {what} is larger than {MAX_BYTES // 1024} KiB",
            Place(file=name),
            remedy="keep tensors and tables in files of their own",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = data[: error.start].decode("utf-8-sig", errors="replace")
        source = Source(name, good)
        end = Span(len(good), len(good))
        raise GenieError(
            "GEN0103",
            f"byte 0x{data[error.start]:02x} is not UTF-8 text",
            source.place(end),
            remedy="save the file as UTF-8",
        ) from None
    return Source(name, text)


def _similar(path: Path) -> str:
    from difflib import get_close_matches
    from itertools import islice

    try:
        names = [entry.name for entry in islice(path.parent.iterdir(), 1000)]
    except (OSError, ValueError):
        names = []
    close = get_close_matches(path.name, [name for name in names if name != path.name], n=1)
    return f"did you mean {close[0]!r}?" if close else "check the path and its permissions"


def to_plain(node: Node, rendered: Mapping[ScalarNode, Scalar]) -> object:
    """Plain dicts, lists and scalars; scalars found in `rendered` take their value from there.

    Readers bound depth (`MAX_DEPTH`) and expanded size (`MAX_NODES`), hence recursion is safe.
    """
    if isinstance(node, ScalarNode):
        return rendered.get(node, node.value)
    if isinstance(node, ListNode):
        return [to_plain(item, rendered) for item in node.items]
    return {entry.key: to_plain(entry.value, rendered) for entry in node.entries}


def locate(root: Node, path: tuple[PathItem, ...], *, on_key: bool = False) -> tuple[Span, Node]:
    """Span and node that `path` leads to, or the nearest ancestor that exists.

    With `on_key`, or when the value is empty (`key:` and nothing behind it), the span is that of
    the key that holds the value.
    """
    node, key_span = root, Span(root.span.start, root.span.start + 1)
    for item in path:
        if isinstance(node, MapNode):
            entry = next((e for e in node.entries if e.key == item), None)
            if entry is None:
                break
            node, key_span = entry.value, entry.key_span
        elif isinstance(node, ListNode) and isinstance(item, int) and item < len(node.items):
            node = node.items[item]
            key_span = node.span
        else:
            break
    empty = node.span.end <= node.span.start
    return (key_span if on_key or empty else node.span), node
