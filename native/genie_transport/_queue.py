"""The order in which chunks are sent: strict between priorities, turns within one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from genie_transport._types import Priority, Transfer

__all__ = ["ACTIVE", "Outgoing", "SendQueue"]

# Transfers of one class that take turns; the others wait. It bounds what a receiver must track.
ACTIVE = 64
_PURGE = 256  # dropped transfers that may linger before all queues are swept


@dataclass(eq=False)
class Outgoing:
    """A posted transfer on its way: `message` is its number on the wire once it is opened."""

    transfer: Transfer
    source: memoryview
    message: int = -1
    sent: int = 0
    verified: int = 0
    dropped: bool = False

    @property
    def length(self) -> int:
        return len(self.source)

    @property
    def exhausted(self) -> bool:
        """Opened, and nothing is left to send."""
        return self.message >= 0 and self.sent >= self.length


class SendQueue:
    """Transfers with something left to send. Dropped ones are skipped when their turn comes."""

    def __init__(self) -> None:
        self._active: dict[Priority, deque[Outgoing]] = {p: deque() for p in Priority}
        self._waiting: dict[Priority, deque[Outgoing]] = {p: deque() for p in Priority}
        self._dropped = 0

    def push(self, outgoing: Outgoing) -> None:
        priority = outgoing.transfer.priority
        active = self._active[priority]
        (active if len(active) < ACTIVE else self._waiting[priority]).append(outgoing)

    def drop(self, outgoing: Outgoing) -> None:
        """Send no more of it. It leaves the queue when its turn comes, or in the next sweep."""
        outgoing.dropped = True
        self._dropped += 1
        # Cancelled transfers would otherwise pile up behind a peer that takes nothing.
        if self._dropped > _PURGE:
            self._dropped = 0
            for queues in (self._active, self._waiting):
                for priority, queue in queues.items():
                    queues[priority] = deque(o for o in queue if not o.dropped)
            for priority in Priority:
                self._admit(self._active[priority], self._waiting[priority])

    def head(self) -> Outgoing | None:
        """Whose turn it is, without taking it; None when there is nothing to send."""
        for priority in Priority:
            active, waiting = self._active[priority], self._waiting[priority]
            while active and active[0].dropped:
                active.popleft()
                self._admit(active, waiting)
            if active:
                return active[0]
        return None

    def advance(self, outgoing: Outgoing) -> None:
        """The head has had its turn: to the back of its class, or out when it is exhausted."""
        priority = outgoing.transfer.priority
        active = self._active[priority]
        active.popleft()
        if outgoing.exhausted:
            self._admit(active, self._waiting[priority])
        else:
            active.append(outgoing)

    @staticmethod
    def _admit(active: deque[Outgoing], waiting: deque[Outgoing]) -> None:
        while waiting and len(active) < ACTIVE:
            outgoing = waiting.popleft()
            if not outgoing.dropped:
                active.append(outgoing)
