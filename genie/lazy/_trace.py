"""The words of a trace as a graph: what the plan of it is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from genie.graph.ir import Node, Value
from genie.lazy._layouts import Layout, Unsupported, literal, type_text
from genie.lazy._sides import SIDES, sides
from genie_schemas import optable
from genie_schemas.args import Arg, Named, Ref

__all__ = ["Call", "Graph", "Recorder", "read_trace"]

LEAF, HOST, KEEP, FETCH, MODULE = range(0xFFFFFFFF, 0xFFFFFFFA, -1)
_LITERAL, _TENSOR, _LIST = range(3)
_FRESH, _ARGUMENT, _VIEW, _UNDEFINED = range(4)
_HISTOGRAM = "aten.histc.default"
"""Devices count integers, a CPU only what has a fraction: integers are counted as float32."""
_CONTIGUOUS = Named("memory_format", "contiguous_format")


class Recorder:
    """What the recorder knows of numbers in a trace. Both functions are the extension's."""

    def __init__(self, describe: Callable[[int], Any], layout: Callable[[int], Any]) -> None:
        self.call = lru_cache(maxsize=None)(lambda number: Call.of(describe(number)))
        self.layout = lru_cache(maxsize=None)(lambda number: Layout(*layout(number)))


@dataclass(frozen=True)
class Call:
    """One operator with one set of layouts and literals."""

    op: str
    kinds: list[int]
    literals: list[Any]
    results: list[tuple[int, int, Layout, bool]]
    writes: list[int]

    @classmethod
    def of(cls, described: Any) -> Call:
        """From what the recorder says."""
        op, kinds, literals, results, _, writes = described
        kept = [(f, s, Layout(*layout), c) for f, s, layout, c in results]
        return cls(op, kinds, literals, kept, writes)

    @property
    def inputs(self) -> int:
        """Tensors that it takes, lists opened."""
        tensors = sum(1 for kind in self.kinds if kind == _TENSOR)
        lists = (n for kind, n in zip(self.kinds, self.literals, strict=True) if kind == _LIST)
        return tensors + int(sum(lists))


@dataclass
class Graph:
    """Nodes in order, what they read from outside, and what leaves them.

    `leaves` and `hosts` are the inputs that the device keeps and that the host sends, in the
    trace's order; `kept` and `fetched` the values that stay and that come back.
    """

    nodes: list[Node] = field(default_factory=list)
    leaves: list[Value] = field(default_factory=list)
    hosts: list[Value] = field(default_factory=list)
    kept: list[Value] = field(default_factory=list)
    fetched: list[Value] = field(default_factory=list)


def read_trace(
    words: list[int],
    recorder: Recorder,
    modules: Callable[[int], str],
    *,
    literal: bool = False,
) -> Graph:
    """The graph of a trace. Raises Unsupported for what no plan can hold.

    A program may write only to what it created. So a leaf whose memory is written, or may be as far
    as the operators' schemas tell, is cloned first: the clone takes the leaf's place. A `literal`
    graph is for reading, not for running: nothing is in it that the program did not ask for, and
    what is kept and fetched are the values themselves.
    """
    if literal:
        return _Reader(words, recorder, modules, set(), literal=True).read()
    cloned: set[int] = set()
    while True:
        reader = _Reader(words, recorder, modules, cloned)
        graph = reader.read()
        if reader.must_clone <= cloned:
            return graph
        cloned |= reader.must_clone


class _Reader:
    def __init__(
        self,
        words: list[int],
        recorder: Recorder,
        modules: Callable[[int], str],
        cloned: set[int],
        *,
        literal: bool = False,
    ) -> None:
        self.words = words
        self.recorder = recorder
        self.modules = modules
        self.cloned = cloned
        self.literal = literal
        self.must_clone: set[int] = set()
        self.graph = Graph()
        self.values: list[Value | None] = []
        self.roots: dict[str, frozenset[int]] = {}
        """Value → the leaves whose memory it is, or may be."""
        self.storages = 0
        self.module = ""
        self.outputs: set[str] = set()
        self.unread: set[str] = set()
        """Results of calls that the program did not ask for by themselves."""

    def read(self) -> Graph:
        at = 0
        words = self.words
        while at < len(words):
            word = words[at]
            if word in (LEAF, HOST):
                self.leaf(word == HOST, self.recorder.layout(words[at + 1]))
                at += 2
            elif word in (KEEP, FETCH):
                layout = self.recorder.layout(words[at + 2])
                self.output(word == KEEP, words[at + 1], layout)
                at += 3
            elif word == MODULE:
                self.module = self.modules(words[at + 1])
                at += 2
            else:
                call = self.recorder.call(word)
                count = call.inputs
                self.call(call, words[at + 1 : at + 1 + count])
                at += 1 + count
        if self.unread:
            self.graph.nodes = self.without_unread()
        return self.graph

    def leaf(self, host: bool, layout: Layout) -> None:
        number = len(self.values)
        value = self.value(f"x{number}", type_text(layout))
        (self.graph.hosts if host else self.graph.leaves).append(value)
        self.roots[value.name] = frozenset([number])
        if number in self.cloned:
            value = self.clone(value)
        self.values.append(value)

    def value(self, name: str, text: str, storage: int | None = None) -> Value:
        if storage is None:
            storage = self.storages
            self.storages += 1
        return Value(name, text, storage)

    def clone(self, value: Value, *, straight: Layout | None = None) -> Value:
        """A copy with the same strides, or with dense ones for `straight`."""
        text = type_text(straight, row_major=True) if straight else value.type
        made = self.value(f"c{self.storages}", text)
        keywords = (("memory_format", _CONTIGUOUS),) if straight else ()
        node = Node("aten.clone.default", (Ref(value.name),), keywords, (made,), self.module)
        self.graph.nodes.append(node)
        self.roots[made.name] = frozenset()
        return made

    def output(self, keep: bool, number: int, layout: Layout) -> None:
        value = self.values[number]
        if value is None:
            raise Unsupported("an output that is no tensor")
        if self.literal:
            (self.graph.kept if keep else self.graph.fetched).append(value)
            return
        text = type_text(layout, row_major=not keep)
        foreign = any(value is leaf for leaf in (*self.graph.leaves, *self.graph.hosts))
        if foreign or value.name in self.outputs or value.type != text:
            # Outputs are values that an operator made, each once, of the type that they leave with.
            value = self.clone(value, straight=None if keep else layout)
            if value.type != text:
                value = Value(value.name, text, value.storage)
                last = self.graph.nodes[-1]
                self.graph.nodes[-1] = Node(last.op, last.args, last.kwargs, (value,), last.module)
        self.outputs.add(value.name)
        (self.graph.kept if keep else self.graph.fetched).append(value)

    def call(self, call: Call, numbers: list[int]) -> None:
        given = [None if n == 0xFFFFFFFF else self.values[n] for n in numbers]
        info = optable.lookup(call.op)
        if info is None:
            raise Unsupported(f"the operator {call.op}")
        bound = dict(
            zip((a.name for a in info.args), self.arguments(call, info, given), strict=True)
        )
        for flat in call.writes:
            written = given[flat]
            if written is not None:
                self.must_clone |= self.roots[written.name]
        may_be = frozenset[int]()
        for name in info.aliased():
            for leaf in _refs(bound[name]):
                may_be |= self.roots[leaf]
        first = len(self.values)
        results, later = self.results(call, given)
        positional = tuple(bound[a.name] for a in info.args if not a.keyword_only)
        keywords = tuple(
            (a.name, bound[a.name])
            for a in info.args
            if a.keyword_only
            and bound[a.name] is not None
            and a.name not in ("layout", "pin_memory")
        )
        made = results[0] if results else None
        if call.op == _HISTOGRAM and made is not None and made.type[0] != "f" and not self.literal:
            self.histogram(positional, keywords, made)
        else:
            self.graph.nodes.append(
                Node(call.op, positional, keywords, tuple(results), self.module)
            )
        for value in results:
            if value is not None:
                self.roots[value.name] = may_be
        for place, layout in later:
            value = self.values[place]
            if value is not None:
                self.values[place] = self.clone(value, straight=layout)
        if call.op in SIDES and not self.literal:
            whole = [
                (value, layout)
                for value, (_, _, layout, _) in zip(self.values[first:], call.results, strict=True)
                if value is not None
            ]
            for place, value in sides(call.op, bound, whole, self.optional).items():
                self.values[first + place] = value

    def histogram(
        self, args: tuple[Arg, ...], keywords: tuple[tuple[str, Arg], ...], made: Value
    ) -> None:
        """Count integers with numbers that have a fraction, exact up to 2**24 of a kind."""
        given, *rest = args
        kind = made.type.partition("[")[0]
        taken = next(v for v in self.values if v is not None and Ref(v.name) == given)
        shape = taken.type.partition("[")[2]
        counted = self.value(f"c{self.storages}", f"f32[{shape}")
        self.cast(given, counted)
        found = self.value(f"c{self.storages}", f"f32[{made.type.partition('[')[2]}")
        self.graph.nodes.append(
            Node(_HISTOGRAM, (Ref(counted.name), *rest), keywords, (found,), self.module)
        )
        self.roots[counted.name] = self.roots[found.name] = frozenset()
        self.cast(Ref(found.name), made, kind)

    def cast(self, given: Arg, made: Value, dtype: str = "f32") -> None:
        """A copy of another dtype."""
        keywords = (("dtype", Named("dtype", dtype)),)
        node = Node("aten._to_copy.default", (given,), keywords, (made,), self.module)
        self.graph.nodes.append(node)

    def optional(self, op: str, args: tuple[Arg, ...], text: str, /, **keywords: Arg) -> Value:
        """A call that `without_unread` leaves out where nothing reads what it makes."""
        made = self.value(f"c{self.storages}", text)
        node = Node(op, args, tuple(keywords.items()), (made,), self.module)
        self.graph.nodes.append(node)
        self.roots[made.name] = frozenset()
        self.unread.add(made.name)
        return made

    def without_unread(self) -> list[Node]:
        """The nodes but for optional ones that nothing reads."""
        read = {value.name for value in (*self.graph.kept, *self.graph.fetched)}
        kept = []
        for node in reversed(self.graph.nodes):
            made = {value.name for value in node.results if value is not None}
            if made & self.unread and not made & read:
                continue
            read.update(name for arg in node.args for name in _refs(arg))
            read.update(name for _, arg in node.kwargs for name in _refs(arg))
            kept.append(node)
        return kept[::-1]

    def arguments(
        self, call: Call, info: optable.OpInfo, given: list[Value | None]
    ) -> Iterator[Arg]:
        at = 0
        for kind, said, parameter in zip(call.kinds, call.literals, info.args, strict=True):
            if kind == _TENSOR:
                value = given[at]
                yield None if value is None else Ref(value.name)
                at += 1
            elif kind == _LIST:
                items = given[at : at + said]
                yield tuple(None if v is None else Ref(v.name) for v in items)
                at += said
            else:
                yield literal(said, parameter.type)

    def results(
        self, call: Call, given: list[Value | None]
    ) -> tuple[list[Value | None], list[tuple[int, Layout]]]:
        """The node's results; also places in `values` that are to be dense clones of them."""
        results: list[Value | None] = []
        later = []
        for origin, source, layout, compact in call.results:
            number = len(self.values)
            if origin == _UNDEFINED:
                results.append(None)
                self.values.append(None)
                continue
            known = given[source] if origin != _FRESH else None
            if origin == _ARGUMENT:
                results.append(None)
                self.values.append(known)
                continue
            storage = known.storage if known is not None else None
            value = self.value(f"v{number}", type_text(layout), storage)
            results.append(value)
            self.values.append(value)
            if compact and not self.literal:
                later.append((number, layout))
        return results, later


def _refs(arg: Arg) -> Iterator[str]:
    if isinstance(arg, Ref):
        yield arg.name
    elif isinstance(arg, tuple):
        for item in arg:
            yield from _refs(item)
