"""What every path refuses, and that nothing was written then."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

import pytest

from genie_transport import DMAHandle, TransferError, TransferManager
from genie_transport.testing import pair
from tests.transport.support import SMALL, WAIT, code_of, eventually, held

Pair = tuple[TransferManager, TransferManager]
BIG = 64 * SMALL.chunk_bytes


def test_forged_and_foreign_handles(make_pair: Callable[..., Pair], path: str) -> None:
    a, b = make_pair()
    buffer = bytearray(4)
    src, dst = a.register(b"data"), b.register(buffer)
    other_a, other_b = pair(path)
    with other_a, other_b:
        foreign = other_b.register(bytearray(4))
        for forged, code in (
            (replace(dst, key=secrets.token_bytes(16)), "GEN0623"),
            (replace(dst, arena=dst.arena + 1), "GEN0623"),
            (foreign, "GEN0623"),
            (src, "GEN0623"),  # its own, not the peer's
            (replace(dst, epoch=dst.epoch - 1), "GEN0624"),
            (replace(dst, epoch=dst.epoch + 1), "GEN0624"),
            (replace(dst, offset=1), "GEN0625"),
            (replace(dst, offset=1 << 62), "GEN0625"),
        ):
            assert code_of(a.post(src, forged)) == code, forged
    assert buffer == bytes(4)
    assert a.post(src, dst).result(WAIT) == 4  # the connection is none the worse
    assert a.stats().failed == 8


def test_longer_than_registered(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    src, dst = a.register(bytes(8)), b.register(bytearray(4))
    assert code_of(a.post(src, replace(dst, length=8))) == "GEN0625"
    assert code_of(a.post(replace(src, offset=6, length=4), dst)) == "GEN0625"
    assert code_of(a.post(src, dst)) == "GEN0628"


def test_source_must_be_registered_here(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    src, dst = a.register(bytes(4)), b.register(bytearray(4))
    assert code_of(a.post(dst, dst)) == "GEN0623"
    assert code_of(a.post(replace(src, arena=99), dst)) == "GEN0623"
    a.deregister(src)
    assert code_of(a.post(src, dst)) == "GEN0623"
    with pytest.raises(TransferError, match="GEN0623"):
        a.deregister(src)


def test_read_only_destination(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    dst = b.register(b"constant")
    assert code_of(a.post(a.register(bytes(8)), dst)) == "GEN0626"


def test_two_writers_of_the_same_bytes(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair(SMALL)
    buffer = bytearray(BIG)
    dst = b.register(buffer)
    ones, twos = a.register(b"\1" * BIG), a.register(b"\2" * BIG)
    with held(a):
        first, second = a.post(ones, dst), a.post(twos, dst)
    assert first.result(WAIT) == BIG
    assert code_of(second) == "GEN0627"
    assert buffer == b"\1" * BIG
    half = BIG // 2
    with held(a):  # side by side is fine
        left = a.post(ones.part(0, half), dst.part(0, half))
        right = a.post(twos.part(half, half), dst.part(half, half))
    assert left.result(WAIT) + right.result(WAIT) == BIG
    assert buffer == b"\1" * half + b"\2" * half


def test_new_epoch_refuses_old_handles(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    buffer = bytearray(4)
    src, old = a.register(b"data"), b.register(buffer)
    a.post(a.register(bytes(4)), old).result(WAIT)
    eventually(lambda: b.stats().arrivals == 1, "it has arrived, and nobody asks for it")
    other = b.register(bytearray(1))
    waiting = b.arrival(other)
    assert b.advance_epoch() == b.epoch == old.epoch + 1
    assert code_of(waiting) == "GEN0624"
    assert code_of(b.arrival(old)) == "GEN0624"
    error = a.post(src, old).exception(WAIT)
    assert error is not None
    assert error.code == "GEN0624"
    assert f"epoch {b.epoch}" in error.message
    assert buffer == bytes(4)
    new = b.register(buffer)
    assert new.epoch == b.epoch
    assert a.post(src, new).result(WAIT) == 4


@pytest.mark.parametrize("how", ["deregister", "epoch"])
def test_withdrawn_in_the_middle(make_pair: Callable[..., Pair], how: str) -> None:
    a, b = make_pair(SMALL)
    size = 16 * BIG
    buffer = bytearray(size)
    dst = b.register(buffer)
    arrival = b.arrival(dst)
    future = a.post(a.register(b"\1" * size), dst)
    eventually(lambda: future.progress() > 0, "it has begun")
    if how == "deregister":
        b.deregister(dst)
    else:
        b.advance_epoch()
    then = bytes(buffer)
    expected = "GEN0623" if how == "deregister" else "GEN0624"
    assert code_of(future) in (expected, None)  # None: it was done before
    assert bytes(buffer) == then  # not a byte was written after the call returned
    if future.exception() is not None:
        assert code_of(arrival) == expected
    assert a.post(a.register(b"x"), b.register(bytearray(1))).result(WAIT) == 1


def test_source_withdrawn_in_the_middle(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair(SMALL)
    src, dst = a.register(bytes(BIG)), b.register(bytearray(BIG))
    with held(a):
        future = a.post(src, dst)
        a.deregister(src)
    error = future.exception(WAIT)
    assert error is not None
    assert error.code == "GEN0623"
    assert "deregistered" in error.message
    assert a.post(a.register(bytes(BIG)), dst).result(WAIT) == BIG


def test_arrival_needs_a_whole_handle_of_this_side(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    dst = b.register(bytearray(4))
    a.post(a.register(bytes(4)), dst).result(WAIT)
    assert code_of(b.arrival(dst.part(0, 2))) == "GEN0625"
    assert b.arrival(dst).result(WAIT) == 4  # which the part has not used up
    assert code_of(a.arrival(dst)) == "GEN0623"


def test_deregistering_ends_arrivals(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    src, dst = a.register(b"x"), b.register(bytearray(1))
    a.post(src, dst).result(WAIT)
    eventually(lambda: b.stats().arrivals == 1, "it has arrived")
    b.deregister(dst)
    assert code_of(b.arrival(dst)) == "GEN0623"  # and the unclaimed one is forgotten


# -- the end -----------------------------------------------------------------------------------


def test_close_fails_what_is_outstanding(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair(SMALL)
    src, dst = a.register(bytes(BIG)), b.register(bytearray(BIG))
    arrival = b.arrival(dst)
    with held(b), held(a):
        future = a.post(src, dst)
        a._transport.close()  # close() itself would wait for the thread that is held
    a.close()
    a.close()
    assert code_of(future) == "GEN0611"
    assert code_of(arrival) == "GEN0610"
    assert a.failure is not None
    assert a.failure.code == "GEN0611"
    assert b.failure is not None
    assert b.failure.code == "GEN0610"
    assert not a.wait_connected(0)
    for manager, code in ((a, "GEN0611"), (b, "GEN0610")):
        assert code_of(manager.post(src, dst)) == code
        assert code_of(manager.arrival(dst)) == code
        with pytest.raises(TransferError, match=code):
            manager.register(bytearray(1))
    a.deregister(src)
    assert a.stats().failed == 1
    b.close()


def test_close_in_a_callback(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    future = a.post(a.register(b"x"), b.register(bytearray(1)))
    future.add_done_callback(lambda _: a.close())
    future.exception(WAIT)
    eventually(lambda: a.failure is not None, "it is closed")
    a.close()


def test_what_arrived_can_be_claimed_after_the_end(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    buffer = bytearray(1)
    dst = b.register(buffer)
    a.post(a.register(b"x"), dst).result(WAIT)
    a.close()
    eventually(lambda: b.failure is not None, "the peer has noticed")
    assert b.arrival(dst).result(WAIT) == 1
    assert code_of(b.arrival(dst)) == "GEN0610"


def test_poster_closes_right_after_the_last_byte(
    make_pair: Callable[..., Pair], turns: int
) -> None:
    for _ in range(turns):
        a, b = make_pair()
        dst = b.register(bytearray(1000))
        arrival = b.arrival(dst)
        a.post(a.register(bytes(1000)), dst).result(WAIT)
        a.close()
        assert arrival.result(WAIT) == 1000


def test_receiver_closes_right_after_the_arrival(
    make_pair: Callable[..., Pair], turns: int
) -> None:
    for _ in range(turns):
        a, b = make_pair()
        dst = b.register(bytearray(1000))
        arrival = b.arrival(dst)
        future = a.post(a.register(bytes(1000)), dst)
        arrival.result(WAIT)
        b.close()
        assert future.result(WAIT) == 1000  # its acknowledgement went out before the farewell


def test_handles_travel_as_json(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    dst = DMAHandle.from_json(b.register(bytearray(4)).to_json())
    assert a.post(a.register(b"data"), dst).result(WAIT) == 4
