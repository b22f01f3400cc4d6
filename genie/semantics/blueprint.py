"""The blueprint: components, the boundaries between them, and what flows over each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genie.semantics.annotate import Analysis
from genie_schemas.expr import parse
from genie_schemas.types import parse_type

__all__ = ["Blueprint", "Component", "Flow", "blueprint"]


@dataclass(frozen=True)
class Component:
    """Calls that do one thing. `weights` are bytes of the constants that they read."""

    name: str
    phase: str
    modality: str
    calls: int
    regions: int
    weights: int
    work: float
    """Share of the graph's arithmetic."""
    criticality: float
    """Of its most critical call."""


@dataclass(frozen=True)
class Flow:
    """What goes from one component, or from outside, to another in one call of the graph."""

    source: str
    target: str
    values: int
    bytes: str
    """As an expression over the graph's dimensions."""
    most: int
    """Bytes at the largest sizes."""
    readers: int
    """Calls that take them: how often what is produced once is consumed."""


@dataclass(frozen=True)
class Blueprint:
    """Components in the order of their first call, flows in the order of their first value."""

    components: tuple[Component, ...]
    flows: tuple[Flow, ...]
    residency: Mapping[str, tuple[int, int]]
    """Residency → number of values and their bytes at the largest sizes."""


INPUT, OUTPUT = "(input)", "(output)"


def blueprint(found: Analysis) -> Blueprint:
    """Summarise an analysis."""
    return Blueprint(_components(found), _flows(found), _residency(found))


def _components(found: Analysis) -> tuple[Component, ...]:
    graph = found.graph
    total = sum(note.work for note in found.calls) or 1
    sizes = {c.name: (c.key, c.bytes) for c in graph.constants}
    rows: dict[str, list[int]] = {}
    for n, note in enumerate(found.calls):
        rows.setdefault(note.component, []).append(n)
    made = []
    for name, numbers in rows.items():
        notes = [found.calls[n] for n in numbers]
        held = dict(
            sizes[value]
            for n in numbers
            for value in graph.nodes[n].reads()
            if value in sizes and found.values[value].residency == "weight"
        )
        modality = dict.fromkeys(m for note in notes for m in note.modality.split("+") if m)
        made.append(
            Component(
                name,
                "+".join(dict.fromkeys(note.phase for note in notes)),
                "+".join(modality),
                len(notes),
                len({note.region for note in notes}),
                sum(held.values()),
                round(sum(note.work for note in notes) / total, 3),
                max(note.criticality for note in notes),
            )
        )
    return tuple(made)


def _flows(found: Analysis) -> tuple[Flow, ...]:
    """Values that a component takes from another, from an input or from state."""
    graph, values = found.graph, found.values
    origin = {i.name: INPUT for i in graph.inputs}
    for value in graph.values():
        if values[value.name].residency == "kv_cache":
            origin[value.name] = "(kv cache)"
        elif values[value.name].residency == "state":
            origin[value.name] = "(state)"
    crossed: dict[tuple[str, str], dict[str, int]] = {}
    for node, note in zip(graph.nodes, found.calls, strict=True):
        for name in node.reads():
            source = origin.get(name)
            if source is not None and source != note.component:
                taken = crossed.setdefault((source, note.component), {})
                taken[name] = taken.get(name, 0) + 1
        for name in node.writes():
            origin[name] = note.component
    for output in graph.outputs:
        if output.value is not None and output.value in origin:
            crossed.setdefault((origin[output.value], OUTPUT), {})[output.value] = 1
    return tuple(_flow(found, *pair, taken) for pair, taken in crossed.items())


def _flow(found: Analysis, source: str, target: str, taken: Mapping[str, int]) -> Flow:
    table = found.graph.table
    texts = [parse_type(table[name].type).bytes_text() for name in taken]
    total = "+".join(dict.fromkeys(texts)) if len(set(texts)) == len(texts) else _sum(texts)
    return Flow(
        source, target, len(taken), total, sum(_most(found, t) for t in texts), sum(taken.values())
    )


def _sum(texts: list[str]) -> str:
    counts = {text: texts.count(text) for text in texts}
    return "+".join(text if n == 1 else f"{n}*{text}" for text, n in counts.items())


def _most(found: Analysis, text: str) -> int:
    ranges = {name: (low, high) for name, low, high in found.graph.dims}
    return max(0, parse(text).bounds(ranges)[1])


def _residency(found: Analysis) -> dict[str, tuple[int, int]]:
    totals: dict[str, tuple[int, int]] = {}
    keys = {c.name: c.key for c in found.graph.constants}
    counted: set[str] = set()
    for value in found.graph.values():
        kind = found.values[value.name].residency
        name = keys.get(value.name, value.name)
        if kind == "weight" and name in counted:
            continue
        counted.add(name)
        count, size = totals.get(kind, (0, 0))
        size += _most(found, parse_type(value.type).bytes_text())
        totals[kind] = (count + 1, size)
    return totals
