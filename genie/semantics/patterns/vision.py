"""Images: a stem, stages of one resolution each, and a head; convolutional or by patches."""

from __future__ import annotations

from collections.abc import Sequence

from genie.semantics.layers import Layered
from genie.semantics.match import Clue, Facts, Match, Part, answer
from genie.semantics.operators import ACTIVATION, CONVOLUTION, LAYOUT, NORMALIZATION, POOLING
from genie.semantics.patterns.transformer import blocks_of
from genie.semantics.structure import Call, Structure, Tensor

__all__ = ["Vision"]


class Vision:
    """Classifiers, detectors, segmenters: anything that looks at images alone."""

    name = "vision"

    def match(self, facts: Facts) -> Match | None:
        """Needs an image, and a backbone of convolutions or of patches."""
        s, signals = facts.structure, facts.signals
        seen = signals.mask("vision")
        calls = [n for n, mask in enumerate(signals.reach) if mask & seen]
        convolutions = [n for n in calls if s.calls[n].name in CONVOLUTION]
        stack = blocks_of(facts, calls)
        mixing = len(stack.working)
        clues = [
            Clue("an image or frames come in", bool(seen), 2.0, needed=True),
            Clue(
                "a backbone of convolutions, or of layers over patches",
                len(convolutions) >= 2 or mixing >= 2,
                1.0,
                needed=True,
            ),
            Clue(
                "nothing but images comes in",
                bool(seen) and not signals.mask("text", "audio", "tabular"),
                1.0,
                needed=True,
            ),
            Clue("no time step conditions it", not signals.conditioned, 1.0, needed=True),
        ]
        return answer("vision", clues, _parts(facts, stack) if seen else ())


def _parts(facts: Facts, stack: Layered) -> list[Part]:
    s = facts.structure
    sizes = _Sizes(s)
    stem = list(stack.before) if stack.blocks else []
    inner: list[tuple[tuple[int, ...], int]] = []
    if stack.blocks:
        inside = sorted(_between(stack))
        by_first = {b.calls[0]: b for b in stack.blocks}
        held = {n for b in stack.blocks for n in b.calls}
        for n in inside:
            if n in by_first:
                block = by_first[n]
                inner.append((block.calls, sizes.of(block.end)))
            elif n not in held:
                inner.append(((n,), sizes.of(n)))
        after = list(stack.after)
    else:
        plain = list(stack.calls)
        cut = _head_start(s, plain, sizes)
        inner = [((n,), sizes.of(n)) for n in plain if n < cut]
        after = [n for n in plain if n >= cut]
    parts = [Part("stem", tuple(stem))] if stem else []
    parts += _stages(s, inner)
    if after:
        parts.append(Part("head", tuple(after)))
    return parts


def _between(stack: Layered) -> list[int]:
    """Every call from the first block's to the last's."""
    first, last = stack.blocks[0].calls[0], stack.blocks[-1].calls[-1]
    return [n for n in stack.calls if first <= n <= last]


def _stages(s: Structure, steps: Sequence[tuple[tuple[int, ...], int]]) -> list[Part]:
    """Runs of steps at one resolution; a step is in the stage of the resolution that it makes."""
    parts: list[Part] = []
    calls: list[int] = []
    current = 0
    for group, size in steps:
        if current and size and size < 0.7 * current:
            own = _leading(s, calls)
            calls, opening = calls[:own], calls[own:]
            parts.append(Part("stage", tuple(calls), len(parts), f"stage{len(parts) + 1}"))
            calls = opening
        if size:
            current = size
        calls.extend(group)
    if calls:
        parts.append(Part("stage", tuple(calls), len(parts), f"stage{len(parts) + 1}"))
    return parts


def _leading(s: Structure, calls: Sequence[int]) -> int:
    """Where the calls end that are not yet part of the shrinking step that follows them.

    A norm or a pad right in front of it is part of it, and so is the convolution that widens the
    channels of an inverted bottleneck, with its norm and activation.
    """
    easy = LAYOUT | NORMALIZATION
    at = len(calls)
    while at and s.calls[calls[at - 1]].name in easy - {"cat", "stack"}:
        at -= 1
    back = at
    while back and s.calls[calls[back - 1]].name in easy | ACTIVATION | {"mul", "clamp"}:
        back -= 1
    return back - 1 if back and _widens(s, s.calls[calls[back - 1]]) else at


def _widens(s: Structure, call: Call) -> bool:
    """Whether it is a convolution of single positions that at least triples the channels."""
    weight = s.weight(call.tensor(1)) if call.name in CONVOLUTION else None
    if weight is None or weight.rank != 4 or weight.shape[2:] != (1, 1):
        return False
    return (weight.shape[0] or 0) >= 3 * (weight.shape[1] or 1)


def _head_start(s: Structure, calls: Sequence[int], sizes: _Sizes) -> int:
    """The first call of a plain network's head: where rows and columns end."""
    last = max((n for n in calls if s.calls[n].name in CONVOLUTION), default=-1)
    for n in calls:
        if n > last and _ends(s, n):
            return n
    return len(s.calls)


def _ends(s: Structure, number: int) -> bool:
    made = s.result(s.calls[number])
    if made is None:
        return False
    whole = all(e == 1 for e in made.shape[2:]) and s.calls[number].name in POOLING
    return made.rank <= 2 or whole


class _Sizes:
    """Positions (rows times columns, or tokens) of what calls make."""

    def __init__(self, s: Structure) -> None:
        self.s = s
        self.grids: set[tuple[int | None, int | None]] = set()
        for call in s.calls:
            made = s.result(call)
            if made is not None and made.rank == 4 and call.name in CONVOLUTION | POOLING:
                self.grids.add((made.shape[2], made.shape[3]))

    def of(self, number: int) -> int:
        made = self.s.result(self.s.calls[number])
        return 0 if made is None else self.positions(made)

    def positions(self, made: Tensor) -> int:
        shape = made.shape
        if made.rank == 4:
            pairs = ((shape[2], shape[3]), (shape[1], shape[2]))
            pair = next((p for p in pairs if p in self.grids), None)
            if pair is None:
                pair = pairs[0] if shape[2] == shape[3] else pairs[1]
            return (pair[0] or 0) * (pair[1] or 0)
        if made.rank == 3:
            counts = {(a or 0) * (b or 0) for a, b in self.grids}
            for extent in shape[1:]:
                if any(c and 0 <= (extent or 0) - c <= 8 for c in counts):
                    return extent or 0
            return shape[1] or 0
        return 0
