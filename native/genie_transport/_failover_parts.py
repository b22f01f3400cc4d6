"""What a session beside a connection needs of its port, and the parts of its move."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from genie_transport._control import Handover
from genie_transport._errors import ProtocolViolation
from genie_transport._handle import DMAHandle
from genie_transport._line import Line
from genie_transport._transport import Transport
from genie_transport._types import Counters, Lost, Priority, Region, Transfer

__all__ = [
    "GREETING",
    "EndedError",
    "Phase",
    "PortTransport",
    "Succeed",
    "converse",
    "greeting",
    "total",
]

GREETING = 0
"""The greeting's operation: those of a manager count from 1."""
_STEP = 0.1  # seconds between looks at what else happens while the session moves

Succeed = Callable[[socket.socket, Callable[[Transport], None]], Transport]


class PortTransport(Transport, Protocol):
    """What a transport over a port can say when it has ended, besides being one."""

    def outstanding(self) -> list[tuple[int, int]]:
        """(op, message number) of posts whose end is not known here."""
        ...

    def finished(self, message: int) -> bool:
        """Whether the peer's message of that number was received whole and verified."""
        ...


def greeting() -> Transfer:
    """What the peer must answer: a byte for a handle that it does not have."""
    buffer = bytearray(1)
    region = Region(_nowhere(), memoryview(buffer), False, buffer)
    return Transfer(GREETING, region, 0, _nowhere(), Priority.DECODE)


def _nowhere() -> DMAHandle:
    return DMAHandle(
        arena=0, offset=0, length=1, device="cpu", epoch=0, key=secrets.token_bytes(16)
    )


class Phase(Enum):
    """Which transport a session goes over."""

    FIRST = 1
    MOVING = 2
    SECOND = 3
    ENDED = 4


class EndedError(Exception):
    """The session cannot go on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.lost = Lost(code, message, {})


def total(one: Counters, other: Counters) -> Counters:
    return Counters(
        bytes_sent=one.bytes_sent + other.bytes_sent,
        bytes_received=one.bytes_received + other.bytes_received,
        in_flight=other.in_flight,
        peak_in_flight=max(one.peak_in_flight, other.peak_in_flight),
        sends=one.sends + other.sends,
        switches=one.switches + other.switches,
    )


def converse(
    line: Line,
    handover: Handover,
    message: tuple[int, bytes] | None,
    why: Lost,
    patience: float,
    glance: Callable[[], bool],
) -> None:
    """Carry `handover` out; afterwards not a byte of `line` behind it has been taken.

    `message` is what the peer has said already, and `why` the end of the path. The peer has
    `patience` seconds. `glance()` is called now and then: False ends it. Raises EndedError.
    """
    line.send(handover.start())
    end = time.monotonic() + patience
    going = True
    while not handover.complete:
        if message is None:
            message = line.next(_STEP)
            going = glance()
        if message is not None:
            try:
                line.send(handover.received(*message))
            except ProtocolViolation as error:
                raise EndedError("GEN0631", str(error)) from None
            message = None
        elif not going:
            raise EndedError("GEN0611", "the manager was closed")
        elif line.gone:
            raise EndedError(why.code, f"{why.message}; {line.gone}")
        elif time.monotonic() >= end:
            raise EndedError("GEN0615", "the peer did not answer when the path was lost")
    # Not a byte may be received any more: what comes next is the next wire's.
    if not line.flush(end - time.monotonic()):
        raise EndedError(why.code, f"{why.message}; {line.gone or 'the peer takes nothing'}")
