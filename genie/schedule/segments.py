"""Cutting the graph into segments: contiguous runs of one region on one device.

Neighbours too small to be layers are joined, so that `mean` and the classifier behind it are one
step and not two.

A segment becomes one program, and a program may write only to what it created. So the segments
from a value's creation to its last mutation are merged when they lie on one device; where they do
not, the later segment works on a clone, and the views of the value that are used afterwards are
taken again from the clone. Views of other segments' values are taken again, too
(`genie.schedule.views`).
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from dataclasses import dataclass

from genie.graph.ir import Graph, Node, Value, given_values
from genie.graph.legality import may_alias, mutated
from genie.graph.liveness import live_nodes
from genie.schedule.items import Item
from genie.schedule.views import retake_views
from genie.semantics.regions import MIN_LAYER_OPS
from genie_schemas.args import Ref
from genie_schemas.errors import GenieError, Place
from genie_schemas.names import Namer


@dataclass(frozen=True)
class Segment:
    """Nodes [start, stop) of the graph on `device`.

    `region` is the deepest module that holds all of them, `label` the region that gives the step
    its name: that of most of the nodes.
    """

    region: str
    label: str
    device: str
    start: int
    stop: int
    first: str = ""
    """The first value that is made here and nowhere before; empty when there is none."""


def cut(
    graph: Graph, regions: list[str], devices: tuple[str, ...]
) -> tuple[Graph, list[Segment], list[str]]:
    """Cut the graph; returns it (with clones where needed), the segments, and notes in words."""
    items = [Item(n, r, d) for n, r, d in zip(graph.nodes, regions, devices, strict=True)]
    _number(items)
    _join_small(items)
    _merge_mutations(graph, items)
    _merge_ragged(graph, items)
    rebase = _Rebase(graph, items)
    items, notes = rebase.run()
    outputs = tuple(
        dataclasses.replace(o, value=rebase.names.get(o.value or "", o.value))
        for o in graph.outputs
    )
    states = tuple(
        dataclasses.replace(s, new=rebase.names.get(s.new or "", s.new)) for s in graph.states
    )
    items = retake_views(items, graph, rebase.table, rebase.namer)
    rebuilt = dataclasses.replace(
        graph, nodes=tuple(item.node for item in items), outputs=outputs, states=states
    )
    # Views that were taken again are dead where they were taken first.
    live = live_nodes(rebuilt.nodes, rebuilt.kept(), rebase.table, graph.appended())
    kept = {id(node) for node in live}
    items = [item for item in items if id(item.node) in kept]
    _number_again(items)
    return dataclasses.replace(rebuilt, nodes=tuple(live)), _segments(items), notes


def _number(items: list[Item]) -> None:
    number = 0
    for before, item in zip([None, *items], items, strict=False):
        if before is not None and (before.region, before.device) != (item.region, item.device):
            number += 1
        item.segment = item.origin = number


def _join_small(items: list[Item]) -> None:
    """Join neighbouring segments of one device that each have fewer calls than a layer."""
    sizes = Counter(item.segment for item in items)
    for before, item in itertools.pairwise(items):
        if before.segment != item.segment and before.device == item.device:
            small = sizes[before.origin] < MIN_LAYER_OPS and sizes[item.origin] < MIN_LAYER_OPS
            if small:
                _unite(items, before.segment, item.segment)


def _merge_mutations(graph: Graph, items: list[Item]) -> None:
    """Give one number to the segments from a value's creation to its last mutation, per device."""
    outer = {v.storage for v in (*(i.value for i in graph.inputs),)}
    table = graph.table
    born: dict[int, int] = {}
    for i, item in enumerate(items):
        for value in item.node.results:
            if value is not None:
                born.setdefault(value.storage, i)
        for name in mutated(item.node):
            storage = table[name].storage
            if storage in outer or storage not in born:
                continue
            span = items[born[storage] : i + 1]
            if len({s.device for s in span}) == 1 and span[0].segment != item.segment:
                _unite(items, span[0].segment, item.segment)


def _merge_ragged(graph: Graph, items: list[Item]) -> None:
    """Keep values whose size data decides in one segment: between steps, types tell every size."""
    ragged = set(graph.ragged)
    born: dict[str, int] = {}
    for i, item in enumerate(items):
        for name in ragged.intersection(item.node.reads()):
            span = items[born[name] : i + 1]
            if span[0].device != item.device:
                raise GenieError(
                    "GEN0226",
                    f"{name!r}, whose size depends on data, would be sent from "
                    f"{span[0].device} to {item.device}",
                    Place(path="placement.stages"),
                    "what is sent between devices has a size that is known beforehand",
                    "let the modules that make and use it run on one device",
                )
            if span[0].segment != item.segment:
                _unite(items, span[0].segment, item.segment)
        born.update(dict.fromkeys(ragged.intersection(item.node.writes()), i))


def _unite(items: list[Item], first: int, last: int) -> None:
    for item in items:
        if first < item.segment <= last:
            item.segment = first


def _number_again(items: list[Item]) -> None:
    """Dense numbers in order, after merging and inserting."""
    number, last = -1, None
    for item in items:
        key = (item.segment, item.device)
        if key != last:
            number, last = number + 1, key
        item.segment = number


def _segments(items: list[Item]) -> list[Segment]:
    segments: list[Segment] = []
    start = 0
    for i, item in enumerate(items):
        if i + 1 == len(items) or items[i + 1].segment != item.segment:
            regions = Counter(other.region for other in items[start : i + 1])
            named = {r: n for r, n in regions.items() if r} or regions
            label = max(named, key=lambda r: named[r])
            own = (other.node for other in items[start : i + 1] if not other.again)
            first = next((name for node in own for name in node.writes()), "")
            path = _shared(list(regions))
            segments.append(Segment(path, label, item.device, start, i + 1, first))
            start = i + 1
    return segments


def _shared(paths: list[str]) -> str:
    """The deepest module path that all of these lie in or are."""
    parts = [path.split(".") if path else [] for path in paths]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


_CLONED = re.compile(r"(\.clone(\.\d+)?)+$")
"""Ending of a clone's name: a clone of it is named after the same value."""

OUTSIDE = -1
"""Home of inputs and constants: no segment."""


class _Rebase:
    """Insert clones before mutations of values that another segment (or the caller) created."""

    def __init__(self, graph: Graph, items: list[Item]) -> None:
        self.graph = graph
        self.items = items
        self.table = dict(graph.table)
        self.namer = Namer()
        for name in self.table:
            self.namer.reserve(name)
        self.next_storage = max((v.storage for v in graph.values()), default=0)
        self.home = dict.fromkeys((v.storage for v in given_values(graph)), OUTSIDE)
        """Storage → segment that created it."""
        self.lasting = graph.appended()
        self.base = {v.storage: v.name for v in reversed([*given_values(graph)])}
        """Storage → the first value in it, of which the others are views."""
        self.made_by: dict[str, Node] = {}
        self.names: dict[str, str] = {}
        """Old name → the name that stands for it now."""
        self.out: list[Item] = []
        self.notes: list[str] = []

    def run(self) -> tuple[list[Item], list[str]]:
        for i, item in enumerate(self.items):
            for name in mutated(item.node):
                current = self.names.get(name, name)
                if self._may_be_foreign(current, item.segment):
                    self._clone(current, item, i)
            item = dataclasses.replace(item, node=self._renamed(item.node))
            self._note(item)
            self.out.append(item)
        return self.out, self.notes

    def _may_be_foreign(self, name: str, segment: int) -> bool:
        """Whether writing to the value may write to memory that the segment did not create.

        `x.t().contiguous()` is new memory at most sizes, and x itself at some: what such a call
        returns is taken for what it may be.
        """
        seen: set[int] = set()
        pending = [name]
        while pending:
            storage = self.table[pending.pop()].storage
            if storage in self.lasting:
                continue  # it is there to be written to, and lies where the layer does
            if self.home[storage] != segment:
                return True
            if storage not in seen:
                seen.add(storage)
                pending += may_alias(self.made_by[self.base[storage]])
        return False

    def _renamed(self, node: Node) -> Node:
        """The call on today's names; its views share the memory of what they now view."""
        original = self.graph.table
        moved = {
            original[r].storage: self.table[self.names.get(r, r)].storage for r in node.reads()
        }
        results = tuple(
            None if v is None else dataclasses.replace(v, storage=moved.get(v.storage, v.storage))
            for v in node.results
        )
        return dataclasses.replace(node.renamed(self.names), results=results)

    def _note(self, item: Item) -> None:
        for value in item.node.results:
            if value is not None:
                self.table[value.name] = value
                self.made_by[value.name] = item.node
                self.home.setdefault(value.storage, item.segment)
                self.base.setdefault(value.storage, value.name)

    def _clone(self, written: str, item: Item, at: int) -> None:
        """Clone the base of `written` into this segment, and take live views of it again."""
        storage = self.table[written].storage
        base = self.base[storage]
        members = [n for n in (base, *self.made_by) if self.table[n].storage == storage]
        used: set[str] = set()
        for later in self.items[at:]:
            used.update(self.names.get(n, n) for n in later.node.reads())
        used.update(self.names.get(o.value, o.value) for o in self.graph.kept() if o.value)
        needed = [m for m in members if m in used or m == base]
        wanted = self._with_origins(needed, base)
        fresh: dict[str, str] = {}
        self.next_storage += 1
        for name in wanted:
            node = self.made_by.get(name)
            value = self.table[name]
            copy = Value(
                self.namer(_CLONED.sub("", name) + ".clone"), value.type, self.next_storage
            )
            if name == base:
                made = Node("aten.clone.default", (Ref(name),), (), (copy,), item.node.module)
            elif node is not None:
                results = tuple(
                    copy if v is not None and v.name == name else None for v in node.results
                )
                made = dataclasses.replace(node.renamed(fresh), results=results)
            else:
                continue
            fresh[name] = copy.name
            entry = Item(made, item.region, item.device, item.segment)
            self._note(entry)
            self.out.append(entry)
        for old in list(self.graph.table):
            current = self.names.get(old, old)
            if current in fresh:
                self.names[old] = fresh[current]
        self.notes.append(
            f"{base} is cloned on {item.device} before {written} is written there, "
            "because another step created it"
        )

    def _with_origins(self, names: list[str], base: str) -> list[str]:
        """The names and the views on their way from the base, in order of creation."""
        wanted: dict[str, None] = {}

        def visit(name: str) -> None:
            if name in wanted:
                return
            node = self.made_by.get(name)
            if name != base and node is not None:
                storage = self.table[name].storage
                for read in node.reads():
                    if self.table[read].storage == storage:
                        visit(read)
            wanted[name] = None

        visit(base)
        for name in names:
            visit(name)
        return list(wanted)
