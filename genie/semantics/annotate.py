"""The semantically rich graph: what each call and each value of a graph is for.

`analyze` works on any graph of the IR, exported or recorded by the lazy device, and reads no name
in it; names come back only where the result is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from genie.graph.ir import Graph
from genie.semantics.attention import kept_rows
from genie.semantics.classify import Decision, Workload, decide
from genie.semantics.layers import spread
from genie.semantics.match import Facts, Pattern
from genie.semantics.modality import Modality
from genie.semantics.patterns.transformer import blocks_of, stack_parts
from genie.semantics.structure import Structure, structure_of
from genie.semantics.work import criticality, work_of
from genie_schemas.types import parse_type

__all__ = ["Analysis", "CallNote", "Residency", "ValueNote", "analyze"]

Residency = Literal["weight", "state", "kv_cache", "input", "activation", "output"]


@dataclass(frozen=True)
class CallNote:
    """What a call is part of. `region` is role and number; a `component` holds regions."""

    phase: str
    component: str
    region: str
    modality: str
    criticality: float
    """The longest chain of work through it, as a share of the longest of all."""
    rate: float
    """Bytes that it makes for each byte of activations that it takes; 0 where it takes none."""
    work: int


@dataclass(frozen=True)
class ValueNote:
    """Where a value lives, and how many calls take it."""

    residency: Residency
    readers: int


@dataclass(frozen=True)
class Analysis:
    """A graph with notes: one for each call in order, and for each value by name."""

    graph: Graph
    workload: Workload
    decision: Decision
    phase: str
    """What a call of the graph does: prefill, decode or forward."""
    calls: tuple[CallNote, ...]
    values: Mapping[str, ValueNote]
    inputs: Mapping[str, Modality]
    labels: tuple[tuple[str, int], ...]
    """Call → role and number of its region."""


def analyze(
    graph: Graph,
    said: str = "auto",
    resident: frozenset[str] = frozenset(),
    patterns: Sequence[Pattern] | None = None,
) -> Analysis:
    """Annotate a graph.

    `said` is the spec's `workload`; `resident` names inputs that a device keeps, such as the
    weights in graphs of the lazy device; `patterns` replaces those that are installed.
    """
    structure = structure_of(graph, resident)
    facts = Facts(structure)
    decision = decide(facts, said, patterns)
    phase = _phase(facts, decision)
    labels, components, phases = _regions(facts, decision, phase)
    names = [v.name for v in graph.values()]
    notes = _calls(facts, labels, components, phases)
    inputs = {names[n]: facts.signals.modality[p] for p, n in enumerate(structure.inputs)}
    return Analysis(
        graph,
        decision.workload,
        decision,
        phase,
        notes,
        _values(facts, names),
        inputs,
        labels,
    )


def _phase(facts: Facts, decision: Decision) -> str:
    """Prefill for a whole prompt, decode where each attention over a cache has one query."""
    cached = [a for a in facts.attentions if a.cached]
    if cached:
        return "decode" if all(a.query == 1 for a in cached) else "prefill"
    return "prefill" if decision.workload.kind == "llm" else "forward"


def _regions(
    facts: Facts, decision: Decision, phase: str
) -> tuple[tuple[tuple[str, int], ...], list[str], list[str]]:
    """Role and number, component and phase of every call."""
    s = facts.structure
    match = decision.match
    parts = list(match.parts) if match is not None else []
    if not parts and facts.attentions:
        # Generic, but layered: an encoder's blocks are told apart all the same.
        reached = [n for n, mask in enumerate(facts.signals.reach) if mask]
        if reached:
            parts = stack_parts(facts, blocks_of(facts, reached), 0, "head", "layers")
    owner: dict[int, int] = {}
    for i, part in enumerate(parts):
        for n in part.calls:
            owner.setdefault(n, i)
    if not parts:
        whole = ("model", 0)
        return tuple(whole for _ in s.calls), ["model"] * len(s.calls), [phase] * len(s.calls)
    filled = spread(s, owner)
    labels, components, phases = [], [], []
    given = match.phases if match is not None else {}
    for n in range(len(s.calls)):
        part = parts[filled[n]]
        component = part.component or part.role
        labels.append((part.role, part.index))
        components.append(component)
        phases.append(given.get(component, given.get(part.role, phase)))
    return tuple(labels), components, phases


def _calls(
    facts: Facts,
    labels: Sequence[tuple[str, int]],
    components: Sequence[str],
    phases: Sequence[str],
) -> tuple[CallNote, ...]:
    s, signals = facts.structure, facts.signals
    work = [work_of(s, call) for call in s.calls]
    critical = criticality(s, work)
    notes = []
    for call in s.calls:
        places = [p for p in signals.modality if signals.reach[call.number] >> p & 1]
        named = dict.fromkeys(signals.modality[p] for p in places)
        role, index = labels[call.number]
        notes.append(
            CallNote(
                phases[call.number],
                components[call.number],
                f"{role}.{index}",
                "+".join(named),
                round(critical[call.number], 3),
                _rate(s, call.number),
                work[call.number],
            )
        )
    return tuple(notes)


def _rate(s: Structure, number: int) -> float:
    call = s.calls[number]
    taken = sum(_bytes(s, n) for n in call.reads if s.tensors[n].origin in ("result", "input"))
    made = sum(_bytes(s, n) for n in call.writes)
    return round(made / taken, 3) if taken else 0.0


def _bytes(s: Structure, number: int) -> int:
    tensor = s.tensors[number]
    return tensor.size * parse_type(f"{tensor.dtype}[1]").itemsize


def _values(facts: Facts, names: Sequence[str]) -> dict[str, ValueNote]:
    s = facts.structure
    caches = kept_rows(s, facts.attentions)
    outputs = set(s.outputs)
    notes = {}
    for number, tensor in enumerate(s.tensors):
        residency: Residency
        if number in caches:
            residency = "kv_cache"
        elif tensor.origin == "result":
            residency = "output" if number in outputs else "activation"
        else:
            residency = tensor.origin
        notes[names[number]] = ValueNote(residency, len(s.readers[number]))
    return notes
