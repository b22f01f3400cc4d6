"""Which node runs on which device."""

from __future__ import annotations

import difflib
from collections import defaultdict
from dataclasses import dataclass

from genie.graph.ir import Graph
from genie.graph.legality import mutated
from genie_schemas.errors import GenieError, GenieErrors, Place
from genie_schemas.spec import Placement, Spec


@dataclass(frozen=True)
class Placed:
    """A device a node, and in words why the placement is as it is."""

    devices: tuple[str, ...]
    reasons: tuple[str, ...]


def stage_modules(spec: Spec) -> tuple[str, ...]:
    """Every module path that the spec's stages name."""
    if not isinstance(spec.placement, Placement):
        return ()
    return tuple(m for stage in spec.placement.stages for m in stage.modules)


def place(graph: Graph, spec: Spec, file: str | None) -> Placed:
    """Place every node: on the first device, or by the spec's stages.

    A node inside a named module runs on that stage's device, the deepest name deciding. A node
    outside of all of them (operations of a parent module) runs where the latest stage that it
    depends on runs, because moving its inputs back would cost a round trip; one that depends on
    none runs where it is first needed. Raises GenieErrors (GEN0207) for unknown modules.
    """
    if not isinstance(spec.placement, Placement):
        first = spec.devices[0].id
        reason = f"everything on {first}: the spec names no stages"
        return Placed((first,) * len(graph.nodes), (reason,))
    _check_modules(graph, spec, file)
    order = [stage.device for stage in spec.placement.stages]
    stage_of = {m: i for i, stage in enumerate(spec.placement.stages) for m in stage.modules}
    stages: list[int | None] = [_named(node.module, stage_of) for node in graph.nodes]
    _keep_lengths_first(graph, stages)
    _follow_producers(graph, stages)
    _follow_consumers(graph, stages)
    devices = tuple(order[i or 0] for i in stages)
    free = sum(_named(n.module, stage_of) is None for n in graph.nodes)
    reasons = [
        f"stage {i} on {stage.device}: {', '.join(stage.modules)}"
        for i, stage in enumerate(spec.placement.stages)
    ]
    if free:
        which = "1 operation outside the named modules follows what it reads"
        many = f"{free} operations outside the named modules follow what they read"
        reasons.append(which if free == 1 else many)
    return Placed(devices, tuple(reasons))


def _named(module: str, stage_of: dict[str, int]) -> int | None:
    path = module
    while path:
        if path in stage_of:
            return stage_of[path]
        path = path.rpartition(".")[0]
    return None


def _check_modules(graph: Graph, spec: Spec, file: str | None) -> None:
    known = [path for path, _ in graph.modules if path]
    errors = []
    for name in stage_modules(spec):
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            errors.append(
                GenieError(
                    "GEN0207",
                    f"the model has no module {name!r}",
                    Place(file=file, path="placement.stages"),
                    remedy=f"did you mean {close[0]!r}?"
                    if close
                    else f"it has: {', '.join(known[:12])}{', …' if len(known) > 12 else ''}",
                )
            )
    if errors:
        raise GenieErrors(errors)


def _keep_lengths_first(graph: Graph, stages: list[int | None]) -> None:
    """What reads a state that is replaced as a whole runs on the first stage, where it lies."""
    whole = {s.name for s in graph.states if s.update == "replace"}
    for i, node in enumerate(graph.nodes):
        if not whole.isdisjoint(node.reads()):
            stages[i] = 0


def _follow_producers(graph: Graph, stages: list[int | None]) -> None:
    made: dict[str, int] = {}
    aliases: dict[int, list[str]] = defaultdict(list)
    for value in graph.values():
        aliases[value.storage].append(value.name)
    for i, node in enumerate(graph.nodes):
        if stages[i] is None:
            found = [made[name] for name in node.reads() if name in made]
            stages[i] = max(found, default=None)
        stage = stages[i]
        if stage is None:
            continue
        made.update(dict.fromkeys(node.writes(), stage))
        for name in mutated(node):
            # What is written on a later stage is read there afterwards, through any view of it.
            for other in aliases[graph.table[name].storage]:
                made[other] = max(stage, made.get(other, stage))


def _follow_consumers(graph: Graph, stages: list[int | None]) -> None:
    needed: dict[str, int] = {}
    for i in reversed(range(len(graph.nodes))):
        node = graph.nodes[i]
        if stages[i] is None:
            stages[i] = min((needed[n] for n in node.writes() if n in needed), default=0)
        stage = stages[i] or 0
        for name in node.reads():
            needed[name] = min(stage, needed.get(name, stage))
