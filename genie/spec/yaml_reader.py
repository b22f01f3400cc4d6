"""YAML 1.2 to located nodes, with limits held before anything is built.

ruamel.yaml's scanner and parser are used, which work without recursion; its composer and
constructor, which recurse and expand aliases, are not. Every event is counted on arrival: depth,
and the number of nodes that aliases stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from genie.spec.document import (
    MAX_DEPTH,
    MAX_NODES,
    Entry,
    ListNode,
    MapNode,
    Node,
    Report,
    ScalarNode,
    Span,
    quoted,
)
from genie.spec.scalars import resolve, unusable

__all__ = ["read_yaml"]

_BAD_ESCAPE = re.compile(
    r"\\U(?:00[2-9a-fA-F]|001[1-9a-fA-F]|0[1-9a-fA-F]|[1-9a-fA-F])[0-9a-fA-F]+"
)


@dataclass
class _Frame:
    """A container that is still open. `key` is set between a mapping's key and its value."""

    mapping: bool
    start: int
    end_of_open: int
    anchor: str | None
    count_before: int
    items: list[Node] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    keys: dict[str, Span] = field(default_factory=dict)
    key: tuple[str, Span] | None = None
    drop: bool = False  # the value of a refused key is read and then forgotten
    height: int = 1


@dataclass(frozen=True)
class _Anchored:
    node: Node
    count: int  # nodes it stands for, aliases expanded
    height: int  # levels of nesting below and including it


class _Builder:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.stack: list[_Frame] = []
        self.anchors: dict[str, _Anchored | None] = {}
        self.root: Node | None = None
        self.count = 0
        self.documents = 0

    def feed(self, event: Any) -> None:
        span = Span(event.start_mark.index, event.end_mark.index)
        if isinstance(event, DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self.report.fatal(
                    "GEN0109", "a second document begins here", span, remedy="keep one document"
                )
        elif isinstance(event, AliasEvent):
            self._alias(str(event.anchor), span)
        elif isinstance(event, NodeEvent):
            self._refuse_tag(event, span)
            self._count(1, span)
            if isinstance(event, ScalarEvent):
                self._scalar(event, span)
            else:
                self._open(event, span)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._close(span)

    def _count(self, nodes: int, span: Span) -> None:
        self.count += nodes
        if self.count > MAX_NODES:
            self.report.fatal(
                "GEN0106",
                f"the file stands for more than {MAX_NODES:,} values",
                span,
                remedy="remove aliases that point to aliases",
            )

    def _refuse_tag(self, event: Any, span: Span) -> None:
        if event.tag is not None:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            self.report.add(
                "GEN0107",
                f"the tag {quoted(tag)} is not allowed",
                Span(span.start, min(span.end, span.start + len(tag))),
                remedy="write the plain value without a tag",
            )

    def _open(self, event: Any, span: Span) -> None:
        if len(self.stack) >= MAX_DEPTH:
            self.report.fatal(
                "GEN0105",
                f"lists and mappings are nested more than {MAX_DEPTH} deep",
                Span(span.start, span.start + 1),
                remedy="flatten the structure",
            )
        mapping = isinstance(event, MappingStartEvent)
        assert mapping or isinstance(event, SequenceStartEvent)  # noqa: S101 - narrows the event
        if event.anchor is not None:
            self.anchors[str(event.anchor)] = None  # open: an alias to it would be a cycle
        self.stack.append(_Frame(mapping, span.start, span.end, event.anchor, self.count - 1))

    def _close(self, span: Span) -> None:
        frame = self.stack.pop()
        last = max(
            (n.span.end for n in [*frame.items, *(e.value for e in frame.entries)]),
            default=frame.end_of_open,
        )
        # A block container "ends" where the next token starts; its last child says more.
        end = span.end if span.end > span.start else max(last, frame.end_of_open)
        node: Node
        if frame.mapping:
            node = MapNode(tuple(frame.entries), Span(frame.start, end))
        else:
            node = ListNode(tuple(frame.items), Span(frame.start, end))
        count = self.count - frame.count_before
        self._place(node, frame.anchor, count, frame.height, node.span)

    def _scalar(self, event: Any, span: Span) -> None:
        text, plain = str(event.value), bool(event.implicit and event.implicit[0])
        frame = self.stack[-1] if self.stack else None
        if frame is not None and frame.mapping and frame.key is None:
            self._key(frame, text, span)
            if event.anchor is not None:
                self.anchors[str(event.anchor)] = _Anchored(ScalarNode(text, span), 1, 0)
            return
        value = resolve(text) if plain and event.tag is None else text
        why = unusable(value)
        if why is not None:
            self.report.add("GEN0109", why, span, remedy="put it in quotes if it is meant as text")
            value = text
        self._place(ScalarNode(value, span), event.anchor, 1, 0, span)

    def _key(self, frame: _Frame, text: str, span: Span) -> None:
        first = frame.keys.setdefault(text, span)
        frame.key, frame.drop = (text, span), first is not span
        if frame.drop:
            self.report.add(
                "GEN0108",
                f"the key {quoted(text)} is given twice",
                span,
                cause=f"it is first given in line {self.report.source.place(first).line}",
                remedy="keep one of the two",
            )

    def _alias(self, name: str, span: Span) -> None:
        target = self.anchors.get(name)
        if target is None:
            self.report.fatal(
                "GEN0102",
                f"the alias {quoted('*' + name)} stands inside the value that it refers to"
                if name in self.anchors
                else f"the alias {quoted('*' + name)} refers to no anchor",
                span,
                remedy="put an anchor (&name) on an earlier value",
            )
        self._count(target.count, span)
        if len(self.stack) + target.height > MAX_DEPTH:
            self.report.fatal(
                "GEN0105",
                f"aliases nest values more than {MAX_DEPTH} deep",
                span,
                remedy="flatten the structure",
            )
        self._place(target.node, None, target.count, target.height, span)

    def _place(self, node: Node, anchor: Any, count: int, height: int, span: Span) -> None:
        if anchor is not None:
            self.anchors[str(anchor)] = _Anchored(node, count, height)
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        frame.height = max(frame.height, height + 1)
        if not frame.mapping:
            frame.items.append(node)
        elif frame.key is not None:
            (key, key_span), frame.key = frame.key, None
            if not frame.drop:
                frame.entries.append(Entry(key, key_span, node))
        else:
            self._refuse_key(frame, span)

    def _refuse_key(self, frame: _Frame, span: Span) -> None:
        # {{ name }} without quotes is, to YAML, a mapping whose key is a mapping.
        before = max(span.start - 1, 0)
        template = self.report.source.text.startswith("{{", before)
        self.report.add(
            "GEN0109",
            "a template needs quotes here" if template else "a key must be plain text",
            Span(before, span.end) if template else span,
            remedy='write "{{ name }}"' if template else "use a word as the key",
        )
        frame.key, frame.drop = ("", span), True


def _events(report: Report) -> Iterator[Any]:
    """Parser events; every failure of the parser becomes a located GEN0102."""
    source = report.source
    try:
        yield from YAML(typ="safe", pure=True).parse(source.text)
    except MarkedYAMLError as error:
        what = error.problem or error.context or "this is not YAML"
        # What is never closed runs to the end of the file: its beginning is the place to look at.
        unclosed = "end of stream" in what and error.context_mark is not None
        mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
        at = Span(mark.index, mark.index) if mark is not None else _end(source.text)
        if error.context and error.problem:
            what = f"{error.context}, {error.problem}"
        remedy = _syntax_remedy(source.text, at.start, unclosed=unclosed)
        report.fatal("GEN0102", what.strip(), at, remedy=remedy)
    except ReaderError as error:
        at = Span(int(error.position), int(error.position) + 1)
        report.fatal(
            "GEN0103",
            f"the character U+{int(error.character):04X} is not allowed",
            at,
            remedy="remove it; inside double quotes it can be written as an escape",
        )
    except (ValueError, IndexError, AttributeError, TypeError, AssertionError, RecursionError):
        # The scanner lets these escape for a few malformed escapes and directives.
        escape = _BAD_ESCAPE.search(source.text)
        report.fatal(
            "GEN0102",
            "this escape is no character"
            if escape
            else "an escape or directive in this file is not valid YAML",
            Span(escape.start(), escape.end()) if escape else _end(source.text),
            remedy="use the hexadecimal number of a Unicode character",
        )


def _end(text: str) -> Span:
    last = max(len(text.rstrip()) - 1, 0)  # an empty last line would show nothing
    return Span(last, last + 1)


def _syntax_remedy(text: str, offset: int, *, unclosed: bool) -> str:
    if unclosed:
        return "close the quote or bracket that begins here"
    line = text[text.rfind("\n", 0, offset) + 1 : offset + 1]
    if "\t" in line:
        return "indent with spaces; YAML does not allow tabs there"
    return "the mistake is here or just before: look for a missing colon, space, quote or bracket"


def read_yaml(report: Report) -> Node:
    """Nodes of the one document in `report.source`.

    Tags, duplicate keys and unusable values are recorded in the report and reading goes on.

    Raises:
        GenieErrors: syntax, an exceeded limit, an alias to nothing, several documents, or an empty
            file; together with everything recorded before it.
    """
    builder = _Builder(report)
    for event in _events(report):
        builder.feed(event)
    if builder.root is None:
        report.fatal(
            "GEN0109",
            "the file is empty",
            Span(0, 0),
            remedy="start with genie: 1, name and inputs",
        )
    return builder.root
