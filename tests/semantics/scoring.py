"""Scores of an analysis against the corpus's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genie.semantics.annotate import Analysis
from tests.semantics.captured import Captured, Label

NEAR = 1
"""Calls by which a boundary may be off."""


@dataclass(frozen=True)
class Score:
    """One model's. Counts are of calls, and of boundaries between labelled calls."""

    name: str
    kind: str
    found: str
    confidence: float
    phase: bool
    calls: int
    right: int
    wanted: int
    drawn: int
    hit: int
    """Boundaries of the labels, of the analysis, and those that are in both."""
    seconds: float
    export_seconds: float

    @property
    def label_accuracy(self) -> float:
        return self.right / self.calls if self.calls else 1.0

    @property
    def boundary_f1(self) -> float:
        total = self.wanted + self.drawn
        return 2 * self.hit / total if total else 1.0


def score(captured: Captured, analysis: Analysis, seconds: float) -> Score:
    """Compare labels where the documentation gives one."""
    labelled = [i for i, label in enumerate(captured.labels) if label is not None]
    wanted = [captured.labels[i] for i in labelled]
    found: list[Label] = [(r, str(i)) for r, i in (analysis.labels[i] for i in labelled)]
    right = sum(
        w is not None and f is not None and w[0] == f[0] for w, f in zip(wanted, found, strict=True)
    )
    edges, drawn = _edges(wanted), _edges(found)
    return Score(
        captured.entry.name,
        captured.entry.kind,
        analysis.workload.kind,
        analysis.workload.confidence,
        analysis.phase == captured.entry.phase,
        len(labelled),
        right,
        len(edges),
        len(drawn),
        _paired(edges, drawn),
        seconds,
        captured.seconds,
    )


def _edges(labels: Sequence[Label]) -> list[int]:
    """Places between neighbours of different regions."""
    return [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]


def _paired(wanted: Sequence[int], drawn: Sequence[int]) -> int:
    """Boundaries of one list that have their own in the other, at most `NEAR` calls away."""
    free = list(drawn)
    hits = 0
    for edge in wanted:
        near = [d for d in free if abs(d - edge) <= NEAR]
        if near:
            free.remove(min(near, key=lambda d: abs(d - edge)))
            hits += 1
    return hits


def calibration_error(scores: Sequence[Score], bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015) over equally wide bins of confidence."""
    return sum(abs(a - c) * n for c, a, n in reliability(scores, bins)) / max(1, len(scores))


def reliability(scores: Sequence[Score], bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and count of each bin that has models."""
    rows = []
    for i in range(bins):
        held = [s for s in scores if min(int(s.confidence * bins), bins - 1) == i]
        if held:
            sure = sum(s.confidence for s in held) / len(held)
            right = sum(s.kind == s.found for s in held) / len(held)
            rows.append((sure, right, len(held)))
    return rows
