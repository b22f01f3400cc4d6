"""Yardsticks that are programs or a single call: memcpy, iperf3, ucx_perftest."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from genie.bench.suites import Unavailable
from genie.bench.transport._load import MIB, Load, NoSuchFigure, Sample
from genie.bench.transport._sides import fill

__all__ = ["Iperf3", "Memcpy", "Program", "UcxPerftest", "free_port", "needs"]

_SECONDS = 1  # of one iperf3 run
_PATIENCE = 30.0


def needs(program: str, package: str) -> str:
    """The path of an installed program. Raises Unavailable naming the package."""
    found = shutil.which(program)
    if found is None:
        raise Unavailable(f"{program} is not installed: apt-get install {package}")
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


class Memcpy:
    """One thread that copies from one buffer to another, both touched before."""

    name = "memcpy"

    def prepare(self, load: Load) -> None:
        self._src = fill(load.size)
        self._dst = np.ones((load.burst, load.size), dtype=np.uint8)
        self._copy()

    def _copy(self) -> None:
        for row in self._dst:
            np.copyto(row, self._src)

    def measure(self, load: Load) -> Sample:
        seconds = []
        before = _cpu(resource.RUSAGE_SELF)
        for _ in range(load.times):
            begin = time.perf_counter()
            self._copy()
            seconds.append(time.perf_counter() - begin)
        spent = _cpu(resource.RUSAGE_SELF) - before
        return Sample(load.bytes, tuple(seconds), spent)

    def finish(self, load: Load) -> None:
        del self._src, self._dst

    def trips(self, count: int) -> dict[str, float]:
        raise NoSuchFigure("a copy has no way back")

    def close(self) -> None:
        """Nothing is left."""


class Program(Protocol):
    """How a yardstick's two programs are run: here, or in two network namespaces."""

    def server(self, argv: list[str]) -> Any:
        """Start the listening one."""
        ...

    def client(self, argv: list[str], timeout: float) -> str:
        """Run the other one; its standard output. Raises Unavailable."""
        ...

    def end(self, server: Any) -> None:
        """Wait for the listening one, and end it when it does not by itself."""
        ...

    def cpu(self) -> float:
        """CPU seconds of the programs that have ended."""
        ...


class Here:
    """Both programs are children of this process."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._environment = {**os.environ, **(environment or {})}

    def server(self, argv: list[str]) -> Any:
        return subprocess.Popen(
            argv,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=self._environment,
        )

    def client(self, argv: list[str], timeout: float) -> str:
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                env=self._environment,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{argv[0]} took more than {timeout:g} s") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Unavailable(f"{argv[0]}: {said[-1] if said else done.returncode}")
        return done.stdout

    def end(self, server: Any) -> None:
        try:
            server.wait(2)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def cpu(self) -> float:
        return _cpu(resource.RUSAGE_CHILDREN)


class Iperf3:
    """A TCP stream for a second: what the kernel moves when the bytes mean nothing.

    It has no messages: from 1 MiB on, it is the same figure beside every size.
    """

    def __init__(self, name: str = "iperf3", at: Program | None = None, to: str = "127.0.0.1"):
        self.name = name
        self._tool = needs("iperf3", "iperf3")
        self._at = at or Here()
        self._to = to

    def prepare(self, load: Load) -> None:
        if load.size < MIB:
            raise NoSuchFigure("a stream has no messages")

    def measure(self, load: Load) -> Sample:
        port = str(free_port())
        before = self._at.cpu()
        server = self._at.server([self._tool, "-s", "-1", "-p", port, "-B", self._to])
        argv = [self._tool, "-c", self._to, "-p", port, "-t", str(_SECONDS), "-J"]
        try:
            got = _retry(lambda: self._stream(argv))
        finally:
            self._at.end(server)
        spent = self._at.cpu() - before
        return Sample(int(got["bytes"]), (float(got["seconds"]),), spent)

    def _stream(self, argv: list[str]) -> dict[str, float]:
        said = json.loads(self._at.client(argv, _PATIENCE))
        if "sum_received" not in said["end"]:
            raise Unavailable(f"iperf3: {said.get('error', 'no result')}")
        received: dict[str, float] = said["end"]["sum_received"]
        return received

    def finish(self, load: Load) -> None:
        """Nothing is left."""

    def trips(self, count: int) -> dict[str, float]:
        raise NoSuchFigure("iperf3 does not measure round trips")

    def close(self) -> None:
        """Nothing is left."""


class UcxPerftest:
    """UCX's own tag-matching benchmark, as `UCX_TLS` says: shared memory or TCP."""

    def __init__(self, name: str, transports: str) -> None:
        self.name = name
        self._tool = needs("ucx_perftest", "ucx-utils")
        self._at = Here({"UCX_TLS": transports, "UCX_NET_DEVICES": "lo", "UCX_LOG_LEVEL": "error"})
        if "tcp" not in transports:
            self._at = Here({"UCX_TLS": transports, "UCX_LOG_LEVEL": "error"})

    def _run(self, *arguments: str) -> list[float]:
        """The last line of figures that it prints."""
        port = str(free_port())
        server = self._at.server([self._tool, "-p", port])
        argv = [self._tool, "127.0.0.1", "-p", port, *arguments, "-f"]
        try:
            said = _retry(lambda: self._at.client(argv, _PATIENCE))
        finally:
            self._at.end(server)
        for line in reversed(said.splitlines()):
            with contextlib.suppress(ValueError):
                return [float(word) for word in line.split()]
        raise Unavailable("ucx_perftest printed no figures")

    def prepare(self, load: Load) -> None:
        """Nothing to allocate: it does that itself."""

    def measure(self, load: Load) -> Sample:
        count = max(5, min(100_000, 512 * MIB // load.size))
        before = self._at.cpu()
        warm = max(1, count // 10)
        found = self._run("-t", "tag_bw", "-s", str(load.size), "-n", str(count), "-w", str(warm))
        spent = self._at.cpu() - before
        # iterations, median and average overhead (µs), MB/s of the last second and of all, …
        rate = found[-3] * 1e6 * 1.048576
        moved = load.size * count
        return Sample(moved, (moved / rate,), spent * count / (count + warm))

    def finish(self, load: Load) -> None:
        """Nothing is left."""

    def trips(self, count: int) -> dict[str, float]:
        found = self._run("-t", "tag_lat", "-s", "64", "-n", str(count), "-w", str(count // 10))
        # It prints half a round trip: the median of this run.
        return {"p50": 2 * found[1]}

    def close(self) -> None:
        """Nothing is left."""


_Result = TypeVar("_Result")


def _retry(call: Callable[[], _Result]) -> _Result:
    """The server may not listen yet: try for two seconds."""
    deadline = time.monotonic() + 2.0
    while True:
        try:
            return call()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
