"""A run's bytes on the data plane: what stands, what it counts, and what its end becomes."""

from __future__ import annotations

import os
import queue
import select
from collections.abc import Iterator

import pytest

from genie_runtime.mail import Event, Mail, Unwired
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
    receiver.mail.withdraw()
    sender.mail.withdraw()
    assert receiver.telemetry.get("bytes_in") == 5 * len(DATA)
    assert sender.telemetry.get("bytes_out") in (4 * len(DATA), 5 * len(DATA))
    assert sender.events.empty()  # its end was asked for
    for fd in (bell, trigger):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


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
