"""The pool of regions: no overlap, no lost byte, whole whatever was freed, waiting in turn."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_runtime.arena import ALIGNMENT, HUGE_PAGE, PAGE, Arena
from genie_runtime.freelist import MIXED, FreeList, place
from genie_runtime.pages import HUGE_FROM
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import Region
from genie_runtime.slabs import SMALL, Slabs, slab_bytes, slot_size
from genie_schemas.errors import GenieError, InternalError

KIB = 1 << 10
MIB = 1 << 20

sizes = st.one_of(st.integers(0, 9_000), st.integers(0, 200_000))
actions = st.lists(st.tuples(st.booleans(), sizes, st.integers(0, 10_000)), max_size=60)


def mark(pool: ArenaPool, region: Region, seed: int) -> None:
    """Fill a region with bytes that tell where they belong."""
    pool.view(region)[:] = random.Random(seed).randbytes(region.length)


def holds(pool: ArenaPool, region: Region, seed: int) -> bool:
    return bytes(pool.view(region)) == random.Random(seed).randbytes(region.length)


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


# -- 2 MiB pages ---------------------------------------------------------------------------------


@pytest.fixture
def huge_pool() -> Iterator[ArenaPool]:
    """A pool of 64 MiB that finds 2 MiB pages; the test is skipped where there are none."""
    try:
        Arena.create(32 * MIB, huge=True).close()
    except GenieError as error:
        pytest.skip(f"needs 16 free 2 MiB pages: {error.cause}")
    pool = ArenaPool(64 * MIB, arena_bytes=16 * MIB)
    yield pool
    pool.close()


def test_large_regions_get_huge_pages_and_lose_nothing(huge_pool: ArenaPool) -> None:
    whole = huge_pool.allocate(8 * MIB)
    assert huge_pool.stats().huge >= 8 * MIB
    ragged = huge_pool.allocate(HUGE_FROM + HUGE_PAGE // 2 + 100)
    mark(huge_pool, whole, 1)
    mark(huge_pool, ragged, 2)
    stats = huge_pool.stats()
    assert stats.assembled == 1  # its end lies in small pages
    assert stats.fragmentation < 0.01
    assert holds(huge_pool, whole, 1)
    assert holds(huge_pool, ragged, 2)
    huge_pool.free(whole)
    huge_pool.free(ragged)


def test_huge_pages_give_way_to_small_requests_when_nothing_else_is_left(
    huge_pool: ArenaPool,
) -> None:
    large = [huge_pool.allocate(8 * MIB) for _ in range(8)]
    for number, region in enumerate(large):
        mark(huge_pool, region, 100 + number)
    assert huge_pool.stats().huge == huge_pool.stats().reserved == huge_pool.limit_bytes
    huge_pool.free(large.pop(3))
    small = [huge_pool.allocate(nbytes) for nbytes in (100, 5000, MIB, 3 * MIB, 3 * MIB)]
    for number, region in enumerate(small):
        mark(huge_pool, region, number)
    stats = huge_pool.stats()
    assert stats.huge == huge_pool.limit_bytes - 8 * MIB
    assert stats.reserved == huge_pool.limit_bytes
    assert all(holds(huge_pool, region, number) for number, region in enumerate(small))
    kept = [0, 1, 2, 4, 5, 6, 7]
    assert all(holds(huge_pool, r, 100 + n) for r, n in zip(large, kept, strict=True))
    for region in (*small, *large):
        huge_pool.free(region)
    assert huge_pool.allocate(60 * MIB).length == 60 * MIB
    assert huge_pool.stats().reserved <= huge_pool.limit_bytes


def test_small_regions_go_on_when_no_slab_fits() -> None:
    pool = ArenaPool(64 * KIB, arena_bytes=64 * KIB)
    pages = [pool.allocate(5000 - 904) for _ in range(4)]
    assert pages  # slots of 4 KiB: a slab of eight
    blocks = [pool.allocate(2 * PAGE) for _ in range(4)]
    pool.free(blocks[1])
    pool.free(blocks[3])
    small = [pool.allocate(64) for _ in range(4)]
    for number, region in enumerate(small):
        mark(pool, region, number)
    assert all(holds(pool, region, number) for number, region in enumerate(small))
    with pytest.raises(GenieError, match="GEN0472"):
        pool.allocate_all([4096] * 5)
    pool.close()


# -- waiting -------------------------------------------------------------------------------------


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
    while not pool.stats().waiting:
        time.sleep(0.001)
    pool.free(held)
    thread.join(20)
    assert len(got) == 1
    assert got[0].length == 32 * KIB
    stats = pool.stats()
    assert (stats.waits, stats.refused, stats.waiting) == (2, 1, 0)
    assert stats.waited_s >= 0.05


def test_requests_are_served_in_turn_and_nobody_passes_a_waiting_one() -> None:
    pool = ArenaPool(64 * KIB, arena_bytes=64 * KIB)
    held = [pool.allocate(16 * KIB) for _ in range(4)]
    served: list[str] = []

    def want(name: str, nbytes: int, ahead: bool = False) -> None:
        region = pool.allocate_all([nbytes], timeout=20, ahead=ahead)[0]
        served.append(name)
        pool.free(region)

    threads = []
    for count, asked in enumerate([("large", 64 * KIB), ("small", 16), ("holder", 32 * KIB, True)]):
        threads.append(threading.Thread(target=want, args=asked))
        threads[-1].start()
        while pool.stats().waiting <= count:
            time.sleep(0.001)
    pool.free(held.pop())
    # A slot would fit, but the large one was first; without a wait there is no way around it.
    with pytest.raises(GenieError, match="GEN0472"):
        pool.allocate(16)
    assert served == []
    for region in held:
        pool.free(region)
    for thread in threads:
        thread.join(20)
    assert served == ["holder", "large", "small"]


def test_a_wait_ends_when_its_session_does() -> None:
    pool = ArenaPool(64 * KIB)
    pool.allocate(64 * KIB)
    ended = GenieError("GEN0508", "the session has ended")
    with pytest.raises(GenieError) as caught:
        pool.allocate_all([16], timeout=60, stop=lambda: ended)
    assert caught.value is ended
    assert pool.stats().waiting == 0


def test_several_regions_come_together_or_not_at_all() -> None:
    pool = ArenaPool(64 * KIB, arena_bytes=64 * KIB)
    with pytest.raises(GenieError) as caught:
        pool.allocate_all([32 * KIB, 16 * KIB, 15 * KIB, 5 * KIB], timeout=0)
    assert caught.value.code == "GEN0470"
    keep = pool.allocate(8 * KIB)
    with pytest.raises(GenieError) as caught:
        pool.allocate_all([32 * KIB, 16 * KIB, 12 * KIB], timeout=0)
    assert caught.value.code == "GEN0472"
    assert (pool.stats().used, pool.stats().regions) == (8 * KIB, 1)
    pool.free(keep)
    assert len(pool.allocate_all([32 * KIB, 16 * KIB, 12 * KIB])) == 3


def test_bytes_that_were_taken_in_vain_are_still_someones() -> None:
    pool = ArenaPool(64 * KIB, arena_bytes=64 * KIB)
    first = pool.allocate(64 * KIB, owner="a")
    pool.view(first)[:] = b"\x77" * (64 * KIB)
    pool.free(first)
    keep = pool.allocate(16 * KIB, owner="a")
    with pytest.raises(GenieError, match="GEN0472"):
        pool.allocate_all([32 * KIB, 32 * KIB], owner="b")
    region = pool.allocate(48 * KIB, owner="b")
    assert bytes(pool.view(region)) == bytes(48 * KIB)
    pool.free(keep)
    pool.close()


def test_many_threads_share_a_pool() -> None:
    pool = ArenaPool(4 * MIB, arena_bytes=MIB, huge=False)
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for turn in range(60):
            try:
                regions = pool.allocate_all(
                    [rng.randrange(1, MIB // 2) for _ in range(2)], owner=str(seed), timeout=30
                )
            except GenieError as error:
                wrong.append(error)
                return
            for region in regions:
                if any(bytes(pool.view(region)).strip(b"\0" + bytes([seed]))):
                    wrong.append(region)
                pool.view(region)[:] = bytes([seed]) * region.length
            if turn % 3 == 0:
                time.sleep(0)
            for region in regions:
                pool.free(region)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert (pool.stats().used, pool.stats().waiting) == (0, 0)


# -- limits and misuse ---------------------------------------------------------------------------


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
    pool.free(large)
    pool.trim()
    assert sorted(closed) == sorted(opened)
    assert pool.arenas() == ()
    pool.close()


def test_an_arena_that_cannot_be_announced_is_not_used() -> None:
    def refuse(arena: Arena) -> None:
        raise ConnectionError(arena.id)

    pool = ArenaPool(64 * KIB, opened=refuse)
    with pytest.raises(ConnectionError):
        pool.allocate(64)
    assert pool.stats().arenas == 0
    assert pool.stats().waiting == 0


def test_an_assembly_that_cannot_be_announced_gives_its_pages_back() -> None:
    fail = [False]

    def refuse(arena: Arena) -> None:
        if fail[0]:
            raise ConnectionError(arena.id)

    pool = ArenaPool(64 * KIB, arena_bytes=64 * KIB, opened=refuse)
    chunks = [pool.allocate(16 * KIB) for _ in range(4)]
    pool.free(chunks[0])
    pool.free(chunks[2])
    fail[0] = True
    with pytest.raises(ConnectionError):
        pool.allocate(32 * KIB)
    fail[0] = False
    assert pool.stats().assembled == 0
    assert pool.allocate(32 * KIB).length == 32 * KIB


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


def test_regions_of_one_arena_do_not_touch() -> None:
    pool = ArenaPool(MIB, arena_bytes=MIB, huge=False)
    live = [pool.allocate(n) for n in (0, 1, 64, 65, 4096, 4097, 100_000)]
    spans = sorted((r.arena, r.offset, r.length) for r in live)
    for (a, start, length), (b, after, _) in itertools.pairwise(spans):
        assert a != b or start + length <= after
    pool.close()
