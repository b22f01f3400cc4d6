"""A captured model: a graph for each of its entry points, and the loops over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genie.graph.ir import Constant, Graph, State, from_data, graph_digest, to_data
from genie_schemas import canonical, writer
from genie_schemas.plan import Loop

FORWARD = "forward"
"""The entry point of a module that is compiled as it is."""


@dataclass(frozen=True)
class Entries:
    """Graphs by entry point, in the plan's order.

    Constants and states of one name are the same tensor in all of them.
    """

    graphs: Mapping[str, Graph]
    loops: Mapping[str, Loop] = field(default_factory=dict)

    @property
    def first(self) -> Graph:
        """The graph of the first entry point: all agree on name, torch and modules."""
        return next(iter(self.graphs.values()))

    @property
    def dims(self) -> tuple[tuple[str, int, int], ...]:
        """The dimensions of all graphs."""
        return tuple(sorted({dim for graph in self.graphs.values() for dim in graph.dims}))

    @property
    def constants(self) -> dict[str, Constant]:
        """Every constant by name, in the order of first use."""
        return {c.name: c for graph in self.graphs.values() for c in graph.constants}

    @property
    def states(self) -> dict[str, State]:
        """Every state by name, in the order of first use."""
        return {s.name: s for graph in self.graphs.values() for s in graph.states}


def entries_data(entries: Entries) -> dict[str, Any]:
    """The entries as plain JSON values."""
    return {
        "graphs": {name: to_data(graph) for name, graph in entries.graphs.items()},
        "loops": {name: writer.to_data(loop) for name, loop in entries.loops.items()},
    }


def entries_from(data: Mapping[str, Any]) -> Entries:
    """The inverse of `entries_data`."""
    return Entries(
        {name: from_data(graph) for name, graph in data["graphs"].items()},
        {name: Loop.model_validate(loop) for name, loop in data["loops"].items()},
    )


def entries_digest(entries: Entries) -> str:
    """SHA-256 over canonical JSON; that of the graph itself where there is only a forward."""
    if list(entries.graphs) == [FORWARD]:
        return graph_digest(entries.first)
    return canonical.digest(entries_data(entries))
