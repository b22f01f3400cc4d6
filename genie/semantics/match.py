"""What a pattern is, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

from genie.semantics.attention import Attention, attentions
from genie.semantics.calibration import OFFSET, SLOPE
from genie.semantics.modality import Signals, signals_of
from genie.semantics.structure import Structure

__all__ = [
    "THRESHOLD",
    "Clue",
    "Facts",
    "Match",
    "Part",
    "Pattern",
    "answer",
    "calibrated",
    "weigh",
]

THRESHOLD = 0.5
"""A match below it is none: the plan is handled generically."""


@dataclass(frozen=True)
class Facts:
    """A graph without names, and what every pattern asks of it; computed when first asked for."""

    structure: Structure

    @cached_property
    def signals(self) -> Signals:
        """What the inputs are, and what reaches each call."""
        return signals_of(self.structure)

    @cached_property
    def attentions(self) -> tuple[Attention, ...]:
        """Every attention, fused or spelled out."""
        return attentions(self.structure)


@dataclass(frozen=True)
class Part:
    """A region: calls of one role. `index` tells regions of one role apart, in order."""

    role: str
    calls: tuple[int, ...]
    index: int = 0
    component: str = ""
    """What it is part of, for the blueprint; empty: its role is a component."""


@dataclass(frozen=True)
class Clue:
    """Something that a pattern looks for. What is `needed` and missing rules the match out."""

    text: str
    holds: bool
    weight: float = 1.0
    needed: bool = False


@dataclass(frozen=True)
class Match:
    """A pattern's answer: the kind of workload, how sure it is (0 to 1), its regions and why."""

    kind: str
    confidence: float
    parts: Sequence[Part] = ()
    evidence: Sequence[str] = ()
    missing: Sequence[str] = ()
    phases: Mapping[str, str] = field(default_factory=dict)
    """Role → phase, where it is not the graph's own."""


@runtime_checkable
class Pattern(Protocol):
    """A plugin of the entry-point group `genie.patterns`."""

    name: str

    def match(self, facts: Facts) -> Match | None:
        """How the structure fits; None when there is nothing to say."""
        ...


def weigh(clues: Sequence[Clue]) -> float:
    """The share of the clues' weight that holds; a needed clue that is missing halves it."""
    total = sum(c.weight for c in clues)
    score = sum(c.weight for c in clues if c.holds) / total if total else 0.0
    for clue in clues:
        if clue.needed and not clue.holds:
            score /= 2
    return score


def calibrated(score: float) -> float:
    """How often a match with this score was right, on the training families.

    A logistic curve (Platt 1999) that `make semantics ARGS=--calibrate` fits.
    """
    return round(1 / (1 + math.exp(-(SLOPE * score + OFFSET))), 3)


def answer(
    kind: str,
    clues: Sequence[Clue],
    parts: Sequence[Part] = (),
    phases: Mapping[str, str] | None = None,
) -> Match:
    """A match with the calibrated confidence of its clues."""
    return Match(
        kind,
        calibrated(weigh(clues)),
        parts,
        [c.text for c in clues if c.holds],
        [c.text for c in clues if not c.holds],
        phases or {},
    )
