"""Which inputs are weights, where nothing says so: in graphs that the lazy device records."""

from __future__ import annotations

from genie.graph.ir import Graph
from genie.semantics.operators import BAG, CONVOLUTION, NORMALIZATION, base_name
from genie_schemas.args import Ref

__all__ = ["weight_inputs"]

_PLACES: dict[str, tuple[int, ...]] = {
    "linear": (1, 2),
    "addmm": (0, 2),
    "embedding": (0,),
    **dict.fromkeys(CONVOLUTION, (1, 2)),
    **dict.fromkeys(BAG, (0,)),
    **dict.fromkeys(NORMALIZATION, (1, 2, 3, 4)),
    "native_layer_norm": (2, 3),
    "layer_norm": (2, 3),
    "rms_norm": (2,),
}
"""Operator → the places of its arguments at which layers hand over their weights."""


def weight_inputs(graph: Graph) -> frozenset[str]:
    """Names of the inputs that every call that reads them takes as a weight.

    A view of a weight, such as its transpose, is one as well.
    """
    root = {i.name: i.name for i in graph.inputs}
    as_weight: set[str] = set()
    otherwise: set[str] = set()
    for node in graph.nodes:
        name = base_name(node.op)
        places = _PLACES.get(name, ())
        for place, arg in enumerate(node.args):
            if isinstance(arg, Ref) and arg.name in root and place in places:
                as_weight.add(root[arg.name])
        moved = name in ("t", "transpose", "detach", "alias")
        clone = name == "clone"
        for read in node.reads():
            if read not in root:
                continue
            if moved or clone:
                root.update((made, root[read]) for made in node.writes())
            elif not any(
                isinstance(a, Ref) and a.name == read and i in places
                for i, a in enumerate(node.args)
            ):
                otherwise.add(root[read])
    return frozenset(as_weight - otherwise)
