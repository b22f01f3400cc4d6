"""Components and their layers, from dataflow alone.

A component is what the same inputs reach. Its *trunk* is the calls that every path through it
passes; what lies between two neighbours of the trunk, such as a residual branch, is a *block*. A
call is on the trunk exactly when no dependency inside the component jumps over it: calls are in
execution order, and those that the component's end does not need are left out first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from genie.semantics.attention import Attention
from genie.semantics.operators import (
    ACTIVATION,
    CONVOLUTION,
    NORMALIZATION,
    PRODUCT,
    RECURRENT,
)
from genie.semantics.structure import Call, Structure

__all__ = ["Block", "Layered", "layered", "split_parallel", "spread"]


@dataclass(frozen=True)
class Block:
    """Calls between two calls of the trunk, the second included."""

    calls: tuple[int, ...]
    kind: Literal["attention", "mlp", "other"]
    attention: tuple[Attention, ...]

    @property
    def end(self) -> int:
        """The call of the trunk that closes it."""
        return self.calls[-1]


@dataclass(frozen=True)
class Layered:
    """A component in order: what is before the blocks, the blocks, what is after."""

    calls: tuple[int, ...]
    before: tuple[int, ...]
    blocks: tuple[Block, ...]
    after: tuple[int, ...]

    @property
    def working(self) -> tuple[Block, ...]:
        """The blocks that compute."""
        return tuple(b for b in self.blocks if b.kind != "other")


def layered(s: Structure, calls: Sequence[int], found: Sequence[Attention]) -> Layered:
    """Find the trunk and the blocks of a component's calls, which are in execution order."""
    end = max(calls, key=lambda n: (_inside(s.above[n], calls), n), default=None)
    if end is None:
        return Layered((), (), (), ())
    main = [n for n in calls if s.above[end] >> n & 1]
    trunk = _trunk(s, main)
    by_call = {a.call: a for a in found}
    blocks = _blocks(s, main, trunk, by_call)
    worked = [b for b in blocks if b.kind != "other"]
    if not worked:
        return Layered(tuple(calls), tuple(calls), (), ())
    first, last = worked[0].calls[0], worked[-1].end
    blocks = [b for b in blocks if first <= b.calls[0] and b.end <= last]
    blocks, last = _closed(s, blocks, trunk, last)
    held = {n for b in blocks for n in b.calls}
    return Layered(
        tuple(calls),
        tuple(n for n in calls if n < first and n not in held),
        tuple(blocks),
        tuple(n for n in calls if n > last and n not in held),
    )


def _inside(mask: int, calls: Sequence[int]) -> int:
    return sum(1 for n in calls if mask >> n & 1)


def _trunk(s: Structure, main: Sequence[int]) -> list[int]:
    """The calls that no dependency jumps over."""
    place = {n: i for i, n in enumerate(main)}
    reach = 0
    trunk = []
    for i, n in enumerate(main):
        if reach <= i:
            trunk.append(n)
        reach = max([reach, *(place[u] for u in s.users[n] if u in place)])
    return trunk


def _blocks(
    s: Structure, main: Sequence[int], trunk: Sequence[int], found: dict[int, Attention]
) -> list[Block]:
    """What lies between neighbours of the trunk; a recurrence on the trunk is a block itself."""
    blocks = []
    on_trunk = set(trunk)
    pending: list[int] = []
    for n in main:
        if n not in on_trunk:
            pending.append(n)
            continue
        if pending or n in found or s.calls[n].name in RECURRENT:
            calls = (*pending, n)
            heads = tuple(found[c] for c in calls if c in found)
            blocks.append(Block(calls, _kind(s, calls, heads), heads))
        pending = []
    return blocks


def _kind(
    s: Structure, calls: Sequence[int], heads: Sequence[Attention]
) -> Literal["attention", "mlp", "other"]:
    if heads:
        return "attention"
    for n in calls:
        call = s.calls[n]
        if call.name == "linear" or call.name in CONVOLUTION | RECURRENT | PRODUCT:
            return "mlp"
    return "other"


def _closed(
    s: Structure, blocks: list[Block], trunk: Sequence[int], last: int
) -> tuple[list[Block], int]:
    """Give blocks the calls of the trunk behind them that belong to them.

    Activations do. Norms do where most blocks have one behind them that the next block's residual
    starts from: there, they are post-norms and not the next part's own.
    """
    starts = {b.calls[0] for b in blocks}
    ordered = sorted(trunk)
    tails: list[list[int]] = []
    for b in blocks:
        tail: list[int] = []
        for n in ordered:
            if n <= b.end:
                continue
            call = s.calls[n]
            easy = call.name in ACTIVATION | NORMALIZATION | {"dropout", "clone"}
            if n in starts or not easy:
                break
            tail.append(n)
        tails.append(tail)
    normed = [any(s.calls[n].name in NORMALIZATION for n in t) for t in tails[:-1]]
    post = bool(normed) and sum(normed) * 2 > len(normed)
    closed = []
    for b, tail in zip(blocks, tails, strict=True):
        kept: list[int] = []
        for n in tail:
            if s.calls[n].name in NORMALIZATION and not post:
                break
            kept.append(n)
        closed.append(Block((*b.calls, *kept), b.kind, b.attention))
    return closed, max(last, closed[-1].calls[-1])


def split_parallel(s: Structure, block: Block) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The attention's calls of a block, and those of a feed-forward part beside it."""
    cores = [a.end for a in block.attention]
    mine: list[int] = []
    others: list[int] = []
    for n in block.calls:
        near = any(s.above[c] >> n & 1 or s.above[n] >> c & 1 for c in cores)
        (mine if near else others).append(n)
    if not any(_heavy(s.calls[n]) for n in others):
        return block.calls, ()
    return tuple(mine), tuple(others)


def _heavy(call: Call) -> bool:
    return call.name == "linear" or call.name in PRODUCT | CONVOLUTION


def spread(s: Structure, parts: Mapping[int, int]) -> dict[int, int]:
    """Parts for every call: those without one get their first reader's, else the last known."""
    done = dict(parts)
    for n in reversed(range(len(s.calls))):
        if n not in done:
            known = [done[u] for u in s.users[n] if u in done]
            if known:
                done[n] = known[0]
    before = next((done[n] for n in sorted(done)), 0)
    for n in range(len(s.calls)):
        before = done.setdefault(n, before)
    return done
