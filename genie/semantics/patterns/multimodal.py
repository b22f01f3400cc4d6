"""Several modalities, a component for each, and the point where they meet."""

from __future__ import annotations

from genie.semantics.match import Clue, Facts, Match, Part, answer
from genie.semantics.operators import LAYOUT
from genie.semantics.patterns.audio import transcribes

__all__ = ["MultiModal"]

_NAMES = ("text", "vision", "audio")


class MultiModal:
    """Two or more of text, images and sound."""

    name = "multimodal"

    def match(self, facts: Facts) -> Match | None:
        """Needs inputs of two modalities, and a call that both reach."""
        signals = facts.signals
        masks = {m: signals.mask(m) for m in _NAMES if signals.mask(m)}  # type: ignore[arg-type]
        reach = signals.reach
        both = [
            n for n, mask in enumerate(reach) if sum(bool(mask & m) for m in masks.values()) > 1
        ]
        begun = min(both, default=len(reach))
        both = sorted({*both, *(n for n, mask in enumerate(reach) if mask and n > begun)})
        towers = {
            name: [n for n, mask in enumerate(reach) if mask & one and n not in set(both)]
            for name, one in masks.items()
        }
        deep = [name for name, calls in towers.items() if _works(facts, calls)]
        speech = transcribes(facts)
        clues = [
            Clue("inputs of two modalities", len(masks) >= 2, 2.0, needed=True),
            Clue("they meet in a call that both reach", bool(both), 1.0, needed=True),
            Clue("one of them has layers of its own before", bool(deep), 1.0, needed=True),
            Clue("the text is more than the transcript of the sound", not speech, 1.0, needed=True),
        ]
        parts = [Part(name, tuple(calls)) for name, calls in towers.items() if calls]
        parts += [Part("fusion", tuple(both))] if both else []
        return answer("multimodal", clues, parts)


def _works(facts: Facts, calls: list[int]) -> bool:
    return sum(facts.structure.calls[n].name not in LAYOUT | {"embedding"} for n in calls) >= 3
