"""A transport that is chosen when its peer comes: what was asked for before is done first."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from genie_transport._transport import StandingTransport, Transport, standing
from genie_transport._types import Capabilities, Counters, Event, Expired, Lost, Region, Transfer

__all__ = ["LateTransport"]


class LateTransport:
    """Implements Transport. Every order is kept until begin(), and passed on from then on."""

    def __init__(self, expected: Capabilities) -> None:
        """`expected` describes the path that will probably be chosen."""
        self._expected = expected
        self._condition = threading.Condition()
        self._chosen: Transport | None = None
        self._next: Transport | None = None
        self._regions: dict[bytes, Region] = {}
        self._posts: dict[int, Transfer] = {}
        self._epoch = 0
        self._closing = False
        self._awake = False
        self._alarm: float | None = None
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __del__(self) -> None:
        """Its manager was dropped without an end: only the descriptor is left to give back."""
        self._end()

    def prepare(self, transport: Transport) -> None:
        """Tell `transport` of every order, and of those to come; it has no peer yet.

        A peer may use a handle as soon as it is connected. Whoever does not begin() with the
        transport then gives it up().
        """
        with self._condition:
            if self._chosen is not None or self._closing:
                return
            for region in self._regions.values():
                transport.register(region)
            transport.fence(self._epoch)
            for transfer in self._posts.values():
                transport.post(transfer)
            if self._alarm is not None:
                transport.alarm(max(0.0, self._alarm - time.monotonic()))
            self._next = transport

    def give_up(self) -> None:
        """Its peer did not come to be: wait for the next one."""
        with self._condition:
            self._next = None

    def begin(self) -> bool:
        """Go on with the transport that was prepared. False: none is wanted any more."""
        with self._condition:
            if self._chosen is not None or self._next is None or self._closing:
                return False
            self._chosen, self._next = self._next, None
            os.eventfd_write(self._fd, 1)  # event loops turn to the transport's own descriptor
            self._regions, self._posts = {}, {}
            self._condition.notify_all()
            return True

    @property
    def chosen(self) -> Transport | None:
        """What was chosen, or None."""
        return self._chosen

    def capabilities(self) -> Capabilities:
        return self._expected if self._chosen is None else self._chosen.capabilities()

    def counters(self) -> Counters:
        return Counters() if self._chosen is None else self._chosen.counters()

    def register(self, region: Region) -> None:
        self._later(
            lambda: self._regions.__setitem__(region.handle.key, region),
            lambda t: t.register(region),
        )

    def deregister(self, region: Region) -> None:
        self._later(
            lambda: self._regions.pop(region.handle.key, None), lambda t: t.deregister(region)
        )

    def share(self, arena: object) -> bool:
        """Pass an arena on; False before there is a peer, which may not be on this machine."""
        share = getattr(self._chosen, "share", None)
        return share is not None and bool(share(arena))

    @property
    def standing(self) -> StandingTransport | None:
        """Who posts and rings without being asked each time; None before there is a peer."""
        return standing(self._chosen)

    def fence(self, epoch: int) -> None:
        def keep() -> None:
            self._epoch = max(self._epoch, epoch)

        self._later(keep, lambda t: t.fence(epoch))

    def post(self, transfer: Transfer) -> None:
        self._later(
            lambda: self._posts.__setitem__(transfer.op_id, transfer),
            lambda t: t.post(transfer),
        )

    def cancel(self, op_id: int) -> None:
        self._later(lambda: self._posts.pop(op_id, None), lambda t: t.cancel(op_id))

    def fileno(self) -> int:
        return self._fd if self._chosen is None else self._chosen.fileno()

    def pending(self) -> bool:
        chosen = self._chosen
        if chosen is not None:
            return chosen.pending()
        return self._closing or self._due()

    def poll(self, timeout: float | None) -> Sequence[Event]:
        with self._condition:
            if self._chosen is None and timeout != 0:
                left = self._alarm and max(0.0, self._alarm - time.monotonic())
                limit = min((t for t in (timeout, left) if t is not None), default=None)
                self._condition.wait_for(
                    lambda: self._chosen is not None or self._closing or self._awake, limit
                )
            self._awake = False
            chosen = self._chosen
            if chosen is None:
                return self._early_events()
        events = chosen.poll(timeout)
        if events and isinstance(events[-1], Lost):
            self._end()
        return events

    def _early_events(self) -> Sequence[Event]:
        if self._closing:
            self._end()
            return [Lost("GEN0611", "the manager was closed", {})]
        if self._due():
            self._alarm = None
            return [Expired()]
        return []

    def _due(self) -> bool:
        return self._alarm is not None and self._alarm <= time.monotonic()

    def _end(self) -> None:
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def alarm(self, delay: float) -> None:
        def keep() -> None:
            at = time.monotonic() + min(delay, 3600.0)
            self._alarm = at if self._alarm is None else min(self._alarm, at)
            self._condition.notify_all()

        self._later(keep, lambda t: t.alarm(delay))

    def wake(self) -> None:
        def keep() -> None:
            self._awake = True
            self._condition.notify_all()

        self._later(keep, lambda t: t.wake())

    def close(self) -> None:
        def keep() -> None:
            self._closing = True
            self._condition.notify_all()

        self._later(keep, lambda t: t.close())

    def _later(self, keep: Callable[[], object], act: Callable[[Transport], object]) -> None:
        """Keep an order until begin(), or pass it on."""
        with self._condition:
            if self._chosen is None:
                keep()
                if self._next is not None:
                    act(self._next)
                return
            chosen = self._chosen
        act(chosen)
