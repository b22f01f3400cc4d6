"""One session over datagrams behind the seam: a `_core.Channel` on a fabric's poller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genie_transport._errors import refused
from genie_transport._handle import DMAHandle
from genie_transport._types import (
    Arrived,
    Capabilities,
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

__all__ = ["DatagramTransport"]

_FOREVER = -1
_NS = 1_000_000_000


class DatagramTransport:
    """Implements Transport. The fabric's thread moves the bytes, or whoever waits for events."""

    def __init__(self, channel: Any, address_of: Any, capabilities: Capabilities) -> None:
        self._channel = channel
        self._address_of = address_of
        self._capabilities = capabilities
        # Called once, when the last event was taken: for whoever opened a fabric for this alone.
        self.on_end: Callable[[], None] | None = None

    # -- Transport ---------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        return self._capabilities

    def counters(self) -> Counters:
        sent, received, in_flight, peak, sends = self._channel.counters()
        return Counters(sent, received, in_flight, peak, sends)

    def register(self, region: Region) -> None:
        handle = region.handle
        region.address = self._address_of(region.view)
        self._channel.add(
            region.address,
            handle.length,
            region.writable,
            handle.arena,
            handle.offset,
            handle.epoch,
            handle.key,
        )

    def deregister(self, region: Region) -> None:
        self._channel.withdraw(region.handle.key)

    def fence(self, epoch: int) -> None:
        self._channel.fence(epoch)

    def post(self, transfer: Transfer) -> None:
        dst = transfer.dst
        self._channel.post(
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
        self._channel.cancel(op_id)

    def poll(self, timeout: float | None) -> Sequence[Event]:
        wait = _FOREVER if timeout is None else int(timeout * _NS)
        return [self._event(*found) for found in self._channel.poll(wait)]

    def wake(self) -> None:
        self._channel.wake()

    def fileno(self) -> int:
        return int(self._channel.fileno())

    def pending(self) -> bool:
        return bool(self._channel.pending())

    def alarm(self, delay: float) -> None:
        self._channel.alarm(int(min(delay, 3600.0) * _NS))

    def close(self) -> None:
        self._channel.close()

    # -- for another path to go on -----------------------------------------------------------

    def outstanding(self) -> list[tuple[int, int]]:
        """(operation, message number) of what has no end; 0 when nothing of it was sent.

        After Lost: what was outstanding when the session ended. Ask the peer's `finished` about
        each number before posting it again elsewhere.
        """
        found: list[tuple[int, int]] = self._channel.unfinished()
        return found

    def finished(self, message: int) -> bool:
        """Whether this side has received and verified all of the peer's message of that number."""
        return 0 <= message < 1 << 64 and bool(self._channel.finished(message))

    # -- measuring and tests -----------------------------------------------------------------

    def ping(
        self, source: Region, there: DMAHandle, here: DMAHandle, count: int, *, first: bool
    ) -> list[int]:
        """Round trips in native code: nanoseconds of each. Nobody else may wait meanwhile."""
        trips: list[int] = self._channel.ping(
            source.address,
            there.arena,
            there.offset,
            there.length,
            there.epoch,
            there.key,
            here.key,
            count,
            first,
        )
        return trips

    def details(self) -> dict[str, int]:
        """What the protocol counted: losses, probes, rejected datagrams, round-trip times (ns)."""
        found: dict[str, int] = self._channel.details()
        return found

    def hold(self, yes: bool) -> None:
        """Stop (True) and restart all movement; what comes meanwhile is lost on the way."""
        self._channel.hold(yes)

    def _event(self, kind: int, code: int, a: int, b: int, extra: Any) -> Event:
        """One tuple of Channel.poll; the numbers are those of EventType in events.h."""
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
                self._channel.join()
                if self.on_end is not None:
                    self.on_end()
                return Lost(f"GEN{code:04d}", extra, {})
        return Connected()
