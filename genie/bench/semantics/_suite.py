"""The suite: every workload in every mode, on two devices and on one."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from genie.bench.measure import seconds
from genie.bench.report import LeftOut, Row, median_row
from genie.bench.semantics import _rows as rows
from genie.bench.semantics._cases import FORWARDS, Case, Model
from genie.bench.semantics._contest import MODES, REMOTE, Contest, Machines
from genie.bench.semantics._generation import Dialogue, Spoken
from genie.bench.semantics._wires import Traffic, Wires

__all__ = ["FULL", "QUICK", "Scope", "measure", "one", "semantics"]

Calls = Mapping[str, Callable[[], object]]
"""Mode → one request."""

CAUSAL = "causal"
PREFILL, DECODE = "llm-prefill", "llm-decode"


@dataclass(frozen=True)
class Scope:
    """How much is measured.

    `round_trips` are in milliseconds, the first is what others are compared with; naive calls take
    so long that they have `naive` of the `rounds`, and `naive_tokens` where others time `tokens`.
    Traffic is that of `counted` runs (naive: of one, they do not differ), for generation with
    `counted_tokens` tokens in every mode, and for what reaches Genie's client with `long` tokens.
    """

    round_trips: tuple[int, ...]
    rounds: int
    naive: int
    counted: int
    long: int
    tokens: int
    naive_tokens: int
    counted_tokens: int

    def runs(self, mode: str) -> int:
        """How many runs of a mode are counted."""
        return 1 if mode == "naive" else self.counted


QUICK = Scope(
    (0, 30), rounds=7, naive=1, counted=3, long=129, tokens=33, naive_tokens=2, counted_tokens=9
)
FULL = Scope(
    (0, 1, 10, 30),
    rounds=11,
    naive=3,
    counted=5,
    long=193,
    tokens=65,
    naive_tokens=3,
    counted_tokens=17,
)


def semantics(quick: bool) -> Iterable[Row | LeftOut]:
    """Every row of the suite. What this machine cannot measure is left out with the reason."""
    return measure(QUICK if quick else FULL)


def measure(
    scope: Scope,
    workloads: Sequence[str] = (*FORWARDS, CAUSAL),
    devices: Sequence[int] = (2, 1),
) -> Iterator[Row | LeftOut]:
    """The suite within `scope`, for some workloads."""
    torch.set_num_threads(1)
    with Machines(1) as machines:
        for name in workloads:
            if name == CAUSAL and find_spec("transformers") is None:
                reason = "the model comes from transformers, which is not installed"
                yield from (LeftOut(case, reason) for case in (PREFILL, DECODE))
                continue
            model = Model(name)
            for count in devices:
                yield from one(model, count, machines, scope)


def one(model: Model, devices: int, machines: Machines, scope: Scope) -> Iterator[Row]:
    """The rows of one workload on one or two devices."""
    _progress(f"{model.name}, {devices} device{'s' * (devices > 1)}")
    with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder:
        case = Case.compile(model.name, devices, Path(folder))
        if model.name == CAUSAL:
            yield from _language(case, model, machines, scope)
            return
        with Contest(case, model, machines) as contest:
            yield from _requests(case.label, contest.run, contest.counted, machines, scope)


def _requests(
    label: str, calls: Calls, counted: Calls, machines: Machines, scope: Scope
) -> Iterator[Row]:
    """Rows of a workload whose unit is a request."""
    wires = machines.wires
    spent = {m: _counted(wires, m, counted[m], scope.runs(m)) for m in REMOTE}
    yield from rows.traffic(label, spent)
    yield from _operations(label, machines, calls["blind"])
    found: dict[tuple[str, int], list[float]] = {}
    for mode, trip in _turns(scope, wires):
        found.setdefault((mode, trip), []).append(seconds(calls[mode]) * 1e3)
    for (mode, trip), samples in found.items():
        yield median_row(label, f"latency_ms/{mode}/{trip}", "ms", samples)


def _language(case: Case, model: Model, machines: Machines, scope: Scope) -> Iterator[Row]:
    with Dialogue(case.named(PREFILL), model, machines, prompt=128) as dialogue:
        calls, counted = (
            {mode: partial(speak[mode], 1) for mode in MODES}
            for speak in (dialogue.run, dialogue.counted)
        )
        yield from _requests(dialogue.case.label, calls, counted, machines, scope)
    with Dialogue(case.named(DECODE), model, machines, prompt=16) as dialogue:
        yield from _decode(dialogue, machines, scope)


def _decode(dialogue: Dialogue, machines: Machines, scope: Scope) -> Iterator[Row]:
    """Rows of generation, whose unit is a token after the first."""
    label, wires = dialogue.case.label, machines.wires
    spent = {
        mode: _each(wires, mode, dialogue.counted[mode], scope.counted_tokens, scope.runs(mode))
        for mode in REMOTE
    }
    yield from rows.traffic(label, spent)
    spoken = _each(wires, "genie", dialogue.counted["genie"], scope.long, scope.counted)
    received = [float(run.received) for run in spoken]
    yield median_row(label, "bytes_per_token_to_client/genie", "B", received)
    yield from _operations(label, machines, partial(dialogue.run["blind"], 2))
    found: dict[tuple[str, int], list[Spoken]] = {}
    for mode, trip in _turns(scope, wires):
        count = scope.naive_tokens if mode == "naive" else scope.tokens
        found.setdefault((mode, trip), []).append(dialogue.run[mode](count))
    yield from rows.tokens(dialogue.case, found, scope.round_trips)


def _turns(scope: Scope, wires: Wires) -> Iterator[tuple[str, int]]:
    """(mode, round trip) of every sample: all take turns, every other round backwards.

    What is divided by one another stands side by side, and naive calls, which leave the processors
    idle for seconds, at the end.
    """
    for turn in range(scope.rounds):
        order = [(m, t) for m in ("local", "genie", "blind", "naive") for t in scope.round_trips]
        for mode, trip in order[::-1] if turn % 2 == 1 else order:
            if mode != "naive" or turn < scope.naive:
                wires.round_trip(trip)
                yield mode, trip
    wires.round_trip(0)


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


def _each(
    wires: Wires, mode: str, speak: Callable[[int], object], count: int, times: int
) -> list[Traffic]:
    """What each token after the first moves: `count` tokens less one token, by their number."""
    first, every = (_counted(wires, mode, partial(speak, n), times) for n in (1, count))
    return [(a - b).each(count - 1) for a, b in zip(every, first, strict=True)]


def _operations(label: str, machines: Machines, run: Callable[[], object]) -> Iterator[Row]:
    """What a call of the blind baseline takes on the wire, and how many a run makes."""
    remotes = machines.remotes["blind"].values()
    before = [(remote.sent.operations, remote.sent.bytes) for remote in remotes]
    run()
    after = [(remote.sent.operations, remote.sent.bytes) for remote in remotes]
    calls, sent = (sum(a[i] - b[i] for a, b in zip(after, before, strict=True)) for i in (0, 1))
    yield Row(label, "operations/blind", calls, "", (float(calls),))
    yield Row(label, "bytes_per_operation/blind", sent / calls, "B", (sent / calls,))


def _progress(what: str) -> None:
    print(f"  {what} …", file=sys.stderr, flush=True)  # noqa: T201
