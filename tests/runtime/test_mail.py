"""A run's bytes on the data plane: what stands, what it counts, and what its end becomes."""

from __future__ import annotations

import os
import queue
import select
from collections.abc import Iterator

import pytest

from genie_runtime.mail import Event, Mail, Posted, Unwired
from genie_runtime.telemetry import Telemetry
from genie_schemas.errors import GenieError
from genie_transport import TransferManager
from genie_transport.testing import pair

WAIT = 20.0
DATA = b"hidden values"


@pytest.fixture
def peers() -> Iterator[tuple[TransferManager, TransferManager]]:
    a, b = pair("shm")
    with a, b:
        assert a.wait_connected(WAIT)
        assert b.wait_connected(WAIT)
        yield a, b


class Side:
    """One side's mail, with the events that it put."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.telemetry = Telemetry()
        self.mail = Mail(self.events.put, self.telemetry)


def test_what_stands_passes_and_is_counted(
    peers: tuple[TransferManager, TransferManager],
) -> None:
    sender, receiver = Side(), Side()
    source, buffer = bytearray(DATA), bytearray(len(DATA))
    handle = peers[1].register(buffer)
    bell = receiver.mail.hang(peers[1], handle)
    trigger = sender.mail.stand(peers[0], memoryview(source), handle, "hop", "decode")
    assert bell is not None
    assert trigger is not None
    for turn in range(5):
        source[0] = turn
        os.eventfd_write(trigger, 1)
        assert select.select([bell], [], [], WAIT)[0]
        os.eventfd_read(bell)
        assert buffer == source
    assert not sender.mail.pending
    sender.mail.conclude("hop")
    assert sender.mail.pending
    assert sender.events.get(timeout=WAIT) == Posted("hop", None)
    sender.mail.posted("hop")
    assert not sender.mail.pending
    receiver.mail.withdraw()
    sender.mail.withdraw()
    assert receiver.telemetry.get("bytes_in") == 5 * len(DATA)
    assert sender.telemetry.get("bytes_out") == 5 * len(DATA)
    assert sender.mail.transfer_ns > 0
    assert sender.events.empty()
    for fd in (bell, trigger):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_what_is_taken_down_before_it_is_concluded_is_no_event(
    peers: tuple[TransferManager, TransferManager],
) -> None:
    side = Side()
    handle = peers[1].register(bytearray(len(DATA)))
    assert side.mail.stand(peers[0], memoryview(DATA), handle, "hop", "decode") is not None
    side.mail.withdraw()
    assert side.events.empty()


def test_the_last_of_what_stands_fails_with_its_destination(
    peers: tuple[TransferManager, TransferManager],
) -> None:
    side = Side()
    handle = peers[1].register(bytearray(len(DATA)))
    trigger = side.mail.stand(peers[0], memoryview(DATA), handle, "hop", "decode")
    assert trigger is not None
    peers[1].deregister(handle)
    os.eventfd_write(trigger, 1)
    side.mail.conclude("hop")
    event = side.events.get(timeout=WAIT)
    assert isinstance(event, Posted | Unwired)
    assert event.error is not None
    side.mail.withdraw()


def test_the_end_of_a_peer_is_an_event(peers: tuple[TransferManager, TransferManager]) -> None:
    side = Side()
    handle = peers[1].register(bytearray(len(DATA)))
    assert side.mail.stand(peers[0], memoryview(DATA), handle, "hop", "decode") is not None
    peers[1].close()
    event = side.events.get(timeout=WAIT)
    assert isinstance(event, Unwired)
    assert event.name == "hop"
    side.mail.withdraw()


def test_a_peer_that_is_gone_is_a_transfer_that_failed(
    peers: tuple[TransferManager, TransferManager],
) -> None:
    side = Side()
    handle = peers[1].register(bytearray(len(DATA)))
    peers[0].close()
    with pytest.raises(GenieError, match="the transfer of 'hop' failed") as caught:
        side.mail.stand(peers[0], memoryview(DATA), handle, "hop", "decode")
    assert caught.value.code == "GEN0418"
    with pytest.raises(GenieError, match="the transfer of 'hop' failed") as caught:
        side.mail.post(peers[0], memoryview(DATA), handle, "hop", "decode", 1e9)
    assert caught.value.code == "GEN0418"
    side.mail.withdraw()
