"""The free blocks of a pool's arenas: best fit, neighbours joined.

Blocks are named by *places*: the arena's id in the high bits, the offset in the low ones, so that
one list serves all arenas and blocks of different ones never join.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

__all__ = ["MIXED", "FreeList", "place", "where"]

_SHIFT = 48
MIXED = "\0mixed"
"""Whose bytes a block holds after blocks of two owners were joined."""

Piece = tuple[int, int, str | None]
"""A place, a length in bytes, and whose bytes lie there (None: it is zero all over)."""


def place(arena: int, offset: int) -> int:
    """The place of an offset in an arena."""
    return arena << _SHIFT | offset


def where(spot: int) -> tuple[int, int]:
    """(arena, offset) of a place."""
    return spot >> _SHIFT, spot & ((1 << _SHIFT) - 1)


class FreeList:
    """Free blocks by place and by size. Each remembers its last owner, or `MIXED`."""

    def __init__(self) -> None:
        self._blocks: dict[int, tuple[int, str | None]] = {}
        self._ends: dict[int, int] = {}
        self._by_size: list[tuple[int, int]] = []
        self.free_bytes = 0

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def largest(self) -> int:
        """Bytes of the largest block."""
        return self._by_size[-1][0] if self._by_size else 0

    def sizes(self) -> Iterator[int]:
        """The sizes of all blocks, the largest first."""
        return (size for size, _ in reversed(self._by_size))

    def take(self, length: int) -> Piece | None:
        """Cut `length` bytes off the smallest block that holds them."""
        at = bisect_left(self._by_size, (length, -1))
        if at == len(self._by_size):
            return None
        size, spot = self._by_size[at]
        return self._cut(spot, size, length)

    def gather(self, length: int, most: int) -> list[Piece] | None:
        """`length` bytes in as few blocks as there must be; None when that is more than `most`.

        From the largest block down, and the end from the smallest block that holds it.
        """
        if length == 0:
            return []
        if length > self.free_bytes:
            return None
        pieces: list[Piece] = []
        left = length
        while left:
            piece = self.take(left)
            if piece is None:
                size, spot = self._by_size[-1]
                piece = self._cut(spot, size, size)
            pieces.append(piece)
            left -= piece[1]
            if left and len(pieces) >= most:
                for taken in pieces:
                    self.put(*taken)
                return None
        return pieces

    def drop(self, begin: int, end: int) -> None:
        """Forget every block between two places."""
        for spot in [spot for spot in self._blocks if begin <= spot < end]:
            self._remove(spot, self._blocks[spot][0])

    def put(self, spot: int, length: int, owner: str | None) -> tuple[int, int]:
        """Give a block back, joined with its free neighbours: the joined block's (place, size)."""
        before = self._ends.get(spot)
        if before is not None:
            size, other = self._blocks[before]
            self._remove(before, size)
            spot, length, owner = before, length + size, _join(owner, other)
        after = spot + length
        if after in self._blocks:
            size, other = self._blocks[after]
            self._remove(after, size)
            length, owner = length + size, _join(owner, other)
        self._insert(spot, length, owner)
        return spot, length

    def _cut(self, spot: int, size: int, length: int) -> Piece:
        owner = self._blocks[spot][1]
        self._remove(spot, size)
        if size > length:
            self._insert(spot + length, size - length, owner)
        return spot, length, owner

    def _insert(self, spot: int, size: int, owner: str | None) -> None:
        self._blocks[spot] = (size, owner)
        self._ends[spot + size] = spot
        insort(self._by_size, (size, spot))
        self.free_bytes += size

    def _remove(self, spot: int, size: int) -> None:
        del self._blocks[spot]
        del self._ends[spot + size]
        del self._by_size[bisect_left(self._by_size, (size, spot))]
        self.free_bytes -= size


def _join(a: str | None, b: str | None) -> str | None:
    # A block that is partly zero and partly an owner's counts as the owner's.
    return a if b is None or a == b else b if a is None else MIXED
