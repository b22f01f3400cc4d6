"""Events handled one at a time by whoever brings them: serial like a thread, without one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Strand"]

T = TypeVar("T")


class Strand(Generic[T]):
    """Calls `handle` with each event, in the order of `put`, never twice at once.

    The thread that puts an event handles it, and what others put meanwhile; an event that is put
    while it is handled comes after. No lock of ours is held by anyone who waits.
    """

    def __init__(self, handle: Callable[[T], None]) -> None:
        """`handle` must not raise and must not block for long."""
        self._handle = handle
        self._events: deque[T] = deque()
        self._busy = threading.Lock()

    def put(self, event: T) -> None:
        """Handle an event, now or after those that are being handled."""
        self._events.append(event)
        self._drain()

    def try_now(self, call: Callable[[], bool]) -> bool:
        """Call `call` as if it were an event, unless there are others; what it returned."""
        if not self._busy.acquire(blocking=False):
            return False
        try:
            return not self._events and call()
        finally:
            self._busy.release()
            self._drain()

    def _drain(self) -> None:
        # Whoever finds it busy leaves the event to the one who is: that one looks again after
        # it has let go, so that none is forgotten.
        while self._events and self._busy.acquire(blocking=False):
            try:
                while self._events:
                    self._handle(self._events.popleft())
            finally:
                self._busy.release()
