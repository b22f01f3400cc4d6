"""Fabric ports in a handshake: what each side says of its own, and which pair they take.

    dialler's note    count u8, then for each port: connection u32, what its hello() says
    listener's note   which of the dialler's u8, connection u32, what its own hello() says

A connection number is this side's: the peer writes it into every datagram that it sends here.
"""

from __future__ import annotations

import dataclasses
import logging
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genie_schemas.errors import GenieError
from genie_transport._errors import setup_error
from genie_transport._handshake import Accepted
from genie_transport._types import Limits
from genie_transport._wires import Wire

if TYPE_CHECKING:
    from genie_transport._datagram import DatagramTransport
    from genie_transport._fabric import Fabric, FabricHello

__all__ = ["MAX_PORTS", "PortNotes"]

_log = logging.getLogger("genie_transport")
MAX_PORTS = 8
"""Ports that one side offers for a session."""

_CONNECTION = struct.Struct(">I")
_NETWORK_BYTES = 3  # of an IPv4 address: ports of one /24 reach each other


class PortNotes:
    """This side's ports in one handshake. Implements Notes for the listener."""

    def __init__(self, fabrics: Sequence[Fabric], *, encrypt: bool) -> None:
        """`encrypt` has datagrams sealed even where both fabrics are declared trusted."""
        self._fabrics = [fabric for fabric in fabrics if fabric.up()][:MAX_PORTS]
        self._encrypt = encrypt
        self._connections: list[int] = []
        self._chosen: tuple[Fabric, int, FabricHello, int] | None = None

    @property
    def any(self) -> bool:
        """Whether a port of this side's is up."""
        return bool(self._fabrics)

    def offer(self) -> bytes:
        """The dialler's note."""
        self._connections = [fabric.allocate_connection() for fabric in self._fabrics]
        parts = [bytes([len(self._fabrics)])]
        for fabric, connection in zip(self._fabrics, self._connections, strict=True):
            parts += (_CONNECTION.pack(connection), self._hello(fabric).to_bytes())
        return b"".join(parts)

    def answer(self, wire: Wire, note: bytes) -> bytes | None:
        """The listener's note on a dialler's: the pair is settled. None when none fits."""
        try:
            offered = self._read_offer(note)
        except (ValueError, struct.error, GenieError) as error:
            _log.warning("a peer's note on its ports is malformed: %s", error)
            return None
        pairs = [
            (fabric, index, connection, hello)
            for fabric in self._fabrics
            for index, (connection, hello) in enumerate(offered)
        ]
        if wire is not Wire.DPDK or not pairs:
            return None
        # The sort is stable: among equals the order in which both sides named their ports counts.
        pairs.sort(key=lambda pair: _distance(pair[0].hello(), pair[3]))
        fabric, index, theirs, hello = pairs[0]
        mine = fabric.allocate_connection()
        self._chosen = (fabric, mine, hello, theirs)
        return bytes([index]) + _CONNECTION.pack(mine) + self._hello(fabric).to_bytes()

    def settle(self, note: bytes) -> None:
        """Read the listener's note (dialler). Raises GenieError GEN0606 when it is malformed."""
        try:
            index, (theirs,) = note[0], _CONNECTION.unpack_from(note, 1)
            hello = _hello_class().from_bytes(note[1 + _CONNECTION.size :])
            self._chosen = (self._fabrics[index], self._connections[index], hello, theirs)
        except (ValueError, IndexError, struct.error) as error:
            raise setup_error(
                "GEN0606", "the peer's note on its port is malformed", cause=str(error)
            ) from error

    def transport(self, accepted: Accepted, limits: Limits) -> DatagramTransport:
        """The transport over the settled pair. Raises GenieError GEN0605 or GEN064x."""
        if self._chosen is None:
            raise ValueError("no pair of ports was settled")
        fabric, mine, hello, theirs = self._chosen
        if self._encrypt:
            hello = dataclasses.replace(hello, trusted=False)
        _log.info("dpdk: port %s to the peer's %s", fabric.name, hello.name)
        return fabric.transport(
            limits,
            accepted.keys,
            peer=hello,
            local_connection=mine,
            peer_connection=theirs,
            epoch=accepted.epoch,
        )

    def _hello(self, fabric: Fabric) -> FabricHello:
        """What the peer is told: datagrams go unsealed only where both say that they may."""
        hello = fabric.hello()
        return dataclasses.replace(hello, trusted=hello.trusted and not self._encrypt)

    def _read_offer(self, note: bytes) -> list[tuple[int, FabricHello]]:
        if not note or not 1 <= note[0] <= MAX_PORTS or (len(note) - 1) % note[0]:
            raise ValueError("its size does not fit")
        size = (len(note) - 1) // note[0]
        if size <= _CONNECTION.size:
            raise ValueError("it is too short")
        found = []
        for at in range(1, len(note), size):
            (connection,) = _CONNECTION.unpack_from(note, at)
            found.append(
                (connection, _hello_class().from_bytes(note[at + _CONNECTION.size : at + size]))
            )
        return found


def _hello_class() -> type[FabricHello]:
    from genie_transport._fabric import FabricHello

    return FabricHello


def _distance(one: FabricHello, other: FabricHello) -> tuple[bool, bool]:
    """How unlikely it is that two ports reach each other: another network, another driver."""
    return one.ip[:_NETWORK_BYTES] != other.ip[:_NETWORK_BYTES], one.name != other.name
