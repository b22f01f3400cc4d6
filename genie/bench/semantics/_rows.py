"""Rows made of samples. `latency_ms/<mode>/<round trip>`; ratios are medians of the rounds'."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from genie.bench.report import Row, median_row
from genie.bench.semantics._cases import Case
from genie.bench.semantics._generation import Spoken
from genie.bench.semantics._wires import Traffic

__all__ = ["tokens", "traffic"]


def traffic(label: str, spent: Mapping[str, Sequence[Traffic]]) -> Iterator[Row]:
    """Bytes in each mode, in all and over the client's links, and Genie's beside the others'."""
    totals: dict[str, float] = {}
    for mode, runs in spent.items():
        row = median_row(label, f"traffic_bytes/{mode}", "B", [float(run.total) for run in runs])
        totals[mode] = row.value
        yield row
        client = [float(run.sent + run.received) for run in runs]
        yield median_row(label, f"client_bytes/{mode}", "B", client)
    for mode in ("naive", "blind"):
        ratio = totals["genie"] / totals[mode]
        samples = tuple(run.total / totals[mode] for run in spent["genie"])
        yield Row(label, f"traffic_vs_{mode}", ratio, "×", samples, mode, ratio)


def tokens(
    case: Case, spoken: Mapping[tuple[str, int], Sequence[Spoken]], trips: Sequence[int]
) -> Iterator[Row]:
    """Milliseconds a token, (last - first) / (n - 1), here and where the daemon emitted them.

    The workload's `latency_over_local` is that of one device, which is what a local run has; two
    devices have a row of their own, because passing a token on between two costs time anywhere.
    """
    label = case.label
    daemon = {trip: [s.daemon_ms or 0.0 for s in spoken["genie", trip]] for trip in trips}
    client = {key: [s.token_ms or 0.0 for s in found] for key, found in spoken.items()}
    for (mode, trip), samples in client.items():
        yield median_row(label, f"latency_ms/{mode}/{trip}", "ms", samples)
    for trip, samples in daemon.items():
        yield median_row(label, f"daemon_ms/genie/{trip}", "ms", samples)
    first, last = trips[0], trips[-1]
    local = client["local", first]
    here = {trip: client["genie", trip] for trip in trips}
    for name, genie in (("", daemon), ("_client", here)):
        metric = f"latency_{last}ms_over_{first}ms{name}"
        yield _ratio(label, metric, genie[last], genie[first], f"{first} ms")
        where = "" if case.devices == 1 else "/two-devices"
        metric = f"latency_over_local{name}{where}"
        yield _ratio(case.name, metric, genie[first], local, "local")


def _ratio(
    label: str, metric: str, values: Sequence[float], base: Sequence[float], name: str
) -> Row:
    """A ratio round by round: a drift of the machine hits both sides of one."""
    ratios = tuple(value / other for value, other in zip(values, base, strict=True))
    found = statistics.median(ratios)
    return Row(label, metric, found, "×", ratios, name, found)
