"""Regions of shared memory for a device's runs and constants, within one limit.

Free bytes stay usable whatever was freed in between: regions of up to 4 KiB are slots of a size
class in slabs of their own, and all others whole pages, which serve every request wherever they
lie (genie_runtime.pages). What cannot be had at once is waited for, first come, first served.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from genie_runtime.arena import PAGE, Arena, round_up
from genie_runtime.freelist import Piece, where
from genie_runtime.pages import Pages
from genie_runtime.ports import Region
from genie_runtime.slabs import SMALL, Slabs, slab_bytes, slot_size
from genie_schemas.errors import GenieError, InternalError

__all__ = ["ArenaPool", "PoolStats", "held_bytes"]

_TICK = 0.5


@dataclass(frozen=True)
class PoolStats:
    """A pool of now. Bytes unless said; totals count from the pool's beginning.

    `used` is what was asked for, `peak` its highest value; `reserved` is what the arenas hold,
    `huge` of it in 2 MiB pages. `largest_free` is the largest request that would be served now,
    and `fragmentation` the share of the bytes not in use (limit − used) that it leaves out: 0 when
    one request could have them all. `assembled` regions lie in scattered pages. `waits` requests
    had to wait, `waited_s` seconds together, and `refused` got nothing; `waiting` do so now.
    """

    limit: int
    reserved: int
    huge: int
    used: int
    peak: int
    largest_free: int
    fragmentation: float
    arenas: int
    regions: int
    assembled: int
    waiting: int
    waits: int
    waited_s: float
    refused: int


@dataclass(frozen=True)
class _Held:
    """An allocated region: its bytes, and where they go when it is freed."""

    region: Region
    pieces: tuple[Piece, ...]
    owner: str
    slab: int | None = None
    made: Arena | None = None


class ArenaPool:
    """Regions out of arenas that are made as needed, `limit_bytes` together. Thread-safe.

    `opened` is called with each new arena before anyone gets a region of it, and `closed` with the
    id of each that was dropped, so that executors map and unmap them. Both are called with the
    pool's lock held: they must not call the pool. `huge` lets it take 2 MiB pages.
    """

    def __init__(
        self,
        limit_bytes: int,
        *,
        arena_bytes: int = 64 << 20,
        huge: bool = True,
        opened: Callable[[Arena], None] | None = None,
        closed: Callable[[int], None] | None = None,
    ) -> None:
        self.limit_bytes = round_up(limit_bytes, PAGE)
        self._pages = Pages(self.limit_bytes, arena_bytes, huge, opened, closed)
        self._slabs = Slabs()
        self._regions: dict[tuple[int, int], _Held] = {}
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._used = self._peak = self._waits = self._refused = 0
        self._waited = 0.0

    # -- waiting --------------------------------------------------------------------------------

    def allocate(self, nbytes: int, *, owner: str = "", timeout: float = 0.0) -> Region:
        """A region of `nbytes` that no other region overlaps; see `allocate_all`."""
        return self.allocate_all([nbytes], owner=owner, timeout=timeout)[0]

    def allocate_all(
        self,
        sizes: Sequence[int],
        *,
        owner: str = "",
        timeout: float = 0.0,
        stop: Callable[[], GenieError | None] = lambda: None,
        ahead: bool = False,
    ) -> list[Region]:
        """Regions of these sizes in bytes, all or none: nobody holds some while waiting for more.

        Bytes that another `owner` (a session) left behind are zeroed first; an owner's own
        leftovers are not. When the pool is full, wait up to `timeout` seconds for `free`, first
        come, first served; `ahead` goes first, for whoever holds what the others wait for. `stop`
        is asked at least twice a second and ends the wait with the error that it returns.

        Raises GenieError: GEN0470 when the pool can never hold them, GEN0472 when not enough came
        free.
        """
        if any(nbytes < 0 for nbytes in sizes):
            raise ValueError(f"a region of {min(sizes)} bytes")
        if sum(map(held_bytes, sizes)) > self.limit_bytes:
            raise GenieError(
                "GEN0470",
                f"{sum(sizes)} bytes are more than the pool's limit of {self.limit_bytes}",
                remedy="raise the runtime's shared memory limit",
            )
        with self._changed:
            held = self._wait(sizes, owner, timeout, stop, ahead)
            foreign = [
                (self._pages.arenas[where(spot)[0]], where(spot)[1], length)
                for found in held
                for spot, length, last in found.pieces
                if last is not None and last != owner
            ]
        for arena, offset, length in foreign:
            # Without the lock: nobody else knows these bytes, and it may take milliseconds.
            arena.zero(offset, length)
        return [found.region for found in held]

    def _wait(
        self,
        sizes: Sequence[int],
        owner: str,
        timeout: float,
        stop: Callable[[], GenieError | None],
        ahead: bool,
    ) -> list[_Held]:
        """Take all of `sizes` as soon as it is this request's turn and they are there."""
        ticket = object()
        (self._waiting.appendleft if ahead else self._waiting.append)(ticket)
        begun, waited = time.monotonic(), False
        try:
            while True:
                held = self._take_all(sizes, owner) if self._waiting[0] is ticket else None
                if held is not None:
                    return held
                error = stop()
                left = begun + timeout - time.monotonic()
                if error is not None or left <= 0:
                    self._refused += 1
                    raise error or self._full(sum(sizes), timeout)
                self._waits += not waited
                waited = True
                self._changed.wait(min(left, _TICK))
        finally:
            self._waiting.remove(ticket)
            if waited:
                self._waited += time.monotonic() - begun
            if self._waiting:
                self._changed.notify_all()

    def _full(self, nbytes: int, timeout: float) -> GenieError:
        return GenieError(
            "GEN0472",
            f"no {nbytes} bytes of shared memory came free within {timeout:g} s",
            cause=f"{self._used} of {self.limit_bytes} bytes are in use",
            remedy="try again later, or raise the runtime's shared memory limit",
        )

    # -- taking and giving back -----------------------------------------------------------------

    def _take_all(self, sizes: Sequence[int], owner: str) -> list[_Held] | None:
        held: list[_Held] = []
        try:
            for nbytes in sizes:
                found = self._take(nbytes, owner)
                if found is None:
                    break
                held.append(found)
        finally:
            if len(held) < len(sizes):
                for found in held:
                    self._let_go(found, written=False)
        if len(held) < len(sizes):
            return None
        self._peak = max(self._peak, self._used)
        return held

    def _take(self, nbytes: int, owner: str) -> _Held | None:
        held = self._find(nbytes, owner)
        if held is None and self._make_way(nbytes):
            held = self._find(nbytes, owner)
        if held is not None:
            self._regions[held.region.arena, held.region.offset] = held
            self._used += nbytes
        return held

    def _find(self, nbytes: int, owner: str) -> _Held | None:
        return (self._find_slot if nbytes <= SMALL else self._find_pages)(nbytes, owner)

    def _find_pages(self, nbytes: int, owner: str) -> _Held | None:
        pieces = self._pages.take(round_up(max(nbytes, 1), PAGE))
        if pieces is None:
            return None
        if len(pieces) == 1:
            return _Held(Region(*where(pieces[0][0]), nbytes), (pieces[0],), owner)
        made = self._pages.assemble(pieces)
        if made is None:
            return None
        return _Held(Region(made.id, 0, nbytes), tuple(pieces), owner, made=made)

    def _find_slot(self, nbytes: int, owner: str) -> _Held | None:
        size = slot_size(nbytes)
        found = self._slabs.take(size)
        if found is None:
            block = self._pages.take_one(slab_bytes(size))
            if block is None:  # not even a slab in one piece: then a page of its own
                return self._find_pages(nbytes, owner)
            found = self._slabs.add(block, size)
        piece, slab = found
        return _Held(Region(*where(piece[0]), nbytes), (piece,), owner, slab)

    def free(self, region: Region) -> None:
        """Give a region back. Raises InternalError for one that is not out (or freed twice)."""
        with self._changed:
            held = self._regions.get((region.arena, region.offset))
            if held is None or held.region != region:
                raise InternalError(f"{region} is not allocated")
            self._let_go(held, written=True)
            self._changed.notify_all()

    def _let_go(self, held: _Held, *, written: bool) -> None:
        """Forget a region; its bytes are the owner's unless nobody has `written` any."""
        del self._regions[held.region.arena, held.region.offset]
        self._used -= held.region.length
        if held.made is not None:
            self._pages.unmake(held.made)
        for spot, length, last in held.pieces:
            piece = spot, length, held.owner if written else last
            back = piece if held.slab is None else self._slabs.put(held.slab, piece)
            if back is not None:
                self._pages.give(back)

    def _make_way(self, nbytes: int) -> bool:
        """Drop empty slabs, and unused arenas where others in their place could serve a request."""
        slabs = self._slabs.drop_empty()
        for slab in slabs:
            self._pages.give(slab)
        enough = self._pages.available >= nbytes
        return (enough and self._pages.drop_unused()) or bool(slabs)

    # -- looking --------------------------------------------------------------------------------

    def view(self, region: Region) -> memoryview:
        """The bytes of an allocated region, writable."""
        with self._changed:
            held = self._regions.get((region.arena, region.offset))
            if held is None:
                raise InternalError(f"{region} is not allocated")
            return (held.made or self._pages.arenas[region.arena]).view(region)

    def arenas(self) -> tuple[Arena, ...]:
        """The arenas there are now."""
        with self._changed:
            return tuple(self._pages.arenas.values())

    def trim(self) -> None:
        """Give the memory of arenas without regions back to the system."""
        with self._changed:
            self._make_way(0)

    def stats(self) -> PoolStats:
        """What is reserved, used and free, and what it cost to wait."""
        with self._changed:
            largest, unused = self._pages.largest(), self.limit_bytes - self._used
            return PoolStats(
                limit=self.limit_bytes,
                reserved=self._pages.reserved,
                huge=self._pages.huge_bytes,
                used=self._used,
                peak=self._peak,
                largest_free=largest,
                fragmentation=max(0.0, 1 - largest / unused) if unused else 0.0,
                arenas=len(self._pages.arenas),
                regions=len(self._regions),
                assembled=self._pages.assembled,
                waiting=len(self._waiting),
                waits=self._waits,
                waited_s=self._waited,
                refused=self._refused,
            )

    def close(self) -> None:
        """Drop every arena, also those with regions: their views stay valid, their ids do not."""
        with self._changed:
            for held in self._regions.values():
                if held.made is not None:
                    self._pages.unmake(held.made)
            self._regions.clear()
            self._used = 0
            self._slabs = Slabs()
            self._pages.close()


def held_bytes(nbytes: int) -> int:
    """The bytes that a region of `nbytes` takes of its pool."""
    return slot_size(nbytes) if nbytes <= SMALL else round_up(nbytes, PAGE)
