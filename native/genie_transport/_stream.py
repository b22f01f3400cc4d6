"""Non-blocking byte streams: a plain socket, and TLS over one."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Sequence
from typing import Protocol

__all__ = ["PlainStream", "Stream", "TlsStream"]

_JOIN = 256 << 10


class Stream(Protocol):
    """What the transport needs of a connection. Failures are OSError."""

    def fileno(self) -> int: ...

    def send(self, parts: Sequence[memoryview]) -> int:
        """Take bytes from the front of `parts`; returns how many (0: no room now)."""
        ...

    def recv_into(self, view: memoryview) -> int | None:
        """Bytes received; 0 at the end of the stream, None when there are none now."""
        ...

    def buffered(self) -> bool:
        """True when bytes can be received that the file descriptor does not announce."""
        ...

    def unsent(self) -> bool:
        """True when taken bytes still wait for room."""
        ...

    def close(self) -> None: ...


class PlainStream:
    """A connected stream socket, in non-blocking mode from here on."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, parts: Sequence[memoryview]) -> int:
        try:
            return self._sock.sendmsg(parts) if parts else 0
        except (BlockingIOError, InterruptedError):
            return 0

    def recv_into(self, view: memoryview) -> int | None:
        try:
            return self._sock.recv_into(view)
        except (BlockingIOError, InterruptedError):
            return None

    def buffered(self) -> bool:
        return False

    def unsent(self) -> bool:
        return False

    def close(self) -> None:
        _close(self._sock)


class TlsStream:
    """A TLS connection after its handshake.

    OpenSSL wants the same bytes again after a partial write, and has no gather write: parts are
    joined (one copy) and kept until they are gone.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._held = memoryview(b"")

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, parts: Sequence[memoryview]) -> int:
        if self.unsent() and not self._push():
            return 0
        joined = bytearray()
        for part in parts:
            joined += part[: _JOIN - len(joined)]
        self._held = memoryview(joined)
        self._push()
        return len(joined)

    def _push(self) -> bool:
        while len(self._held):
            try:
                count = self._sock.send(self._held)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            self._held = self._held[count:]
        return True

    def recv_into(self, view: memoryview) -> int | None:
        try:
            return self._sock.recv_into(view)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def buffered(self) -> bool:
        return self._sock.pending() > 0

    def unsent(self) -> bool:
        return len(self._held) > 0

    def close(self) -> None:
        _close(self._sock)


def _close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer was faster
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
