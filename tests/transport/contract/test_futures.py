"""How transfers end, on every path."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial

import pytest

from genie_transport import TransferError, TransferFuture, TransferManager
from tests.transport.support import SMALL, WAIT, code_of, eventually, held, record

Pair = tuple[TransferManager, TransferManager]
BIG = 64 * SMALL.chunk_bytes


def big(make_pair: Callable[..., Pair]) -> tuple[TransferManager, TransferFuture]:
    a, b = make_pair(SMALL)
    return a, a.post(a.register(bytes(BIG)), b.register(bytearray(BIG)))


def test_callbacks_run_exactly_once_early_and_late(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    calls: list[str] = []
    with held(a):
        future = a.post(a.register(b"x"), b.register(bytearray(1)))
        future.add_done_callback(lambda f: calls.append(f"early {f.done()}"))
        assert not future.done()
        assert "pending" in repr(future)
    future.result(WAIT)
    future.add_done_callback(lambda f: calls.append(f"late {f.done()}"))
    assert not future.cancel()
    eventually(lambda: len(calls) == 2, "both ran")
    assert sorted(calls) == ["early True", "late True"]
    assert "done" in repr(future)


def test_callbacks_added_while_it_ends_run_once(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    src, dst = a.register(b"x"), b.register(bytearray(1))
    calls: list[int] = []
    for turn in range(100):
        future = a.post(src, dst)
        for number in range(20):
            future.add_done_callback(partial(record, calls, 20 * turn + number))
        future.result(WAIT)
    eventually(lambda: len(calls) >= 2000, "all ran")
    assert sorted(calls) == list(range(2000))


def test_failing_callback_is_logged_and_others_run(
    make_pair: Callable[..., Pair], caplog: pytest.LogCaptureFixture
) -> None:
    a, b = make_pair()
    ran = threading.Event()

    def fail(_: TransferFuture) -> None:
        raise RuntimeError("callback broke")

    with caplog.at_level(logging.ERROR, "genie_transport"), held(a):
        future = a.post(a.register(b"x"), b.register(bytearray(1)))
        future.add_done_callback(fail)
        future.add_done_callback(lambda _: ran.set())
    assert ran.wait(WAIT)
    assert "callback broke" in caplog.text
    assert future.result(WAIT) == 1
    assert a.post(a.register(b"x"), b.register(bytearray(1))).result(WAIT) == 1


def test_result_times_out_and_the_transfer_goes_on(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    with held(a):
        future = a.post(a.register(b"x"), b.register(bytearray(1)))
        with pytest.raises(TimeoutError):
            future.result(0.01)
        with pytest.raises(TimeoutError):
            future.exception(0.01)
    assert future.result(WAIT) == 1


def test_progress_never_falls(make_pair: Callable[..., Pair]) -> None:
    _, future = big(make_pair)
    seen = [future.progress()]
    while not future.done():
        seen.append(future.progress())
    seen.append(future.progress())
    assert seen == sorted(seen)
    assert seen[0] >= 0.0
    assert seen[-1] == 1.0


def test_cancel_before_it_is_sent(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    buffer = bytearray(1)
    dst = b.register(buffer)
    with held(a):
        future = a.post(a.register(b"x"), dst)
        assert future.cancel()
        assert not future.cancel()
    assert future.cancelled()
    assert future.done()
    assert code_of(future) == "GEN0612"
    # What comes later on the same connection shows that the first was never sent.
    assert a.post(a.register(b""), b.register(bytearray())).result(WAIT) == 0
    assert buffer == b"\0"
    assert a.stats().cancelled == 1


def test_cancel_in_the_middle_frees_the_destination(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair(SMALL)
    src, dst = a.register(b"\1" * BIG), b.register(bytearray(BIG))
    arrival = b.arrival(dst)
    future = a.post(src, dst)
    eventually(lambda: future.progress() > 0, "it has begun")
    cancelled = future.cancel()
    assert cancelled != (future.exception(WAIT) is None)
    if cancelled:
        assert a.post(src, dst).result(WAIT) == BIG  # not "busy": the receiver forgot the first
    assert arrival.result(WAIT) == BIG


def test_deadline_that_has_passed(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    src, dst = a.register(b"x"), b.register(bytearray(1))
    for passed in (0.0, -1.0, float("nan")):
        assert code_of(a.post(src, dst, deadline=passed)) == "GEN0613"
        assert code_of(b.arrival(dst, deadline=passed)) == "GEN0613"
    assert a.post(src, dst, deadline=float("inf")).result(WAIT) == 1
    assert a.post(src, dst, deadline=WAIT).result(WAIT) == 1


def test_deadline_is_missed_in_the_queue(make_pair: Callable[..., Pair], path: str) -> None:
    a, b = make_pair()
    src, dst = a.register(b"x"), b.register(bytearray(1))
    with held(a if path == "loopback" else b):
        future = a.post(src, dst, deadline=0.02)
        if path != "loopback":
            assert code_of(future) == "GEN0613"
    error = future.exception(WAIT)
    assert error is None or error.code == "GEN0613"


def test_awaited_from_asyncio(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()

    async def main() -> list[int]:
        posts = [
            a.post(a.register(bytes(n)), b.register(bytearray(n)), deadline=WAIT) for n in range(50)
        ]
        moved = await asyncio.wait_for(asyncio.gather(*posts), WAIT)
        assert await posts[3] == 3  # again, when it is done already
        return moved

    assert asyncio.run(main()) == list(range(50))


def test_awaiting_a_failure_raises_it(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()

    async def main() -> None:
        dst = b.register(bytearray(1))
        b.deregister(dst)
        await asyncio.wait_for(a.post(a.register(b"x"), dst), WAIT)

    with pytest.raises(TransferError, match="GEN0623"):
        asyncio.run(main())


def test_cancelling_the_task_cancels_the_transfer(make_pair: Callable[..., Pair]) -> None:
    _, b = make_pair()

    async def main() -> tuple[TransferFuture, TransferFuture]:
        given_up = b.arrival(b.register(bytearray(1)))
        kept = b.arrival(b.register(bytearray(1)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(given_up, 0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(_wait(kept))), 0.01)
        assert not kept.done()
        kept.cancel()
        await asyncio.sleep(0)
        return given_up, kept

    given_up, kept = asyncio.run(main())
    assert given_up.cancelled()
    assert kept.cancelled()


async def _wait(future: TransferFuture) -> None:
    with pytest.raises(TransferError):
        await future


def test_ending_after_its_event_loop_harms_nobody(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    loop = asyncio.new_event_loop()
    with held(a):
        future = a.post(a.register(b"x"), b.register(bytearray(1)))
        waiting = future.__await__()

        async def start() -> None:
            next(waiting)

        loop.run_until_complete(start())
        loop.close()
    assert future.result(WAIT) == 1
    waiting.close()


def test_errors_carry_what_happened(make_pair: Callable[..., Pair], kind: str) -> None:
    a, b = make_pair()
    dst = b.register(bytearray(3))
    b.deregister(dst)
    error = a.post(a.register(b"abc"), dst, attempt=2).exception(WAIT)
    assert isinstance(error, TransferError)
    assert (error.code, error.path, error.attempt) == ("GEN0623", kind, 2)
    assert error.op_id is not None
    assert error.context == {"bytes": 3, "progress": 0.0}
    assert f"op {error.op_id}, path {kind}, attempt 2" in str(error)
    shown = error.to_genie_error()
    assert shown.code == "GEN0623"
    assert shown.remedy is not None
    assert shown.context["op_id"] == error.op_id
