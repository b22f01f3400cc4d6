"""The connection beside a port: whole messages in and out, and a way to wake whoever waits."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time

from genie_transport._control import Control
from genie_transport._errors import ProtocolViolation
from genie_transport._handshake import TrafficKeys

__all__ = ["Line"]

_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Line:
    """Owned by one thread, but for wake(). Takes no byte behind the message that it returns."""

    def __init__(self, sock: socket.socket, keys: TrafficKeys, greeting: bytes = b"") -> None:
        """`greeting` goes out first. `sock` belongs to the line until detach()."""
        sock.setblocking(False)
        self.control = Control(keys)
        self.gone = ""
        """Why the connection has ended; "" while it has not."""
        self._sock = sock
        self._out = bytearray(greeting)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake_fd, select.POLLIN)
        self._poll.register(sock.fileno(), select.POLLIN)

    def wake(self) -> None:
        """Make next() or pause() return, from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def send(self, data: bytes) -> None:
        """Queue bytes; next() and flush() send them."""
        self._out += data

    def next(self, timeout: float | None) -> tuple[int, bytes] | None:
        """The next message (type, body). None: time has passed, wake() was called, or `gone`."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.gone:
            if (message := self._receive()) is not None:
                return message
            self._transmit()
            left = None if end is None else end - time.monotonic()
            if self.gone or (left is not None and left <= 0):
                return None
            if self._wait(left):
                return None
        return None

    def flush(self, timeout: float) -> bool:
        """Send what is queued without receiving anything; whether all of it went."""
        end = time.monotonic() + timeout
        while self._out and not self.gone:
            self._transmit()
            left = end - time.monotonic()
            if not self._out or left <= 0:
                break
            writable = select.poll()
            writable.register(self._sock.fileno(), select.POLLOUT)
            writable.poll(int(left * 1000) + 1)
        return not self._out

    def pause(self, seconds: float) -> None:
        """Wait for wake() alone."""
        waiting = select.poll()
        waiting.register(self._wake_fd, select.POLLIN)
        if waiting.poll(int(seconds * 1000) + 1):
            os.eventfd_read(self._wake_fd)

    def detach(self) -> socket.socket:
        """Hand the connection over; nothing else may be asked of the line but close()."""
        self._poll.unregister(self._sock.fileno())
        sock, self._sock = self._sock, socket.socket()
        self._sock.close()
        return sock

    def close(self) -> None:
        """Close what is left. Idempotent; nobody may call wake() any more."""
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1
        with contextlib.suppress(OSError):  # the peer was faster
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _wait(self, left: float | None) -> bool:
        """Wait for the connection, or for wake(): True then."""
        mask = select.POLLIN | (select.POLLOUT if self._out else 0)
        self._poll.modify(self._sock.fileno(), mask)
        limit = None if left is None else int(left * 1000) + 1
        if any(fd == self._wake_fd for fd, _ in self._poll.poll(limit)):
            os.eventfd_read(self._wake_fd)
            return True
        return False

    def _receive(self) -> tuple[int, bytes] | None:
        try:
            while True:
                data = self._sock.recv(min(self.control.wanted(), 1 << 16))
                if not data:
                    self.gone = "the peer closed the connection, or died"
                    return None
                if (message := self.control.add(data)) is not None:
                    return message
        except _NOT_NOW:
            return None
        except (OSError, ProtocolViolation) as error:
            self.gone = str(error)
            return None

    def _transmit(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except _NOT_NOW:
            return
        except OSError as error:
            self.gone = error.strerror or str(error)
