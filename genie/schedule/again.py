"""Positions and masks made again on the devices that need them, instead of being sent.

Every layer of a language model reads the same few integers: positions, row numbers, masks. Made on
one device and sent to the others they would be most of the messages of a token. What follows from
sizes, and from integers that are smaller, is made again where it is read: the same operators on the
same integers give the same bits anywhere. Weights, floats and what reads a state are left where
they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from genie.graph.ir import Graph, Node, Value
from genie.graph.legality import mutated
from genie_schemas import optable
from genie_schemas.names import Namer
from genie_schemas.types import parse_type

__all__ = ["made_again"]

_EXACT = ("i64", "i32", "i16", "i8", "u8", "bool")
_Item = tuple[Node, str, str]
"""A call, its region and its device."""
_Placed = tuple[tuple[Node, ...], tuple[str, ...], tuple[str, ...]]


def made_again(graph: Graph, regions: Sequence[str], devices: Sequence[str]) -> _Placed:
    """The nodes with copies of such calls, and the region and device of each.

    Plans without states stay as they are: their bytes are promised.
    """
    if not graph.states or len(set(devices)) == 1:
        return graph.nodes, tuple(regions), tuple(devices)
    return _Again(graph, regions, devices).run()


class _Again:
    def __init__(self, graph: Graph, regions: Sequence[str], devices: Sequence[str]) -> None:
        self.graph = graph
        self.table = dict(graph.table)
        self.items = list(zip(graph.nodes, regions, devices, strict=True))
        self.made = {name: i for i, (node, _, _) in enumerate(self.items) for name in node.writes()}
        self.written = {self.table[name].storage for node in graph.nodes for name in mutated(node)}
        self.namer = Namer()
        for name in self.table:
            self.namer.reserve(name)
        self.storage = max(value.storage for value in graph.values())
        self.names: dict[tuple[str, str], str] = {}
        """(value, device) → its name there."""
        self.run_of: dict[str, int] = {}
        """Value → the run of neighbouring calls of one region and device that makes it."""
        self.runs: list[tuple[list[_Item], list[_Item]]] = []
        """What is made again in front of a run, and its calls."""

    def run(self) -> _Placed:
        last = None
        for node, region, device in self.items:
            if (region, device) != last:
                self.runs.append(([], []))
                last = (region, device)
            names = {n: self._here(n, device) for n in node.reads()}
            self.runs[-1][1].append((node.renamed(names), region, device))
            self.run_of.update(dict.fromkeys(node.writes(), len(self.runs) - 1))
        out = [item for front, own in self.runs for item in (*front, *own)]
        nodes, regions, devices = zip(*out, strict=True)
        return nodes, regions, devices

    def _here(self, name: str, device: str) -> str:
        """The value's name for a call on `device`, made again there where that pays."""
        if (name, device) in self.names:
            return self.names[name, device]
        maker = self.made.get(name)
        if maker is None or self.items[maker][2] == device or not self._pays(name, device):
            return name
        node = self.items[maker][0]
        names = {n: self._here(n, device) for n in node.reads()}
        shared = {self.table[old].storage: self.table[new].storage for old, new in names.items()}
        results = tuple(None if v is None else self._copy(v, shared) for v in node.results)
        for old, new in zip(node.results, results, strict=True):
            if old is not None and new is not None:
                self.names[old.name, device] = new.name
        again = dataclasses.replace(node.renamed(names), results=results)
        # In front of the run, not in the middle of a layer, so that layers stay alike; and in the
        # model's own region, so that all of them are one step.
        run = max((self.run_of.get(n, -1) for n in names.values()), default=-1)
        here = len(self.runs) - 1
        self.runs[-1][run == here].append((again, "", device))
        self.run_of.update(dict.fromkeys(again.writes(), here - (run != here)))
        return self.names[name, device]

    def _copy(self, value: Value, shared: Mapping[int, int]) -> Value:
        if value.storage not in shared:
            self.storage += 1
        storage = shared.get(value.storage, self.storage)
        made = Value(self.namer(value.name), value.type, storage)
        self.table[made.name] = made
        return made

    def _pays(self, name: str, device: str) -> bool:
        """Whether all that would be sent instead is no larger than the value."""
        sent = self._sent(name, device)
        return sent is not None and sent <= self._bytes(name)

    def _sent(self, name: str, device: str) -> int | None:
        """Bytes to send so that the value can be made again; None when it cannot be."""
        found: dict[str, None] = {}
        pending = [name]
        seen: set[str] = set()
        while pending:
            each = pending.pop()
            if each in seen:
                continue
            seen.add(each)
            maker = self.made.get(each)
            if maker is not None and self.items[maker][2] == device:
                continue
            if maker is None or not self._repeats(self.items[maker][0]):
                found[each] = None
            else:
                pending += self.items[maker][0].reads()
        if name in found or found.keys() & self.graph.state_names:
            return None
        return sum(self._bytes(n) for n in found if n not in self.graph.constant_names)

    def _repeats(self, node: Node) -> bool:
        """Whether a call gives the same bits wherever it runs, and reads nothing that changes."""
        values = [self.table[n] for n in (*node.reads(), *node.writes())]
        info = optable.lookup(node.op)
        return (
            info is not None
            and not info.draws({})
            and not self.graph.state_names.intersection(node.reads())
            and all(parse_type(v.type).dtype in _EXACT for v in values)
            and not any(v.storage in self.written for v in values)
        )

    def _bytes(self, name: str) -> int:
        """Bytes at the largest sizes."""
        most: Mapping[str, int] = {dim: high for dim, _, high in self.graph.dims}
        return parse_type(self.table[name].type).nbytes(most)
