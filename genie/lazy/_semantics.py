"""What a call of a model was for: the analysis of compiled models on what the recorder says of it.

A compiled model's graph says which of its values are parameters, buffers and inputs, has one graph
for a forward, and nothing that no output needs. Here, the same is made of the runs of a call:
memory that a module holds as a parameter or a buffer is a constant, what an earlier run left on the
device is what that run computed, and calls that nobody needs are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from genie.graph import ir
from genie.graph.ir import Constant, Input, Node, Output, Value
from genie.graph.legality import mutated
from genie.lazy._fused import opened
from genie.lazy._history import Run
from genie.lazy._trace import Graph
from genie.semantics.annotate import Analysis, analyze
from genie.semantics.weights import weight_inputs
from genie_schemas import optable
from genie_schemas.args import Ref
from genie_schemas.types import parse_type

__all__ = ["analysis"]


def analysis(
    runs: Sequence[Run], held: Mapping[int, str], read: Callable[[bytes], Graph]
) -> Analysis:
    """Annotate the graph of runs that follow one another.

    `held` says of numbers under which the device has tensors that they are a "parameter" or a
    "buffer"; `read` gives the literal graph of a run's words. Where modules hold nothing, weights
    are the inputs that operators take as such.
    """
    joined = _Joined()
    for run in _related(runs):
        joined.add(run, read(run.words))
    graph = joined.graph(held)
    return analyze(graph, resident=frozenset() if graph.constants else weight_inputs(graph))


def _related(runs: Sequence[Run]) -> list[Run]:
    """The last run, and those that share tensors of the device with it or with each other."""
    numbers: set[int] = set()
    found = {len(runs) - 1}
    for _ in runs:
        before = len(found)
        for place in found:
            numbers.update(runs[place].leaves, runs[place].kept)
        found |= {i for i, r in enumerate(runs) if not numbers.isdisjoint((*r.leaves, *r.kept))}
        if len(found) == before:
            break
    return [run for place, run in enumerate(runs) if place in found]


class _Joined:
    """The graph of several runs: what one leaves on the device, the next reads."""

    def __init__(self) -> None:
        self.runs = 0
        self.storages = 0
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.given: dict[str, tuple[Value, set[int]]] = {}
        """What no run computed, and the numbers under which the device has had its memory."""
        self.lies: dict[int, Value] = {}
        """Number → what the device has under it."""
        self.left: list[Value] = []
        """What runs fetched and kept, in order."""

    def add(self, run: Run, graph: Graph) -> None:
        """Take a run's graph in."""
        names: dict[str, Value] = {}
        storages: dict[int, int] = {}
        prefix = f"r{self.runs}." if self.runs else ""
        self.runs += 1

        def own(value: Value) -> Value:
            if value.storage not in storages:
                storages[value.storage] = self.storage()
            made = Value(prefix + value.name, value.type, storages[value.storage])
            self.values[made.name] = made
            return names.setdefault(value.name, made)

        for value, number in zip(graph.leaves, run.leaves, strict=True):
            known = self.lies.get(number)
            if known is None:
                known = self.lies[number] = own(value)
                self.given[known.name] = (known, {number})
            names[value.name] = known
            storages[value.storage] = known.storage
        for value in graph.hosts:
            self.given[own(value).name] = (own(value), set())
        for node in graph.nodes:
            results = tuple(None if v is None else own(v) for v in node.results)
            taken = node.renamed({name: names[name].name for name in node.reads()})
            whole = dataclasses.replace(taken, results=results)
            self.nodes += opened(whole, self.values, self.storage)
        for value, number in zip(graph.kept, run.kept, strict=True):
            kept = self.lies[number] = names[value.name]
            if kept.name in self.given:
                self.given[kept.name][1].add(number)
            self.left.append(kept)
        self.left += [names[value.name] for value in graph.fetched]

    def storage(self) -> int:
        """The number of memory that nothing lies in yet."""
        self.storages += 1
        return self.storages - 1

    def graph(self, held: Mapping[int, str]) -> ir.Graph:
        """All of it, where the device has tensors of these kinds under these numbers."""
        inputs: list[Input] = []
        constants: list[Constant] = []
        for value, numbers in self.given.values():
            kind = next((held[n] for n in sorted(numbers) if n in held), None)
            if kind is None:
                inputs.append(Input(value))
            else:
                size = parse_type(value.type).nbytes({})
                constants.append(Constant(value, kind, value.name, "", size))
        # A step of training writes parameters; what it is for is to compute what it returns.
        parameters = {c.value.storage for c in constants if c.kind == "parameter"}
        left = list(dict.fromkeys(v for v in self.left if v.storage not in parameters))
        made = [v for node in self.nodes for v in node.results if v is not None]
        memory = {v.name: v.storage for v in (*self.values.values(), *made)}
        return ir.Graph(
            name="lazy",
            torch=optable.captured_torch().partition("+")[0],
            dims=(),
            inputs=tuple(inputs),
            constants=tuple(constants),
            nodes=tuple(_needed(_cast(self.nodes, memory), left, memory)),
            outputs=tuple(Output(v.name, v.name) for v in left if v.name not in self.given),
            modules=(),
        )


def _cast(nodes: Sequence[Node], memory: Mapping[str, int]) -> list[Node]:
    """The calls with a cast where torch made an empty tensor and copied another into it."""
    empty: dict[int, int] = {}
    kept: list[Node | None] = []
    for node in nodes:
        target = node.args[0] if node.op == "aten.copy_.default" else None
        storage = memory[target.name] if isinstance(target, Ref) else -1
        place = empty.get(storage, -1)
        made = kept[place] if place >= 0 else None
        if made is not None and target == Ref(made.writes()[0]) and node.args[1] != target:
            kept[place] = None
            node = Node("aten._to_copy.default", (node.args[1],), (), made.results, node.module)
        for name in node.reads():
            empty.pop(memory[name], None)
        if node.op == "aten.empty_strided.default":
            empty[memory[node.writes()[0]]] = len(kept)
        kept.append(node)
    return [node for node in kept if node is not None]


def _needed(nodes: Sequence[Node], left: Sequence[Value], memory: Mapping[str, int]) -> list[Node]:
    """The calls that values come of; `memory` has the storage of every value by name."""
    names = {v.name for v in left}
    storages = {v.storage for v in left}
    kept = []
    for node in reversed(nodes):
        written = {memory[name] for name in mutated(node)}
        if names.isdisjoint(node.writes()) and storages.isdisjoint(written):
            continue
        kept.append(node)
        names.update(node.reads())
        storages.update(memory[name] for name in node.reads())
    return kept[::-1]
