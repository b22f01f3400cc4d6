"""The protocol of one connection: a state machine without I/O, clock or threads.

Frames come in through `reader`; what is to be sent comes out of `fill()`; what happened comes
out of `take_events()`. The caller serialises all calls.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from genie_transport._errors import ProtocolViolation, Refusal, refused
from genie_transport._frames import (
    FrameReader,
    FrameWriter,
    Header,
    Kind,
    pack_destination,
    unpack_destination,
)
from genie_transport._queue import Outgoing, SendQueue
from genie_transport._regions import MAX_OPEN, Destination, Inbound
from genie_transport._types import (
    Arrived,
    Completed,
    Counters,
    Event,
    Failed,
    Limits,
    Priority,
    Progressed,
    Region,
    Transfer,
)

__all__ = ["Link", "PeerTerms"]

_JOIN = 2048  # copying a frame of this size costs less than the parts it saves


@dataclass(frozen=True)
class PeerTerms:
    """What the peer said when the connection was made: its window, frame size and patience."""

    window_bytes: int
    chunk_bytes: int
    stall_timeout: float


class Link:
    """One authenticated connection; implements FrameSink.

    Transfers are sent without waiting to be admitted: a peer that refuses one drops its data.
    Bulk classes leave a quarter of the window free, so that a decode transfer never waits for
    credit that weights have used up.
    """

    def __init__(
        self,
        inbound: Inbound,
        counters: Counters,
        limits: Limits,
        peer: PeerTerms,
        send_key: bytes,
        receive_key: bytes,
    ) -> None:
        self.reader = FrameReader(receive_key, self, limits.chunk_bytes)
        self.peer = peer
        self.peer_closed = False
        self._writer = FrameWriter(send_key)
        self._inbound = inbound
        self._counters = counters
        self._chunk = min(limits.chunk_bytes, peer.chunk_bytes)
        self._reserve = peer.window_bytes // 4
        self._window = limits.window_bytes
        self._events: list[Event] = []
        # sending
        self._queue = SendQueue()
        self._known: dict[int, Outgoing] = {}  # by op_id: queued or not yet acknowledged
        self._opened: dict[int, Outgoing] = {}  # by message number
        self._control: deque[tuple[Kind, int, int, int]] = deque()
        self._next_message = 0
        self._sent = 0  # payload bytes of DATA, in total
        self._peer_window = peer.window_bytes
        self._allowed = peer.window_bytes
        # receiving
        self._next_incoming = 0
        self._taken = 0
        self._granted = limits.window_bytes
        self._acks: dict[int, int] = {}

    # -- orders from this side --------------------------------------------------------------

    def post(self, transfer: Transfer) -> None:
        """Queue a transfer."""
        outgoing = Outgoing(transfer, transfer.source)
        self._known[transfer.op_id] = outgoing
        self._queue.push(outgoing)

    def cancel(self, op_id: int) -> None:
        """Send no more of it, and tell the peer if it has heard of it."""
        outgoing = self._known.pop(op_id, None)
        if outgoing is not None:
            self._queue.drop(outgoing)
            if outgoing.message >= 0:
                del self._opened[outgoing.message]
                self._control.append((Kind.CANCEL, outgoing.message, 0, 0))

    def withdraw(self, region: Region) -> None:
        """Let no further byte into `region`; turn away what is being written there."""
        self._turn_away(self._inbound.withdraw(region), "GEN0623", 0)

    def fence(self, epoch: int) -> None:
        """Turn away everything of an epoch before `epoch`."""
        self._turn_away(self._inbound.fence(epoch), "GEN0624", epoch)

    def keepalive(self) -> None:
        """Have a frame sent even when there is nothing to say."""
        if not self._control:
            self._control.append((Kind.GRANT, 0, 0, 0))

    def bye(self) -> None:
        """Announce the end, behind the acknowledgements."""
        self._control.append((Kind.BYE, 0, 0, 0))

    def take_events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    # -- sending -----------------------------------------------------------------------------

    def fill(self, out: deque[memoryview], budget: int, *, data: bool = True) -> int:
        """Append frames to `out`, about `budget` bytes; control frames first. Bytes appended."""
        total = 0
        while self._acks and total < budget:
            total += self._emit(out, Kind.ACK, *self._acks.popitem())
        while self._control and total < budget:
            total += self._emit(out, *self._control.popleft())
        while data and total < budget:
            wrote = self._emit_data(out)
            if not wrote:
                break
            total += wrote
        # Data that was discarded gives back credit without an acknowledgement to carry it.
        if self._taken + self._window - self._granted >= self._window // 4:
            total += self._emit(out, Kind.GRANT)
        return total

    def _emit_data(self, out: deque[memoryview]) -> int:
        outgoing = self._queue.head()
        if outgoing is None:
            return 0
        transfer = outgoing.transfer
        credit = self._allowed - self._sent
        room = MAX_OPEN - len(self._opened)
        if transfer.priority >= Priority.WEIGHTS:
            credit -= self._reserve
            room -= MAX_OPEN // 4
        count = min(self._chunk, outgoing.length - outgoing.sent)
        # Wait for room for a whole chunk: crumbs of credit would become crumbs of frames.
        if count > credit or (outgoing.message < 0 and room <= 0):
            return 0
        total = 0
        if outgoing.message < 0:
            outgoing.message = self._next_message
            self._next_message += 1
            self._opened[outgoing.message] = outgoing
            destination = pack_destination(Destination.of(transfer.dst))
            total += self._emit(
                out, Kind.OPEN, outgoing.message, 0, outgoing.length, payload=destination
            )
        if count:
            begin = outgoing.sent
            piece = outgoing.source[begin : begin + count]
            total += self._emit(out, Kind.DATA, outgoing.message, begin, payload=piece)
            outgoing.sent += count
            self._sent += count
            self._note_in_flight()
        self._queue.advance(outgoing)
        return total

    def _emit(
        self,
        out: deque[memoryview],
        kind: Kind,
        message: int = 0,
        offset: int = 0,
        length: int = 0,
        payload: bytes | memoryview = b"",
    ) -> int:
        self._granted = self._taken + self._window
        parts = self._writer.seal(
            kind,
            message=message,
            offset=offset,
            length=length,
            credit=self._granted,
            payload=payload,
        )
        total = sum(map(len, parts))
        if total <= _JOIN:
            # One part a small frame, so that one gathering send takes many of them.
            out.append(memoryview(b"".join(parts)))
        else:
            out.extend(memoryview(part) for part in parts)
        return total

    def _note_in_flight(self) -> None:
        # What the peer allows beyond its window is what it has taken so far.
        in_flight = self._sent - (self._allowed - self._peer_window)
        self._counters.in_flight = in_flight
        self._counters.peak_in_flight = max(self._counters.peak_in_flight, in_flight)

    # -- receiving (FrameSink) ---------------------------------------------------------------

    def place(self, header: Header) -> memoryview | None:
        """Where a chunk goes: checked against credit, order and the registered region first."""
        if self._taken + header.payload > self._granted:
            raise ProtocolViolation("more data than was granted")
        if header.message >= self._next_incoming:
            raise ProtocolViolation("data of a transfer that was never opened")
        if header.message not in self._inbound:
            return None  # refused or cancelled: its sender will hear, or knows
        view = self._inbound.view(header.message, header.offset, header.payload)
        if view is None:
            raise ProtocolViolation("a chunk that repeats, skips or overruns")
        return view

    def frame(self, header: Header, payload: bytes, intact: bool) -> None:
        """Act on a whole frame."""
        self._credit(header.credit)
        # A correct peer has at most MAX_OPEN questions; one that asks on and takes no answers
        # must not fill our memory with them.
        if len(self._acks) + len(self._control) > 4 * MAX_OPEN:
            raise ProtocolViolation("answers are not being taken")
        match header.kind:
            case Kind.OPEN:
                if not intact:
                    raise ProtocolViolation("a destination whose tag does not verify")
                self._on_open(header, payload)
            case Kind.DATA:
                self._on_data(header, intact)
            case Kind.ACK:
                self._on_ack(header)
            case Kind.REFUSE:
                self._on_refuse(header)
            case Kind.CANCEL:
                self._check_incoming(header.message)
                self._inbound.drop(header.message)
                self._acks.pop(header.message, None)
            case Kind.BYE:
                self.peer_closed = True
            case Kind.GRANT:
                pass

    def _credit(self, credit: int) -> None:
        # The peer's total never shrinks, and exceeds what was sent by its window at most.
        if not self._allowed <= credit <= self._sent + self._peer_window:
            raise ProtocolViolation("impossible credit")
        self._allowed = credit
        self._note_in_flight()

    def _on_open(self, header: Header, payload: bytes) -> None:
        if header.message != self._next_incoming:
            raise ProtocolViolation("a transfer opened out of order")
        self._next_incoming += 1
        destination = unpack_destination(payload)
        if destination.length != header.length:
            raise ProtocolViolation("a transfer of another length than its destination")
        if len(self._inbound) >= MAX_OPEN:
            raise ProtocolViolation("too many transfers at once")
        try:
            self._inbound.open(header.message, destination)
        except Refusal as refusal:
            self._turn_away([header.message], refusal.code, refusal.detail)
            return
        if not header.length:
            self._land(header.message, 0)

    def _on_data(self, header: Header, intact: bool) -> None:
        self._taken += header.payload
        # Withdrawn while it was being received: its sender has been told already.
        if header.message not in self._inbound:
            return
        if intact:
            self._land(header.message, header.payload)
        else:
            verified = self._inbound.verified(header.message)
            self._inbound.drop(header.message)
            self._turn_away([header.message], "GEN0630", verified)

    def _land(self, message: int, count: int) -> None:
        landing = self._inbound.landed(message, count)
        self._acks[message] = landing.verified
        if landing.arrived is not None:
            self._events.append(Arrived(landing.arrived))

    def _turn_away(self, messages: list[int], code: str, detail: int) -> None:
        for message in messages:
            self._acks.pop(message, None)
            self._control.append((Kind.REFUSE, message, int(code[3:]), detail))
        self.reader.divert(lambda message: message in messages)

    def _check_incoming(self, message: int) -> None:
        if message >= self._next_incoming:
            raise ProtocolViolation("a transfer that was never opened")

    def _on_ack(self, header: Header) -> None:
        outgoing = self._outgoing(header.message)
        if outgoing is None:
            return
        verified = header.offset
        last = verified == outgoing.length and outgoing.sent == outgoing.length
        if not outgoing.verified <= verified <= outgoing.sent:
            raise ProtocolViolation("an acknowledgement of what was not sent")
        outgoing.verified = verified
        op_id = outgoing.transfer.op_id
        if last:
            del self._opened[header.message]
            del self._known[op_id]
            self._events.append(Completed(op_id))
        else:
            self._events.append(Progressed(op_id, verified))

    def _on_refuse(self, header: Header) -> None:
        outgoing = self._outgoing(header.message)
        if outgoing is None:
            return
        del self._opened[header.message]
        del self._known[outgoing.transfer.op_id]
        self._queue.drop(outgoing)
        code, message = refused(f"GEN{header.offset % 10000:04d}", header.length)
        self._events.append(Failed(outgoing.transfer.op_id, code, message))

    def _outgoing(self, message: int) -> Outgoing | None:
        if message >= self._next_message:
            raise ProtocolViolation("an answer to a transfer that was never opened")
        return self._opened.get(message)
