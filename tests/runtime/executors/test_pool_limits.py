"""The bounds of a pool, and what is no use of it."""

from __future__ import annotations

import itertools

import pytest

from genie_runtime.arena import Arena
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import Region
from genie_schemas.errors import GenieError, InternalError
from tests.runtime.executors.regions import KIB, MIB


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
