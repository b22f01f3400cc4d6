"""Regions that torch.export wraps into sub-graphs although they change nothing here.

A `torch.no_grad()` or `enable_grad()` region, and a `torch.autocast(..., enabled=False)` region,
come as a call of a higher-order operator with a graph of its own. A plan computes without
gradients and without autocast, so that the calls inside are simply put in place of the call.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from genie.capture.inputs import graph_inputs

_GRAD = "wrap_with_set_grad_enabled"
_AUTOCAST = "wrap_with_autocast"


def inline_regions(module: fx.GraphModule) -> None:
    """Put the calls of such regions into the graph of `module`, innermost regions included."""
    for node in list(module.graph.nodes):
        inner = _region(module, node)
        if inner is not None:
            inline_regions(inner[0])
            _inline(module.graph, node, *inner)
    for node in reversed(list(module.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            module.graph.erase_node(node)


def _region(module: fx.GraphModule, node: fx.Node) -> tuple[fx.GraphModule, list[Any]] | None:
    """The sub-graph of a region and what it is called with."""
    if node.op != "call_function":
        return None
    name = getattr(node.target, "__name__", "")
    if name == _GRAD:
        _, inner, *given = node.args
    elif name == _AUTOCAST and node.args[2] is False:
        _, _, _, _, inner, *given = node.args
    else:
        return None
    if not isinstance(inner, fx.Node) or inner.op != "get_attr":
        return None
    found = getattr(module, str(inner.target), None)
    return (found, given) if isinstance(found, fx.GraphModule) else None


def _inline(graph: fx.Graph, call: fx.Node, inner: fx.GraphModule, given: list[Any]) -> None:
    names: dict[fx.Node, Any] = dict(zip(graph_inputs(inner.graph), given, strict=True))
    results: Any = ()
    with graph.inserting_before(call):
        for node in inner.graph.nodes:
            if node in names:
                continue
            if node.op == "output":
                results = fx.map_arg(node.args[0], lambda n: names[n])
            elif node.op == "get_attr":
                # A graph inside a region that stays: its module moves with it.
                setattr(
                    graph.owning_module, f"{call.name}_{node.target}", getattr(inner, node.target)
                )
                names[node] = graph.get_attr(f"{call.name}_{node.target}")
            else:
                names[node] = graph.node_copy(node, lambda n: names[n])
    for user in list(call.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
    if call.users:
        call.replace_all_uses_with(results)
    graph.erase_node(call)
