"""Which calls matter: those that an output depends on, through values or through memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from genie.graph.ir import Node, Output, Value
from genie.graph.legality import mutated


def live_nodes(
    nodes: Sequence[Node],
    outputs: Iterable[Output],
    values: Mapping[str, Value],
    lasting: Iterable[int] = (),
) -> list[Node]:
    """Drop calls that no output depends on.

    A write counts when its memory is read later, or is that of a state (`lasting`).
    """
    live = {o.value for o in outputs if o.value is not None}
    memory = {values[name].storage for name in live} | set(lasting)
    kept = []
    for node in reversed(nodes):
        writes = any(values[name].storage in memory for name in mutated(node))
        if writes or not live.isdisjoint(node.writes()):
            kept.append(node)
            live.update(node.reads())
            memory.update(values[name].storage for name in node.reads())
    return kept[::-1]
