"""Nodes, values and the graph. One node is one operator call; values are named by their module.

A `Graph` is in single assignment and in execution order. `storage` numbers tell which values share
memory: a view has its base's number, so mutation can be followed without torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from genie_schemas import args, canonical
from genie_schemas.args import Arg, Ref


@dataclass(frozen=True)
class Value:
    """A tensor: its name, its type text (see `genie_schemas.types`), whose memory it uses."""

    name: str
    type: str
    storage: int


@dataclass(frozen=True)
class Input:
    """An input of the forward, by parameter name."""

    value: Value

    @property
    def name(self) -> str:
        """Name of its value."""
        return self.value.name


@dataclass(frozen=True)
class Constant:
    """A parameter, buffer or lifted tensor.

    `key` names the tensor in the constants file; tied or equal tensors have one key. `kind` is
    "parameter", "buffer" or "lifted".
    """

    value: Value
    kind: str
    key: str
    digest: str
    bytes: int

    @property
    def name(self) -> str:
        """Name of its value."""
        return self.value.name


@dataclass(frozen=True)
class State:
    """A tensor that lives on from call to call, on the device that first writes or reads it.

    Calls write into an `append` state; a `replace` state stays what it is during a call, and the
    value `new` takes its place afterwards (None: the graph leaves it).
    """

    value: Value
    update: Literal["append", "replace"]
    new: str | None = None

    @property
    def name(self) -> str:
        """Name of its value."""
        return self.value.name


@dataclass(frozen=True)
class Node:
    """One operator call. `module` is the dotted path of the module whose forward made it.

    `results` follow the operator's returns; None stands for one that nobody uses.
    """

    op: str
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...]
    results: tuple[Value | None, ...]
    module: str

    def reads(self) -> list[str]:
        """Names of the values that it reads, in order, each once."""
        seen: dict[str, None] = {}
        for arg in (*self.args, *(v for _, v in self.kwargs)):
            for leaf in args.walk(arg):
                if isinstance(leaf, Ref):
                    seen[leaf.name] = None
        return list(seen)

    def writes(self) -> list[str]:
        """Names of the values that it defines."""
        return [v.name for v in self.results if v is not None]

    def renamed(self, names: Mapping[str, str]) -> Node:
        """The same call, reading other values."""
        return dataclasses.replace(
            self,
            args=tuple(rename(a, names) for a in self.args),
            kwargs=tuple((k, rename(a, names)) for k, a in self.kwargs),
        )


def rename(arg: Arg, names: Mapping[str, str]) -> Arg:
    """Replace value references in an argument."""
    if isinstance(arg, Ref):
        return Ref(names.get(arg.name, arg.name))
    if isinstance(arg, tuple):
        return tuple(rename(item, names) for item in arg)
    return arg


@dataclass(frozen=True)
class Output:
    """An output of the forward: a value by name, or a literal that never changes."""

    name: str
    value: str | None
    literal: Arg = None


@dataclass(frozen=True)
class Body:
    """A graph within the graph: a branch, a condition or a turn of a loop.

    Calls of control flow (`genie_schemas.control`) name it as a program. Its values have names of
    their own; it reads nothing but its inputs.
    """

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    @cached_property
    def table(self) -> dict[str, Value]:
        """Value by name."""
        made = (v for node in self.nodes for v in node.results if v is not None)
        return {v.name: v for v in (*self.inputs, *made)}


@dataclass(frozen=True)
class Graph:
    """A captured module. `dims` maps each symbolic dimension to its (min, max)."""

    name: str
    torch: str
    dims: tuple[tuple[str, int, int], ...]
    inputs: tuple[Input, ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    modules: tuple[tuple[str, str], ...]
    """Every module of the model: (path, class name), in definition order."""
    bodies: tuple[Body, ...] = ()
    """Graphs that calls of control flow name, each before those that call it."""
    ragged: tuple[str, ...] = ()
    """Values whose size data decides; their types say the most that it can be."""
    states: tuple[State, ...] = ()
    """What the graph shares with other entry points of the model, and with its next call."""

    def values(self) -> Iterator[Value]:
        """Every value: inputs, states, constants, then results in order."""
        yield from given_values(self)
        for node in self.nodes:
            yield from (v for v in node.results if v is not None)

    @cached_property
    def table(self) -> dict[str, Value]:
        """Value by name."""
        return {v.name: v for v in self.values()}

    @cached_property
    def constant_names(self) -> frozenset[str]:
        """Names of all constants."""
        return frozenset(c.name for c in self.constants)

    @cached_property
    def state_names(self) -> frozenset[str]:
        """Names of all states."""
        return frozenset(s.name for s in self.states)

    def kept(self) -> Iterator[Output]:
        """What must be computed: the outputs, and what takes the place of states."""
        yield from self.outputs
        yield from (Output(s.name, s.new) for s in self.states if s.new is not None)

    def appended(self) -> frozenset[int]:
        """The memory of states that calls write into."""
        return frozenset(s.value.storage for s in self.states if s.update == "append")


def given_values(graph: Graph) -> Iterator[Value]:
    """What is there before the first call: inputs, states and constants."""
    yield from (i.value for i in graph.inputs)
    yield from (s.value for s in graph.states)
    yield from (c.value for c in graph.constants)


def to_data(graph: Graph) -> dict[str, Any]:
    """The graph as plain JSON values, for digests and for crossing a process boundary."""

    def value(v: Value | None) -> Any:
        return None if v is None else [v.name, v.type, v.storage]

    def node(n: Node) -> Any:
        return [
            n.op,
            [args.encode(a) for a in n.args],
            {k: args.encode(a) for k, a in n.kwargs},
            [value(v) for v in n.results],
            n.module,
        ]

    data: dict[str, Any] = {
        "name": graph.name,
        "torch": graph.torch,
        "dims": [list(d) for d in graph.dims],
        "inputs": [value(i.value) for i in graph.inputs],
        "constants": [[value(c.value), c.kind, c.key, c.digest, c.bytes] for c in graph.constants],
        "nodes": [node(n) for n in graph.nodes],
        "outputs": [[o.name, o.value, args.encode(o.literal)] for o in graph.outputs],
        "modules": [list(m) for m in graph.modules],
    }
    # Left out where there is none, which keeps the digest of such a graph.
    if graph.states:
        data["states"] = [[value(s.value), s.update, s.new] for s in graph.states]
    if graph.ragged:
        data["ragged"] = list(graph.ragged)
    if graph.bodies:
        data["bodies"] = [
            [b.name, [value(v) for v in b.inputs], [node(n) for n in b.nodes], list(b.outputs)]
            for b in graph.bodies
        ]
    return data


def from_data(data: Mapping[str, Any]) -> Graph:
    """The inverse of `to_data`."""

    def value(item: Any) -> Value:
        return Value(*item)

    def nodes(items: Any) -> tuple[Node, ...]:
        return tuple(
            Node(
                op,
                tuple(args.decode(a) for a in positional),
                tuple((k, args.decode(a)) for k, a in keywords.items()),
                tuple(None if v is None else value(v) for v in results),
                module,
            )
            for op, positional, keywords, results, module in items
        )

    return Graph(
        data["name"],
        data["torch"],
        tuple((str(n), int(lo), int(hi)) for n, lo, hi in data["dims"]),
        tuple(Input(value(v)) for v in data["inputs"]),
        tuple(Constant(value(v), *rest) for v, *rest in data["constants"]),
        nodes(data["nodes"]),
        tuple(Output(n, v, args.decode(literal)) for n, v, literal in data["outputs"]),
        tuple((str(p), str(c)) for p, c in data["modules"]),
        tuple(
            Body(name, tuple(value(v) for v in inputs), nodes(calls), tuple(outputs))
            for name, inputs, calls, outputs in data.get("bodies", ())
        ),
        ragged=tuple(str(name) for name in data.get("ragged", ())),
        states=tuple(State(value(v), *rest) for v, *rest in data.get("states", ())),
    )


def graph_digest(graph: Graph) -> str:
    """SHA-256 over the graph's canonical JSON; weights enter by their digests."""
    return canonical.digest(to_data(graph))
