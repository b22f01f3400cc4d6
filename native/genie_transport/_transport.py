"""The seam between TransferManager and the ways to move bytes.

A transport keeps the table of registered regions, orders posted transfers by priority, moves
them in chunks, and reports events. The manager above it owns futures, deadlines, back-pressure
and the thread that polls. Native transports implement these same methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from genie_transport._types import Capabilities, Counters, Event, Region, Transfer

__all__ = ["Transport"]


class Transport(Protocol):
    """One path to one peer. All methods but `poll` may be called from any thread.

    None of them raises for a failure of the path: failures are events.
    """

    def capabilities(self) -> Capabilities:
        """What this path can do; constant."""
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

    def poll(self, timeout: float | None) -> Sequence[Event]:
        """Move bytes; wait up to `timeout` seconds for something to happen (None: no bound).

        Called by one thread only. May return early and empty. After `Lost`, not called again.
        """
        ...

    def wake(self) -> None:
        """Make a waiting poll return."""
        ...

    def close(self) -> None:
        """Ask for the end: the next poll returns `Lost` (GEN0611) and has released everything."""
        ...
