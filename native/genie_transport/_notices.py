"""One descriptor for whatever moves a session's bytes, and for events that it did not report."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Sequence

from genie_transport._types import Event

__all__ = ["Notices"]


class Notices:
    """Readable while it holds events, or a descriptor that it watches is readable.

    It stays the same when what moves the bytes changes, so that event loops need not follow.
    Callers of add() and take() hold the session's lock.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ready = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._ready.register(self._fd, select.EPOLLIN)

    def __bool__(self) -> bool:
        """Whether there are events to take."""
        return bool(self._events)

    def fileno(self) -> int:
        return self._ready.fileno()

    def watch(self, descriptor: int) -> None:
        self._ready.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # its owner may have closed it
            self._ready.unregister(descriptor)

    def add(self, events: Sequence[Event]) -> None:
        self._events += events
        os.eventfd_write(self._fd, 1)

    def take(self) -> list[Event]:
        """All events; call it when there are some."""
        events, self._events = self._events, []
        os.eventfd_read(self._fd)
        return events

    def close(self) -> None:
        self._ready.close()
        os.close(self._fd)
