"""What a torch.fx graph takes."""

from __future__ import annotations

from torch import fx

__all__ = ["graph_inputs"]


def graph_inputs(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that stand for a graph's inputs, parameters and lifted constants among them."""
    return list(graph.find_nodes(op="placeholder"))
