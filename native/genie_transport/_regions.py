"""The receiving side: which memory a peer may write, and how far each transfer has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from genie_transport._errors import Refusal
from genie_transport._handle import DMAHandle
from genie_transport._types import Region

__all__ = ["MAX_OPEN", "Destination", "Inbound", "Landing"]

# Transfers of one connection that are opened and not yet answered. Senders keep to it.
MAX_OPEN = 1024


@dataclass(frozen=True)
class Destination:
    """What a poster says about where it wants to write: the fields of its handle."""

    arena: int
    offset: int
    length: int
    epoch: int
    key: bytes

    @classmethod
    def of(cls, handle: DMAHandle) -> Destination:
        return cls(handle.arena, handle.offset, handle.length, handle.epoch, handle.key)


@dataclass
class _Incoming:
    region: Region
    start: int
    length: int
    verified: int = 0


@dataclass(frozen=True)
class Landing:
    """What a verified chunk changed: bytes verified so far, and the key if all has arrived."""

    verified: int
    done: bool
    arrived: bytes | None


class Inbound:
    """Regions and open incoming transfers of one session. Not thread-safe: callers hold a lock.

    Every method checks before it changes anything, and turns a peer away with `Refusal`.
    """

    def __init__(self) -> None:
        self._regions: dict[bytes, Region] = {}
        self._open: dict[int, _Incoming] = {}
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """Handles of epochs before this one are refused."""
        return self._epoch

    def register(self, region: Region) -> None:
        self._regions[region.handle.key] = region

    def withdraw(self, region: Region) -> list[int]:
        """Forget `region`; return the messages that were being written into it."""
        self._regions.pop(region.handle.key, None)
        return self._drop_where(lambda incoming: incoming.region is region)

    def fence(self, epoch: int) -> list[int]:
        """Refuse handles of epochs before `epoch`; return the messages this ends."""
        self._epoch = max(self._epoch, epoch)
        return self._drop_where(lambda incoming: incoming.region.handle.epoch < self._epoch)

    def open(self, message: int, dst: Destination) -> None:
        """Admit a transfer. Raises Refusal 0623 to 0627; nothing has been written then."""
        region = self._regions.get(dst.key)
        if region is None or region.handle.arena != dst.arena:
            raise Refusal("GEN0623")
        handle = region.handle
        if dst.epoch != handle.epoch or handle.epoch < self._epoch:
            raise Refusal("GEN0624", max(self._epoch, handle.epoch))
        start = dst.offset - handle.offset
        if start < 0 or start + dst.length > handle.length:
            raise Refusal("GEN0625", handle.length)
        if not region.writable:
            raise Refusal("GEN0626")
        for other in self._open.values():
            overlaps = start < other.start + other.length and other.start < start + dst.length
            if other.region is region and overlaps:
                raise Refusal("GEN0627")
        self._open[message] = _Incoming(region, start, dst.length)

    def __contains__(self, message: int) -> bool:
        return message in self._open

    def __len__(self) -> int:
        return len(self._open)

    def view(self, message: int, offset: int, count: int) -> memoryview | None:
        """Where the next `count` bytes of an open transfer go; None when they cannot be next."""
        incoming = self._open[message]
        if offset != incoming.verified or count > incoming.length - offset:
            return None
        begin = incoming.start + offset
        return incoming.region.view[begin : begin + count]

    def landed(self, message: int, count: int) -> Landing:
        """Note that `count` more bytes of an open transfer are there and verified."""
        incoming = self._open[message]
        incoming.verified += count
        if incoming.verified < incoming.length:
            return Landing(incoming.verified, False, None)
        del self._open[message]
        handle = incoming.region.handle
        whole = incoming.length == handle.length
        return Landing(incoming.verified, True, handle.key if whole else None)

    def verified(self, message: int) -> int:
        """Bytes of an open transfer that are verified so far."""
        return self._open[message].verified

    def drop(self, message: int) -> bool:
        """Forget an open transfer, whose bytes so far mean nothing. False when not known."""
        return self._open.pop(message, None) is not None

    def _drop_where(self, test: Callable[[_Incoming], bool]) -> list[int]:
        ended = [message for message, incoming in self._open.items() if test(incoming)]
        for message in ended:
            del self._open[message]
        return ended
