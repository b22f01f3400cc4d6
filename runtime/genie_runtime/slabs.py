"""Small regions: slots of one size in slabs, so that they never cut up the space of large ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from genie_runtime.arena import ALIGNMENT, round_up
from genie_runtime.freelist import MIXED, Piece

__all__ = ["SMALL", "Slabs", "slab_bytes", "slot_size"]

SMALL = 4 << 10
"""Regions of up to this many bytes lie in slabs."""


def slot_size(nbytes: int) -> int:
    """The size class: multiples of 64 bytes up to 512, then eight steps a doubling (≤ 1/8 lost)."""
    nbytes = max(nbytes, 1)
    step = 1 << max((nbytes - 1).bit_length() - 4, 6)
    return round_up(nbytes, max(step, ALIGNMENT))


def slab_bytes(size: int) -> int:
    """Bytes of a slab for slots of `size`: small ones, as every class may have one nearly empty."""
    return 16 << 10 if size <= 1 << 10 else 32 << 10


@dataclass(eq=False)
class _Slab:
    spot: int
    size: int
    free: list[int]
    owners: list[str | None] = field(default_factory=list)
    """Whose bytes each slot last held."""

    @property
    def empty(self) -> bool:
        return len(self.free) == len(self.owners)

    def piece(self) -> Piece:
        """The slab as the block that it was."""
        found = {owner for owner in self.owners if owner is not None}
        owner = None if not found else found.pop() if len(found) == 1 else MIXED
        return self.spot, slab_bytes(self.size), owner


class Slabs:
    """Slots of all size classes. The caller brings slabs and gets empty ones back."""

    def __init__(self) -> None:
        self._open: dict[int, dict[int, _Slab]] = {}
        """Size class → slabs with a free slot, by place, in the order in which they got one."""
        self._slabs: dict[int, _Slab] = {}

    def add(self, piece: Piece, size: int) -> tuple[Piece, int]:
        """Cut a block of `slab_bytes(size)` into slots, and take the first as `take` does."""
        spot, length, owner = piece
        count = length // size
        slab = _Slab(spot, size, list(range(count - 1, -1, -1)), [owner] * count)
        self._slabs[spot] = slab
        self._open.setdefault(size, {})[spot] = slab
        return self._slot(slab)

    def take(self, size: int) -> tuple[Piece, int] | None:
        """A slot, and the place of its slab; None when the class needs another slab."""
        slabs = self._open.get(size)
        if not slabs:
            return None
        return self._slot(next(iter(slabs.values())))

    def _slot(self, slab: _Slab) -> tuple[Piece, int]:
        slot = slab.free.pop()
        if not slab.free:
            del self._open[slab.size][slab.spot]
        return (slab.spot + slot * slab.size, slab.size, slab.owners[slot]), slab.spot

    def put(self, base: int, piece: Piece) -> Piece | None:
        """Give a slot of the slab at `base` back; the slab when that is empty and not kept.

        One empty slab of a class is kept while it is the only one with room.
        """
        slab = self._slabs[base]
        spot, _, owner = piece
        slot = (spot - base) // slab.size
        slab.owners[slot] = owner
        slab.free.append(slot)
        slabs = self._open.setdefault(slab.size, {})
        slabs[base] = slab
        if not slab.empty or len(slabs) == 1:
            return None
        return self._drop(slab)

    def drop_empty(self) -> list[Piece]:
        """Give up every empty slab."""
        return [self._drop(slab) for slab in list(self._slabs.values()) if slab.empty]

    def _drop(self, slab: _Slab) -> Piece:
        del self._slabs[slab.spot], self._open[slab.size][slab.spot]
        return slab.piece()
