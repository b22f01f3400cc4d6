"""Transfers that stand: another process sends by writing to an eventfd, and is rung by another."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

import pytest

from genie_transport import DMAHandle, TransferManager
from tests.transport.support import SMALL, WAIT, code_of, eventually

Pair = tuple[TransferManager, TransferManager]
STANDING = ("shm", "tcp", "ucx")


@pytest.fixture
def eventfds() -> Iterator[tuple[int, int]]:
    """A trigger and a bell."""
    trigger = os.eventfd(0, os.EFD_NONBLOCK)
    bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
    yield trigger, bell
    os.close(trigger)
    os.close(bell)


@pytest.fixture
def standing(make_pair: Callable[..., Pair]) -> Pair:
    """A pair whose path has transfers that stand."""
    a, b = make_pair(SMALL)
    if a.capabilities().path not in STANDING:
        pytest.skip("no transfer stands on this path: see test_other_paths_say_that_none_stands")
    assert a.wait_connected(WAIT)
    assert b.wait_connected(WAIT)
    return a, b


def rung(bell: int) -> bool:
    """Whether a bell rings within the time that everything may take; one ring is taken."""
    if not select.select([bell], [], [], WAIT)[0]:
        return False
    os.eventfd_read(bell)
    return True


def quiet(bell: int) -> bool:
    return not select.select([bell], [], [], 0.05)[0]


@pytest.mark.parametrize("size", [8, 5 * SMALL.chunk_bytes + 3])
@pytest.mark.parametrize("back", [False, True])
def test_each_trigger_sends_once_and_each_arrival_rings(
    standing: Pair, eventfds: tuple[int, int], size: int, back: bool
) -> None:
    trigger, bell = eventfds
    sender, receiver = standing[::-1] if back else standing
    source, buffer = bytearray(size), bytearray(size)
    dst = receiver.register(buffer)
    assert receiver.hang(dst, bell)
    arrival = receiver.arrival(dst)
    src = sender.register(source)
    future = sender.stand(src, dst, trigger)
    assert future is not None
    for turn in range(20):
        source[:] = bytes([turn + 1]) * size
        os.eventfd_write(trigger, 1)
        assert rung(bell)
        assert buffer == source
    os.eventfd_write(trigger, 3)  # one after the other
    assert rung(bell)
    assert rung(bell)
    assert rung(bell)
    eventually(lambda: sender.carried(future)[0] == 23, "all are verified")
    assert sender.carried(future)[1] > 0
    assert receiver.rings(dst) == 23
    assert not future.done()
    assert not arrival.done()
    assert future.cancel()
    assert sender.carried(future) == (0, 0)
    os.eventfd_write(trigger, 1)
    assert quiet(bell)
    sender.deregister(src)
    receiver.deregister(dst)
    assert code_of(arrival) == "GEN0623"


@pytest.mark.parametrize("times", [0, 1, 4])
def test_one_that_is_concluded_ends_when_all_is_verified(
    standing: Pair, eventfds: tuple[int, int], times: int
) -> None:
    a, b = standing
    source = b"last words"
    for _ in range(20):
        buffer = bytearray(len(source))
        dst, src = b.register(buffer), a.register(source)
        future = a.stand(src, dst, eventfds[0])
        assert future is not None
        if times:
            os.eventfd_write(eventfds[0], times)
        a.conclude(future)  # at once: the last write may not have been seen yet
        assert future.result(WAIT) == len(source)
        assert a.carried(future)[0] == times
        assert a.carried(future) == (0, 0)
        assert bytes(buffer) == (source if times else bytes(len(source)))
        b.deregister(dst)
        a.deregister(src)


def test_one_that_fails_is_not_concluded(standing: Pair, eventfds: tuple[int, int]) -> None:
    a, b = standing
    dst = b.register(bytearray(4))
    future = a.stand(a.register(b"data"), dst, eventfds[0])
    assert future is not None
    b.deregister(dst)
    os.eventfd_write(eventfds[0], 1)
    a.conclude(future)
    assert code_of(future) == "GEN0623"
    a.conclude(future)


def test_what_arrived_before_the_bell_hung_ends_an_arrival(
    standing: Pair, eventfds: tuple[int, int]
) -> None:
    a, b = standing
    dst = b.register(bytearray(4))
    arrival = b.arrival(dst)
    src = a.register(b"data")
    a.post(src, dst).result(WAIT)
    assert arrival.result(WAIT) == 4
    assert b.hang(dst, eventfds[1])
    late = b.arrival(dst)
    a.post(src, dst).result(WAIT)  # an ordinary one rings as well
    assert rung(eventfds[1])
    assert not late.done()


def test_a_standing_transfer_fails_with_its_destination(
    standing: Pair, eventfds: tuple[int, int]
) -> None:
    a, b = standing
    dst = b.register(bytearray(4))
    future = a.stand(a.register(b"data"), dst, eventfds[0])
    assert future is not None
    b.deregister(dst)
    assert not b.hang(dst, eventfds[1])
    os.eventfd_write(eventfds[0], 1)
    assert code_of(future) == "GEN0623"


def test_a_standing_transfer_fails_with_its_source(
    standing: Pair, eventfds: tuple[int, int]
) -> None:
    a, b = standing
    src, dst = a.register(b"data"), b.register(bytearray(4))
    future = a.stand(src, dst, eventfds[0])
    assert future is not None
    a.deregister(src)
    assert code_of(future) == "GEN0623"
    refused = a.stand(src, dst, eventfds[0])
    assert refused is not None
    assert code_of(refused) == "GEN0623"


def test_the_end_of_the_connection_ends_what_stands(
    standing: Pair, eventfds: tuple[int, int]
) -> None:
    a, b = standing
    trigger, bell = eventfds
    dst = b.register(bytearray(4))
    assert b.hang(dst, bell)
    arrival = b.arrival(dst)
    future = a.stand(a.register(b"data"), dst, trigger)
    assert future is not None
    os.eventfd_write(trigger, 1)
    assert rung(bell)
    b.close()
    assert code_of(future) == "GEN0610"
    assert code_of(arrival) == "GEN0611"
    late = a.stand(a_source(a), dst, trigger)
    assert late is None or code_of(late) == "GEN0610"


def a_source(manager: TransferManager) -> DMAHandle:
    """A handle of nothing that is registered: the connection has ended."""
    return DMAHandle(1, 0, 4, "cpu", manager.epoch, bytes(16))


def test_other_paths_say_that_none_stands(
    make_pair: Callable[..., Pair], eventfds: tuple[int, int]
) -> None:
    a, b = make_pair()
    if a.capabilities().path in STANDING:
        pytest.skip("transfers stand on this path")
    src, dst = a.register(b"data"), b.register(bytearray(4))
    assert a.stand(src, dst, eventfds[0]) is None
    assert not b.hang(dst, eventfds[1])
    assert a.post(src, dst).result(WAIT) == 4
