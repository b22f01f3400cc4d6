"""What operators return for their backward pass beside the result, the same on every device.

A CPU, a GPU and torch's shape rules do not agree on the sizes and dtypes of it, and a CPU leaves
out what its own backward pass does not read. Programs see what the shape rules say: a plan holds
what makes that of the operator's arguments and results, where something reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from genie.graph.ir import Value
from genie.lazy._layouts import Layout, type_text
from genie_schemas.args import Arg, Named, Ref
from genie_schemas.types import FROM_TORCH

__all__ = ["SIDES", "Emit", "sides"]

_NORMS = {
    "aten.native_layer_norm.default": None,
    "aten.native_batch_norm.default": 5,
    "aten._native_batch_norm_legit.default": 5,
}
"""Normalisations → where their arguments say whether they train. Mean and reciprocal deviation
have another dtype on some devices, and no elements where a CPU does not train."""
_BAGS = ("aten._embedding_bag.default", "aten._embedding_bag_forward_only.default")
_MAX = 2

SIDES = frozenset((*_NORMS, *_BAGS))
"""Operators whose side results are made anew."""


Side = tuple[Value, Layout]
"""A result as the shape rules tell it."""


class Emit(Protocol):
    """Appends a call that is left out again where nothing reads its result, of type `text`."""

    def __call__(self, op: str, args: tuple[Arg, ...], text: str, /, **keywords: Arg) -> Value: ...


def sides(op: str, bound: Mapping[str, Arg], made: Sequence[Side], emit: Emit) -> dict[int, Value]:
    """Place among an operator's results → the value that stands for it from here on.

    `made` are all its results, `bound` its arguments by name.
    """
    if op in _BAGS:
        return _bag_sides(bound, made, emit)
    training = _NORMS[op]
    return _statistics(training is None or tuple(bound.values())[training] is True, made, emit)


def _statistics(known: bool, made: Sequence[Side], emit: Emit) -> dict[int, Value]:
    """A normalisation's: converted; where they are not `known`, nothing reads them: zeros do."""
    first = made[0][1].dtype
    return {
        place: _converted(value, layout, emit) if known else _zeros(layout, emit)
        for place, (value, layout) in list(enumerate(made))[1:]
        if not known or layout.dtype != first
    }


def _bag_sides(bound: Mapping[str, Arg], made: Sequence[Side], emit: Emit) -> dict[int, Value]:
    """An embedding bag's: the bag of each index, each bag's size, where its maxima lie.

    Indices that are padding belong to a bag and do not count in its size.
    """
    (_, result), (_, bag_of), (_, sizes), maxima = made
    indices, offsets = bound["indices"], bound["offsets"]
    bags, (count,), (ends,) = result.sizes[0], bag_of.sizes, sizes.sizes
    own = _dtype(bag_of.torch_dtype)

    def each(op: str, *args: Arg, **keywords: Arg) -> Ref:
        """Of every index, int64."""
        return Ref(emit(f"aten.{op}", args, f"i64[{count}]", **keywords).name)

    place = each("arange.default", count, **_fresh("int64"))
    wide = emit("aten._to_copy.default", (offsets,), f"i64[{ends}]", **_dtype("int64"))
    after = each("searchsorted.Tensor", Ref(wide.name), place, right=True)
    # The last offset may be the end, which begins no bag.
    bag = each("clamp.default", each("sub.Scalar", after, 1), 0, bags - 1)
    counts = emit("aten.ne.Scalar", (indices, bound["padding_idx"]), f"bool[{count}]")
    one = emit("aten._to_copy.default", (Ref(counts.name),), type_text(bag_of), **own)
    args = (Ref(_zeros(sizes, emit).name), 0, bag, Ref(one.name))
    return {
        1: emit("aten._to_copy.default", (bag,), type_text(bag_of), **own),
        2: emit("aten.index_add.default", args, type_text(sizes)),
        3: _converted(*maxima, emit) if bound["mode"] == _MAX else _zeros(maxima[1], emit),
    }


def _dtype(name: str) -> dict[str, Arg]:
    return {"dtype": Named("dtype", FROM_TORCH[name])}


def _fresh(name: str) -> dict[str, Arg]:
    return _dtype(name) | {"device": Named("device", "here")}


def _zeros(layout: Layout, emit: Emit) -> Value:
    sizes = (tuple(layout.sizes),)
    return emit("aten.zeros.default", sizes, type_text(layout), **_fresh(layout.torch_dtype))


def _converted(value: Value, layout: Layout, emit: Emit) -> Value:
    args = (Ref(value.name),)
    return emit("aten._to_copy.default", args, type_text(layout), **_dtype(layout.torch_dtype))
