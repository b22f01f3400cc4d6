"""What was asked of a session's first transport, kept to be asked of the next one."""

from __future__ import annotations

import time

from genie_transport._transport import Transport
from genie_transport._types import Region, Transfer

__all__ = ["KeptOrders"]


class KeptOrders:
    """Orders that hold until they are withdrawn, and posts until they end.

    Callers hold the session's lock.
    """

    def __init__(self) -> None:
        self.posts: dict[int, Transfer] = {}
        """By operation. One that ends is taken out by whoever learns of it."""
        self._regions: dict[bytes, Region] = {}
        self._epoch = 0
        self._alarm: float | None = None

    def register(self, region: Region) -> None:
        self._regions[region.handle.key] = region

    def deregister(self, region: Region) -> None:
        self._regions.pop(region.handle.key, None)

    def fence(self, epoch: int) -> None:
        self._epoch = max(self._epoch, epoch)

    def alarm(self, delay: float) -> None:
        """In `delay` seconds, an hour at most; the earliest counts."""
        at = time.monotonic() + min(delay, 3600.0)
        self._alarm = at if self._alarm is None else min(self._alarm, at)

    def rang(self) -> None:
        """The transport has reported the alarm itself."""
        self._alarm = None

    def due(self) -> bool:
        """Whether the alarm is due; true once."""
        if self._alarm is None or self._alarm > time.monotonic():
            return False
        self._alarm = None
        return True

    def prepare(self, transport: Transport) -> None:
        """What `transport` must know before it takes a byte."""
        for region in self._regions.values():
            transport.register(region)
        transport.fence(self._epoch)

    def repeat(self, transport: Transport) -> None:
        """Post again what has not ended, and set the alarm."""
        for transfer in self.posts.values():
            transport.post(transfer)
        if self._alarm is not None:
            transport.alarm(max(0.0, self._alarm - time.monotonic()))

    def clear(self) -> None:
        """There is no other transport to come."""
        self.posts, self._regions = {}, {}
