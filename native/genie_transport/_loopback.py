"""The loopback transport: copies between buffers of one process, under the same rules."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque

from genie_schemas.errors import InternalError
from genie_transport._errors import Refusal, refused
from genie_transport._queue import Outgoing, SendQueue
from genie_transport._regions import Destination, Inbound
from genie_transport._types import (
    Arrived,
    Capabilities,
    Completed,
    Connected,
    Counters,
    Event,
    Failed,
    Limits,
    Lost,
    Progressed,
    Region,
    Transfer,
)

__all__ = ["LoopbackTransport"]

_TURN = 4 << 20  # bytes copied before poll returns with what has happened


class LoopbackTransport:
    """Implements Transport; its peer is another one of the same process, or itself.

    The poster's thread copies, chunk by chunk, into the receiver's regions while it holds the
    receiver's lock: what was withdrawn is never written again. Locks are held one at a time.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._peer: LoopbackTransport = self
        self._turnstile = threading.Lock()
        self._condition = threading.Condition()  # guards all below but the sender's own part
        self._inbound = Inbound()
        self._events: list[Event] = [Connected()]
        self._inbox: deque[Transfer | int] = deque()
        self._closing = False
        self._peer_gone = False
        self._ended = False
        self._counters = Counters()
        # the sender's own part, touched by the polling thread alone
        self._queue = SendQueue()
        self._known: dict[int, Outgoing] = {}
        self._next_message = 0

    @classmethod
    def pair(cls, limits: Limits) -> tuple[LoopbackTransport, LoopbackTransport]:
        """Two transports that are each other's peer."""
        a, b = cls(limits), cls(limits)
        a._peer, b._peer = b, a
        return a, b

    def capabilities(self) -> Capabilities:
        return Capabilities(
            path="loopback",
            remote=False,
            devices=("cpu",),
            max_transfer=(1 << 63) - 1,
            chunk_bytes=self._limits.chunk_bytes,
            window_bytes=self._limits.window_bytes,
            verification="memory",
            encrypted=False,
        )

    def counters(self) -> Counters:
        return dataclasses.replace(self._counters)

    def register(self, region: Region) -> None:
        with self._turnstile, self._condition:
            self._inbound.register(region)

    def deregister(self, region: Region) -> None:
        with self._turnstile, self._condition:
            self._inbound.withdraw(region)

    def fence(self, epoch: int) -> None:
        with self._turnstile, self._condition:
            self._inbound.fence(epoch)

    def post(self, transfer: Transfer) -> None:
        with self._condition:
            self._inbox.append(transfer)
            self._condition.notify()

    def cancel(self, op_id: int) -> None:
        with self._condition:
            self._inbox.append(op_id)
            self._condition.notify()

    def wake(self) -> None:
        with self._condition:
            self._condition.notify()

    def close(self) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify()

    def poll(self, timeout: float | None) -> list[Event]:
        with self._condition:
            if not self._pending():
                self._condition.wait(timeout)
            orders, self._inbox = self._inbox, deque()
            end = self._closing or self._peer_gone
        for order in orders:
            self._take(order)
        copied = 0
        while not end and copied < _TURN and (outgoing := self._queue.head()) is not None:
            copied += self._copy_chunk(outgoing)
        if end:
            return self._end()
        with self._condition:
            events, self._events = self._events, []
        return events

    def _pending(self) -> bool:
        busy = self._inbox or self._events or self._closing or self._peer_gone
        return bool(busy) or self._queue.head() is not None

    def _take(self, order: Transfer | int) -> None:
        if isinstance(order, Transfer):
            outgoing = self._known[order.op_id] = Outgoing(order, order.source)
            self._queue.push(outgoing)
            return
        cancelled = self._known.pop(order, None)
        if cancelled is not None:
            self._queue.drop(cancelled)
            with self._peer._condition:
                self._peer._inbound.drop(cancelled.message)

    def _copy_chunk(self, outgoing: Outgoing) -> int:
        """Copy the next chunk into the peer's memory and note what that changed."""
        transfer, peer = outgoing.transfer, self._peer
        count = min(self._limits.chunk_bytes, outgoing.length - outgoing.sent)
        outcome: Event
        with peer._turnstile:
            pass  # whoever withdraws a region goes first
        with peer._condition:
            if peer._ended:
                return _TURN  # peer_gone is set by now, and ends this side
            try:
                arrived = self._write(outgoing, peer._inbound, count)
            except Refusal as refusal:
                code, message = refused(refusal.code, refusal.detail)
                outcome = Failed(transfer.op_id, code, message)
                count = 0
            else:
                if outgoing.verified == outgoing.length:
                    outcome = Completed(transfer.op_id)
                else:
                    outcome = Progressed(transfer.op_id, outgoing.verified)
                peer._counters.bytes_received += count
                if arrived is not None:
                    peer._events.append(Arrived(arrived))
                    peer._condition.notify()
        if isinstance(outcome, Failed):
            self._queue.drop(outgoing)
        else:
            self._queue.advance(outgoing)
        if not isinstance(outcome, Progressed):
            del self._known[transfer.op_id]
        self._counters.bytes_sent += count
        self._counters.peak_in_flight = max(self._counters.peak_in_flight, count)
        self._counters.sends += 1
        with self._condition:
            self._events.append(outcome)
        return count

    def _write(self, outgoing: Outgoing, inbound: Inbound, count: int) -> bytes | None:
        """Open when new, check, copy; the receiver's key when its whole region has arrived."""
        dst = outgoing.transfer.dst
        if outgoing.message < 0:
            outgoing.message = self._next_message
            self._next_message += 1
            inbound.open(outgoing.message, Destination.of(dst))
        elif outgoing.message not in inbound:
            stale = dst.epoch < inbound.epoch
            raise Refusal("GEN0624", inbound.epoch) if stale else Refusal("GEN0623")
        view = inbound.view(outgoing.message, outgoing.sent, count)
        if view is None:
            raise InternalError("loopback copied out of order")
        view[:] = outgoing.source[outgoing.sent : outgoing.sent + count]
        outgoing.sent += count
        landing = inbound.landed(outgoing.message, count)
        outgoing.verified = landing.verified
        return landing.arrived

    def _end(self) -> list[Event]:
        with self._condition:
            self._ended = True
            self._inbound = Inbound()  # let go of the registered buffers
            events, self._events = self._events, []
            closed = self._closing
        peer = self._peer
        if peer is not self:
            with peer._condition:
                peer._peer_gone = True
                peer._condition.notify()
        if closed:
            return [*events, Lost("GEN0611", "the manager was closed", {})]
        return [*events, Lost("GEN0610", "the peer closed the connection", {})]
