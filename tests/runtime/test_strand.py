"""Events on a strand: one at a time, in order, none forgotten, whoever brings them."""

from __future__ import annotations

import threading

from genie_runtime.strand import Strand


def test_events_of_an_event_come_after_it() -> None:
    seen: list[int] = []

    def handle(event: int) -> None:
        if event < 3:
            strand.put(event + 1)
        seen.append(event)

    strand = Strand(handle)
    strand.put(0)
    assert seen == [0, 1, 2, 3]


def test_many_threads_never_meet_and_lose_nothing() -> None:
    seen: list[tuple[int, int]] = []
    inside = threading.Lock()
    met = []

    def handle(event: tuple[int, int]) -> None:
        if not inside.acquire(blocking=False):
            met.append(event)
            return
        seen.append(event)
        inside.release()

    strand = Strand(handle)

    def put(number: int) -> None:
        for i in range(2000):
            strand.put((number, i))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not met
    assert len(seen) == 8000
    for number in range(4):
        assert [i for n, i in seen if n == number] == list(range(2000))


def test_try_now_gives_way() -> None:
    results: list[bool] = []

    def handle(event: str) -> None:
        results.append(strand.try_now(lambda: True))

    strand = Strand(handle)
    strand.put("busy")
    assert results == [False]
    assert strand.try_now(lambda: True)
    assert not strand.try_now(lambda: False)
