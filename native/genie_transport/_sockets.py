"""The stream transport: one Link over one connected TCP or Unix socket, driven by poll()."""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import ssl
import threading
import time
from collections import deque
from itertools import islice

from genie_transport._errors import ProtocolViolation
from genie_transport._handshake import TrafficKeys
from genie_transport._link import Link, PeerTerms
from genie_transport._regions import Inbound
from genie_transport._stream import Stream
from genie_transport._types import (
    Capabilities,
    Connected,
    Counters,
    Event,
    Limits,
    Lost,
    Region,
    Transfer,
)

__all__ = ["SocketTransport"]

_log = logging.getLogger("genie_transport")
_TURN = 4 << 20  # bytes received, and sent, before the other direction has its turn
_GATHER = 64  # parts of one send call
_LONGEST = 3600.0  # seconds; poll(2) counts milliseconds in 31 bits
_FAREWELL = 0.25  # seconds that close() gives the last acknowledgements


class SocketTransport:
    """Implements Transport. It may be created before its peer is there: see attach().

    `_lock` guards the link and the regions and is held while bytes move, never while waiting.
    Others take it through `_turnstile`, so that a busy poll loop cannot keep them out.
    """

    def __init__(self, path: str, limits: Limits, *, encrypted: bool) -> None:
        self._path = path
        self._limits = limits
        self._encrypted = encrypted
        self._counters = Counters()
        self._inbound = Inbound()
        self._lock = threading.Lock()
        self._turnstile = threading.Lock()
        self._inbox: deque[Transfer | int] = deque()
        self._early: dict[int, Transfer] = {}  # posted before the peer is there
        self._link: Link | None = None
        self._stream: Stream | None = None
        self._out: deque[memoryview] = deque()
        self._out_bytes = 0
        self._blocked = False
        self._more = False
        self._closing = False
        self._ended = False
        self._heard = self._spoke = 0.0
        self._events: list[Event] = []
        self._wake_lock = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._awake = False
        self._poll = select.poll()
        self._poll.register(self._wake_fd, select.POLLIN)

    # -- the connection ----------------------------------------------------------------------

    def attach(
        self, stream: Stream, keys: TrafficKeys, peer: PeerTerms, *, greeting: bytes = b""
    ) -> bool:
        """Go on over `stream`, which then belongs to the transport; `greeting` goes out first.

        False, and the stream stays the caller's, when there is a peer already or none is wanted.
        """
        with self._turnstile, self._lock:
            if self._link is not None or self._closing or self._ended:
                return False
            self._stream = stream
            if greeting:
                self._out.append(memoryview(greeting))
                self._out_bytes = len(greeting)
            self._heard = self._spoke = time.monotonic()
            self._events.append(Connected())
            self._link = Link(
                self._inbound, self._counters, self._limits, peer, keys.send, keys.receive
            )
        self.wake()
        return True

    # -- Transport ---------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        return Capabilities(
            path=self._path,
            remote=self._path == "tcp",
            devices=("cpu",),
            max_transfer=(1 << 63) - 1,
            chunk_bytes=self._limits.chunk_bytes,
            window_bytes=self._limits.window_bytes,
            verification="blake3",
            encrypted=self._encrypted,
        )

    def counters(self) -> Counters:
        return dataclasses.replace(self._counters)

    def register(self, region: Region) -> None:
        with self._turnstile, self._lock:
            self._inbound.register(region)

    def deregister(self, region: Region) -> None:
        with self._turnstile, self._lock:
            if self._link is not None:
                self._link.withdraw(region)
            else:
                self._inbound.withdraw(region)
        self.wake()

    def fence(self, epoch: int) -> None:
        with self._turnstile, self._lock:
            if self._link is not None:
                self._link.fence(epoch)
            else:
                self._inbound.fence(epoch)
        self.wake()

    def post(self, transfer: Transfer) -> None:
        self._inbox.append(transfer)
        self.wake()

    def cancel(self, op_id: int) -> None:
        self._inbox.append(op_id)
        self.wake()

    def wake(self) -> None:
        with self._wake_lock:
            if not self._awake and self._wake_fd >= 0:
                self._awake = True
                os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        self._closing = True
        self.wake()

    def poll(self, timeout: float | None) -> list[Event]:
        self._wait(timeout)
        with self._turnstile:
            pass  # whoever waits for the lock goes first
        with self._lock:
            try:
                self._work()
            except ProtocolViolation as violation:
                _log.warning("%s: the peer broke the protocol: %s", self._path, violation)
                self._end("GEN0631", f"the peer broke the protocol: {violation}")
            except OSError as error:
                self._salvage(_describe(error))
            events, self._events = self._events, []
        return events

    # -- one turn ----------------------------------------------------------------------------

    def _wait(self, timeout: float | None) -> None:
        if self._stream is not None and self._link is not None:
            if self._more:
                timeout = 0.0
            else:
                beat = max(0.0, self._next_beat(self._link) - time.monotonic())
                timeout = beat if timeout is None else min(timeout, beat)
            mask = select.POLLIN | (select.POLLOUT if self._blocked else 0)
            self._poll.register(self._stream.fileno(), mask)
        # Rounded up: a millisecond early would mean a turn for nothing.
        self._poll.poll(None if timeout is None else int(min(timeout, _LONGEST) * 1000 + 0.999))

    def _next_beat(self, link: Link) -> float:
        return min(
            self._spoke + min(self._limits.stall_timeout, link.peer.stall_timeout) / 4,
            self._heard + self._limits.stall_timeout,
        )

    def _work(self) -> None:
        # Cleared before the inbox is read, so that nothing can slip in unseen.
        with self._wake_lock:
            if self._awake:
                self._awake = False
                os.eventfd_read(self._wake_fd)
        link, stream = self._link, self._stream
        self._take_orders(link)
        if link is None or stream is None:
            if self._closing:
                self._end("GEN0611", "the manager was closed")
            return
        self._more = False
        ended = not self._receive(link, stream)
        if not ended and self._closing:
            self._farewell(link, stream)
            return
        if not ended:
            if not self._keep_alive(link):
                return
            self._send(link, stream)
        self._events += link.take_events()
        if ended or link.peer_closed:
            how = "the peer closed the connection" if link.peer_closed else self._cut(link)
            self._end("GEN0610", how)

    def _take_orders(self, link: Link | None) -> None:
        if link is not None and self._early:
            for transfer in self._early.values():
                link.post(transfer)
            self._early = {}
        while self._inbox:
            order = self._inbox.popleft()
            if isinstance(order, Transfer):
                if link is not None:
                    link.post(order)
                else:
                    self._early[order.op_id] = order
            elif link is not None:
                link.cancel(order)
            else:
                self._early.pop(order, None)

    def _receive(self, link: Link, stream: Stream) -> bool:
        """Take what is there, for one turn. False when the stream has ended."""
        reader = link.reader
        taken = 0
        while taken < _TURN and not link.peer_closed:
            view = reader.target()
            count = stream.recv_into(view)
            if count is None:
                return True
            if count == 0:
                return False
            taken += count
            self._counters.bytes_received += count
            self._heard = time.monotonic()
            reader.received(count)
            # A short read has emptied the socket: spare the call that would say so.
            if count < len(view) and not stream.buffered():
                return True
        self._more = True
        return True

    def _send(self, link: Link, stream: Stream, *, data: bool = True) -> None:
        sent = 0
        self._blocked = False
        while True:
            if self._out_bytes < self._limits.chunk_bytes:
                budget = self._limits.chunk_bytes - self._out_bytes
                self._out_bytes += link.fill(self._out, budget, data=data)
            if not self._out and not stream.unsent():
                return
            if sent >= _TURN:
                self._more = True
                return
            count = stream.send(list(islice(self._out, _GATHER)))
            if count == 0 and (self._out or stream.unsent()):
                self._blocked = True
                return
            self._counters.sends += 1
            self._counters.bytes_sent += count
            self._spoke = time.monotonic()
            sent += count
            self._consume(count)

    def _consume(self, count: int) -> None:
        self._out_bytes -= count
        while count:
            head = self._out[0]
            if len(head) > count:
                self._out[0] = head[count:]
                return
            count -= len(head)
            self._out.popleft()

    def _keep_alive(self, link: Link) -> bool:
        """Have the peer hear of us in time. False when it has been silent for too long."""
        now = time.monotonic()
        if now - self._heard >= self._limits.stall_timeout:
            silent = f"{self._limits.stall_timeout:g} s"
            self._end("GEN0615", f"the peer has not sent a byte for {silent}")
            return False
        if now - self._spoke >= min(self._limits.stall_timeout, link.peer.stall_timeout) / 4:
            self._spoke = now  # also when the frame must wait: one at a time is enough
            link.keepalive()
        return True

    # -- the end -----------------------------------------------------------------------------

    def _farewell(self, link: Link, stream: Stream) -> None:
        """Send the last acknowledgements and BYE, without waiting long for a slow peer."""
        self._events += link.take_events()
        link.bye()
        deadline = time.monotonic() + _FAREWELL
        self._send(link, stream, data=False)
        while self._blocked and (left := deadline - time.monotonic()) > 0:
            writable = select.poll()
            writable.register(stream.fileno(), select.POLLOUT)
            writable.poll(int(left * 1000) + 1)
            self._send(link, stream, data=False)
        self._end("GEN0611", "the manager was closed")

    def _salvage(self, error: str) -> None:
        """Sending failed: read what the peer had said before it went, then end."""
        how = f"the connection failed: {error}"
        link, stream = self._link, self._stream
        if link is not None and stream is not None:
            try:
                self._more = True
                while self._more:
                    self._more = False
                    if not self._receive(link, stream) or link.peer_closed:
                        break
            except (OSError, ProtocolViolation):
                pass  # the first failure is the one to report
            if link.peer_closed:
                how = "the peer closed the connection"
        self._end("GEN0610", how)

    @staticmethod
    def _cut(link: Link) -> str:
        inside = "" if link.reader.idle else " in the middle of a frame"
        return f"the connection ended{inside} without a farewell"

    def _end(self, code: str, message: str) -> None:
        """Release everything and say so; once."""
        if self._ended:
            return
        self._ended = True
        if self._link is not None:
            self._events += self._link.take_events()
        if self._stream is not None:
            self._stream.close()
        self._link, self._stream = None, None
        self._out.clear()
        self._inbox.clear()
        self._early.clear()
        self._inbound = Inbound()  # let go of the registered buffers
        with self._wake_lock:
            os.close(self._wake_fd)
            self._wake_fd = -1
        self._events.append(Lost(code, message, {}))


def _describe(error: OSError) -> str:
    """The system's words; TLS errors carry their reason elsewhere."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return error.strerror or str(error)
