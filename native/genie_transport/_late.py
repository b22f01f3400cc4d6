"""A transport that is chosen when its peer comes: what was asked for before is done then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from genie_transport._transport import Transport
from genie_transport._types import Capabilities, Counters, Event, Lost, Region, Transfer

__all__ = ["LateTransport"]


class LateTransport:
    """Implements Transport. Every order is kept until begin(), and passed on from then on."""

    def __init__(self, expected: Capabilities) -> None:
        """`expected` describes the path that will probably be chosen."""
        self._expected = expected
        self._condition = threading.Condition()
        self._chosen: Transport | None = None
        self._regions: dict[bytes, Region] = {}
        self._posts: dict[int, Transfer] = {}
        self._epoch = 0
        self._closing = False
        self._awake = False

    def begin(self, transport: Transport) -> bool:
        """Go on with `transport`. False when one was chosen before, or none is wanted."""
        with self._condition:
            if self._chosen is not None or self._closing:
                return False
            for region in self._regions.values():
                transport.register(region)
            transport.fence(self._epoch)
            for transfer in self._posts.values():
                transport.post(transfer)
            self._chosen = transport
            self._regions, self._posts = {}, {}
            self._condition.notify_all()
            return True

    @property
    def chosen(self) -> Transport | None:
        """What was chosen, or None."""
        return self._chosen

    def capabilities(self) -> Capabilities:
        return self._expected if self._chosen is None else self._chosen.capabilities()

    def counters(self) -> Counters:
        return Counters() if self._chosen is None else self._chosen.counters()

    def register(self, region: Region) -> None:
        self._later(
            lambda: self._regions.__setitem__(region.handle.key, region),
            lambda t: t.register(region),
        )

    def deregister(self, region: Region) -> None:
        self._later(
            lambda: self._regions.pop(region.handle.key, None), lambda t: t.deregister(region)
        )

    def fence(self, epoch: int) -> None:
        def keep() -> None:
            self._epoch = max(self._epoch, epoch)

        self._later(keep, lambda t: t.fence(epoch))

    def post(self, transfer: Transfer) -> None:
        self._later(
            lambda: self._posts.__setitem__(transfer.op_id, transfer),
            lambda t: t.post(transfer),
        )

    def cancel(self, op_id: int) -> None:
        self._later(lambda: self._posts.pop(op_id, None), lambda t: t.cancel(op_id))

    def poll(self, timeout: float | None) -> Sequence[Event]:
        with self._condition:
            if self._chosen is None and not self._closing and not self._awake:
                self._condition.wait(timeout)
            self._awake = False
            chosen = self._chosen
            if chosen is None:
                closed = Lost("GEN0611", "the manager was closed", {})
                return [closed] if self._closing else []
        return chosen.poll(timeout)

    def wake(self) -> None:
        def keep() -> None:
            self._awake = True
            self._condition.notify_all()

        self._later(keep, lambda t: t.wake())

    def close(self) -> None:
        def keep() -> None:
            self._closing = True
            self._condition.notify_all()

        self._later(keep, lambda t: t.close())

    def _later(self, keep: Callable[[], object], act: Callable[[Transport], object]) -> None:
        """Keep an order for begin(), or pass it on."""
        with self._condition:
            if self._chosen is None:
                keep()
                return
            chosen = self._chosen
        act(chosen)
