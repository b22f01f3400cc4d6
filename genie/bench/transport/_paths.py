"""Contenders whose two ends are workers of this suite: Genie's paths, and other libraries."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from genie.bench.suites import Unavailable
from genie.bench.transport._libraries import ONE_PROCESS, missing
from genie.bench.transport._load import Load, Sample
from genie.bench.transport._process import Process, Reply

__all__ = ["End", "Ends", "library", "over_sockets", "within"]

_PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}


@dataclass(frozen=True)
class End:
    """An end of that name in a worker."""

    worker: Process
    side: str

    def call(self, what: str, **arguments: Any) -> Any:
        """Have the end do something. Raises Unavailable."""
        return self.worker.side(self.side, what, **arguments)

    def start(self, what: str, **arguments: Any) -> Reply:
        """The same without waiting."""
        return self.worker.start_side(self.side, what, **arguments)


_Trip = tuple[int, int]
"""When it began and when it ended, in nanoseconds of the machine's monotonic clock."""


class Ends:
    """A contender that sends from `a` to `b`; see Contender."""

    def __init__(self, name: str, a: End, b: End, owned: Callable[[], None]) -> None:
        """`owned` ends the workers that are this contender's alone."""
        self.name = name
        self.a, self.b = a, b
        self._close = owned
        self._there: Any = None

    @property
    def _workers(self) -> list[Process]:
        return [self.a.worker] if self.a.worker is self.b.worker else [self.a.worker, self.b.worker]

    def prepare(self, load: Load) -> None:
        self._verified_burst(load)

    def _verified_burst(self, load: Load) -> None:
        """New bytes into zeroed memory, once; both hashes have to agree."""
        sent = self.a.call("source", size=load.size)
        self._there = self.b.call("sink", size=load.size, burst=load.burst)
        self._send(load.burst, 1)
        if (arrived := self.b.call("digests")) != [sent]:
            raise Unavailable(f"wrong bytes arrived: {arrived}, not {sent}")

    def _send(self, burst: int, times: int) -> list[float]:
        receiving = self.b.start("receive", burst=burst, times=times)
        seconds: list[float] = self.a.call("send", there=self._there, burst=burst, times=times)
        receiving.get()
        return seconds

    def measure(self, load: Load) -> Sample:
        before = sum(worker.ask("cpu") for worker in self._workers)
        seconds = self._send(load.burst, load.times)
        spent = sum(worker.ask("cpu") for worker in self._workers) - before
        return Sample(load.bytes, tuple(seconds), spent)

    def finish(self, load: Load) -> None:
        self._verified_burst(load)
        self.a.call("free")
        self.b.call("free")

    def trips(self, count: int) -> dict[str, float]:
        warm = count // 10
        taken, _ = self._trips(count + warm, 0.0)
        return percentiles([(end - begin) / 1e3 for begin, end in taken[warm:]])

    def _trips(self, count: int, pause: float) -> tuple[list[_Trip], list[_Trip]]:
        here, there = self.a.call("mailbox"), self.b.call("mailbox")
        answering = self.b.start("ping", there=here, count=count, first=False)
        taken: list[_Trip] = self.a.call("ping", there=there, count=count, first=True, pause=pause)
        answered: list[_Trip] = answering.get()
        if len(taken) != count:
            raise Unavailable(f"only {len(taken)} of {count} round trips came back")
        return taken, answered

    def wake(self, count: int, pause: float) -> list[float]:
        """µs from post until a receiver that slept has 64 bytes, both idle for `pause` seconds."""
        posted, arrived = self._trips(count + 1, pause)
        pairs = zip(posted, arrived, strict=True)
        return [(end - begin) / 1e3 for (begin, _), (_, end) in pairs][1:]

    def cold(self, count: int, pause: float) -> list[float]:
        """µs from post to verification of 64 bytes, both sides idle for `pause` seconds before."""
        there = self.b.call("mailbox")
        taken: list[int] = self.a.call("cold", there=there, count=count + 1, pause=pause)
        return [ns / 1e3 for ns in taken[1:]]

    @contextlib.contextmanager
    def stalled(self, load: Load) -> Iterator[None]:
        """Meanwhile a burst is under way, and the receiving end takes nothing of it."""
        self.b.call("hold", yes=True)
        sending = self.a.start("send", there=self._there, burst=load.burst, times=1)
        try:
            yield
        finally:
            self.b.call("hold", yes=False)
            sending.get()

    def overhead(self, count: int) -> float:
        """µs of Python for each small transfer."""
        there = self.b.call("sink", size=64, burst=64)
        taken: float = self.a.call("overhead", there=there, count=count)
        self.b.call("free")
        return taken

    def close(self) -> None:
        self._close()


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90 and p99 of `values`, by the nearest rank."""
    ordered = sorted(values)
    last = len(ordered) - 1
    found = {name: ordered[round(share * last)] for name, share in _PERCENTILES.items()}
    return found | {"p50": statistics.median(ordered)}


def over_sockets(
    name: str,
    path: str,
    *,
    encrypt: bool = False,
    arena: bool = False,
    tls: str | None = None,
) -> Ends:
    """Two workers that meet at a socket: "unix", "shm", "tcp" or "ucx". Raises Unavailable.

    `tls` names the transports that UCX may use (its word for them): "tcp" has the two meet over
    the loopback device, else they meet at a Unix socket.
    """
    terms: dict[str, Any] = {"path": path, "encrypt": encrypt}
    network = path == "tcp" or tls is not None
    if path == "ucx" and network:
        terms["trusted"] = True
    environment = {"UCX_TLS": tls} if tls is not None else {}
    b = Process(environment=environment)
    a = None
    try:
        a = Process(environment=environment)
        key = b.ask("key")
        with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder:
            where = "tcp://127.0.0.1:0" if network else f"unix://{folder}/p.sock"
            endpoint = b.ask("listen", side="x", where=where, key=key, terms=terms)
            a.ask("dial", side="x", where=endpoint, key=key, terms=terms, arena=arena)
            b.ask("connected", side="x")
    except BaseException:
        _close(a, b)
        raise
    return Ends(name, End(a, "x"), End(b, "x"), lambda: _close(a, b))


def within(name: str, path: str) -> Ends:
    """Both ends in one worker. Raises Unavailable."""
    worker = Process()
    try:
        worker.ask("pair", a="a", b="b", path=path)
    except BaseException:
        worker.close()
        raise
    return Ends(name, End(worker, "a"), End(worker, "b"), worker.close)


def library(name: str) -> Ends:
    """Another library's path between two workers. Raises Unavailable."""
    if (why := missing(name)) is not None:
        raise Unavailable(why)
    b = Process()
    a = b
    try:
        with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder:
            if name in ONE_PROCESS:
                b.ask("library", side="x", name=name, first=True, folder=folder)
            else:
                a = Process()
                opening = b.start("library", side="x", name=name, first=False, folder=folder)
                a.ask("library", side="x", name=name, first=True, folder=folder)
                opening.get()
    except BaseException:
        _close(a, b)
        raise
    return Ends(name, End(a, "x"), End(b, "x"), lambda: _close(a, b))


def _close(*workers: Process | None) -> None:
    for worker in workers:
        if worker is not None:
            worker.close()
