"""A run's bytes on the data plane: what lands in its regions, what leaves them, as events."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genie_runtime.ports import RunEvent
from genie_runtime.run_errors import transfer_failed
from genie_runtime.telemetry import Telemetry
from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    from genie_transport import DMAHandle, Priority, TransferFuture, TransferManager


def _class(priority: str) -> Priority:
    """The transport's class of a step's priority."""
    from genie_transport import Priority

    return {
        "decode": Priority.DECODE,
        "prefill": Priority.PREFILL,
        "activation": Priority.PREFILL,
        "weights": Priority.WEIGHTS,
    }[priority]


@dataclass(frozen=True)
class ExecutorSaid:
    """An event of an executor, about one attempt of a device's share."""

    device: str
    attempt: int
    event: RunEvent


@dataclass(frozen=True)
class InputCame:
    """An input has arrived and is verified, or will not."""

    device: str
    name: str
    error: Exception | None


@dataclass(frozen=True)
class TransferCame:
    """An incoming transfer has arrived and is verified, or will not."""

    device: str
    step: str
    error: Exception | None


@dataclass(frozen=True)
class Posted:
    """The receiver has verified an outgoing transfer or an output, or will not."""

    name: str
    error: Exception | None


@dataclass(frozen=True)
class Unwired:
    """A transfer that stood will not be sent any more."""

    name: str
    error: Exception


@dataclass(frozen=True)
class Stop:
    """End the run with this error."""

    error: GenieError


Event = ExecutorSaid | InputCame | TransferCame | Posted | Unwired | Stop
"""Everything that can happen to a run."""


@dataclass
class Wires:
    """The data connections of a run: to the client, and to peers by transfer step.

    Embedded runs have none: the client is in the process and writes the regions itself.
    """

    client: TransferManager | None = None
    peers: Mapping[str, TransferManager] = field(default_factory=dict)


class Mail:
    """Landings and posts of one run. `put` takes events and may be called by any thread."""

    def __init__(self, put: Callable[[Event], None], telemetry: Telemetry) -> None:
        self._put = put
        self._telemetry = telemetry
        self._handles: list[tuple[TransferManager, DMAHandle]] = []
        self._posting: Counter[str] = Counter()
        self._sources: dict[str, DMAHandle] = {}
        self._standing: dict[str, tuple[TransferManager, TransferFuture]] = {}
        self._concluded: set[str] = set()
        self._ringing: list[tuple[TransferManager, DMAHandle]] = []
        self._eventfds: list[int] = []
        self._withdrawn = False
        self.transfer_ns = 0
        """Time that posts took, from posting to the receiver's word, added up."""

    def land(
        self,
        manager: TransferManager,
        view: memoryview,
        event: Callable[[Exception | None], Event],
        *,
        again: bool = False,
    ) -> DMAHandle:
        """Let the peer write `view`; `event` is put when its bytes are there.

        Once, or `again` and again: whoever takes the event has read the bytes before the peer has
        reason to send the next ones.
        """
        handle = manager.register(view)
        self._handles.append((manager, handle))

        def done(future: TransferFuture) -> None:
            error = future.exception(0)
            if error is None:
                self._telemetry.add("bytes_in", future.length)
            self._put(event(error))
            if again and error is None:
                manager.arrival(handle).add_done_callback(done)

        manager.arrival(handle).add_done_callback(done)
        return handle

    def post(
        self,
        manager: TransferManager,
        source: memoryview,
        handle: DMAHandle,
        name: str,
        priority: str,
        deadline: float,
        *,
        again: bool = False,
    ) -> None:
        """Send `source` to the peer's `handle`; `Posted(name)` is put when it is verified there.

        `priority` is a step's, `deadline` monotonic time. What is sent `again` and again under a
        name always lies in the same `source`.
        """
        mine = self._source(manager, source, name, again=again)
        self._posting[name] += 1
        begun = time.monotonic_ns()

        def done(future: TransferFuture) -> None:
            self.transfer_ns += time.monotonic_ns() - begun
            error = future.exception(0)
            if error is None:
                self._telemetry.add("bytes_out", future.length)
            self._put(Posted(name, error))

        left = max(deadline - time.monotonic(), 0.001)
        future = manager.post(mine, handle, priority=_class(priority), deadline=left)
        future.add_done_callback(done)

    def _source(
        self, manager: TransferManager, source: memoryview, name: str, *, again: bool
    ) -> DMAHandle:
        """The handle of `source`, which is made once for what is sent again under a name.

        Raises GenieError GEN0418 when the connection has ended.
        """
        known = self._sources.get(name) if again else None
        if known is not None:
            return known
        from genie_transport import TransferError

        try:
            mine = manager.register(source)
        except TransferError as error:
            raise transfer_failed(name, error) from None
        self._handles.append((manager, mine))
        if again:
            self._sources[name] = mine
        return mine

    # -- without a word of ours --------------------------------------------------------------

    def stand(
        self,
        manager: TransferManager,
        source: memoryview,
        handle: DMAHandle,
        name: str,
        priority: str,
    ) -> int | None:
        """An eventfd: each write to it sends `source` to the peer's `handle`.

        `Unwired(name)` is put when that fails. None where the path cannot do so, or no descriptor
        is left: `post` each time instead. The eventfd is open until `withdraw`. Raises GenieError
        GEN0418 when the connection has ended.
        """
        mine = self._source(manager, source, name, again=True)
        trigger = self._eventfd(os.EFD_NONBLOCK)
        if trigger is None:
            return None
        future = manager.stand(mine, handle, trigger, priority=_class(priority))
        if future is None:
            return None
        self._standing[name] = manager, future

        def done(future: TransferFuture) -> None:
            error = future.exception(0)
            if name in self._concluded:
                self._put(Posted(name, error))
            elif error is not None and not self._withdrawn:
                self._put(Unwired(name, error))

        future.add_done_callback(done)
        return trigger

    def conclude(self, name: str) -> None:
        """Nobody writes to the eventfd any more: `Posted(name)` is put when all is verified.

        What its last write asked for may not even be on its way yet.
        """
        manager, future = self._standing[name]
        self._concluded.add(name)
        self._posting[name] += 1
        manager.conclude(future)

    def hang(self, manager: TransferManager, handle: DMAHandle) -> int | None:
        """An eventfd, a semaphore, that arrivals in `handle` write to, instead of being events.

        What came before, and the end of the connection, are events all the same. None as `stand`.
        """
        bell = self._eventfd(os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        if bell is None or not manager.hang(handle, bell):
            return None
        self._ringing.append((manager, handle))
        return bell

    def _eventfd(self, flags: int) -> int | None:
        try:
            made = os.eventfd(0, flags | os.EFD_CLOEXEC)
        except OSError:
            return None
        self._eventfds.append(made)
        return made

    def _take_down(self) -> None:
        """End what stands, and count what passed."""
        self._withdrawn = True
        for manager, future in self._standing.values():
            times, took = manager.carried(future)
            self.transfer_ns += took
            self._telemetry.add("bytes_out", times * future.length)
            future.cancel()
        for manager, handle in self._ringing:
            self._telemetry.add("bytes_in", manager.rings(handle) * handle.length)
        for eventfd in self._eventfds:
            os.close(eventfd)
        self._standing.clear()
        self._ringing, self._eventfds = [], []

    def expect(self, name: str) -> None:
        """Somebody else posts under this name, and puts `Posted(name)` when that has ended."""
        self._posting[name] += 1

    def posted(self, name: str) -> None:
        """A `Posted` event was taken."""
        self._posting[name] -= 1

    @property
    def pending(self) -> bool:
        """Whether posts are under way."""
        return any(self._posting.values())

    def withdraw(self) -> None:
        """Take every handle back: nobody can write into the run's regions any more."""
        from genie_transport import TransferError

        self._take_down()
        for manager, handle in self._handles:
            with contextlib.suppress(TransferError):  # withdrawn with its connection
                manager.deregister(handle)
        self._handles.clear()
