"""Views that a segment reads of another segment's values are taken again where they are read.

What crosses into another step is dense memory of its own. A slice made dense lies otherwise than
the slice that eager execution reads, and kernels that reduce then round otherwise; an expanded
view would be written out in full. So the reading segment gets the base and takes the view itself.
A view smaller than its base that changes the device is sent alone, and laid out there as it was:
it is copied into the same view of memory as large as the base.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from genie.graph.ir import Graph, Node, Value, given_values
from genie.schedule.items import Item
from genie_schemas.args import Named, Ref
from genie_schemas.names import Namer
from genie_schemas.types import parse_type


def retake_views(
    items: list[Item], graph: Graph, table: dict[str, Value], namer: Namer
) -> list[Item]:
    """The items with views taken again in front of what reads them; their values join `table`."""
    return _Retake(items, graph, table, namer).run()


class _Retake:
    def __init__(
        self, items: list[Item], graph: Graph, table: dict[str, Value], namer: Namer
    ) -> None:
        self.items = items
        self.table = table
        self.before = dict(table)
        self.namer = namer
        self.sizes = _samples(graph)
        self.made = {name: item for item in items for name in item.node.writes()}
        self.base: dict[int, str] = {}
        for value in given_values(graph):
            self.base.setdefault(value.storage, value.name)
        for name in self.made:
            self.base.setdefault(table[name].storage, name)
        self.again: dict[tuple[int, str], str] = {}
        """(segment, view) → the view's name there."""
        self.out: list[Item] = []

    def run(self) -> list[Item]:
        for item in self.items:
            names = {}
            for name in item.node.reads():
                chain = self._chain(name) if self._is_part(name, item) else None
                if chain is not None and self._is_near(name, item):
                    names[name] = self._take(chain, item)
                elif chain is not None:
                    names[name] = self._lay_out(chain, item)
            self._put(dataclasses.replace(item, node=self._renamed(item.node, names)))
        return self.out

    def _renamed(self, node: Node, names: dict[str, str]) -> Node:
        """The call on other names; its views share the memory of what they now view."""
        moved = {
            self.before[name].storage: self.table[names.get(name, name)].storage
            for name in node.reads()
        }
        results = tuple(
            None if v is None else dataclasses.replace(v, storage=moved.get(v.storage, v.storage))
            for v in node.results
        )
        return dataclasses.replace(node.renamed(names), results=results)

    def _put(self, item: Item) -> None:
        self.out.append(item)
        for value in item.node.results:
            if value is not None:
                self.table[value.name] = value
                self.made[value.name] = item
                self.base.setdefault(value.storage, value.name)

    def _is_part(self, name: str, item: Item) -> bool:
        """Whether `name` is another segment's, and a part or an expansion of its base."""
        made = self.made.get(name)
        base = self.base[self.table[name].storage]
        if made is None or name == base or made.segment == item.segment:
            return False
        return self._bytes(base) != self._bytes(name)

    def _is_near(self, name: str, item: Item) -> bool:
        """Whether the base lies on the item's device, or is no larger than the view."""
        base = self.base[self.table[name].storage]
        if item.device in (self.made[name].device, *self._device(base)):
            return True
        sizes = zip(self._bytes(base), self._bytes(name), strict=True)
        return all(whole <= part for whole, part in sizes)

    def _device(self, name: str) -> list[str]:
        return [self.made[name].device] if name in self.made else []

    def _bytes(self, name: str) -> list[int]:
        kind = parse_type(self.table[name].type)
        return [kind.nbytes(dims) for dims in self.sizes]

    def _chain(self, name: str) -> list[str] | None:
        """The views from the base to `name`; None when one needs more than the one before it."""
        storage = self.table[name].storage
        found: list[str] = []
        while name != self.base[storage]:
            found.append(name)
            reads = self.made[name].node.reads()
            if len(reads) != 1 or self.table[reads[0]].storage != storage:
                return None
            name = reads[0]
        return found[::-1]

    def _lay_out(self, chain: list[str], item: Item) -> str:
        """Copy the view into the same view of new memory, in front of `item`; its name there."""
        view = chain[-1]
        key = (item.segment, view)
        if key not in self.again:
            base = self.table[self.base[self.table[view].storage]]
            kind = parse_type(base.type)
            sizes = tuple(e if e.names else e.evaluate({}) for e in kind.shape)
            storage = max(value.storage for value in self.table.values()) + 1
            room = Value(self.namer(f"{base.name}.room"), base.type, storage)
            made = Node(
                "aten.empty_permuted.default",
                (sizes, kind.order),
                (("dtype", Named("dtype", kind.dtype)), ("device", Named("device", "here"))),
                (room,),
                item.node.module,
            )
            self._put(dataclasses.replace(item, node=made, again=True))
            last = self._views(chain, item, {base.name: room.name}, storage)
            copied = Node("aten.copy_.default", (Ref(last), Ref(view)), (), (None,), made.module)
            self._put(dataclasses.replace(item, node=copied, again=True))
            # Only this view of the memory holds something: it is the base of what views it.
            self.base[storage] = last
            self.again[key] = last
        return self.again[key]

    def _take(self, chain: list[str], item: Item) -> str:
        """Take the view again from its base, in front of `item`; its name there."""
        key = (item.segment, chain[-1])
        if key not in self.again:
            self.again[key] = self._views(chain, item, {}, None)
        return self.again[key]

    def _views(
        self, chain: list[str], item: Item, names: dict[str, str], storage: int | None
    ) -> str:
        """Make the chain's calls on today's names; the name of the last view."""
        for view in chain:
            value = dataclasses.replace(self.table[view], name=self.namer(view))
            if storage is not None:
                value = dataclasses.replace(value, storage=storage)
            old = self.made[view].node
            results = tuple(
                value if v is not None and v.name == view else None for v in old.results
            )
            node = dataclasses.replace(old.renamed(names), results=results)
            self._put(dataclasses.replace(item, node=node, again=True))
            names[view] = value.name
        return names[chain[-1]]


def _samples(graph: Graph) -> list[Mapping[str, int]]:
    """Sizes of the dimensions at which byte counts are compared."""
    low = {name: low for name, low, _ in graph.dims}
    high = {name: high for name, _, high in graph.dims}
    return [low, {name: (low[name] + high[name]) // 2 for name in low}, high]
