"""Recommendation: sparse features look up rows, dense ones are computed, and all interact."""

from __future__ import annotations

from collections.abc import Sequence

from genie.semantics.match import Clue, Facts, Match, Part, answer
from genie.semantics.modality import Lookup
from genie.semantics.operators import LAYOUT, LOOKUP
from genie.semantics.structure import Structure

__all__ = ["Recommendation"]


class Recommendation:
    """Models of ids that are no text, with or without numeric features."""

    name = "recsys"

    def match(self, facts: Facts) -> Match | None:
        """Needs lookups of several features, and a call in which they meet."""
        s, signals = facts.structure, facts.signals
        ids = {p for p in signals.of("tabular") if not s.tensors[s.inputs[p]].floating}
        looks = [look for look in signals.lookups if look.source in ids]
        features = _features(s, looks)
        sparse, dense, rest = _split(facts)
        clues = [
            Clue("ids that are no text index tables", bool(looks), 2.0, needed=True),
            Clue("two features or more are looked up", features >= 2, 1.0, needed=True),
            Clue("features meet after their lookups", bool(rest), 1.0, needed=True),
            Clue(
                "no text, image or sound comes in",
                not signals.of("text", "vision", "audio"),
                1.0,
                needed=True,
            ),
        ]
        named = (("sparse", sparse), ("dense", dense), ("interaction", rest))
        parts = [Part(role, tuple(calls)) for role, calls in named if calls]
        return answer("recsys", clues, parts)


def _features(s: Structure, looks: Sequence[Lookup]) -> int:
    """Distinct features: lookups, each with the number of fields that it takes at once."""
    total = 0
    for look in looks:
        call = s.calls[look.call]
        index = s.tensors[call.reads[1] if len(call.reads) > 1 else call.reads[0]]
        fields = index.shape[-1] if index.rank >= 2 and index.shape[-1] else 1
        total += max(1, fields or 1)
    return total


def _split(facts: Facts) -> tuple[list[int], list[int], list[int]]:
    """Calls that take rows and arrange them, calls of numbers alone, and the rest."""
    s, signals = facts.structure, facts.signals
    numbers = sum(1 << p for p in signals.of("tabular") if s.tensors[s.inputs[p]].floating)
    ids = signals.mask("tabular") & ~numbers
    sparse: list[int] = []
    dense: list[int] = []
    rest: list[int] = []
    arranged: set[int] = set()
    for call in s.calls:
        mask = signals.reach[call.number]
        made = s.result(call)
        if call.name in LOOKUP or (made is not None and not made.floating):
            sparse.append(call.number)
            arranged.add(call.number)
        elif mask and not mask & ids:
            dense.append(call.number)
        elif (
            call.name in LAYOUT
            and mask
            and not mask & numbers
            and all(n in arranged for n in s.needs[call.number])
        ):
            sparse.append(call.number)
            arranged.add(call.number)
        elif mask:
            rest.append(call.number)
    return sparse, dense, rest
