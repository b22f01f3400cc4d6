"""Calls with `out=`: the operator that returns its result, and a copy into the tensor given.

Plans name no overloads that write to `out`, because those may resize what they are given.
`torch.add(a, b, out=c)` is `c.copy_(torch.add(a, b))` where c has the result's shape already.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from genie_schemas import optable

__all__ = ["without_out"]


def without_out(graph: fx.Graph) -> None:
    """Replace such calls in a graph, where the other overload exists and the shape is the same."""
    for node in list(graph.nodes):
        target = node.target
        if node.op != "call_function" or not isinstance(target, OpOverload):
            continue
        names = [a.name for a in target._schema.arguments if a.is_out]
        if len(names) == 1 and isinstance(node.kwargs.get(names[0]), fx.Node):
            _replace(graph, node, target, names[0])


def _replace(graph: fx.Graph, node: fx.Node, target: OpOverload, name: str) -> None:
    returning = _returning(target, name)
    given = {key: value for key, value in node.kwargs.items() if key != name}
    out: Any = node.kwargs[name]
    if returning is None:
        return
    fake = out.meta["val"]
    args, kwargs = fx.map_arg((node.args, given), lambda n: n.meta["val"])
    with fake.fake_mode:
        made = returning(*args, **kwargs)
    if made.shape != fake.shape:
        return  # it would be resized
    with graph.inserting_before(node):
        result = graph.call_function(returning, node.args, given)
        copied = graph.call_function(torch.ops.aten.copy_.default, (out, result))
    result.meta = {**node.meta, "val": made}
    copied.meta = {**node.meta, "val": fake}
    node.replace_all_uses_with(copied)
    graph.erase_node(node)


def _returning(target: OpOverload, name: str) -> Any:
    """The overload with the same parameters that returns a tensor and that plans may name."""

    def described(overload: OpOverload) -> list[tuple[str, str]]:
        return [(a.name, str(a.type)) for a in overload._schema.arguments if a.name != name]

    packet = target.overloadpacket
    for each in packet.overloads():
        overload = getattr(packet, each)
        allowed = optable.lookup(str(overload)) is not None
        if allowed and overload is not target and described(overload) == described(target):
            return overload
    return None
