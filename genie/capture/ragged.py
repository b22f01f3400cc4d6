"""Sizes that data decides: how large they can be, and how such values leave a program.

`x[x > 0]` has as many elements as are positive. A plan's types say the most that there can be, so
that memory is planned for it. Inside a program the value has its true size; it leaves the program
filled up to that most, with its true sizes beside it, and the client cuts it
(`genie_schemas.ragged`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from genie.capture.encode import Symbols
from genie.graph.ir import Node, Output, Value
from genie_schemas.args import Arg, Named, Ref
from genie_schemas.errors import GenieError, Place
from genie_schemas.ragged import SUFFIX
from genie_schemas.types import parse_type

if TYPE_CHECKING:
    from genie.capture.walk import Walk

__all__ = ["axes", "learn", "with_sizes"]

MOST = 2**40
"""A bound beyond this is none: no dimension of a real tensor is longer."""


def _elements(node: fx.Node) -> Any:
    """No result is longer than the operand has elements."""
    return node.all_input_nodes[0].meta["val"].numel()


def _selected(node: fx.Node) -> Any:
    """As many as the operand and its mask have elements, broadcast against each other."""
    fakes = [n.meta["val"] for n in node.all_input_nodes]
    shape = torch.broadcast_shapes(*(f.shape for f in fakes))  # type: ignore[no-untyped-call]
    return math.prod(shape)


_MOST: dict[str, Callable[[fx.Node], Any]] = {
    "aten._unique2.default": _elements,
    "aten.unique_dim.default": _elements,
    "aten.unique_consecutive.default": _elements,
    "aten.masked_select.default": _selected,
}
"""The most that a size of an operator's results can be, where torch knows no bound, or a wrong one
(it takes a mask for no larger than what it selects from)."""


def axes(fake: torch.Tensor, symbols: Symbols) -> list[int]:
    """The dimensions of a fake tensor whose size no input gives."""
    sizes: list[Any] = list(fake.shape)
    return [
        axis
        for axis, size in enumerate(sizes)
        if isinstance(size, torch.SymInt) and not size.node.expr.free_symbols <= set(symbols.names)
    ]


def learn(fakes: Sequence[Any], op: str, node: fx.Node, symbols: Symbols) -> bool:
    """Note in `symbols` the most that new sizes of a call's results can be; False if unknown."""
    for fake in fakes:
        if not isinstance(fake, torch.Tensor):
            continue
        for axis in axes(fake, symbols):
            size: Any = fake.shape[axis]
            for symbol in size.node.expr.free_symbols - set(symbols.names) - set(symbols.most):
                most = _upper(size.node.shape_env, symbol)
                if op in _MOST:
                    most = _MOST[op](node)
                if isinstance(most, torch.SymInt):
                    most = _upper(most.node.shape_env, most.node.expr)
                if most is None:
                    return False
                symbols.most[symbol] = most
    return True


def _upper(shape_env: Any, expression: Any) -> int | None:
    """The most that torch knows of: from an operator, or from the user's `torch._check`."""
    upper = shape_env.bound_sympy(expression).upper
    return int(upper) if upper.is_Integer and int(upper) <= MOST else None


@dataclass(frozen=True)
class _Filled:
    """The calls that fill a value up, the filled value, and its true sizes (int64[rank])."""

    nodes: tuple[Node, ...]
    value: Value
    sizes: Value


def _fill_up(
    value: Value, axis: int, module: str, name: Callable[[str], str], storage: Callable[[], int]
) -> _Filled:
    """Fill `value` up with zeros along `axis` to what its type says, and tell its true sizes."""
    kind = parse_type(value.type)
    extents: list[Arg] = [e if e.names else e.evaluate({}) for e in kind.shape]
    texts = [e.text for e in kind.shape]
    full = f"{kind.dtype}[{','.join(texts)}]"
    texts[axis] = f"2*({texts[axis]})" if kind.shape[axis].names else str(2 * int(texts[axis]))

    def made(what: str, text: str) -> Value:
        return Value(name(f"{value.name}.{what}"), text, storage())

    room = made("room", full)
    joined = made("joined", f"{kind.dtype}[{','.join(texts)}]")
    filled = Value(name(f"{value.name}.filled"), full, joined.storage)
    shape = made("shape", f"i64[{len(extents)}]")
    sizes = made("sizes", shape.type)
    here = (("device", Named("device", "here")),)  # torch tells a shape on the CPU
    nodes = (
        Node("aten.new_zeros.default", (Ref(value.name), tuple(extents)), (), (room,), module),
        Node("aten.cat.default", ((Ref(value.name), Ref(room.name)), axis), (), (joined,), module),
        Node(
            "aten.slice.Tensor", (Ref(joined.name), axis, 0, extents[axis]), (), (filled,), module
        ),
        Node("aten._shape_as_tensor.default", (Ref(value.name),), (), (shape,), module),
        Node("aten._to_copy.default", (Ref(shape.name),), here, (sizes,), module),
    )
    return _Filled(nodes, filled, sizes)


def with_sizes(walk: Walk, outputs: list[Output]) -> list[Output]:
    """Fill up the outputs whose size data decides, each with its true sizes as a further output.

    Raises GenieError GEN0226 for an output with two such sizes, or one named as sizes are.
    """
    if not any(o.value in walk.ragged for o in outputs):
        return outputs
    found: list[Output] = []
    filled: dict[str, _Filled] = {}
    for output in outputs:
        if output.value not in walk.ragged:
            found.append(output)
            continue
        if output.value not in filled:
            filled[output.value] = _filled(walk, output.value)
        full = filled[output.value]
        found.append(dataclasses.replace(output, value=full.value.name))
        found.append(Output(output.name + SUFFIX, full.sizes.name))
    clash = [o.name for o in outputs if o.name.endswith(SUFFIX)]
    if clash:
        raise GenieError(
            "GEN0226",
            f"the forward returns {clash[0]!r} beside an output whose size depends on data",
            Place(file=walk.shown),
            f"names that end in {SUFFIX} are for the sizes of such outputs",
            "give it another name",
        )
    return found


def _filled(walk: Walk, name: str) -> _Filled:
    ragged, module = walk.ragged[name]
    if len(ragged) > 1:
        raise GenieError(
            "GEN0226",
            f"{len(ragged)} sizes of the output {name!r} depend on data",
            Place(file=walk.shown),
            "an output may have one such dimension",
            "return its parts, or fill it up to a fixed size",
        )
    made = _fill_up(walk.values[name], ragged[0], module, walk.namer, walk.storages.apart)
    for node in made.nodes:
        walk.values.update({v.name: v for v in node.results if v is not None})
    # Where its memory was used last: behind everything that may still write to it.
    storage = walk.values[name].storage
    uses = (
        i
        for i, node in enumerate(walk.nodes)
        if any(walk.values[n].storage == storage for n in (*node.reads(), *node.writes()))
    )
    at = max(uses) + 1
    walk.nodes[at:at] = made.nodes
    return made
