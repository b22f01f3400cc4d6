"""What a session beside a connection needs of its port, and small parts of its move."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from typing import Protocol

from genie_transport._handle import DMAHandle
from genie_transport._transport import Transport
from genie_transport._types import Counters, Lost

__all__ = ["EndedError", "PortTransport", "Succeed", "nowhere", "total"]

Succeed = Callable[[socket.socket, Callable[[Transport], None]], Transport]


class PortTransport(Transport, Protocol):
    """What a transport over a port can say when it has ended, besides being one."""

    def outstanding(self) -> list[tuple[int, int]]:
        """(op, message number) of posts whose end is not known here."""
        ...

    def finished(self, message: int) -> bool:
        """Whether the peer's message of that number was received whole and verified."""
        ...


def nowhere() -> DMAHandle:
    return DMAHandle(
        arena=0, offset=0, length=1, device="cpu", epoch=0, key=secrets.token_bytes(16)
    )


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
