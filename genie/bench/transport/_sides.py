"""The two ends of a path, in the processes that the measuring one started.

A side is a source or a sink: a sender fills memory with bytes that it can hash, sends them in
bursts and times them; a receiver hashes what arrived. Nothing but sending is timed.
"""

from __future__ import annotations

import time
from typing import Any, Protocol, TypeVar

import numpy as np
from blake3 import blake3

from genie_transport import DMAHandle, TransferManager

__all__ = ["SMALL", "GenieSide", "Side", "digest", "fill"]

SMALL = 64  # bytes of a ping
_PATIENCE = 120.0  # seconds for one burst, on however slow a path

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def digest(data: Any) -> str:
    """The BLAKE3 hash of a buffer."""
    return blake3(data).hexdigest()


def fill(size: int) -> Bytes:
    """`size` random bytes."""
    return np.random.default_rng().integers(0, 256, size, dtype=np.uint8)


_Thing = TypeVar("_Thing")


def _made(thing: _Thing | None) -> _Thing:
    if thing is None:
        raise RuntimeError("asked for in the wrong order")
    return thing


class Side(Protocol):
    """One end. `there` is what the other end's `sink` or `mailbox` returned."""

    def source(self, size: int) -> str:
        """Make (or change) the bytes to send; their hash."""
        ...

    def sink(self, size: int, burst: int) -> Any:
        """Make room for `burst` messages, all zeros; what the sender needs to know."""
        ...

    def send(self, there: Any, burst: int, times: int) -> list[float]:
        """Seconds of each of `times` bursts, until the receiver has everything."""
        ...

    def receive(self, burst: int, times: int) -> None:
        """What the receiver has to do meanwhile."""
        ...

    def digests(self) -> list[str]:
        """The hashes of what arrived last, each different one once."""
        ...

    def free(self) -> None:
        """Give source and sink back."""
        ...

    def mailbox(self) -> Any:
        """Where this side is pinged."""
        ...

    def ping(
        self, there: Any, count: int, first: bool, pause: float = 0.0
    ) -> list[tuple[int, int]]:
        """When each trip began here, and when something had arrived: monotonic nanoseconds.

        Who is `first` sleeps for `pause` seconds before each; the other one answers.
        """
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class GenieSide:
    """A TransferManager's end of any path."""

    def __init__(self, manager: TransferManager, *, arena: bool = False) -> None:
        """`arena`: sources stand in memory that the peer maps (shm only)."""
        self.manager = manager
        self._arena = arena
        self._shared: Any = None
        self._bytes: Bytes | None = None
        self._size = 0
        self._handle: DMAHandle | None = None
        self._mailbox: DMAHandle | None = None
        self._ball: DMAHandle | None = None

    @property
    def _transport(self) -> Any:
        transport: Any = self.manager._transport
        return getattr(transport, "chosen", None) or transport

    def source(self, size: int) -> str:
        if self._bytes is None:
            self._bytes = fill(size)
            if self._arena:
                self._bytes = self._in_arena(self._bytes)
            self._handle = self.manager.register(self._bytes)
        else:
            np.bitwise_xor(self._bytes, np.uint8(0xA5), out=self._bytes)
        return digest(self._bytes)

    def _in_arena(self, data: Bytes) -> Bytes:
        from genie_transport._wires import core

        module: Any = core()[0]
        self._shared = module.Arena(data.nbytes)
        if not self._transport.share(self._shared):
            raise RuntimeError("the path does not share arenas")
        # Arenas are whole pages.
        placed: Bytes = np.asarray(self._shared.view)[: data.nbytes]
        placed[:] = data
        return placed

    def sink(self, size: int, burst: int) -> Any:
        if self._bytes is None:
            self._bytes = np.zeros(size * burst, dtype=np.uint8)
            self._handle = self.manager.register(self._bytes)
        self._bytes[:] = 0
        self._size = size
        return _made(self._handle).to_json()

    def send(self, there: Any, burst: int, times: int) -> list[float]:
        src = _made(self._handle)
        dst = DMAHandle.from_json(there)
        parts = [dst.part(i * src.length, src.length) for i in range(burst)]
        post = self.manager.post
        seconds = []
        for _ in range(times):
            begin = time.perf_counter()
            for future in [post(src, part) for part in parts]:
                future.result(_PATIENCE)
            seconds.append(time.perf_counter() - begin)
        return seconds

    def receive(self, burst: int, times: int) -> None:
        """Nothing: bytes land by themselves."""

    def digests(self) -> list[str]:
        view = memoryview(_made(self._bytes).data)
        ends = range(0, len(view), self._size)
        return sorted({digest(view[at : at + self._size]) for at in ends})

    def free(self) -> None:
        if self._handle is not None:
            self.manager.deregister(self._handle)
        self._handle = self._bytes = self._shared = None

    def mailbox(self) -> Any:
        if self._mailbox is not None:
            self.manager.deregister(self._mailbox)
        self._mailbox = self.manager.register(bytearray(SMALL))
        return self._mailbox.to_json()

    def ping(
        self, there: Any, count: int, first: bool, pause: float = 0.0
    ) -> list[tuple[int, int]]:
        mailbox = _made(self._mailbox)
        dst = DMAHandle.from_json(there)
        if self._ball is None:
            # Registered for good: the last answer may still be on its way when all is counted.
            self._ball = self.manager.register(bytes(SMALL))
        native = getattr(self._transport, "ping", None)
        if native is None:
            return self._python_trips(self._ball, dst, count, first, pause)
        region = self.manager._regions[self._ball.key]
        trips: list[tuple[int, int]] = native(region, dst, mailbox, count, first=first, pause=pause)
        return trips

    def _python_trips(
        self, src: DMAHandle, dst: DMAHandle, count: int, first: bool, pause: float
    ) -> list[tuple[int, int]]:
        """For the paths that Python moves: there is nothing below it to measure."""
        mailbox = _made(self._mailbox)
        trips = []
        for _ in range(count):
            if first and pause:
                time.sleep(pause)
            begin = time.perf_counter_ns()
            arrival = self.manager.arrival(mailbox)
            if first:
                self.manager.post(src, dst)
            arrival.result(_PATIENCE)
            trips.append((begin, time.perf_counter_ns()))
            if not first:
                self.manager.post(src, dst)
        return trips

    def cold(self, there: Any, count: int, pause: float) -> list[int]:
        """Nanoseconds from post() to the receiver's verification, after `pause` idle seconds."""
        dst = DMAHandle.from_json(there)
        src = self.manager.register(bytes(SMALL))
        taken = []
        for _ in range(count):
            time.sleep(pause)
            begin = time.perf_counter_ns()
            self.manager.post(src, dst).result(_PATIENCE)
            taken.append(time.perf_counter_ns() - begin)
        self.manager.deregister(src)
        return taken

    def hold(self, yes: bool) -> None:
        """Stop (True) and restart all receiving and sending."""
        self._transport.hold(yes)

    def overhead(self, there: Any, count: int) -> float:
        """µs for each 64-byte transfer, submitted and completed 64 at a time."""
        dst = DMAHandle.from_json(there)
        src = self.manager.register(bytes(SMALL))
        parts = [dst.part(SMALL * i, SMALL) for i in range(64)]
        begin = time.perf_counter_ns()
        for _ in range(count // 64):
            for future in [self.manager.post(src, part) for part in parts]:
                future.result(_PATIENCE)
        taken = time.perf_counter_ns() - begin
        self.manager.deregister(src)
        return taken / (count // 64 * 64) / 1e3

    def close(self) -> None:
        self.manager.close()
