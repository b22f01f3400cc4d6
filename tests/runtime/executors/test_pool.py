"""The pool of regions: no overlap, no lost byte, whole whatever was freed, waiting in turn."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_runtime.arena import ALIGNMENT, PAGE, Arena
from genie_runtime.freelist import MIXED, FreeList, place
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import Region
from genie_runtime.slabs import SMALL, Slabs, slab_bytes, slot_size
from genie_schemas.errors import GenieError
from tests.runtime.executors.regions import KIB, MIB, holds, mark

sizes = st.one_of(st.integers(0, 9_000), st.integers(0, 200_000))

actions = st.lists(st.tuples(st.booleans(), sizes, st.integers(0, 10_000)), max_size=60)


@settings(deadline=None, max_examples=150)
@given(actions)
def test_regions_never_overlap_and_the_books_balance(steps: list[tuple[bool, int, int]]) -> None:
    pool = ArenaPool(512 * KIB, arena_bytes=128 * KIB, huge=False)
    live: list[tuple[Region, int]] = []
    for number, (give_back, nbytes, pick) in enumerate(steps):
        if give_back and live:
            region, seed = live.pop(pick % len(live))
            assert holds(pool, region, seed)
            pool.free(region)
        else:
            try:
                region = pool.allocate(nbytes)
            except GenieError as error:
                assert error.code == "GEN0472"
                continue
            live.append((region, number))
            mark(pool, region, number)
        assert all(region.offset % ALIGNMENT == 0 for region, _ in live)
        stats = pool.stats()
        assert stats.used == sum(region.length for region, _ in live) <= stats.peak
        assert stats.used <= stats.reserved <= stats.limit
        assert stats.regions == len(live)
        assert 0 <= stats.fragmentation <= 1
    # What each region holds is the proof that none overlaps another, assembled ones included.
    assert all(holds(pool, region, seed) for region, seed in live)
    for region, _ in live:
        pool.free(region)
    stats = pool.stats()
    assert (stats.used, stats.assembled) == (0, 0)
    pool.trim()
    assert (pool.stats().arenas, pool.stats().reserved) == (0, 0)
    assert pool.stats().fragmentation == 0.0


def test_scattered_pages_serve_one_large_request() -> None:
    opened: list[Arena] = []
    closed: list[int] = []
    pool = ArenaPool(
        MIB, arena_bytes=256 * KIB, huge=False, opened=opened.append, closed=closed.append
    )
    chunks = [pool.allocate(16 * KIB) for _ in range(64)]
    kept = chunks[::2]
    for number, region in enumerate(kept):
        mark(pool, region, number)
    for region in chunks[1::2]:
        pool.free(region)
    large = pool.allocate(512 * KIB - 100)
    mark(pool, large, 99)
    assert pool.stats().assembled == 1
    assert opened[-1].id == large.arena
    assert len(opened[-1].parts) == 32
    assert holds(pool, large, 99)
    assert all(holds(pool, region, number) for number, region in enumerate(kept))
    # Through the arenas themselves: these are the same bytes, not a copy.
    arena, offset, length = opened[-1].parts[0]
    source = next(a for a in opened if a.id == arena)
    assert source.view(Region(arena, offset, length)) == pool.view(large)[:length]
    pool.free(large)
    assert closed == [large.arena]
    assert all(holds(pool, region, number) for number, region in enumerate(kept))
    with pytest.raises(GenieError, match="GEN0472"):
        pool.allocate(512 * KIB + 1)
    pool.close()


def test_views_of_an_assembled_region_keep_its_bytes() -> None:
    pool = ArenaPool(256 * KIB, arena_bytes=256 * KIB, huge=False)
    chunks = [pool.allocate(32 * KIB) for _ in range(8)]
    for region in chunks[::2]:
        pool.free(region)
    large = pool.allocate(128 * KIB)
    assert pool.stats().assembled == 1
    view = pool.view(large)
    pool.free(large)
    pool.close()
    view[-1:] = b"x"
    assert view[-1] == ord("x")


def test_no_request_fails_while_the_bytes_are_there() -> None:
    pool = ArenaPool(32 * MIB, arena_bytes=4 * MIB, huge=False)
    rng = random.Random(5)
    live: list[Region] = []
    used = 0
    for _ in range(6000):
        nbytes = int(2 ** rng.uniform(6, 21))
        while live and used + nbytes > 0.85 * pool.limit_bytes:
            region = live.pop(rng.randrange(len(live)))
            used -= region.length
            pool.free(region)
        live.append(pool.allocate(nbytes))
        used += nbytes
    stats = pool.stats()
    assert stats.refused == 0
    assert stats.fragmentation < 0.2
    # The figure is no claim but what the pool then gives.
    pool.free(pool.allocate(stats.largest_free))
    pool.close()


@given(st.lists(st.integers(1, 64), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_freed_blocks_join_into_one(lengths: list[int], shuffled: random.Random) -> None:
    blocks = FreeList()
    blocks.put(place(7, 0), sum(lengths) * 64, None)
    taken = [blocks.take(n * 64) for n in lengths]
    assert blocks.take(64) is None
    shuffled.shuffle(taken)
    for piece in taken:
        assert piece is not None
        blocks.put(piece[0], piece[1], "a")
    assert blocks.largest == blocks.free_bytes == sum(lengths) * 64
    assert len(blocks) == 1
    # Blocks of two arenas do not join, though the numbers of their places do.
    blocks.put(place(8, 0), 64, "a")
    assert len(blocks) == 2


def test_too_many_pieces_are_not_taken() -> None:
    blocks = FreeList()
    for number in range(8):
        blocks.put(place(number, 0), PAGE, "a")
    assert blocks.gather(4 * PAGE, 3) is None
    assert (blocks.free_bytes, len(blocks)) == (8 * PAGE, 8)
    pieces = blocks.gather(4 * PAGE, 4)
    assert pieces is not None
    assert len(pieces) == 4
    assert blocks.gather(5 * PAGE, 99) is None


@given(st.integers(0, SMALL))
def test_size_classes_lose_little(nbytes: int) -> None:
    size = slot_size(nbytes)
    assert nbytes <= size
    assert size % ALIGNMENT == 0
    assert size - nbytes <= max(ALIGNMENT, size / 8)
    assert slab_bytes(size) // size >= 8


def test_slabs_remember_whose_bytes_a_slot_holds() -> None:
    slabs = Slabs()
    first, base = slabs.add((place(1, 0), slab_bytes(512), None), 512)
    assert first[2] is None
    assert slabs.put(base, (first[0], 512, "a")) is None  # the only one with room is kept
    taken = slabs.take(512)
    assert taken is not None
    assert taken[0][2] == "a"
    second = slabs.take(512)
    assert second is not None
    slabs.put(base, (first[0], 512, "a"))
    slabs.put(base, (second[0][0], 512, "b"))
    assert slabs.drop_empty() == [(place(1, 0), slab_bytes(512), MIXED)]
    assert slabs.take(512) is None


@pytest.mark.parametrize("nbytes", [64, 4096, 20_000, 3 * MIB + 192])
def test_bytes_of_another_owner_are_gone_and_ones_own_are_kept(nbytes: int) -> None:
    # The limit leaves no other bytes than those that were used before.
    pool = ArenaPool(max(64 * KIB, 4 * MIB if nbytes > MIB else 0), huge=False)
    region = pool.allocate(nbytes, owner="a")
    pool.view(region)[:] = b"\x5a" * nbytes
    pool.free(region)
    again = pool.allocate(nbytes, owner="a")
    assert bytes(pool.view(again)) == b"\x5a" * nbytes
    pool.free(again)
    other = pool.allocate(nbytes, owner="b")
    assert bytes(pool.view(other)) == bytes(nbytes)
    pool.view(other)[:] = b"\x5b" * nbytes
    pool.free(other)
    for size in (nbytes, 64, 30_000):  # whole, cut, or joined: nothing of b or a is left
        region = pool.allocate(size, owner="c")
        assert bytes(pool.view(region)) == bytes(size)
        pool.free(region)
    pool.close()


def test_an_assembled_region_shows_no_bytes_of_others() -> None:
    pool = ArenaPool(256 * KIB, arena_bytes=256 * KIB, huge=False)
    chunks = [pool.allocate(16 * KIB, owner=f"s{n % 3}") for n in range(16)]
    for region in chunks:
        pool.view(region)[:] = b"\xa5" * region.length
    for region in chunks[::2]:
        pool.free(region)
    large = pool.allocate(128 * KIB, owner="new")
    assert pool.stats().assembled == 1
    assert bytes(pool.view(large)) == bytes(128 * KIB)
    pool.close()
