"""What kind of workload a graph is: every pattern is asked, the most confident answer holds.

Between answers whose confidence is equal to three decimals, the pattern that explains more calls
goes first, then the order of `BUILT_IN`, then the pattern's name; the tie is logged. Below the
threshold the graph is generic, and the log says what was nearly matched and what was missing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from genie.graph.ir import Graph
from genie.semantics.match import THRESHOLD, Facts, Match, Pattern
from genie.semantics.patterns import BUILT_IN
from genie.semantics.plugins import ask, installed
from genie.semantics.structure import structure_of

__all__ = ["GENERIC", "Decision", "Workload", "classify", "decide", "nearly"]

GENERIC = "generic"
log = logging.getLogger("genie.semantics")


@dataclass(frozen=True)
class Workload:
    """The kind, how sure it is (0 to 1), and the evidence in words.

    `kind` is llm, vision, multimodal, recsys, audio, a plugin's own, or generic.
    """

    kind: str
    confidence: float
    evidence: tuple[str, ...] = ()
    pattern: str = ""
    """Name of the pattern that found it; "spec" when the spec says so; empty for generic."""
    lacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each other kind that a pattern was asked for: what spoke against it."""


@dataclass(frozen=True)
class Decision:
    """The workload, the match that it is (None for generic), and what else was nearly one."""

    workload: Workload
    match: Match | None
    others: tuple[tuple[str, Match], ...]


def classify(graph: Graph, resident: frozenset[str] = frozenset()) -> Workload:
    """Tell what kind of workload a graph is, from its structure alone.

    No name in the graph is read. `resident` are inputs that a device keeps, such as the weights in
    graphs of the lazy device. A forward of token ids through a causal language model gives
    kind "llm"; never raises for what plugins do.
    """
    return decide(Facts(structure_of(graph, resident))).workload


def decide(facts: Facts, said: str = "auto", patterns: Sequence[Pattern] | None = None) -> Decision:
    """Ask the patterns. What the spec `said`, unless it is "auto", wins over all of them."""
    asked = installed() if patterns is None else tuple(patterns)
    answers = [(p.name, found) for p in asked if (found := ask(p, facts)) is not None]
    ranked = sorted(answers, key=_rank)
    if said != "auto":
        mine = next((m for _, m in ranked if m.kind == said), None)
        workload = Workload(said, 1.0, ("the spec says so",), "spec", _lacks(said, ranked))
        return Decision(workload, mine, tuple(ranked))
    best = ranked[0] if ranked else None
    if best is None or best[1].confidence < THRESHOLD:
        return _generic(ranked)
    name, match = best
    _log_tie(ranked)
    workload = Workload(
        match.kind,
        round(float(match.confidence), 3),
        tuple(match.evidence),
        name,
        _lacks(match.kind, ranked),
    )
    return Decision(workload, match, tuple(ranked[1:]))


def _rank(answer: tuple[str, Match]) -> tuple[float, int, int, str]:
    name, match = answer
    order = [p.name for p in BUILT_IN]
    covered = len({n for part in match.parts for n in part.calls})
    place = order.index(name) if name in order else len(order)
    return (-round(float(match.confidence), 3), -covered, place, name)


def _generic(ranked: Sequence[tuple[str, Match]]) -> Decision:
    nearest = nearly(ranked)
    sure = 1.0 - (nearest[1].confidence if nearest else 0.0)
    if nearest is not None:
        name, match = nearest
        log.info(
            "no pattern is confident: nearest is %s with %.3f; missing: %s",
            name,
            match.confidence,
            "; ".join(match.missing) or "nothing in particular",
            extra={
                "event": "generic_workload",
                "nearest": name,
                "confidence": float(match.confidence),
                "missing": list(match.missing),
            },
        )
    workload = Workload(GENERIC, round(sure, 3), lacks=_lacks(GENERIC, ranked))
    return Decision(workload, None, tuple(ranked))


def nearly(answers: Sequence[tuple[str, Match]]) -> tuple[str, Match] | None:
    """The answer that lacked least: by confidence, then by how many clues are missing."""
    return min(answers, key=lambda a: (-a[1].confidence, len(a[1].missing)), default=None)


def _lacks(taken: str, ranked: Sequence[tuple[str, Match]]) -> dict[str, tuple[str, ...]]:
    return {m.kind: tuple(m.missing) for _, m in reversed(ranked) if m.kind != taken}


def _log_tie(ranked: Sequence[tuple[str, Match]]) -> None:
    if len(ranked) < 2:
        return
    (first, a), (second, b) = ranked[:2]
    if round(float(a.confidence), 3) != round(float(b.confidence), 3):
        return
    log.warning(
        "the patterns %s (%s) and %s (%s) are equally confident, %.3f: %s is taken, which explains"
        " more calls or comes first",
        first,
        a.kind,
        second,
        b.kind,
        a.confidence,
        first,
        extra={
            "event": "patterns_tied",
            "taken": first,
            "other": second,
            "confidence": float(a.confidence),
        },
    )
