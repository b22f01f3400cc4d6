"""What a torch.fx graph takes."""

from __future__ import annotations

from torch import fx

__all__ = ["graph_inputs"]

_MADE = ("call_function", "call_method", "call_module", "get_attr", "output")
"""Nodes that compute, fetch or return something. All others stand for what the graph is given."""


def graph_inputs(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that stand for a graph's inputs, parameters and lifted constants among them."""
    return [node for node in graph.nodes if node.op not in _MADE]
