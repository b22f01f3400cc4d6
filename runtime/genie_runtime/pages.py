"""Whole pages of arenas, made as needed within a limit, and ranges assembled out of them.

Requests take the smallest free block that holds them, else a new arena. When the limit allows no
more arenas, scattered free pages become one range by mapping them one after the other (see
`Arena.assemble`): a free page can serve every request, wherever it lies. From 4 MiB on, as many
2 MiB pages as fit are taken where the machine has them, and the rest in small ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from genie_runtime.arena import HUGE_PAGE, PAGE, Arena, round_up
from genie_runtime.freelist import MIXED, FreeList, Piece, place, where
from genie_schemas.errors import GenieError

__all__ = ["HUGE_FROM", "Pages"]

HUGE_FROM = 4 << 20
"""Smaller regions gain too little from 2 MiB pages to take them from others."""

MAX_PARTS = 1024
"""Parts of one assembled range: each is a mapping of the kernel's in two processes."""
MAX_MAPPINGS = 16384
"""Parts of all assembled ranges of a pool; a process may have 65530 mappings by default."""

_CONVERT = 8 << 20
"""2 MiB pages are given up for small ones in no fewer bytes, else arenas become many."""

_NO_HUGE = 10.0
"""Seconds until huge pages are asked for again after there were none."""


class Pages:
    """The arenas of one pool and their free pages. Not thread-safe; see ArenaPool for arguments.

    `reserved` counts the bytes of all arenas, `assembled` the assembled ranges there are.
    """

    def __init__(
        self,
        limit: int,
        arena_bytes: int,
        huge: bool,
        opened: Callable[[Arena], None] | None,
        closed: Callable[[int], None] | None,
    ) -> None:
        self.arenas: dict[int, Arena] = {}
        self.reserved = self.assembled = 0
        self._limit = limit
        self._arena_bytes = arena_bytes
        self._opened = opened
        self._closed = closed
        self._taken: dict[int, int] = {}
        """Arena → bytes of it that are in no free list."""
        self._small = FreeList()
        self._huge = FreeList()
        self._holes: dict[int, int] = {}
        """Arena → bytes of it that were given back to the system."""
        self._huge_from = 0.0 if huge else float("inf")
        """The time from which huge pages may be asked for."""
        self._mappings = 0

    @property
    def huge_bytes(self) -> int:
        """Bytes in 2 MiB pages."""
        whole = sum(arena.size for arena in self.arenas.values() if arena.huge)
        return whole - sum(self._holes.values())

    @property
    def available(self) -> int:
        """Bytes that are free or may be added."""
        return self._room() + self._small.free_bytes + self._huge.free_bytes

    # -- pages ----------------------------------------------------------------------------------

    def take(self, length: int) -> list[Piece] | None:
        """Whole pages, in one piece if there is one or one can be made; 2 MiB pages come first."""
        if length > self.available:
            return None
        huge = self._huge_share(length)
        rest = length - huge
        if rest and self._small.largest < rest:
            self._grow(rest)
        self._convert(rest - self._small.free_bytes, keep=huge)
        most = self._parts()
        pieces = self._huge.gather(huge, most)
        if pieces is None:
            return None
        small = self._small.gather(rest, most)
        if small is None:
            for piece in pieces:
                self._huge.put(*piece)
            return None
        for spot, size, _ in (*pieces, *small):
            self._taken[where(spot)[0]] += size
        return [*pieces, *small]

    def take_one(self, length: int) -> Piece | None:
        """A block of small pages in one piece."""
        if self._small.largest < length:
            self._grow(length)
        if self._small.largest < length:
            self._convert(length, keep=0)
        piece = self._small.take(length)
        if piece is not None:
            self._taken[where(piece[0])[0]] += length
        return piece

    def give(self, piece: Piece) -> None:
        """Give a block back; its owner is whose bytes it holds."""
        arena = where(piece[0])[0]
        self._taken[arena] -= piece[1]
        (self._huge if self.arenas[arena].huge else self._small).put(*piece)

    def largest(self) -> int:
        """The largest request that `take` would serve now."""
        most = self._parts()
        small = sum(size for size, _ in zip(self._small.sizes(), range(most), strict=False))
        huge = sum(size for size, _ in zip(self._huge.sizes(), range(most), strict=False))
        return self._room() + small + huge

    def _room(self) -> int:
        """Bytes by which the arenas may grow."""
        return (self._limit - self.reserved) // PAGE * PAGE

    def _parts(self) -> int:
        """How many parts an assembled range may have of each kind."""
        return min(MAX_PARTS, MAX_MAPPINGS - self._mappings) // 2

    def _huge_share(self, length: int) -> int:
        """How much of a request goes into 2 MiB pages."""
        if length < HUGE_FROM:
            return 0
        wanted = length // HUGE_PAGE * HUGE_PAGE
        if self._huge.largest < wanted and time.monotonic() >= self._huge_from:
            size = min(max(wanted, self._arena_bytes), self._room()) // HUGE_PAGE * HUGE_PAGE
            if size >= wanted:
                try:
                    self._add(Arena.create(size, huge=True), self._huge)
                except GenieError:  # none are free: small pages serve as well
                    self._huge_from = time.monotonic() + _NO_HUGE
        return min(wanted, self._huge.free_bytes)

    def _convert(self, missing: int, keep: int) -> None:
        """Give free 2 MiB pages back to the system, and take small ones in their place.

        `keep` bytes of them stay. Their arena is left with a hole that nobody may touch.
        """
        spare = self._huge.free_bytes - keep
        if missing <= 0 or round_up(missing, HUGE_PAGE) > spare:
            return
        pieces = self._huge.gather(max(round_up(missing, HUGE_PAGE), min(spare, _CONVERT)), 1 << 20)
        for spot, length, _ in pieces or ():
            arena, offset = where(spot)
            try:
                self.arenas[arena].punch(offset, length)
            except GenieError:
                self._huge.put(spot, length, MIXED)
                continue
            self._holes[arena] = self._holes.get(arena, 0) + length
            self.reserved -= length
        self._grow(missing)

    # -- arenas ---------------------------------------------------------------------------------

    def assemble(self, pieces: Sequence[Piece]) -> Arena | None:
        """One range out of taken pages; None, with the pages given back, when it cannot be."""
        try:
            made = Arena.assemble([(*where(spot), n) for spot, n, _ in pieces], self.arenas)
            self._announce(made)
        except BaseException as error:
            for piece in pieces:
                self.give(piece)
            if isinstance(error, GenieError):  # the system maps no more now: it will later
                return None
            raise
        self._mappings += len(pieces)
        self.assembled += 1
        return made

    def unmake(self, made: Arena) -> None:
        """Forget an assembled range; its pages are given back apart."""
        self._mappings -= len(made.parts)
        self.assembled -= 1
        self._close(made)

    def drop_unused(self) -> bool:
        """Drop arenas of which nothing is taken; whether there were any."""
        unused = [arena for arena in self.arenas.values() if not self._taken[arena.id]]
        for arena in unused:
            begin = place(arena.id, 0)
            (self._huge if arena.huge else self._small).drop(begin, begin + arena.size)
            self.reserved -= arena.size - self._holes.pop(arena.id, 0)
            del self.arenas[arena.id], self._taken[arena.id]
            self._close(arena)
        return bool(unused)

    def close(self) -> None:
        """Drop every arena, used or not."""
        for arena in self.arenas.values():
            self._close(arena)
        self.arenas.clear()
        self._small, self._huge = FreeList(), FreeList()
        self._taken.clear()
        self._holes.clear()
        self.reserved = 0

    def _grow(self, length: int) -> None:
        """Add an arena of small pages that holds `length`, or what the limit still allows."""
        size = min(round_up(max(length, self._arena_bytes), PAGE), self._room())
        if size > 0:
            self._add(Arena.create(size), self._small)

    def _add(self, arena: Arena, free: FreeList) -> None:
        self._announce(arena)
        self.arenas[arena.id] = arena
        self._taken[arena.id] = 0
        self.reserved += arena.size
        free.put(place(arena.id, 0), arena.size, None)

    def _announce(self, arena: Arena) -> None:
        if self._opened is not None:
            try:
                self._opened(arena)
            except BaseException:
                arena.close()
                raise

    def _close(self, arena: Arena) -> None:
        arena.close()
        if self._closed is not None:
            self._closed(arena.id)
