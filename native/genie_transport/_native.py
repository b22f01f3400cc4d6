"""The native transports behind the seam: a `_core.Port` for each connection."""

from __future__ import annotations

import atexit
import logging
import socket
import weakref
from collections.abc import Sequence
from typing import Any

from genie_transport._endpoint import is_loopback
from genie_transport._errors import setup_error
from genie_transport._handshake import TrafficKeys
from genie_transport._link import PeerTerms
from genie_transport._port import NS, PortTransport
from genie_transport._types import (
    Capabilities,
    Limits,
    Region,
    Transfer,
)
from genie_transport._ucx_path import found, leave_tls
from genie_transport._wires import Wire, core

__all__ = ["NativeTransport"]

_RING = 2 << 20  # bytes of a shared-memory ring: both sides' copies stay in the caches
_SHM_CHUNK = 256 << 10
_TCP_CHUNK = 256 << 10

_UCX_CHUNK = 256 << 10
_PATHS = {
    Wire.SHM: "shm",
    Wire.TCP: "tcp",
    Wire.TCP_AEAD: "tcp",
    Wire.TCP_TLS: "tcp",
    Wire.UCX: "ucx",
    Wire.UCX_AEAD: "ucx",
}
_SEALED = Wire.TCP_AEAD | Wire.TCP_TLS | Wire.UCX_AEAD
_VERIFICATION = {
    Wire.SHM: "sequence",
    Wire.TCP: "crc32c",
    Wire.TCP_AEAD: "aes-128-gcm",
    Wire.TCP_TLS: "aes-128-gcm",
    Wire.UCX: "crc32c",
    Wire.UCX_AEAD: "aes-128-gcm",
}
_CHUNKS = {"shm": _SHM_CHUNK, "tcp": _TCP_CHUNK, "ucx": _UCX_CHUNK}

_log = logging.getLogger("genie_transport")
_open: weakref.WeakSet[NativeTransport] = weakref.WeakSet()


class NativeTransport(PortTransport):
    """Implements Transport. A thread of the native core moves the bytes, never holding the GIL."""

    def __init__(self, wire: Wire, limits: Limits) -> None:
        """Raises GenieError GEN0605 when the system has no resources left."""
        module, why = core()
        if module is None:
            raise setup_error("GEN0609", "the native transports are not built", cause=why)
        self._wire = wire
        self._limits = limits
        self._chunk = min(limits.chunk_bytes, _CHUNKS[_PATHS[wire]])
        self._remote = wire is not Wire.SHM
        self._stall_ns = int(limits.stall_timeout * NS)
        try:
            port = module.Port(limits.window_bytes, limits.chunk_bytes, self._stall_ns)
        except RuntimeError as error:
            raise setup_error("GEN0605", "cannot open a transport", cause=str(error)) from error
        super().__init__(port, module.address_of)
        _open.add(self)

    def __del__(self) -> None:
        """Nobody can close it any more: the thread ends before the memory that it uses goes."""
        port = getattr(self, "_port", None)  # None: it never came to be
        if port is not None:
            port.close()
            port.join()

    # -- the connection ----------------------------------------------------------------------

    def attach(
        self,
        sock: socket.socket,
        keys: TrafficKeys,
        peer: PeerTerms,
        *,
        greeting: bytes = b"",
    ) -> bool:
        """Go on over `sock`, which then belongs to the transport; `greeting` goes out first.

        False when there is a peer already or none is wanted. Raises GenieError GEN0605.
        """
        path = _PATHS[self._wire]
        if path == "tcp":
            return self.attach_streams([sock], [keys], peer, greeting=greeting)
        sock.setblocking(False)
        if path == "ucx":
            try:
                return self._attach_ucx(sock, keys, self._terms(peer), greeting)
            except BaseException:
                sock.close()
                self._port.close()
                self._port.join()
                raise
        try:
            fd = sock.detach()
            return bool(self._port.attach_shm(fd, greeting, *self._terms(peer), _RING))
        except RuntimeError as error:
            raise setup_error("GEN0605", "cannot open a transport", cause=str(error)) from error

    def attach_streams(
        self,
        socks: Sequence[socket.socket],
        keys: Sequence[TrafficKeys],
        peer: PeerTerms,
        *,
        greeting: bytes = b"",
    ) -> bool:
        """As attach(), over several connections of one session, with keys of their own each."""
        for sock in socks:
            sock.setblocking(False)
        fds = [sock.detach() for sock in socks]
        sealed = bool(self._wire & _SEALED)
        send = [each.send if sealed else b"" for each in keys]
        receive = [each.receive if sealed else b"" for each in keys]
        try:
            return bool(self._port.attach_tcp(fds, greeting, *self._terms(peer), send, receive))
        except RuntimeError as error:
            raise setup_error("GEN0605", "cannot open a transport", cause=str(error)) from error

    def _attach_ucx(
        self, sock: socket.socket, keys: TrafficKeys, terms: tuple[int, int, int], greeting: bytes
    ) -> bool:
        module, why = found()
        if module is None:
            raise setup_error("GEN0665", "the ucx path is not there", at="ucx", cause=why)
        self._remote = sock.family != socket.AF_UNIX
        local = self._remote and is_loopback(sock.getpeername()[0])
        sealed = self._wire is Wire.UCX_AEAD
        if self._remote and not sealed:
            _log.warning("ucx: the network is declared trusted, frames have CRC32C alone")
        greeting = leave_tls(sock, greeting)
        where = (sock.detach(), greeting, *terms, self._remote, local)
        try:
            return bool(
                self._port.attach_ucx(module.factory, *where, sealed, keys.send, keys.receive)
            )
        except RuntimeError as error:
            raise setup_error("GEN0667", "UCX cannot start", at="ucx", cause=str(error)) from error

    def _terms(self, peer: PeerTerms) -> tuple[int, int, int]:
        chunk = min(self._chunk, peer.chunk_bytes)
        return peer.window_bytes, chunk, int(peer.stall_timeout * NS)

    # -- Transport ---------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        return Capabilities(
            path=_PATHS[self._wire],
            remote=self._remote,
            devices=("cpu",),
            max_transfer=(1 << 63) - 1,
            chunk_bytes=self._chunk,
            window_bytes=self._limits.window_bytes,
            verification=_VERIFICATION[self._wire],
            encrypted=bool(self._wire & _SEALED),
        )

    def stand(self, transfer: Transfer, trigger: int) -> bool:
        """Post `transfer` each time that the eventfd `trigger` is written to, one at a time.

        Until it is concluded, cancelled or fails. False: not (any more) possible.
        """
        dst = transfer.dst
        source = transfer.region.address + transfer.start
        place = (dst.arena, dst.offset, dst.length, dst.epoch, dst.key)
        try:
            self._port.stand(transfer.op_id, source, *place, int(transfer.priority), trigger)
        except RuntimeError as error:
            _log.info("a transfer is posted each time: %s", error)
            return False
        return True

    def conclude(self, op_id: int) -> None:
        """A standing transfer is triggered no more: it completes when all so far is verified."""
        self._port.conclude(op_id)

    def hang(self, region: Region, bell: int) -> bool:
        """Have whole arrivals in `region` write to the eventfd `bell` instead of being events."""
        return bool(self._port.hang(region.handle.key, bell))

    def carried(self, op_id: int) -> tuple[int, int]:
        """How often a standing transfer was verified by the peer, and the ns that took in all."""
        times, ns = self._port.carried(op_id)
        return times, ns

    def rings(self, region: Region) -> int:
        """How often the bell of `region` was rung."""
        return int(self._port.rings(region.handle.key))

    def share(self, arena: Any) -> bool:
        """Let the peer read `arena` (a _core.Arena) in place. False: not on this path."""
        return bool(self._port.share(arena))


@atexit.register
def _end() -> None:
    """Stop every thread that still writes to Python's memory before the interpreter goes."""
    for transport in list(_open):
        transport.close()
        transport._port.join()
