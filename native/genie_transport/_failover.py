"""A session over a port, and its move to the connection beside it when the port's path is lost.

Nothing is lost and nothing doubled: when both sides have closed the port's session, each asks the
other which of its unfinished messages were received whole (`_control`). Those are complete, and
their arrivals were reported then; all others are posted again on the next transport, as are all
regions registered there. Orders that come in between are kept.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from genie_schemas.errors import GenieError
from genie_transport._control import Handover
from genie_transport._failover_orders import KeptOrders
from genie_transport._failover_parts import (
    GREETING,
    EndedError,
    Phase,
    PortTransport,
    Succeed,
    converse,
    greeting,
    total,
)
from genie_transport._handshake import TrafficKeys
from genie_transport._line import Line
from genie_transport._notices import Notices
from genie_transport._transport import Transport
from genie_transport._types import (
    Capabilities,
    Completed,
    Connected,
    Counters,
    Event,
    Expired,
    Failed,
    Lost,
    Region,
    Transfer,
)

__all__ = ["FailoverTransport"]

_log = logging.getLogger("genie_transport")
_FAREWELL = 0.25  # seconds that a peer's last datagrams have when its connection has ended
_PROBE = 3.0  # seconds that the peer's first datagram may take
_PROBE_STEP = 0.005
_STEP = 0.1  # seconds between looks at whether the first transport has ended
# Ends of the path. After any other the peer cannot be trusted to go on.
_PATH_ENDED = ("GEN0610", "GEN0611", "GEN0615", "GEN0640", "GEN0641")
_UNKNOWN = Lost("GEN0610", "the path was lost", {})


class FailoverTransport:
    """Implements Transport over a port's transport, and later over its successor.

    A thread watches the connection: it says at once that a peer has died, and it carries the move
    out. Orders take `_lock`; whoever polls the first transport holds `_polling`.
    """

    def __init__(
        self,
        first: PortTransport,
        sock: socket.socket,
        control: TrafficKeys,
        *,
        greeting: bytes = b"",
        patience: float,
        succeed: Succeed | None = None,
        moved: Callable[[str], None] = lambda reason: None,
        ready: Callable[[Transport], None] = lambda transport: None,
    ) -> None:
        """`sock` belongs to the transport; `greeting` goes out on it first, after `ready(self)`.

        `succeed(sock, prepare)` makes the next transport, and calls prepare(transport) before it
        takes a byte from `sock`; None: the path was named, and none follows.
        `patience` is how many seconds the peer has to answer. `moved(reason)` is called once.
        """
        self._first = first
        self._second: Transport | None = None
        self._succeed = succeed
        self._moved = moved
        self._patience = patience
        self._phase = Phase.FIRST
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._polling = threading.Lock()
        self._orders = KeptOrders()
        self._asked: dict[int, int] = {}
        self._closing = self._woken = False
        self._why: Lost | None = None
        self._peer_left = False
        self._settled = threading.Event()
        self._first_fd = first.fileno()
        self._before = Counters()
        self._notices = Notices()
        self._notices.watch(self._first_fd)
        self._line = Line(sock, control, greeting)
        path = first.capabilities().path
        self._thread = threading.Thread(
            target=self._run, name=f"genie-transfer-{path}-control", daemon=True
        )
        ready(self)
        self._thread.start()

    # -- orders ------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        return (self._second or self._first).capabilities()

    def counters(self) -> Counters:
        second = self._second
        if second is None:
            return self._first.counters() if self._phase is Phase.FIRST else self._before
        return total(self._before, second.counters())

    def register(self, region: Region) -> None:
        with self._lock:
            self._orders.register(region)
            current = self._current()
            if current is not None:
                current.register(region)

    def deregister(self, region: Region) -> None:
        with self._lock:
            self._orders.deregister(region)
            current = self._current()
        # While the session moves there is nobody who could write.
        if current is not None:
            current.deregister(region)

    def fence(self, epoch: int) -> None:
        with self._lock:
            self._orders.fence(epoch)
            current = self._current()
            if current is not None:
                current.fence(epoch)

    def post(self, transfer: Transfer) -> None:
        if self._second is not None:
            self._second.post(transfer)
            return
        with self._lock:
            current = self._current()
            if self._second is None:
                self._orders.posts[transfer.op_id] = transfer
            if current is not None:
                current.post(transfer)

    def cancel(self, op_id: int) -> None:
        with self._lock:
            self._orders.posts.pop(op_id, None)
            current = self._current()
        if current is not None:
            current.cancel(op_id)

    def alarm(self, delay: float) -> None:
        with self._lock:
            self._orders.alarm(delay)
            current = self._current()
            if current is not None:
                current.alarm(delay)

    def wake(self) -> None:
        with self._lock:
            self._woken = True
            self._changed.notify_all()
            current = self._current()
        if current is not None:
            current.wake()

    def close(self) -> None:
        with self._lock:
            self._closing = True
            current = self._current()
            if self._phase is Phase.MOVING:
                self._line.wake()
        if current is not None:
            current.close()

    def hold(self, yes: bool) -> None:
        """Stop (True) and restart all movement, for tests."""
        current: Any = self._second or self._first
        current.hold(yes)

    def settle(self) -> None:
        """Wait until it is known whether the port reaches the peer."""
        self._settled.wait(_PROBE + self._patience)

    def _current(self) -> Transport | None:
        """Who takes orders; None while the session moves, or has ended. Call it with the lock."""
        return self._first if self._phase is Phase.FIRST else self._second

    # -- events ------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._notices.fileno()

    def pending(self) -> bool:
        if self._notices:
            return True
        with self._lock:
            current = self._current()
        return current is not None and current.pending()

    def poll(self, timeout: float | None) -> Sequence[Event]:
        events: Sequence[Event] = ()
        if self._phase is Phase.FIRST and not self._notices:
            with self._polling:
                if self._phase is Phase.FIRST and not self._notices:
                    events = self._take(self._first.poll(timeout))
            return self._deliver(events)
        if self._phase is Phase.MOVING and not self._notices and timeout != 0:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._notices or self._woken or self._phase is not Phase.MOVING,
                    timeout,
                )
        self._woken = False
        second = self._second
        if second is None or self._notices:
            return self._deliver(events)
        return self._deliver(second.poll(timeout))

    def _deliver(self, events: Sequence[Event]) -> Sequence[Event]:
        """What happened before, and `events`; ends everything with the last event."""
        if self._notices:
            with self._lock:
                events = [*self._notices.take(), *events]
        if events and isinstance(events[-1], Lost):
            self._thread.join()
            self._line.close()
            self._notices.close()
        return events

    def _take(self, events: Sequence[Event]) -> list[Event]:
        """Look at what the first transport says; its end may be the beginning of a move."""
        found: list[Event] = []
        lost = None
        for event in events:
            match event:
                case Lost():
                    lost = event  # whatever comes with it is looked at first
                case Failed(op_id, code, _) if code in _PATH_ENDED or op_id == GREETING:
                    continue  # after the former Lost follows, and decides what becomes of it
                case Completed(op_id) | Failed(op_id):
                    self._orders.posts.pop(op_id, None)
                    found.append(event)
                case Expired():
                    self._orders.rang()
                    found.append(event)
                case _:
                    found.append(event)
        return found if lost is None else found + self._leave(lost)

    def _leave(self, lost: Lost) -> list[Event]:
        """The first transport is gone: move, or end. Returns the end, if it is one."""
        with self._lock:
            if self._closing or self._why is None:
                self._why = lost
            self._notices.unwatch(self._first_fd)
            self._before = self._first.counters()
            moves = (
                self._succeed is not None
                and not self._closing
                and not self._line.gone
                and lost.code in _PATH_ENDED
            )
            if moves:
                # Number 0: nothing of it was sent, so there is nothing to ask.
                known = self._first.outstanding()
                self._asked = {number: op for op, number in known if number}
            self._phase = Phase.MOVING if moves else Phase.ENDED
            self._line.wake()
            return [] if moves else [self._why]

    # -- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            message = self._stand_by()
            if self._phase is Phase.MOVING:
                self._move(message)
        except EndedError as error:
            self._end(error.lost)
        except Exception as error:
            # A bug, but nobody may wait for ever because of it.
            _log.exception("the move of a session to its next path failed")
            self._end(Lost("GEN0652", f"the session could not move: {error!r}", {}))
        finally:
            self._settled.set()

    def _stand_by(self) -> tuple[int, bytes] | None:
        """Wait until the first transport has ended; what the peer said, if it was that."""
        begun = time.monotonic()
        hello = greeting()
        self._first.register(hello.region)
        self._first.post(hello)
        while self._phase is Phase.FIRST:
            if not self._settled.is_set() and self._first.counters().bytes_received:
                self._settled.set()
            heard = self._settled.is_set()
            message = self._line.next(None if heard else _PROBE_STEP)
            if message is not None:
                self._peer_left = True
                self._end_first(Lost("GEN0610", "the peer left the path", {}))
                return message
            if self._line.gone:
                # The peer's farewell, and what it acknowledged before, may be on their way.
                end = time.monotonic() + _FAREWELL
                while self._phase is Phase.FIRST and (left := end - time.monotonic()) > 0:
                    self._line.pause(left)
                self._end_first(Lost("GEN0610", self._line.gone, {}))
            elif not heard and time.monotonic() - begun > _PROBE:
                text = f"nothing came through the port within {_PROBE:g} s"
                self._end_first(Lost("GEN0615", text, {}))
        return None

    def _end_first(self, why: Lost) -> None:
        """Close the first transport and see to its last events, whether or not somebody polls."""
        with self._lock:
            self._why = self._why or why
        self._first.close()
        end = time.monotonic() + self._patience
        while self._phase is Phase.FIRST:
            if time.monotonic() >= end:
                raise EndedError("GEN0652", "the port's session does not end")
            if not self._polling.acquire(blocking=False):
                self._first.wake()  # whoever polls gives way
                self._polling.acquire()
            try:
                if self._phase is Phase.FIRST:
                    self._add(self._take(self._first.poll(_STEP)))
            finally:
                self._polling.release()

    def _move(self, message: tuple[int, bytes] | None) -> None:
        line, why = self._line, self._why or _UNKNOWN
        handover = Handover(line.control, why.message, list(self._asked), self._first.finished)
        converse(line, handover, message, why, self._patience, self._glance)
        if self._peer_left:
            why = dataclasses.replace(why, message=f"the peer left it: {handover.peer_reason}")
        self._go_on(line.detach(), handover.ended or frozenset(), why)

    def _go_on(self, sock: socket.socket, ended: frozenset[int], why: Lost) -> None:
        """Everything that is not known to have ended goes over `sock`."""
        if self._succeed is None:
            raise EndedError(why.code, why.message)
        # Nobody registers or withdraws anything between the two: a handle that is not registered
        # when the peer's first frame comes would be refused, one too many would be written.
        with self._lock:
            try:
                second = self._succeed(sock, self._orders.prepare)
            except GenieError as error:
                sock.close()
                raise EndedError("GEN0652", f"the next path cannot be opened: {error}") from error
            asked = [self._asked[number] for number in ended]
            done = [Completed(op) for op in asked if self._orders.posts.pop(op, None) is not None]
            self._orders.repeat(second)
            self._before.switches += 1
            self._second = second
            self._phase = Phase.SECOND
            self._notices.watch(second.fileno())
            if self._closing:
                second.close()
            self._tell(*done, Connected())  # the path is another one
        there = second.capabilities().path
        _log.warning(
            "the session goes on over %s: %s (%d transfers complete, %d posted again)",
            there,
            why.message,
            len(ended),
            len(self._orders.posts),
        )
        self._orders.clear()
        self._moved(why.message)

    def _glance(self) -> bool:
        """See to the alarm while the session moves; whether it goes on."""
        with self._lock:
            if self._orders.due():
                self._tell(Expired())
        return not self._closing

    def _add(self, events: list[Event]) -> None:
        if events:
            with self._lock:
                self._tell(*events)

    def _end(self, lost: Lost) -> None:
        with self._lock:
            self._phase = Phase.ENDED
            self._tell(lost)

    def _tell(self, *events: Event) -> None:
        self._notices.add(events)
        self._changed.notify_all()
