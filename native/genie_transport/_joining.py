"""The connections of a native tcp session that lie beside its TLS connection.

Beyond the loopback device the handshake runs inside mutual TLS 1.3. Payload does not: it goes
over STREAMS further connections to the same address, in native frames sealed with AES-128-GCM.
Their keys are made from the session's key and from both nonces, which travelled inside TLS only,
so nobody can hold them whom TLS has not authenticated. Such a connection opens with

    JOIN   "GTJ" · version u8 · stream u8 · ticket (16 bytes) · MAC (32 bytes)

The ticket says which handshake it belongs to, the MAC proves it. Each stream joins once, and
tickets are good for as long as their handshake waits: a recorded JOIN opens nothing. When all
are there the listener says JOINED inside TLS, and that connection ends.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Generic, TypeVar

from blake3 import blake3

from genie_transport._frames import VERSION
from genie_transport._handshake import Accepted, TrafficKeys

__all__ = [
    "FIRST_BYTE",
    "JOINED",
    "JOIN_BYTES",
    "STREAMS",
    "Gathering",
    "Tickets",
    "joins",
    "stream_keys",
]

STREAMS = 4
"""Connections of a session: one that loses a packet delays the others' bytes no longer."""

Owner = TypeVar("Owner")

_MAGIC = b"GTJ"
_HEAD = _MAGIC + bytes([VERSION])
_TICKET = slice(len(_HEAD) + 1, len(_HEAD) + 17)
_MAC_BYTES = 32
JOIN_BYTES = len(_HEAD) + 1 + 16 + _MAC_BYTES
JOINED = _HEAD + bytes([STREAMS])
FIRST_BYTE = _MAGIC[:1]
"""What a JOIN begins with; a TLS connection begins with 0x16."""


@dataclass(frozen=True, repr=False)
class _Secrets:
    ticket: bytes
    mac: bytes

    @staticmethod
    def of(dialler_says: bytes) -> _Secrets:
        made = blake3(b"join", key=dialler_says).digest(48)
        return _Secrets(made[:16], made[16:])

    def join(self, stream: int) -> bytes:
        opening = _HEAD + bytes([stream]) + self.ticket
        return opening + blake3(opening, key=self.mac).digest()


def joins(accepted: Accepted) -> list[bytes]:
    """The dialler's JOIN of each stream."""
    secrets = _Secrets.of(accepted.control.send)
    return [secrets.join(stream) for stream in range(STREAMS)]


def stream_keys(keys: TrafficKeys, stream: int) -> TrafficKeys:
    """The keys of one stream. No two share one: each counts its own frames as nonces."""
    name = b"stream" + bytes([stream])
    return TrafficKeys(
        blake3(name, key=keys.send).digest(), blake3(name, key=keys.receive).digest()
    )


@dataclass(eq=False, repr=False)
class Gathering:
    """The listener's side of one handshake that waits for its streams."""

    accepted: Accepted
    sockets: dict[int, socket.socket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._secrets = _Secrets.of(self.accepted.control.receive)
        self._used: set[int] = set()

    @property
    def ticket(self) -> bytes:
        return self._secrets.ticket

    def take(self, opening: bytes, sock: socket.socket) -> bool:
        """Keep `sock` as the stream it proves to be. False, and it is not kept: it is none."""
        stream = opening[len(_HEAD)]
        if stream >= STREAMS or stream in self._used:
            return False
        if not compare_digest(opening, self._secrets.join(stream)):
            return False
        self._used.add(stream)
        self.sockets[stream] = sock
        return True

    @property
    def complete(self) -> bool:
        return len(self.sockets) == STREAMS

    def hand_over(self) -> list[socket.socket]:
        """The sockets in the streams' order; they belong to the caller from here on."""
        taken, self.sockets = self.sockets, {}
        return [taken[stream] for stream in sorted(taken)]

    def close(self) -> None:
        """Give up what has come so far."""
        for sock in self.hand_over():
            sock.close()


class Tickets(Generic[Owner]):
    """The gatherings of a listener by ticket, each with its owner. For one thread."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, tuple[Gathering, Owner]] = {}

    def add(self, gathering: Gathering, owner: Owner) -> None:
        self._waiting[gathering.ticket] = gathering, owner

    def drop(self, gathering: Gathering) -> None:
        """The gathering is over; its ticket is void."""
        self._waiting.pop(gathering.ticket, None)

    def take(self, opening: bytes, sock: socket.socket) -> Owner | None:
        """Whose stream `sock` has become; None when it proves nothing, or too late."""
        if len(opening) != JOIN_BYTES or not opening.startswith(_HEAD):
            return None
        gathering, owner = self._waiting.get(opening[_TICKET], (None, None))
        return owner if gathering is not None and gathering.take(opening, sock) else None
