"""Arenas and their pool: no overlap, alignment, joining, accounting, sealing, zeroing."""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_runtime.arena import ALIGNMENT, Arena, ArenaPool, FreeList
from genie_runtime.ports import Region
from genie_schemas.errors import GenieError, InternalError

KIB = 1 << 10
MIB = 1 << 20

sizes = st.integers(0, 40_000)
actions = st.lists(st.tuples(st.booleans(), sizes, st.integers(0, 10_000)), max_size=60)


@settings(deadline=None)
@given(actions)
def test_regions_never_overlap_and_the_books_balance(steps: list[tuple[bool, int, int]]) -> None:
    pool = ArenaPool(256 * KIB, arena_bytes=64 * KIB)
    live: list[Region] = []
    for give_back, nbytes, pick in steps:
        if give_back and live:
            pool.free(live.pop(pick % len(live)))
        else:
            try:
                live.append(pool.allocate(nbytes))
            except GenieError as error:
                assert error.code == "GEN0472"
        spans = sorted((r.arena, r.offset, r.length) for r in live)
        for (a, start, length), (b, after, _) in itertools.pairwise(spans):
            assert a != b or start + length <= after
        assert all(r.offset % ALIGNMENT == 0 for r in live)
        stats = pool.stats()
        expected = sum(max(-(-r.length // 64) * 64, 64) for r in live)
        assert stats.used == expected <= stats.peak <= stats.limit
        assert stats.reserved <= stats.limit
        assert stats.regions == len(live)
        assert 0 <= stats.fragmentation < 1
    for region in live:
        pool.free(region)
    stats = pool.stats()
    assert (stats.used, stats.fragmentation) == (0, 0.0)
    pool.trim()
    assert pool.stats().arenas == 0


@given(st.lists(st.integers(1, 64), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_freed_blocks_join_into_one(lengths: list[int], random: object) -> None:
    blocks = FreeList(sum(lengths) * 64)
    taken = []
    for n in lengths:
        got = blocks.take(n * 64)
        assert got is not None
        taken.append((got[0], n * 64))
    assert blocks.take(64) is None
    random.shuffle(taken)  # type: ignore[attr-defined]
    for offset, length in taken:
        blocks.put(offset, length, "a")
    assert blocks.largest == blocks.free_bytes == sum(lengths) * 64


def test_bytes_of_another_owner_are_gone_and_ones_own_are_kept() -> None:
    pool = ArenaPool(MIB, arena_bytes=64 * KIB)
    region = pool.allocate(4096, owner="a")
    pool.view(region)[:] = b"\x5a" * 4096
    pool.free(region)
    again = pool.allocate(4096, owner="a")
    assert bytes(pool.view(again)) == b"\x5a" * 4096
    pool.free(again)
    # A smaller cut, and a cut joined out of two owners' blocks, are zeroed all the same.
    first = pool.allocate(64, owner="b")
    assert bytes(pool.view(first)) == bytes(64)
    pool.view(first)[:] = b"\x5b" * 64
    pool.free(first)
    both = pool.allocate(8192, owner="a")
    assert bytes(pool.view(both)) == bytes(8192)
    pool.close()


def test_zeroing_covers_more_than_one_chunk() -> None:
    pool = ArenaPool(8 * MIB, arena_bytes=4 * MIB)
    size = 3 * MIB + 192
    region = pool.allocate(size, owner="a")
    pool.view(region)[:] = b"\xff" * size
    pool.free(region)
    region = pool.allocate(size, owner="b")
    assert bytes(pool.view(region)) == bytes(size)
    pool.close()


def test_a_full_pool_waits_for_the_first_to_free() -> None:
    pool = ArenaPool(64 * KIB, arena_bytes=64 * KIB)
    held = pool.allocate(64 * KIB)
    with pytest.raises(GenieError) as caught:
        pool.allocate(1, timeout=0.05)
    assert caught.value.code == "GEN0472"
    assert "65536 of 65536 bytes" in str(caught.value)
    got: list[Region] = []
    thread = threading.Thread(target=lambda: got.append(pool.allocate(32 * KIB, timeout=20)))
    thread.start()
    time.sleep(0.05)
    pool.free(held)
    thread.join(20)
    assert len(got) == 1
    assert got[0].length == 32 * KIB


def test_more_than_the_limit_is_refused_at_once() -> None:
    with pytest.raises(GenieError) as caught:
        ArenaPool(64 * KIB).allocate(65 * KIB, timeout=60)
    assert caught.value.code == "GEN0470"
    with pytest.raises(ValueError, match="-1 bytes"):
        ArenaPool(64 * KIB).allocate(-1)


def test_empty_arenas_make_room_for_a_larger_one_and_are_announced() -> None:
    opened: list[int] = []
    closed: list[int] = []
    pool = ArenaPool(
        128 * KIB, arena_bytes=64 * KIB, opened=lambda a: opened.append(a.id), closed=closed.append
    )
    small = [pool.allocate(64 * KIB), pool.allocate(64 * KIB)]
    for region in small:
        pool.free(region)
    large = pool.allocate(128 * KIB)
    assert closed == opened[:2]
    assert opened[2:] == [large.arena]
    assert [arena.id for arena in pool.arenas()] == [large.arena]
    pool.close()
    assert closed == opened


def test_an_arena_that_cannot_be_announced_is_not_used() -> None:
    def refuse(arena: Arena) -> None:
        raise ConnectionError(arena.id)

    pool = ArenaPool(64 * KIB, opened=refuse)
    with pytest.raises(ConnectionError):
        pool.allocate(64)
    assert pool.stats().arenas == 0


def test_freeing_twice_or_what_is_not_out_is_a_bug() -> None:
    pool = ArenaPool(64 * KIB)
    region = pool.allocate(100)
    with pytest.raises(InternalError, match="not allocated"):
        pool.free(Region(region.arena, region.offset, 99))
    pool.free(region)
    with pytest.raises(InternalError, match="not allocated"):
        pool.free(region)
    with pytest.raises(InternalError, match="not allocated"):
        pool.view(region)


def test_attached_bytes_are_shared() -> None:
    arena = Arena.create(100_000)
    other = Arena.attach(os.dup(arena.fd), arena.size, arena.id)
    arena.view(Region(arena.id, 64, 5))[:] = b"hello"
    assert bytes(other.view(Region(arena.id, 64, 5))) == b"hello"
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(arena.fd, 0)
    other.close()
    other.close()
    arena.close()


@pytest.mark.parametrize(
    ("offset", "length"), [(-64, 64), (0, -1), (0, 1 << 40), (4096, 1), (4032, 65)]
)
def test_a_view_outside_is_refused(offset: int, length: int) -> None:
    arena = Arena.create(4096)
    with pytest.raises(GenieError) as caught:
        arena.view(Region(arena.id, offset, length))
    assert caught.value.code == "GEN0466"
    arena.close()


def test_views_outlive_a_closed_arena() -> None:
    arena = Arena.create(4096)
    view = arena.view(Region(arena.id, 0, 4))
    arena.close()
    view[:] = b"gone"
    assert bytes(view) == b"gone"


@pytest.mark.parametrize("how", ["unsealed", "short", "no memfd", "zero"])
def test_unsafe_descriptors_are_refused_and_closed(how: str) -> None:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8192)
    size = 4096
    if how in ("short", "zero"):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 1 | 2 | 4)
        size = 16384 if how == "short" else 0
    elif how == "no memfd":
        os.close(fd)
        fd, writer = os.pipe()
        os.close(writer)
    with pytest.raises(GenieError) as caught:
        Arena.attach(fd, size, 7)
    assert caught.value.code == "GEN0471"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_large_arenas_fall_back_to_small_pages() -> None:
    arena = Arena.create(32 * MIB)
    view = arena.view(Region(arena.id, 32 * MIB - 1, 1))
    view[:] = b"x"
    assert arena.size == 32 * MIB
    arena.close()


def test_no_address_space_is_a_typed_error() -> None:
    with pytest.raises(GenieError) as caught:
        Arena.create(1 << 62)
    assert caught.value.code == "GEN0470"
    with pytest.raises(ValueError, match="0 bytes"):
        Arena.create(0)
