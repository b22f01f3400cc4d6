"""A graph without its names: what patterns see.

Calls and tensors are numbers, so that nothing can be recognised by what somebody called it. Which
tensors are weights, inputs and state is kept, and so are operators, arguments, shapes and dataflow,
also dataflow through memory: a call depends on the last one that wrote what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from genie.graph.ir import Graph, Node, Value, rename
from genie.graph.legality import mutated
from genie.semantics.operators import base_name
from genie_schemas import args
from genie_schemas.args import Arg, Ref
from genie_schemas.types import parse_type

__all__ = ["Call", "Origin", "Structure", "Tensor", "bits", "structure_of"]

Origin = Literal["input", "weight", "state", "result"]


@dataclass(frozen=True)
class Tensor:
    """A tensor. `shape` has None where a size is symbolic; `call` made it, None: nobody did."""

    dtype: str
    shape: tuple[int | None, ...]
    origin: Origin
    learned: bool = False
    """Whether it is a parameter, so that its elements come of training."""
    call: int | None = None

    @property
    def rank(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    @property
    def floating(self) -> bool:
        """Whether its elements are real or complex numbers."""
        return self.dtype[0] in "fbc" and self.dtype != "bool"

    @property
    def size(self) -> int:
        """Elements, a symbolic size counted as one."""
        total = 1
        for extent in self.shape:
            total *= 1 if extent is None else extent
        return total


@dataclass(frozen=True)
class Call:
    """One operator call. `args` hold tensors as `Ref("<number>")`."""

    number: int
    op: str
    name: str
    """The operator without namespace, overload and in-place mark."""
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    mutates: tuple[int, ...]
    """Tensors that it writes into."""

    def tensor(self, place: int, keyword: str = "") -> int | None:
        """The tensor at a position, or under a keyword; None where there is none."""
        found = self.value(place, keyword)
        return int(found.name) if isinstance(found, Ref) else None

    def value(self, place: int, keyword: str = "") -> Arg:
        """The argument at a position, or under a keyword; None where there is none."""
        if place < len(self.args):
            return self.args[place]
        return dict(self.kwargs).get(keyword)


@dataclass(frozen=True)
class Structure:
    """Calls in execution order, and tensors by number."""

    calls: tuple[Call, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    readers: tuple[tuple[int, ...], ...]
    """Tensor → calls that read it."""
    needs: tuple[tuple[int, ...], ...]
    """Call → calls that it directly depends on."""
    base: tuple[int, ...]
    """Tensor → the first tensor with the same memory: what a view is a view of."""

    @cached_property
    def above(self) -> tuple[int, ...]:
        """Call → the calls that it depends on, itself included, as a bit mask."""
        found: list[int] = []
        for number, needs in enumerate(self.needs):
            mask = 1 << number
            for other in needs:
                mask |= found[other]
            found.append(mask)
        return tuple(found)

    @cached_property
    def below(self) -> tuple[int, ...]:
        """Call → the calls that depend on it, itself included, as a bit mask."""
        found = [1 << number for number in range(len(self.calls))]
        for number in reversed(range(len(self.calls))):
            for other in self.needs[number]:
                found[other] |= found[number]
        return tuple(found)

    @cached_property
    def users(self) -> tuple[tuple[int, ...], ...]:
        """Call → calls that directly depend on it."""
        found: list[list[int]] = [[] for _ in self.calls]
        for number, needs in enumerate(self.needs):
            for other in needs:
                found[other].append(number)
        return tuple(tuple(users) for users in found)

    def named(self, names: Iterable[str]) -> Iterator[Call]:
        """The calls of these operators."""
        wanted = frozenset(names)
        return (call for call in self.calls if call.name in wanted)

    def result(self, call: Call) -> Tensor | None:
        """The first tensor that a call makes, or else writes into."""
        made = call.writes or call.mutates
        return self.tensors[made[0]] if made else None

    def weight(self, number: int | None) -> Tensor | None:
        """The tensor if it is a weight, perhaps seen through a view or a cast."""
        while number is not None:
            tensor = self.tensors[number]
            if tensor.origin == "weight":
                return tensor
            if tensor.call is None:
                return None
            call = self.calls[tensor.call]
            if call.name not in ("t", "transpose", "to", "_to_copy", "detach", "alias", "view"):
                return None
            number = call.tensor(0)
        return None


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, in order."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def structure_of(graph: Graph, resident: frozenset[str] = frozenset()) -> Structure:
    """Take the names off a graph.

    `resident` are inputs that a device keeps: in graphs of the lazy device, the weights.
    """
    builder = _Builder(graph, resident)
    return builder.build()


class _Builder:
    def __init__(self, graph: Graph, resident: frozenset[str]) -> None:
        self.graph = graph
        self.numbers = {value.name: i for i, value in enumerate(graph.values())}
        self.names = {name: str(number) for name, number in self.numbers.items()}
        self.resident = resident
        self.storage = [value.storage for value in graph.values()]
        self.makers: dict[str, int] = {
            v.name: i for i, node in enumerate(graph.nodes) for v in node.results if v is not None
        }

    def build(self) -> Structure:
        calls = tuple(self.call(i, node) for i, node in enumerate(self.graph.nodes))
        written = {self.storage[t] for call in calls for t in call.mutates}
        tensors = tuple(self.tensor(v, written) for v in self.graph.values())
        readers: list[list[int]] = [[] for _ in tensors]
        last: dict[int, int] = {}
        needs = []
        for call in calls:
            found: dict[int, None] = {}
            for number in call.reads:
                readers[number].append(call.number)
                maker = tensors[number].call
                writer = last.get(self.storage[number])
                # A writer has read what was there before: it stands for the maker.
                latest = max((n for n in (maker, writer) if n is not None), default=None)
                if latest is not None:
                    found[latest] = None
            needs.append(tuple(found))
            for number in call.mutates:
                last[self.storage[number]] = call.number
        values = [o.value for o in self.graph.outputs if o.value is not None]
        return Structure(
            calls,
            tensors,
            tuple(self.numbers[i.name] for i in self.graph.inputs if i.name not in self.resident),
            tuple(self.numbers[name] for name in values),
            tuple(tuple(r) for r in readers),
            tuple(needs),
            self.bases(),
        )

    def bases(self) -> tuple[int, ...]:
        first: dict[int, int] = {}
        return tuple(first.setdefault(held, i) for i, held in enumerate(self.storage))

    def call(self, number: int, node: Node) -> Call:
        reads = tuple(self.numbers[name] for name in node.reads())
        return Call(
            number,
            node.op,
            self.spelled(node),
            tuple(rename(a, self.names) for a in node.args),
            tuple((k, rename(a, self.names)) for k, a in node.kwargs),
            reads,
            tuple(self.numbers[name] for name in node.writes()),
            tuple(self.numbers[name] for name in mutated(node)),
        )

    def spelled(self, node: Node) -> str:
        """The operator's name; of the general convolution, that of its kind and dimensions."""
        name = base_name(node.op)
        if name != "convolution" or not isinstance(node.args[1], Ref):
            return name
        spatial = len(parse_type(self.graph.table[node.args[1].name].type).shape) - 2
        return f"conv_transpose{spatial}d" if node.args[6] is True else f"conv{spatial}d"

    def tensor(self, value: Value, written: set[int]) -> Tensor:
        kind = parse_type(value.type)
        shape = tuple(None if e.names else e.evaluate({}) for e in kind.shape)
        name = value.name
        maker = self.makers.get(name)
        origin: Origin = "result"
        learned = False
        if maker is None:
            if name in self.constants or name in self.resident:
                origin = "state" if value.storage in written else "weight"
                learned = self.constants.get(name, "parameter") == "parameter"
            elif name in self.states:
                origin = "state"
            else:
                origin = "input"
        return Tensor(kind.dtype, shape, origin, learned, maker)

    @property
    def constants(self) -> dict[str, str]:
        return {c.name: c.kind for c in self.graph.constants}

    @property
    def states(self) -> frozenset[str]:
        return frozenset(s.name for s in getattr(self.graph, "states", ()))


def leaves(call: Call) -> Iterator[int]:
    """Every tensor that a call is given, lists opened, in order and repeated as given."""
    for arg in (*call.args, *(v for _, v in call.kwargs)):
        for leaf in args.walk(arg):
            if isinstance(leaf, Ref):
                yield int(leaf.name)
