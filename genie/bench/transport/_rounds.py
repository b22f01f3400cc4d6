"""Taking turns: every contender once a round, forwards and backwards, and rows from the samples."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import psutil

from genie.bench.report import LeftOut, Row, median_row
from genie.bench.suites import Unavailable
from genie.bench.transport._load import MIB, Contender, Load, NoSuchFigure, Sample

__all__ = ["Versus", "round_trips", "throughput"]


@dataclass(frozen=True)
class Versus:
    """A contender, what it is compared with, and what else it is set beside.

    `baseline` names the contender whose figure of the same round divides this one's; so do
    `beside`, in rows of their own.
    """

    contender: Contender
    baseline: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The contender's."""
        return self.contender.name


@dataclass
class _Series:
    """The samples of one size, by contender; a contender that failed has none."""

    load: Load
    samples: dict[str, list[Sample]] = field(default_factory=dict)


def throughput(
    contenders: Sequence[Versus],
    loads: Sequence[Load],
    rounds: int,
    progress: Callable[[str], None],
) -> Iterable[Row | LeftOut]:
    """Rows <name>/<size>: throughput (GB/s), cpu_s_per_gb, times_<other>."""
    for load in loads:
        progress(load.name)
        series = _Series(load, {})
        ready: list[Versus] = []
        # Everyone holds a source and a sink at once, and some libraries copies of them.
        needed = 3 * load.bytes * len(contenders)
        if needed > psutil.virtual_memory().available:
            yield LeftOut(f"…/{load.name}", f"{needed >> 20} MiB of memory are not free")
            continue
        for versus in contenders:
            try:
                versus.contender.prepare(load)
            except NoSuchFigure:
                continue
            except Unavailable as reason:
                yield LeftOut(f"{versus.name}/{load.name}", str(reason))
            else:
                ready.append(versus)
                series.samples[versus.name] = []
        for turn in range(rounds):
            for versus in ready if turn % 2 == 0 else list(reversed(ready)):
                if versus.name not in series.samples:
                    continue
                try:
                    series.samples[versus.name].append(versus.contender.measure(load))
                except Unavailable as reason:
                    del series.samples[versus.name]
                    yield LeftOut(f"{versus.name}/{load.name}", str(reason))
        for versus in ready:
            try:
                versus.contender.finish(load)
            except Unavailable as reason:
                # What did not verify was not measured.
                if series.samples.pop(versus.name, None) is not None:
                    yield LeftOut(f"{versus.name}/{load.name}", str(reason))
        for versus in ready:
            yield from _rows(versus, series)


def _rows(versus: Versus, series: _Series) -> Iterable[Row]:
    samples = series.samples.get(versus.name)
    if not samples:
        return
    case = f"{versus.name}/{series.load.name}"
    rates = [sample.rate for sample in samples]
    ratio = _ratios(rates, series, versus.baseline)
    row = median_row(case, "throughput", "GB/s", rates)
    if ratio:
        row = row.against(versus.baseline or "", statistics.median(ratio))
    yield row
    for other in versus.beside:
        if times := _ratios(rates, series, other):
            yield median_row(case, f"times_{other}", "×", times)
    spent = [s.cpu_per_gb for s in samples if s.cpu_per_gb is not None]
    if spent and series.load.size >= MIB:
        yield median_row(case, "cpu_s_per_gb", "s/GB", spent)


def _ratios(rates: Sequence[float], series: _Series, other: str | None) -> list[float]:
    """Round by round; none when `other` was not measured at this size."""
    # Below a mebibyte a call's overhead is measured, and a copy or a stream has none.
    found = series.samples.get(other or "")
    if not found or series.load.size < MIB:
        return []
    return [a / b.rate for a, b in zip(rates, found, strict=True)]


def round_trips(
    contenders: Sequence[Versus], rounds: int, counts: Callable[[str], int]
) -> Iterable[Row | LeftOut]:
    """Rows <name>/64B: rtt_p50_us, rtt_p90_us, rtt_p99_us; `counts` round trips in each round."""
    found: dict[str, list[dict[str, float]]] = {versus.name: [] for versus in contenders}
    for turn in range(rounds):
        for versus in contenders if turn % 2 == 0 else list(reversed(contenders)):
            if versus.name not in found:
                continue
            try:
                found[versus.name].append(versus.contender.trips(counts(versus.name)))
            except NoSuchFigure:
                del found[versus.name]
            except Unavailable as reason:
                del found[versus.name]
                yield LeftOut(f"{versus.name}/64B rtt", str(reason))
    for name, series in found.items():
        for percentile in ("p50", "p90", "p99"):
            values = [trips[percentile] for trips in series if percentile in trips]
            if values:
                yield median_row(f"{name}/64B", f"rtt_{percentile}_us", "µs", values)
