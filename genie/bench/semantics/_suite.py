"""The suite: every workload in every mode, traffic first and then latency by round trip."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from genie.bench.measure import seconds
from genie.bench.report import LeftOut, Row, median_row
from genie.bench.semantics._cases import FORWARDS, Case, Model
from genie.bench.semantics._contest import MODES, REMOTE, Contest, Machines
from genie.bench.semantics._wires import Traffic, Wires

__all__ = ["FULL", "QUICK", "Scope", "measure", "semantics"]


@dataclass(frozen=True)
class Scope:
    """How much is measured. `round_trips` are in milliseconds; `naive` limits its rounds."""

    round_trips: tuple[int, ...]
    rounds: int
    naive: int
    counted: int


QUICK = Scope((0, 30), rounds=5, naive=1, counted=3)
FULL = Scope((0, 1, 10, 30), rounds=11, naive=3, counted=5)


def semantics(quick: bool) -> Iterable[Row | LeftOut]:
    """Every row of the suite."""
    return measure(QUICK if quick else FULL)


def measure(
    scope: Scope, workloads: Sequence[str] = FORWARDS, devices: Sequence[int] = (2, 1)
) -> Iterator[Row | LeftOut]:
    """The suite within `scope`, for some workloads, on two devices and on one."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder, Machines(1) as machines:
        for name in workloads:
            model = Model(name)
            for count in devices:
                _progress(f"{name}, {count} device{'s' * (count > 1)}")
                case = Case.compile(name, count, Path(folder))
                with Contest(case, model, machines) as contest:
                    yield from _forward(contest, machines, scope)


def _forward(contest: Contest, machines: Machines, scope: Scope) -> Iterator[Row]:
    label = contest.case.label
    spent = {
        mode: _counted(machines.wires, mode, contest.run[mode], scope.counted) for mode in REMOTE
    }
    yield from traffic_rows(label, spent)
    yield from operation_rows(label, machines, contest)
    for round_trip in scope.round_trips:
        machines.wires.round_trip(round_trip)
        yield from _latency(contest, scope, round_trip)
    machines.wires.round_trip(0)


def _counted(wires: Wires, mode: str, run: Callable[[], object], times: int) -> list[Traffic]:
    """What each of `times` runs moves."""
    found = []
    before = wires.traffic(mode)
    for _ in range(times):
        run()
        after = wires.traffic(mode)
        found.append(after - before)
        before = after
    return found


def traffic_rows(label: str, spent: Mapping[str, Sequence[Traffic]]) -> Iterator[Row]:
    """Bytes of a request in each mode, by where they went, and Genie's beside the others'."""
    totals: dict[str, float] = {}
    for mode, runs in spent.items():
        total = [float(run.total) for run in runs]
        totals[mode] = statistics.median(total)
        yield median_row(label, f"traffic_bytes/{mode}", "B", total)
        yield median_row(
            label, f"client_bytes/{mode}", "B", [float(run.sent + run.received) for run in runs]
        )
    for mode in ("naive", "blind"):
        samples = [run.total / totals[mode] for run in spent["genie"]]
        ratio = totals["genie"] / totals[mode]
        yield Row(label, f"traffic_vs_{mode}", ratio, "×", tuple(samples), mode, ratio)


def operation_rows(label: str, machines: Machines, contest: Contest) -> Iterator[Row]:
    """What a call of the blind baseline takes on the wire."""
    remotes = machines.remotes["blind"].values()
    before = [(r.sent.operations, r.sent.bytes) for r in remotes]
    contest.run["blind"]()
    after = [(r.sent.operations, r.sent.bytes) for r in remotes]
    calls = sum(a[0] - b[0] for a, b in zip(after, before, strict=True))
    sent = sum(a[1] - b[1] for a, b in zip(after, before, strict=True))
    yield Row(label, "operations/blind", calls, "", (float(calls),))
    yield Row(label, "bytes_per_operation/blind", sent / calls, "B", (sent / calls,))


def _latency(contest: Contest, scope: Scope, round_trip: int) -> Iterator[Row]:
    samples: dict[str, list[float]] = {mode: [] for mode in MODES}
    for turn in range(scope.rounds):
        order = MODES if turn % 2 == 0 else MODES[::-1]
        for mode in order:
            if mode != "naive" or turn < scope.naive:
                samples[mode].append(seconds(contest.run[mode]) * 1e3)
    for mode, found in samples.items():
        yield median_row(contest.case.label, f"latency_ms/{mode}/{round_trip}", "ms", found)


def _progress(what: str) -> None:
    print(f"  {what} …", file=sys.stderr, flush=True)  # noqa: T201
