"""Timing: alternating calls, warm-up excluded, samples kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def seconds(call: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(
    calls: Sequence[Callable[[], object]], rounds: int, warm_up: int = 2
) -> list[list[float]]:
    """Time each call once a round, in turn, for `rounds` rounds after `warm_up` rounds.

    Every other round goes backwards, so that no call always follows the same one.
    """
    for _ in range(warm_up):
        for call in calls:
            call()
    samples: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds):
        order = range(len(calls)) if turn % 2 == 0 else reversed(range(len(calls)))
        for i in order:
            samples[i].append(seconds(calls[i]))
    return samples


def median_ratio(values: Sequence[float], baseline: Sequence[float]) -> float:
    """The median of the round-by-round ratios: a drift of the machine hits both sides of one."""
    return statistics.median(v / b for v, b in zip(values, baseline, strict=True))
