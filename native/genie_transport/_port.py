"""What the native transports have in common: a port of `_core` behind the Transport seam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genie_transport._errors import refused
from genie_transport._handle import DMAHandle
from genie_transport._types import (
    Arrived,
    Completed,
    Connected,
    Counters,
    Event,
    Expired,
    Failed,
    Lost,
    Progressed,
    Region,
    Transfer,
)

__all__ = ["NS", "PortTransport"]

NS = 1_000_000_000
"""Nanoseconds in a second."""

_FOREVER = -1
_LONGEST_ALARM = 3600.0


class PortTransport:
    """Orders and events of a `_core.Port` or `_core.Channel`; what differs is in its subclasses."""

    def __init__(self, port: Any, address_of: Any) -> None:
        # Before the regions, which so outlive it when nobody holds the transport any more.
        self._port = port
        self._address_of = address_of
        # What the port's thread may write or read stays for as long as the thread may.
        self._regions: dict[bytes, Region] = {}

    def counters(self) -> Counters:
        sent, received, in_flight, peak, sends = self._port.counters()
        return Counters(sent, received, in_flight, peak, sends)

    def register(self, region: Region) -> None:
        handle = region.handle
        region.address = self._address_of(region.view)
        self._regions[handle.key] = region
        self._port.add(
            region.address,
            handle.length,
            region.writable,
            handle.arena,
            handle.offset,
            handle.epoch,
            handle.key,
        )

    def deregister(self, region: Region) -> None:
        self._port.withdraw(region.handle.key)
        self._regions.pop(region.handle.key, None)

    def fence(self, epoch: int) -> None:
        self._port.fence(epoch)

    def post(self, transfer: Transfer) -> None:
        dst = transfer.dst
        self._port.post(
            transfer.op_id,
            transfer.region.address + transfer.start,
            dst.arena,
            dst.offset,
            dst.length,
            dst.epoch,
            dst.key,
            int(transfer.priority),
        )

    def cancel(self, op_id: int) -> None:
        self._port.cancel(op_id)

    def poll(self, timeout: float | None) -> Sequence[Event]:
        wait = _FOREVER if timeout is None else int(timeout * NS)
        return [self._event(*found) for found in self._port.poll(wait)]

    def wake(self) -> None:
        self._port.wake()

    def fileno(self) -> int:
        return int(self._port.fileno())

    def pending(self) -> bool:
        return bool(self._port.pending())

    def alarm(self, delay: float) -> None:
        self._port.alarm(int(min(delay, _LONGEST_ALARM) * NS))

    def close(self) -> None:
        self._port.close()

    # -- measuring and tests -----------------------------------------------------------------

    def ping(
        self,
        source: Region,
        there: DMAHandle,
        here: DMAHandle,
        count: int,
        *,
        first: bool,
        pause: float = 0.0,
    ) -> list[tuple[int, int]]:
        """Round trips in native code, the first side's each after `pause` seconds of sleep.

        When each began and when something had arrived, in nanoseconds of the monotonic clock.
        Nobody else may wait meanwhile.
        """
        trips: list[tuple[int, int]] = self._port.ping(
            source.address,
            there.arena,
            there.offset,
            there.length,
            there.epoch,
            there.key,
            here.key,
            count,
            first,
            int(pause * NS),
        )
        return trips

    def hold(self, yes: bool) -> None:
        """Stop (True) and restart all movement."""
        self._port.hold(yes)

    # -- events ------------------------------------------------------------------------------

    def _ended(self) -> None:
        """The last event was taken: nothing moves any more."""
        self._port.join()
        self._regions.clear()

    def _event(self, kind: int, code: int, a: int, b: int, extra: Any) -> Event:
        """One tuple of the port's poll; the numbers are those of EventType in events.h."""
        match kind:
            case 2:  # the most frequent one
                return Completed(a)
            case 1:
                return Progressed(a, b)
            case 3:
                return Failed(a, *refused(f"GEN{code:04d}", b))
            case 4:
                return Arrived(extra, b)
            case 5:
                return Expired()
            case 6:
                self._ended()
                return Lost(f"GEN{code:04d}", extra, {})
        return Connected()
