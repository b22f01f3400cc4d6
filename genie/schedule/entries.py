"""Every entry point scheduled, with what they agree on: where states and carried inputs lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from genie.graph.entries import Entries
from genie.graph.ir import Graph
from genie.schedule.again import made_again
from genie.schedule.placement import place
from genie.schedule.segments import Segment, cut
from genie.schedule.states import device_of, state_devices
from genie.schedule.steps import Lying, Schedule, schedule
from genie_schemas.plan import Loop, Priority
from genie_schemas.spec import Spec

__all__ = ["Scheduled", "schedule_entries"]

_Part = tuple[Graph, list[Segment]]


@dataclass(frozen=True)
class Scheduled:
    """The entry points as they were cut, their steps, and where states lie.

    `reasons` tell in words why what is placed where.
    """

    entries: Entries
    schedules: Mapping[str, Schedule]
    state_devices: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


def schedule_entries(
    entries: Entries, regions: Mapping[str, Sequence[str]], spec: Spec, file: str | None
) -> Scheduled:
    """Place, cut and order each entry point; `regions` has the region of each of its nodes.

    Raises GenieErrors GEN0207, GenieError GEN0226, GEN0244 for placements that cannot be.
    """
    reasons: dict[str, None] = {}
    parts: dict[str, _Part] = {}
    for name, captured in entries.graphs.items():
        placed = place(captured, spec, file)
        nodes, of_region, devices = made_again(captured, regions[name], placed.devices)
        again = dataclasses.replace(captured, nodes=nodes)
        graph, segments, notes = cut(again, list(of_region), devices)
        parts[name] = (graph, segments)
        reasons.update(dict.fromkeys((*placed.reasons, *notes)))
    first = spec.devices[0].id
    states = state_devices(list(parts.values()), first)
    loops = entries.loops.values()
    carried = {loop.body: _carried(*parts[loop.body], loop) for loop in loops}
    priorities: dict[str, Priority] = {loop.entry: "prefill" for loop in loops}
    priorities |= {loop.body: "decode" for loop in loops}
    schedules = {}
    for name, (graph, segments) in parts.items():
        lying = Lying(first, states, carried.get(name, {}))
        schedules[name] = schedule(graph, segments, lying, priorities.get(name, "activation"))
    graphs = {name: graph for name, (graph, _) in parts.items()}
    made = dataclasses.replace(entries, graphs=graphs)
    return Scheduled(made, schedules, states, tuple(reasons))


def _carried(graph: Graph, segments: Sequence[Segment], loop: Loop) -> dict[str, str]:
    """A sampled token comes into being where the logits are, and starts the next turn there."""
    if loop.sample is None:
        return {}
    logits = [o.value for o in graph.outputs if o.name == loop.sample.logits and o.value]
    devices = [d for value in logits if (d := device_of(graph, segments, value)) is not None]
    return dict.fromkeys([loop.sample.token], devices[0]) if devices else {}
