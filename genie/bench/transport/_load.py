"""What is moved, and what comes of it: the values that cross the suite."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Protocol

from genie.bench.suites import Unavailable

__all__ = ["MIB", "Contender", "Load", "NoSuchFigure", "Sample", "load_of", "size_name"]

MIB = 1 << 20

_AT_ONCE = 8 * MIB  # of small messages, as many are under way as make up this much, at most 256


@dataclass(frozen=True)
class Load:
    """`times` bursts of `burst` messages of `size` bytes each; a burst is timed as a whole."""

    size: int
    burst: int
    times: int

    @property
    def bytes(self) -> int:
        """Bytes of one burst."""
        return self.size * self.burst

    @property
    def name(self) -> str:
        """The size as case names have it: 64B, 1MiB."""
        return size_name(self.size)


def load_of(size: int) -> Load:
    """How `size` is measured: one message at a time from 8 MiB up."""
    return Load(size, max(1, min(256, _AT_ONCE // size)), 3 if size > 64 * MIB else 5)


def size_name(size: int) -> str:
    """`size` bytes with the largest unit that divides it."""
    for unit, name in ((MIB, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size}B"


@dataclass(frozen=True)
class Sample:
    """One contender's turn in one round.

    `seconds` of each burst, the `bytes` of one burst, and the CPU seconds that both sides spent on
    all of them (None where it cannot be told).
    """

    bytes: int
    seconds: tuple[float, ...]
    cpu_seconds: float | None

    @property
    def rate(self) -> float:
        """GB/s (10^9), by the median burst."""
        return self.bytes / statistics.median(self.seconds) / 1e9

    @property
    def cpu_per_gb(self) -> float | None:
        """CPU seconds of both sides for each 10^9 bytes."""
        if self.cpu_seconds is None:
            return None
        return self.cpu_seconds / (self.bytes * len(self.seconds)) * 1e9


class NoSuchFigure(Unavailable):
    """A contender has no such figure on any machine: nothing that is worth a line."""


class Contender(Protocol):
    """Something that moves bytes from one place to another. Every method may raise Unavailable."""

    @property
    def name(self) -> str:
        """The first part of its case names."""
        ...

    def prepare(self, load: Load) -> None:
        """Allocate, warm up and, where the bytes are ours, verify them."""
        ...

    def measure(self, load: Load) -> Sample:
        """One turn."""
        ...

    def finish(self, load: Load) -> None:
        """Verify again and give the memory back."""
        ...

    def trips(self, count: int) -> dict[str, float]:
        """Round trips of 64 bytes, both sides spinning: µs by percentile, of p50, p90 and p99."""
        ...

    def close(self) -> None:
        """End its processes."""
        ...
