"""Waiting for regions: in turn, all or none, and no longer than the session."""

from __future__ import annotations

import random
import threading
import time

import pytest

from genie_runtime.pool import ArenaPool
from genie_runtime.ports import Region
from genie_schemas.errors import GenieError
from tests.runtime.executors.regions import KIB, MIB


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
