"""Counters of a node, and the distribution of its own overhead. Cheap enough for every run."""

from __future__ import annotations

import threading
from collections import Counter, deque

from genie_schemas.canonical import MAX_SAFE_INT
from genie_schemas.messages import LazyCounters

_WINDOW = 1024


class Telemetry:
    """Totals since the node started. Thread-safe.

    Counted: `runs` (ended well), `failures`, `cancelled`, `replays` (recorded outputs handed
    out), `attempts`, `retries`, `bytes_in`, `bytes_out` (payload of inputs, outputs, transfers
    and constants), `local_bytes` (copied between devices of the node), `evictions` (of plans or
    constants that nobody used, to make room), `path_switches` (links that lost their path and went
    on over another), `phase_prefill` and `phase_decode` (loops and sequences that came to their
    first entry point, and from it to the one that repeats), `tokens` (drawn). `lazy_…` are what
    clients' lazy devices say that they counted.
    `overhead_us` of a run is its time on the node without computing and waiting for bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()
        self._overheads: deque[int] = deque(maxlen=_WINDOW)

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a total, which stays at the largest integer that JSON can carry."""
        with self._lock:
            self._totals[name] = min(self._totals[name] + amount, MAX_SAFE_INT)

    def overhead(self, microseconds: int) -> None:
        """Note the overhead of one run."""
        with self._lock:
            self._overheads.append(microseconds)

    def get(self, name: str) -> int:
        """One total."""
        return self._totals[name]

    def snapshot(self) -> dict[str, int]:
        """Every total, and p50 and p95 of the overhead over the last 1024 runs."""
        with self._lock:
            totals, overheads = dict(self._totals), sorted(self._overheads)
        for name in (
            *("runs", "failures", "cancelled", "replays", "attempts", "retries"),
            *("path_switches", "evictions", "phase_prefill", "phase_decode", "tokens"),
            *(f"lazy_{name}" for name in LazyCounters.model_fields),
        ):
            totals.setdefault(name, 0)
        for share, name in ((0.5, "overhead_p50_us"), (0.95, "overhead_p95_us")):
            at = min(int(len(overheads) * share), len(overheads) - 1)
            totals[name] = overheads[at] if overheads else 0
        return dict(sorted(totals.items()))


class RetryBudget:
    """Bounds retries over all runs: 10 tokens, refilled at 0.1 a success (docs: trust).

    When a device fails every run, the budget and not hope ends the storm.
    """

    def __init__(self, tokens: float = 10.0, refill: float = 0.1) -> None:
        self._lock = threading.Lock()
        self._limit = self._tokens = tokens
        self._refill = refill

    def take(self) -> bool:
        """Take a token for a retry; False when there is none."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def succeeded(self) -> None:
        """A run ended well."""
        with self._lock:
            self._tokens = min(self._limit, self._tokens + self._refill)
