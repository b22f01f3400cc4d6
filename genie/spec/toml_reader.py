"""TOML 1.0 to located nodes.

`tomllib` parses but tells no positions, so a scanner walks the same text first and notes where
each key and value stands. The scanner also holds the limits: `tomllib` recurses into nested
values and takes time quadratic in the length of a dotted key. Where the text is not TOML the
scanner just stops, and `tomllib` reports why.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import NoReturn

from genie.spec.document import (
    MAX_DEPTH,
    MAX_NODES,
    Entry,
    ListNode,
    MapNode,
    Node,
    PathItem,
    Report,
    ScalarNode,
    Span,
)
from genie.spec.scalars import unusable

__all__ = ["read_toml"]

KeyPath = tuple[PathItem, ...]

_SPACE = re.compile(r"[ \t]*+")
_SKIP = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_NEWLINE = re.compile(r"[ \t]*+(?:#[^\n]*+)?(?:\r?\n|\Z)")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\[^\n])*+"')
_LITERAL = re.compile(r"'[^'\n]*+'")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*+'{3,5}"
    r'|"(?:[^"\\\n]|\\[^\n])*+"'
    r"|'[^'\n]*+'",
    re.DOTALL,
)
_BARE_VALUE = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]++|[^\s,\]}#]++")
_WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True)
class _Located:
    key: Span
    value: Span


class _NotTomlError(Exception):
    """The scanner met something that is not TOML."""


class _Scanner:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.text = report.source.text
        self.at = 0
        self.index: dict[KeyPath, _Located] = {}
        self.arrays: dict[KeyPath, int] = {}  # arrays of tables: how many tables so far
        self.nodes = 0

    def scan(self) -> dict[KeyPath, _Located]:
        table: KeyPath = ()
        try:
            while self._match(_SKIP) is not None and self.at < len(self.text):
                if self.text.startswith("[", self.at):
                    table = self._header()
                else:
                    self._pair(table)
                self._need(_NEWLINE)
        except _NotTomlError:
            pass
        return self.index

    def _match(self, pattern: re.Pattern[str]) -> Span | None:
        match = pattern.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return Span(match.start(), match.end())

    def _need(self, pattern: re.Pattern[str]) -> Span:
        span = self._match(pattern)
        if span is None:
            raise _NotTomlError
        return span

    def _literal(self, text: str) -> None:
        if not self.text.startswith(text, self.at):
            raise _NotTomlError
        self.at += len(text)

    def _note(self, path: KeyPath, key: Span, value: Span) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.report.fatal(
                "GEN0106",
                f"the file holds more than {MAX_NODES:,} values",
                key,
                remedy="make it smaller",
            )
        self.index.setdefault(path, _Located(key, value))

    def _depth(self, depth: int, span: Span) -> None:
        if depth > MAX_DEPTH:
            self.report.fatal(
                "GEN0105",
                f"tables and arrays are nested more than {MAX_DEPTH} deep",
                span,
                remedy="flatten the structure",
            )

    def _key(self, depth: int) -> list[tuple[str, Span]]:
        parts: list[tuple[str, Span]] = []
        while True:
            self._match(_SPACE)
            span = self._match(_BARE_KEY)
            if span is not None:
                name = self.text[span.start : span.end]
            else:
                span = self._match(_BASIC) or self._need(_LITERAL)
                name = self._unquote(self.text[span.start : span.end])
            parts.append((name, span))
            self._depth(depth + len(parts), span)
            self._match(_SPACE)
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    @staticmethod
    def _unquote(raw: str) -> str:
        try:
            return str(tomllib.loads(f"k={raw}")["k"])
        except ValueError:
            raise _NotTomlError from None

    def _header(self) -> KeyPath:
        start = self.at
        array = self.text.startswith("[[", self.at)
        self._literal("[[" if array else "[")
        parts = self._key(0)
        self._literal("]]" if array else "]")
        whole = Span(start, self.at)
        path: KeyPath = ()
        for name, span in parts[:-1]:
            path = (*path, name)
            self._note(path, span, whole)
            if path in self.arrays:
                path = (*path, self.arrays[path] - 1)
        name, span = parts[-1]
        path = (*path, name)
        self._note(path, span, whole)
        if array:
            count = self.arrays[path] = self.arrays.get(path, 0) + 1
            path = (*path, count - 1)
            self._note(path, span, whole)
        self._depth(len(path), span)
        return path

    def _pair(self, table: KeyPath) -> None:
        parts = self._key(len(table))
        self._literal("=")
        self._match(_SPACE)
        path = table
        for name, _ in parts:
            path = (*path, name)
        value = self._value(path)
        for length in range(1, len(parts)):
            self._note(path[: len(table) + length], parts[length - 1][1], value)
        self._note(path, parts[-1][1], value)

    def _value(self, path: KeyPath) -> Span:
        start = self.at
        if self.text.startswith("[", start):
            self._array(path)
        elif self.text.startswith("{", start):
            self._inline_table(path)
        else:
            return self._match(_STRING) or self._need(_BARE_VALUE)
        return Span(start, self.at)

    def _array(self, path: KeyPath) -> None:
        self._depth(len(path) + 1, Span(self.at, self.at + 1))
        self.at += 1
        for position in range(MAX_NODES + 1):
            self._match(_SKIP)
            if self.text.startswith("]", self.at):
                break
            item = (*path, position)
            span = self._value(item)
            self._note(item, span, span)
            self._match(_SKIP)
            if self.text.startswith("]", self.at):
                break
            self._literal(",")
        self._literal("]")

    def _inline_table(self, path: KeyPath) -> None:
        self._depth(len(path) + 1, Span(self.at, self.at + 1))
        self.at += 1
        self._match(_SPACE)
        while not self.text.startswith("}", self.at):
            self._pair(path)
            self._match(_SPACE)
            if self.text.startswith("}", self.at):
                break
            self._literal(",")
            self._match(_SPACE)
        self._literal("}")


def _nodes(value: object, path: KeyPath, index: dict[KeyPath, _Located], report: Report) -> Node:
    found = index.get(path)
    span = found.value if found else Span(0, len(report.source.text) if not path else 1)
    if isinstance(value, dict):
        entries = []
        for key, item in value.items():
            where = index.get((*path, key))
            node = _nodes(item, (*path, key), index, report)
            entries.append(Entry(key, where.key if where else span, node))
        return MapNode(tuple(entries), span)
    if isinstance(value, list):
        items = (_nodes(item, (*path, i), index, report) for i, item in enumerate(value))
        return ListNode(tuple(items), span)
    why = unusable(value)
    if why is not None:
        report.add("GEN0109", why, span, remedy="put it in quotes if it is meant as text")
        return ScalarNode(report.source.text[span.start : span.end], span)
    return ScalarNode(value, span)  # type: ignore[arg-type]


def _refuse(report: Report, error: ValueError) -> NoReturn:
    message = str(error)
    where = _WHERE.search(message)
    offset = len(report.source.text)
    if where and where[1]:
        offset = report.source.offset(int(where[1]), int(where[2]))
    what = message[: where.start()] if where else message
    if "overwrite a value" in what or "twice" in what:
        line = report.source.place(Span(offset, offset)).line or 1
        start = report.source.offset(line, 1)
        report.fatal(
            "GEN0108",
            "this key or table is already defined",
            Span(start, offset),
            remedy="keep one of the two",
        )
    report.fatal(
        "GEN0102",
        what[:1].lower() + what[1:],
        Span(offset, offset),
        remedy="close the quote on this line"
        if "llegal character '\\n'" in what
        else "the mistake is here or just before: text needs quotes, a key needs a value",
    )


def read_toml(report: Report) -> Node:
    """Nodes of the TOML document in `report.source`.

    Raises:
        GenieErrors: syntax, a key given twice, or an exceeded limit.
    """
    index = _Scanner(report).scan()
    try:
        data = tomllib.loads(report.source.text)
    except ValueError as error:
        _refuse(report, error)
    return _nodes(data, (), index, report)
