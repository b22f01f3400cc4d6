"""Shared memory arenas: where values lie so that daemon, executors and transports see one copy.

An arena is one anonymous file (memfd), sealed against growing and shrinking so that no holder of
its descriptor can make another one crash with SIGBUS. `ArenaPool` hands out 64-byte aligned
regions of as many arenas as its limit allows. Whoever maps an arena sees all of it: give a client
of another session arenas of a pool of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from genie_runtime.ports import Region
from genie_schemas.errors import GenieError, InternalError

__all__ = ["ALIGNMENT", "Arena", "ArenaPool", "ArenaStats", "FreeList"]

ALIGNMENT = 64
"""Kernels give other bits for operands that are not aligned to a cache line."""

HUGE_PAGE = 2 << 20
HUGE_FROM = 16 << 20
"""Smaller arenas gain too little from 2 MiB pages to take them from others."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_ZEROS = bytes(1 << 20)
_ids = itertools.count(1)


def _round_up(value: int, unit: int) -> int:
    return (value + unit - 1) // unit * unit


class Arena:
    """One mapped memfd. `huge` says whether it got 2 MiB pages."""

    def __init__(self, arena_id: int, fd: int, size: int, area: mmap.mmap, huge: bool) -> None:
        self.id = arena_id
        self.fd = fd
        self.size = size
        self.huge = huge
        self._area = area
        self._bytes = memoryview(area)

    @classmethod
    def create(cls, size: int) -> Arena:
        """Make an arena of `size` bytes, rounded up to pages, zeroed; memory comes when touched.

        A large one of whole 2 MiB gets huge pages where the machine has them free.

        Raises GenieError GEN0470 when the machine does not give that much address space.
        """
        if size <= 0:
            raise ValueError(f"an arena of {size} bytes")
        try:
            if size >= HUGE_FROM and size % HUGE_PAGE == 0:
                with contextlib.suppress(OSError):  # too few are free: nothing else failed
                    return cls._create(size, os.MFD_HUGETLB | os.MFD_HUGE_2MB)
            return cls._create(_round_up(size, mmap.PAGESIZE), 0)
        except OSError as error:
            raise GenieError(
                "GEN0470",
                f"no shared memory area of {size} bytes could be made",
                cause=error.strerror,
                remedy="lower the runtime's memory limit, or free memory on this machine",
            ) from None

    @classmethod
    def _create(cls, size: int, flags: int) -> Arena:
        fd = os.memfd_create("genie-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
        try:
            os.ftruncate(fd, size)
            area = mmap.mmap(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        return cls(next(_ids), fd, size, area, bool(flags))

    @classmethod
    def attach(cls, fd: int, size: int, arena_id: int) -> Arena:
        """Map an arena that another process made. The arena owns `fd` from here on.

        Raises GenieError GEN0471 when the area is shorter than `size` or not sealed, and closes
        `fd`: whoever sent it could cut it off under our reads.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            found = os.fstat(fd).st_size
            if seals & _SEALS != _SEALS:
                raise _refused("it is not sealed against growing and shrinking")
            if size <= 0 or found < size:
                raise _refused(f"it holds {found} bytes, not the declared {size}")
            return cls(arena_id, fd, size, mmap.mmap(fd, size), False)
        except OSError as error:
            os.close(fd)
            raise _refused(error.strerror or "it cannot be mapped") from None
        except GenieError:
            os.close(fd)
            raise

    def view(self, region: Region) -> memoryview:
        """The region's bytes, writable. Raises GenieError GEN0466 when it lies outside."""
        end = region.offset + region.length
        if region.arena != self.id or region.offset < 0 or region.length < 0 or end > self.size:
            raise GenieError("GEN0466", f"{region} does not lie in arena {self.id}")
        return self._bytes[region.offset : end]

    def zero(self, offset: int, length: int) -> None:
        """Overwrite a range with zeros."""
        for start in range(offset, offset + length, len(_ZEROS)):
            stop = min(start + len(_ZEROS), offset + length)
            self._bytes[start:stop] = _ZEROS[: stop - start]

    def close(self) -> None:
        """Give the descriptor back; the mapping goes with the last view of it. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
            with contextlib.suppress(BufferError):  # views are out: they keep the mapping
                self._bytes.release()
                self._area.close()


def _refused(cause: str) -> GenieError:
    return GenieError(
        "GEN0471",
        "a shared memory area was refused",
        cause=cause,
        remedy="make it with Arena.create, which seals it",
    )


class FreeList:
    """The free blocks of one arena: best fit, neighbours joined. Offsets and sizes in bytes.

    Each block remembers whose bytes it last held: an owner, None when it is zero all over, or
    `MIXED` after two owners' blocks were joined.
    """

    MIXED = "\0mixed"

    def __init__(self, size: int) -> None:
        self._blocks: dict[int, tuple[int, str | None]] = {}
        self._ends: dict[int, int] = {}
        self._by_size: list[tuple[int, int]] = []
        self.free_bytes = 0
        self._insert(0, size, None)

    @property
    def largest(self) -> int:
        """Bytes of the largest block."""
        return self._by_size[-1][0] if self._by_size else 0

    def take(self, length: int) -> tuple[int, str | None] | None:
        """Cut `length` bytes off the smallest block that holds them: (offset, whose bytes)."""
        at = bisect_left(self._by_size, (length, -1))
        if at == len(self._by_size):
            return None
        size, offset = self._by_size[at]
        owner = self._remove(offset)
        if size > length:
            self._insert(offset + length, size - length, owner)
        return offset, owner

    def put(self, offset: int, length: int, owner: str | None) -> None:
        """Give a block back, joined with the free blocks before and after it."""
        before = self._ends.get(offset)
        if before is not None:
            size, other = self._blocks[before]
            self._remove(before)
            offset, length, owner = before, length + size, self._join(owner, other)
        after = offset + length
        if after in self._blocks:
            size, other = self._blocks[after]
            self._remove(after)
            length, owner = length + size, self._join(owner, other)
        self._insert(offset, length, owner)

    def _join(self, a: str | None, b: str | None) -> str | None:
        return a if b is None or a == b else b if a is None else self.MIXED

    def _insert(self, offset: int, size: int, owner: str | None) -> None:
        self._blocks[offset] = (size, owner)
        self._ends[offset + size] = offset
        insort(self._by_size, (size, offset))
        self.free_bytes += size

    def _remove(self, offset: int) -> str | None:
        size, owner = self._blocks.pop(offset)
        del self._ends[offset + size]
        del self._by_size[bisect_left(self._by_size, (size, offset))]
        self.free_bytes -= size
        return owner


@dataclass(frozen=True)
class ArenaStats:
    """Bytes of a pool.

    `fragmentation` is the share of the free bytes that do not lie in their arena's largest free
    block: 0 when every arena's free bytes are in one piece, or when nothing is free.
    """

    limit: int
    reserved: int
    used: int
    peak: int
    largest_free: int
    fragmentation: float
    arenas: int
    regions: int


@dataclass
class _Slab:
    arena: Arena
    free: FreeList


class ArenaPool:
    """Regions out of arenas that are made as needed, `limit_bytes` together. Thread-safe.

    `opened` is called with each new arena before anyone gets a region of it, and `closed` with the
    id of each that was dropped, so that executors map and unmap them. Both are called with the
    pool's lock held: they must not call the pool.
    """

    def __init__(
        self,
        limit_bytes: int,
        *,
        arena_bytes: int = 64 << 20,
        opened: Callable[[Arena], None] | None = None,
        closed: Callable[[int], None] | None = None,
    ) -> None:
        self.limit_bytes = _round_up(limit_bytes, mmap.PAGESIZE)
        self._arena_bytes = arena_bytes
        self._opened = opened
        self._closed = closed
        self._slabs: dict[int, _Slab] = {}
        self._regions: dict[tuple[int, int], tuple[Region, int, str]] = {}
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._used = 0
        self._peak = 0

    def allocate(self, nbytes: int, *, owner: str = "", timeout: float = 0.0) -> Region:
        """A region of `nbytes` that no other region overlaps.

        Bytes that another `owner` (a session) left behind are zeroed first; an owner's own
        leftovers are not. When the pool is full, wait up to `timeout` seconds for `free`, first
        come, first served.

        Raises GenieError: GEN0470 when the pool can never hold it, GEN0472 when nothing came free.
        """
        if nbytes < 0:
            raise ValueError(f"a region of {nbytes} bytes")
        length = max(_round_up(nbytes, ALIGNMENT), ALIGNMENT)
        if length > self.limit_bytes:
            raise GenieError(
                "GEN0470",
                f"{nbytes} bytes are more than the pool's limit of {self.limit_bytes}",
                remedy="raise the runtime's shared memory limit",
            )
        deadline = time.monotonic() + timeout
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while True:
                    first = self._waiting[0] is ticket
                    region = self._try(nbytes, length, owner) if first else None
                    if region is not None:
                        break
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise self._full(nbytes, timeout)
                    self._changed.wait(left)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        return region

    def _full(self, nbytes: int, timeout: float) -> GenieError:
        return GenieError(
            "GEN0472",
            f"no {nbytes} bytes of shared memory came free within {timeout:g} s",
            cause=f"{self._used} of {self.limit_bytes} bytes are in use",
            remedy="try again later, or raise the runtime's shared memory limit",
        )

    def _try(self, nbytes: int, length: int, owner: str) -> Region | None:
        found = self._best(length) or self._grow(length)
        if found is None:
            return None
        taken = found.free.take(length)
        if taken is None:
            raise InternalError(f"the block of {length} bytes is gone")
        offset, last = taken
        if last is not None and last != owner:
            found.arena.zero(offset, length)
        region = Region(found.arena.id, offset, nbytes)
        self._regions[region.arena, offset] = (region, length, owner)
        self._used += length
        self._peak = max(self._peak, self._used)
        return region

    def _grow(self, length: int) -> _Slab | None:
        room = self.limit_bytes - self._reserved()
        if room < length:
            # Empty arenas too small for this request make room for one that is not.
            self._drop_empty()
            room = self.limit_bytes - self._reserved()
        if room < length:
            return None
        size = max(length, self._arena_bytes)
        size = _round_up(size, HUGE_PAGE if size >= HUGE_FROM else mmap.PAGESIZE)
        arena = Arena.create(min(size, room))
        if self._opened is not None:
            try:
                self._opened(arena)
            except BaseException:
                arena.close()
                raise
        slab = self._slabs[arena.id] = _Slab(arena, FreeList(arena.size))
        return slab

    def _best(self, length: int) -> _Slab | None:
        fits = [s for s in self._slabs.values() if s.free.largest >= length]
        return min(fits, key=lambda s: s.free.largest, default=None)

    def _reserved(self) -> int:
        return sum(slab.arena.size for slab in self._slabs.values())

    def _drop_empty(self) -> None:
        for arena_id, slab in list(self._slabs.items()):
            if slab.free.free_bytes == slab.arena.size:
                self._drop(arena_id)

    def _drop(self, arena_id: int) -> None:
        self._slabs.pop(arena_id).arena.close()
        if self._closed is not None:
            self._closed(arena_id)

    def free(self, region: Region) -> None:
        """Give a region back. Raises InternalError for one that is not out (or freed twice)."""
        with self._changed:
            entry = self._regions.pop((region.arena, region.offset), None)
            if entry is None or entry[0] != region:
                if entry is not None:
                    self._regions[region.arena, region.offset] = entry
                raise InternalError(f"{region} is not allocated")
            _, length, owner = entry
            self._slabs[region.arena].free.put(region.offset, length, owner)
            self._used -= length
            self._changed.notify_all()

    def view(self, region: Region) -> memoryview:
        """The bytes of an allocated region, writable."""
        with self._changed:
            if (region.arena, region.offset) not in self._regions:
                raise InternalError(f"{region} is not allocated")
            return self._slabs[region.arena].arena.view(region)

    def arenas(self) -> tuple[Arena, ...]:
        """The arenas there are now."""
        with self._changed:
            return tuple(slab.arena for slab in self._slabs.values())

    def trim(self) -> None:
        """Give the memory of arenas without regions back to the system."""
        with self._changed:
            self._drop_empty()

    def stats(self) -> ArenaStats:
        """What is reserved, used and free."""
        with self._changed:
            free = sum(s.free.free_bytes for s in self._slabs.values())
            largest = [s.free.largest for s in self._slabs.values()]
            return ArenaStats(
                limit=self.limit_bytes,
                reserved=self._reserved(),
                used=self._used,
                peak=self._peak,
                largest_free=max(largest, default=0),
                fragmentation=1 - sum(largest) / free if free else 0.0,
                arenas=len(self._slabs),
                regions=len(self._regions),
            )

    def close(self) -> None:
        """Drop every arena, also those with regions: their views stay valid, their ids do not."""
        with self._changed:
            for arena_id in list(self._slabs):
                self._drop(arena_id)
            self._regions.clear()
            self._used = 0
