"""Gives a transport that moves bytes in poll() the thread that it needs."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence

from genie_transport._transport import PolledTransport
from genie_transport._types import Capabilities, Counters, Event, Expired, Lost, Region, Transfer

__all__ = ["ThreadedTransport"]

_log = logging.getLogger("genie_transport")
_LONGEST = 3600.0


class ThreadedTransport:
    """Implements Transport over a PolledTransport. For the reference transports only."""

    def __init__(self, polled: PolledTransport) -> None:
        self._polled = polled
        self._condition = threading.Condition()
        self._events: list[Event] = []
        self._woken = False
        self._alarm: float | None = None
        self._gate = threading.Event()
        self._gate.set()
        self._parked = threading.Event()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        path = polled.capabilities().path
        self._thread = threading.Thread(
            target=self._run, name=f"genie-transfer-{path}-io", daemon=True
        )
        self._thread.start()

    def capabilities(self) -> Capabilities:
        return self._polled.capabilities()

    def counters(self) -> Counters:
        return self._polled.counters()

    def register(self, region: Region) -> None:
        self._polled.register(region)

    def deregister(self, region: Region) -> None:
        self._polled.deregister(region)

    def fence(self, epoch: int) -> None:
        self._polled.fence(epoch)

    def post(self, transfer: Transfer) -> None:
        self._polled.post(transfer)

    def cancel(self, op_id: int) -> None:
        self._polled.cancel(op_id)

    def alarm(self, delay: float) -> None:
        at = time.monotonic() + min(delay, _LONGEST)
        with self._condition:
            if self._alarm is not None and self._alarm <= at:
                return
            self._alarm = at
        self._polled.wake()

    def fileno(self) -> int:
        return self._fd

    def pending(self) -> bool:
        return bool(self._events)

    def poll(self, timeout: float | None) -> Sequence[Event]:
        with self._condition:
            if timeout != 0:
                self._condition.wait_for(lambda: self._events or self._woken, timeout)
            self._woken = False
            events, self._events = self._events, []
            if events:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._fd)
        if events and isinstance(events[-1], Lost):
            self._thread.join()
            os.close(self._fd)
        return events

    def wake(self) -> None:
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def close(self) -> None:
        self._polled.close()

    def hold(self, yes: bool) -> None:
        """Stop (True) and restart all movement, for tests."""
        if not yes:
            self._parked.clear()
            self._gate.set()
            return
        self._gate.clear()
        # A thread that is just about to wait does not hear a single call.
        while not self._parked.wait(0.001) and self._thread.is_alive():
            self._polled.wake()

    # -- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        ended = False
        try:
            while not ended:
                events = list(self._polled.poll(self._until_alarm()))
                events += self._ring()
                ended = bool(events) and isinstance(events[-1], Lost)
                self._add(events)
                if not self._gate.is_set():
                    self._park()
        except Exception as error:
            # A bug, but nobody may wait for ever because of it.
            _log.exception("the transfer thread of the %s path failed", self.capabilities().path)
            with contextlib.suppress(Exception):
                self._polled.close()
                self._polled.poll(0)
            self._add([Lost("GEN0610", f"the transfer thread failed: {error!r}", {})])

    def _park(self) -> None:
        self._parked.set()
        while not self._gate.wait(self._until_alarm()):
            self._add(self._ring())

    def _add(self, events: list[Event]) -> None:
        if events:
            with self._condition:
                self._events += events
                os.eventfd_write(self._fd, 1)
                self._condition.notify_all()

    def _until_alarm(self) -> float | None:
        alarm = self._alarm
        return None if alarm is None else max(0.0, alarm - time.monotonic())

    def _ring(self) -> list[Event]:
        with self._condition:
            if self._alarm is None or self._alarm > time.monotonic():
                return []
            self._alarm = None
        return [Expired()]
