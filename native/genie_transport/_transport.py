"""The seam between TransferManager and the ways to move bytes.

A transport keeps the table of registered regions, orders posted transfers by priority, moves
them in chunks, and reports events. The manager above it owns futures, deadlines and
back-pressure. A native transport moves bytes in a thread of its own, without the interpreter; one
that is written in Python moves them in `poll` (PolledTransport), and ThreadedTransport makes a
Transport of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from genie_transport._types import Capabilities, Counters, Event, Region, Transfer

__all__ = ["PolledTransport", "StandingTransport", "Transport", "standing"]


class _Orders(Protocol):
    """What both kinds take, from any thread. No failure of the path raises: it is an event."""

    def capabilities(self) -> Capabilities:
        """What this path can do; constant once the peer is there."""
        ...

    def counters(self) -> Counters:
        """A snapshot of the totals."""
        ...

    def register(self, region: Region) -> None:
        """Let the peer reach `region` under its handle's key from now on."""
        ...

    def deregister(self, region: Region) -> None:
        """Withdraw `region`. When this returns, no further byte of it will be written."""
        ...

    def fence(self, epoch: int) -> None:
        """Refuse, from now on, every chunk for a handle of an epoch before `epoch`."""
        ...

    def post(self, transfer: Transfer) -> None:
        """Queue a transfer. Exactly one Completed or Failed follows, unless cancelled or Lost."""
        ...

    def cancel(self, op_id: int) -> None:
        """Stop sending `op_id` and report no more of it, if it is still known."""
        ...

    def wake(self) -> None:
        """Make a waiting poll return, or else the next one."""
        ...

    def close(self) -> None:
        """Ask for the end: the event Lost (GEN0611) follows."""
        ...


@runtime_checkable
class Transport(_Orders, Protocol):
    """One path to one peer, moving by itself."""

    def fileno(self) -> int:
        """A descriptor that is readable while events are pending. It may change, once."""
        ...

    def pending(self) -> bool:
        """Whether poll(0) would return something. Cheap."""
        ...

    def poll(self, timeout: float | None) -> Sequence[Event]:
        """Wait up to `timeout` seconds for events (None: no bound) and take them.

        Called by one thread at a time. May return early and empty. Lost is the last event of all:
        when it is returned, every descriptor and thread is gone, and poll is not called again.
        """
        ...

    def alarm(self, delay: float) -> None:
        """Report Expired in `delay` seconds, unless an earlier one is due."""
        ...


@runtime_checkable
class StandingTransport(Protocol):
    """What some transports can besides: move bytes at the word of another process.

    Eventfds are duplicated: the caller may close them.
    """

    def stand(self, transfer: Transfer, trigger: int) -> bool:
        """Post `transfer` each time that the eventfd `trigger` is written to, one at a time.

        Until it is concluded, cancelled or fails. False: not (any more) possible.
        """
        ...

    def conclude(self, op_id: int) -> None:
        """A standing transfer is triggered no more: it completes when all so far is verified."""
        ...

    def carried(self, op_id: int) -> tuple[int, int]:
        """How often a standing transfer was verified by the peer, and the ns that took in all."""
        ...

    def hang(self, region: Region, bell: int) -> bool:
        """Have whole arrivals in `region` write to the eventfd `bell` instead of being events.

        Until it is deregistered. False: not (any more) possible.
        """
        ...

    def rings(self, region: Region) -> int:
        """How often the bell of `region` was rung."""
        ...


def standing(transport: object) -> StandingTransport | None:
    """The transport as one that can do so, or that stands before one; None when none can."""
    if isinstance(transport, StandingTransport):
        return transport
    behind = getattr(transport, "standing", None)
    return behind if isinstance(behind, StandingTransport) else None


class PolledTransport(_Orders, Protocol):
    """One path to one peer that moves while it is polled."""

    def poll(self, timeout: float | None) -> Sequence[Event]:
        """Move bytes; wait up to `timeout` seconds for something to happen (None: no bound).

        Called by one thread only. May return early and empty. After `Lost`, not called again.
        """
        ...
