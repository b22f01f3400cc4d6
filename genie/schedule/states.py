"""States: where they lie, and which steps move them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genie.graph.ir import Graph, Node
from genie.graph.legality import mutated
from genie.schedule.segments import Segment
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import ComputeStep, StateEffect

__all__ = ["Effects", "device_of", "state_devices"]


class Effects:
    """The effects of a graph's compute steps, in their order."""

    def __init__(self, graph: Graph) -> None:
        self.table = graph.table
        self.appended = {s.value.storage: s.name for s in graph.states if s.update == "append"}
        self.news = {s.new: s.name for s in graph.states if s.new is not None}
        """Value → the state whose place it takes."""
        self.last: dict[str, str] = {}
        """State → the step that moved it on last."""

    def on(self, step: ComputeStep, nodes: Sequence[Node]) -> ComputeStep:
        """The step with the effects that its calls have."""
        written = {self.table[name].storage for node in nodes for name in mutated(node)}
        moved: dict[str, str | None] = {
            name: None for storage, name in self.appended.items() if storage in written
        }
        moved |= {self.news[value]: value for value in step.writes if value in self.news}
        if not moved:
            return step
        effects = [
            StateEffect(state=name, expects=self.last.get(name, "entry"), value=value)
            for name, value in moved.items()
        ]
        self.last.update(dict.fromkeys(moved, step.id))
        return step.model_copy(update={"effect": effects})


def device_of(graph: Graph, segments: Sequence[Segment], value: str) -> str | None:
    """The device that makes a value; None when no call does."""
    for segment in segments:
        for node in graph.nodes[segment.start : segment.stop]:
            if value in node.writes():
                return segment.device
    return None


def state_devices(parts: Sequence[tuple[Graph, Sequence[Segment]]], first: str) -> dict[str, str]:
    """Each state's device: the first where states are replaced whole, else where it is written.

    Raises GenieError GEN0244 when a placement lets two devices work on one cache.
    """
    found: dict[str, str] = {}
    for graph, segments in parts:
        for state in graph.states:
            if state.update == "replace":
                found[state.name] = first
                continue
            for device in _devices(graph, segments, state.value.storage):
                if found.setdefault(state.name, device) != device:
                    raise _split(state.name, found[state.name], device)
    return found


def _devices(graph: Graph, segments: Sequence[Segment], storage: int) -> Mapping[str, None]:
    table = graph.table
    return {
        segment.device: None
        for segment in segments
        for node in graph.nodes[segment.start : segment.stop]
        for name in node.reads()
        if table[name].storage == storage
    }


def _split(state: str, one: str, other: str) -> GenieError:
    return GenieError(
        "GEN0244",
        f"the placement lets {one} and {other} work on the cache {state!r}",
        Place(path="placement.stages"),
        "keys and values of a layer lie on one device, where its attention runs",
        "name the attention module, or the whole layer, in one stage",
    )
