"""Brings a transport's events to those who wait for them, without a thread between.

Whoever waits takes the lead: it waits in the transport itself, deals with all that happened, and
passes the lead on. An event loop watches the transport's descriptor. Only for callbacks that
nobody waits for there is a thread, started with the first of them; it leads when nobody else does,
and it alone runs the callbacks, so that user code never runs inside somebody else's wait.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from genie_transport._transport import Transport
from genie_transport._types import Event

if TYPE_CHECKING:
    import asyncio

__all__ = ["Pump"]


class Pump:
    """One for each manager. `dispatch` gets the events, from one thread at a time."""

    def __init__(
        self, transport: Transport, dispatch: Callable[[Sequence[Event]], None], name: str
    ) -> None:
        self.lock = threading.Lock()  # guards the ends of the manager's futures
        self._transport = transport
        self._dispatch = dispatch
        self._name = name
        self._lead = threading.Lock()
        self._turn = threading.Condition()  # notified when something changed, or the lead is free
        self._waiting = 0  # threads that want the lead, or what its holder brings
        self._watched = 0  # futures with callbacks to be run
        self._calls: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._serving = False
        self._thread_leads = False
        self._loops: dict[asyncio.AbstractEventLoop, tuple[int, int]] = {}
        self._ended = False

    # -- waiting -----------------------------------------------------------------------------

    def wait(self, test: Callable[[], object], timeout: float | None = None) -> bool:
        """Wait until test() holds, for `timeout` seconds at most. What it returned at last."""
        if test():
            return True
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                self.glance()
                return bool(test())
            if self._lead.acquire(blocking=False):
                try:
                    if not self._ended and not test():
                        self._take(left)
                finally:
                    self._pass_on()
            else:
                self._follow(test, left)
            if test():
                return True
            if self._ended:
                return False

    def glance(self) -> None:
        """Deal with what has happened, without waiting."""
        if self._ended or not self._transport.pending():
            return
        if self._lead.acquire(blocking=False):
            try:
                if not self._ended:
                    self._take(0)
            finally:
                self._pass_on()

    def changed(self) -> None:
        """Somebody else than the leader changed what others may wait for."""
        if self._waiting:
            with self._turn:
                self._turn.notify_all()

    def _take(self, timeout: float | None) -> None:
        """Wait for events and deal with them. The caller has the lead."""
        events = self._transport.poll(timeout)
        if events:
            self._dispatch(events)
            self.changed()

    def _pass_on(self) -> None:
        self._lead.release()
        # Whoever counts itself as waiting looks at the lead afterwards: none is forgotten.
        if self._waiting or self._thread is not None:
            with self._turn:
                self._turn.notify_all()

    def _follow(self, test: Callable[[], object], left: float | None) -> None:
        """Wait until the leader has news, or there is none."""
        with self._turn:
            self._waiting += 1
            try:
                if self._lead.locked() and not test():
                    if self._thread_leads:
                        self._transport.wake()  # the thread gives way to those who wait
                    self._turn.wait(left)
            finally:
                self._waiting -= 1
                if not self._waiting and self._thread is not None:
                    # The thread gave way to us: it may have looked before we were done.
                    self._turn.notify_all()

    # -- the end -----------------------------------------------------------------------------

    def end(self) -> None:
        """The transport's last event was dealt with. The caller has the lead."""
        self._ended = True
        loops, self._loops = self._loops, {}
        for loop, (descriptor, _) in loops.items():
            try:
                loop.call_soon_threadsafe(_unwatch, loop, descriptor)
            except RuntimeError:  # the loop was closed before
                os.close(descriptor)
        with self._turn:
            self._turn.notify_all()

    def join(self) -> None:
        """Wait for the thread, if there is one and this is not it."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # -- callbacks ---------------------------------------------------------------------------

    def in_callback(self) -> bool:
        """Whether this is the thread that runs callbacks."""
        return threading.current_thread() is self._thread

    def watch(self) -> None:
        """A future got its first callback: somebody must see its end."""
        with self._turn:
            self._watched += 1
            self._ensure_thread()
            self._turn.notify_all()

    def unwatch(self) -> None:
        """Its callbacks are run, or will be."""
        with self._turn:
            self._watched -= 1

    def later(self, call: Callable[[], None]) -> None:
        """Have the thread run `call`; at once when all has ended and there is none any more."""
        with self._turn:
            self._ensure_thread()
            if self._serving:
                self._calls.append(call)
                self._turn.notify_all()
                return
        call()

    def _ensure_thread(self) -> None:
        if self._thread is None and not self._ended:
            self._serving = True
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._calls or self._ended or self._may_lead())
                if self._ended and not self._calls:
                    self._serving = False
                    return
            while self._calls:
                self._calls.popleft()()
            if self._may_lead() and self._lead.acquire(blocking=False):
                self._thread_leads = True
                try:
                    if not self._ended and not self._waiting:
                        self._take(None)
                finally:
                    self._thread_leads = False
                    self._pass_on()

    def _may_lead(self) -> bool:
        return self._watched > 0 and not self._waiting and not self._lead.locked()

    # -- event loops -------------------------------------------------------------------------

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have `loop`, which runs in this thread, deal with events from now on."""
        if self._ended or loop in self._loops:
            return
        source = self._transport.fileno()
        # A duplicate of its own: the transport may close before this loop can let go of it.
        descriptor = os.dup(source)
        self._loops[loop] = (descriptor, source)
        loop.add_reader(descriptor, self._readable, loop)

    def _readable(self, loop: asyncio.AbstractEventLoop) -> None:
        self.glance()
        known = self._loops.get(loop)
        if known is not None and known[1] != self._transport.fileno():
            del self._loops[loop]  # its peer came, and the descriptor is another one now
            _unwatch(loop, known[0])
            self.enter(loop)


def _unwatch(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    with contextlib.suppress(RuntimeError):
        loop.remove_reader(descriptor)
    os.close(descriptor)
