"""Pages of 2 MiB in a pool: who gets them, and what happens when there are none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from genie_runtime.arena import HUGE_PAGE, PAGE, Arena
from genie_runtime.pages import HUGE_FROM
from genie_runtime.pool import ArenaPool
from genie_schemas.errors import GenieError
from tests.runtime.executors.regions import KIB, MIB, holds, mark


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
