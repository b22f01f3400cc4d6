"""Shared memory arenas: where values lie so that daemon, executors and transports see one copy.

An arena is one anonymous file (memfd), sealed against growing and shrinking so that no holder of
its descriptor can make another one crash with SIGBUS. Whoever maps an arena sees all of it: give a
client of another session arenas of a pool of its own.

An *assembled* arena has no file of its own: it shows pages of others as one contiguous range, in
every process that maps it. That is how a pool serves a large request out of scattered free pages.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import weakref
from collections.abc import Mapping, Sequence

from genie_runtime.ports import Region
from genie_schemas.errors import GenieError

__all__ = ["ALIGNMENT", "HUGE_PAGE", "PAGE", "Arena", "round_up"]

ALIGNMENT = 64
"""Kernels give other bits for operands that are not aligned to a cache line."""

HUGE_PAGE = 2 << 20
PAGE = mmap.PAGESIZE

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_ZEROS = bytes(1 << 20)
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_PUNCH_HOLE = 3
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE."""
_MAP_FAILED = ctypes.c_void_p(-1).value
_ids = itertools.count(1)

Part = tuple[int, int, int]
"""Bytes of another arena: its id, an offset and a length, whole pages."""


def round_up(value: int, unit: int) -> int:
    """The next multiple of `unit` from `value` on."""
    return (value + unit - 1) // unit * unit


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    size, offset, place = ctypes.c_size_t, ctypes.c_long, ctypes.c_void_p
    libc.mmap.argtypes = (place, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, offset)
    libc.mmap.restype = place
    libc.munmap.argtypes = (place, size)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, offset, offset)
    return libc


class Arena:
    """One mapped area. `huge` says whether it has 2 MiB pages, `parts` what it is assembled of."""

    def __init__(
        self,
        arena_id: int,
        fd: int,
        size: int,
        area: mmap.mmap | memoryview,
        huge: bool,
        parts: Sequence[Part] = (),
    ) -> None:
        self.id = arena_id
        self.fd = fd
        self.size = size
        self.huge = huge
        self.parts = tuple(parts)
        self._area = area
        self._bytes = memoryview(area)
        self._open = True

    @classmethod
    def create(cls, size: int, *, huge: bool = False) -> Arena:
        """Make an arena of `size` bytes, rounded up to pages, zeroed; memory comes when touched.

        `huge` asks for 2 MiB pages and nothing else; they are reserved at once.

        Raises GenieError GEN0470 when the machine does not give that much.
        """
        if size <= 0:
            raise ValueError(f"an arena of {size} bytes")
        size = round_up(size, HUGE_PAGE if huge else PAGE)
        flags = os.MFD_HUGETLB | os.MFD_HUGE_2MB if huge else 0
        try:
            fd = os.memfd_create("genie-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
            try:
                os.ftruncate(fd, size)
                area = mmap.mmap(fd, size)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise _unavailable(size, huge, error.errno or errno.ENOMEM) from None
        return cls(next(_ids), fd, size, area, huge)

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
            # Files of 2 MiB pages say so by their block size.
            huge = os.fstat(fd).st_blksize == HUGE_PAGE
            return cls(arena_id, fd, size, mmap.mmap(fd, size), huge)
        except OSError as error:
            os.close(fd)
            raise _refused(error.strerror or "it cannot be mapped") from None
        except GenieError:
            os.close(fd)
            raise

    @classmethod
    def assemble(
        cls, parts: Sequence[Part], arenas: Mapping[int, Arena], arena_id: int | None = None
    ) -> Arena:
        """Map pages of `arenas` one after the other. They must stay mapped as long as this one.

        Parts of arenas with 2 MiB pages come first, so that they lie on such boundaries.

        Raises GenieError: GEN0471 when a part is no whole pages of an arena that is there,
        GEN0470 when the system maps no more.
        """
        size = _check_parts(parts, arenas)
        libc = _libc()
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        room = size + HUGE_PAGE
        start = libc.mmap(None, room, 0, flags, -1, 0)
        if start == _MAP_FAILED:
            raise _unavailable(size, False, ctypes.get_errno())
        at = base = round_up(start, HUGE_PAGE)
        for arena_id_of, offset, length in parts:
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            fd = arenas[arena_id_of].fd
            if libc.mmap(at, length, protection, mmap.MAP_SHARED | _MAP_FIXED, fd, offset) != at:
                problem = ctypes.get_errno()
                libc.munmap(start, room)
                raise _unavailable(size, False, problem)
            at += length
        area = (ctypes.c_ubyte * size).from_address(base)
        # The mapping goes with the last view of it, and not before.
        weakref.finalize(area, libc.munmap, start, room).atexit = False
        made = next(_ids) if arena_id is None else arena_id
        return cls(made, -1, size, memoryview(area).cast("B"), False, parts)

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

    def punch(self, offset: int, length: int) -> None:
        """Give the pages of a range back to the system; nobody may touch the range any more.

        Raises GenieError GEN0470 when the system refuses.
        """
        if _libc().fallocate(self.fd, _PUNCH_HOLE, offset, length) != 0:
            raise _unavailable(length, self.huge, ctypes.get_errno())

    def close(self) -> None:
        """Give the descriptor back; the mapping goes with the last view of it. Idempotent."""
        if not self._open:
            return
        self._open = False
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        with contextlib.suppress(BufferError):  # views are out: they keep the mapping
            self._bytes.release()
            if isinstance(self._area, mmap.mmap):
                self._area.close()
            else:
                self._area.release()


def _check_parts(parts: Sequence[Part], arenas: Mapping[int, Arena]) -> int:
    """Bytes of all parts together."""
    size, small = 0, False
    for arena_id, offset, length in parts:
        arena = arenas.get(arena_id)
        if arena is None or arena.parts:
            raise _refused(f"it has a part of arena {arena_id}, which is not there")
        unit = HUGE_PAGE if arena.huge else PAGE
        if arena.huge and small:
            raise _refused("2 MiB pages stand behind smaller ones")
        small = small or not arena.huge
        inside = offset >= 0 and length > 0 and offset + length <= arena.size
        if not inside or offset % unit or length % unit:
            raise _refused(f"bytes {offset} to {offset + length} are no pages of arena {arena_id}")
        size += length
    if not size:
        raise _refused("it has no parts")
    return size


def _unavailable(size: int, huge: bool, number: int) -> GenieError:
    pages = " in 2 MiB pages" if huge else ""
    return GenieError(
        "GEN0470",
        f"no shared memory area of {size} bytes{pages} could be made",
        cause=os.strerror(number),
        remedy="lower the runtime's memory limit, or free memory on this machine",
    )


def _refused(cause: str) -> GenieError:
    return GenieError(
        "GEN0471",
        "a shared memory area was refused",
        cause=cause,
        remedy="make it with Arena.create, which seals it",
    )
