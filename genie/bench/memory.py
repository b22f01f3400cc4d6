"""Memory: what a pool loses to fragmentation when it is nearly full, and what requests cost.

A pool of 1 GiB serves random requests; before each one, random regions are freed until the request
keeps the pool at 85 % or less. *Fragmentation* is the share of the bytes not in use that the
largest single request cannot have:

    1 − (largest request that is served) ÷ (pool's limit − bytes asked for and not freed)

This is the strictest definition there is: 0 means that one request could have every free byte, and
whatever rounding, slabs and scattered pages lose counts. Each sample is proven by making that
request; one that is not served counts as 100 %. Sampled while the pool is at least 84 % full, over
the second half of the requests. No request may fail while its bytes are free (`refused`).
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from genie.bench.report import Row, median_row
from genie.bench.sizes import PLAN_SIZES
from genie.bench.suites import Unavailable
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import Region
from genie_schemas.errors import GenieError

LIMIT = 1 << 30
FILL = 0.85
FULL = 0.84
SAMPLES = 500
SEED = 20261123


def memory(quick: bool) -> list[Row]:
    """Rows pool/85% (the worse distribution), pool/85%/<distribution>, and register/<path>."""
    requests = 100_000 if quick else 1_000_000
    rows: list[Row] = []
    worst: Row | None = None
    for name, draw in (("plans", _plan_sizes), ("log-uniform", _log_uniform)):
        case = f"pool/85%/{name}"
        found = _drive(draw(random.Random(SEED)), requests)  # noqa: S311
        row = median_row(case, "fragmentation_percent", "%", found.fragmentation)
        if worst is None or row.value > worst.value:
            worst = row
        rows += [
            row,
            Row(case, "fragmentation_max_percent", max(row.samples), "%", (max(row.samples),)),
            Row(case, "refused", found.refused, "requests", (found.refused,)),
            Row(case, "requests", requests, "requests", (requests,)),
            Row(case, "huge_percent", found.huge, "%", (found.huge,)),
            Row(case, "assembled_percent", found.assembled, "%", (found.assembled,)),
            *_latency(case, "allocate", found.allocate),
            *_latency(case, "free", found.free),
        ]
    if worst is not None:
        rows.insert(0, Row("pool/85%", worst.metric, worst.value, worst.unit, worst.samples))
    return rows + _registering(2_000 if quick else 20_000)


@dataclass
class _Found:
    """What one distribution came to: shares in percent, times in µs."""

    fragmentation: list[float] = field(default_factory=list)
    allocate: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=list)
    refused: int = 0
    huge: float = 0.0
    assembled: float = 0.0


def _plan_sizes(rng: random.Random) -> Iterator[int]:
    """Sizes as often as they occur in real plans."""
    sizes = [size for size, _ in PLAN_SIZES]
    counts = [count for _, count in PLAN_SIZES]
    while True:
        yield from rng.choices(sizes, counts, k=4096)


def _log_uniform(rng: random.Random) -> Iterator[int]:
    """64 B to 64 MiB, every order of magnitude as likely."""
    while True:
        yield int(2 ** rng.uniform(6, 26))


def _drive(sizes: Iterator[int], requests: int) -> _Found:
    found = _Found()
    rng = random.Random(SEED + 1)  # noqa: S311
    pool = ArenaPool(LIMIT)
    live: list[Region] = []
    used = assembled = 0
    every = max(requests // 2 // SAMPLES, 1)
    next_sample = requests // 2
    clock = time.perf_counter
    try:
        for number in range(requests):
            nbytes = next(sizes)
            while used + nbytes > FILL * LIMIT:
                at = rng.randrange(len(live))
                live[at], live[-1] = live[-1], live[at]
                region = live.pop()
                start = clock()
                pool.free(region)
                found.free.append((clock() - start) * 1e6)
                used -= region.length
            start = clock()
            try:
                region = pool.allocate(nbytes)
            except GenieError:
                found.refused += 1
                continue
            found.allocate.append((clock() - start) * 1e6)
            live.append(region)
            used += nbytes
            if number >= next_sample and used >= FULL * LIMIT:
                next_sample = number + every
                found.fragmentation.append(_fragmentation(pool))
                assembled += pool.stats().assembled
        stats = pool.stats()
        found.huge = 100 * stats.huge / stats.reserved
        found.assembled = 100 * assembled / max(len(found.fragmentation), 1) / len(live)
    finally:
        pool.close()
    return found


def _fragmentation(pool: ArenaPool) -> float:
    """In percent; proven by making the request that the pool says it can serve."""
    stats = pool.stats()
    try:
        pool.free(pool.allocate(stats.largest_free))
    except GenieError:
        return 100.0
    return 100 * stats.fragmentation


def _latency(case: str, what: str, samples: list[float]) -> list[Row]:
    """p50 and p99; a thousand of the samples are kept, every n-th in order of size."""
    ordered = sorted(samples)
    kept = tuple(ordered[:: max(len(ordered) // 1000, 1)])
    p99 = ordered[len(ordered) * 99 // 100]
    return [
        Row(case, f"{what}_p50_us", statistics.median(ordered), "µs", kept),
        Row(case, f"{what}_p99_us", p99, "µs", (p99,)),
    ]


def _registering(count: int) -> list[Row]:
    """What it costs to make a region reachable for a peer, and to withdraw it again."""
    from genie_transport.testing import PATHS, pair

    pool = ArenaPool(4 << 20)
    view = pool.view(pool.allocate(1 << 20))
    rows: list[Row] = []
    for path in ("loopback", "shm", "tcp"):
        if path not in PATHS:
            continue
        mine, peer = pair(path)
        try:
            register = _timed(count, lambda mine=mine: mine.deregister(mine.register(view)))  # type: ignore[misc]
        finally:
            mine.close()
            peer.close()
        rows.append(median_row(f"register/{path}", "register_deregister_us", "µs", register))
    pool.close()
    if not rows:
        raise Unavailable("no transport path is there")
    return rows


def _timed(count: int, call: Callable[[], object]) -> list[float]:
    """µs of each of `count` calls, the mean over ten at a time."""
    samples = []
    for _ in range(count // 10):
        start = time.perf_counter()
        for _ in range(10):
            call()
        samples.append((time.perf_counter() - start) * 1e5)
    return samples
