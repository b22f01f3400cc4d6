"""The generation loop on executors: greedy and drawn, on one device and a ring, and its ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from genie_runtime.executors.inprocess import InProcessExecutor
from genie_runtime.ports import (
    DeviceSpec,
    ExecutorPort,
    Failed,
    Generation,
    RunRequest,
    StateUse,
)
from genie_runtime.supervisor import WorkerExecutor
from tests import tiny_lm
from tests.runtime.executors.generating import Ring, Station, Wires, close, dims_of, generate
from tests.runtime.executors.planning import WAIT
from tests.tiny_lm import full_forward, greedy, padded

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[5, 9, 1, 33], [7], [2, 2, 60, 8, 41, 3]]
WEIGHTS = tiny_lm.weights()


KINDS = [
    pytest.param(("cpu", 1), id="one"),
    pytest.param(("cpu", 2), id="ring"),
    pytest.param(("cpu", 3), id="ring-of-three"),
    pytest.param(("cuda", 1), id="cuda", marks=pytest.mark.cuda),
]


class Opened:
    """Stations with the model on one device or more, with ends of sequence if given."""

    def __init__(self, folder: Path, devices: int, make: Callable[[str], ExecutorPort]) -> None:
        self._folder, self._devices, self._make = folder, devices, make
        self.stations: list[Station] = []

    def model(self, *eos: int) -> list[Station]:
        made = tiny_lm.tiny_lm(self._folder, devices=self._devices, eos=eos)
        names = sorted(made.plan.devices)
        found = [Station(self._make(name), made, name) for name in names]
        self.stations += found
        return found

    def close(self) -> None:
        for station in self.stations:
            station.executor.close(30)
            station.pool.close()


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    kind, devices = request.param
    if kind == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    spec = DeviceSpec("here", kind, 0, 1 << 30)
    made = Opened(tmp_path, devices, lambda name: InProcessExecutor(replace(spec, id=name), 1))
    yield made
    made.close()


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Station]:
    """One device in this process; the token 63 ends a sequence."""
    spec = DeviceSpec("d0", "cpu", 0, 1 << 30)
    made = Opened(tmp_path, 1, lambda _: InProcessExecutor(spec, 1))
    yield made.model(63)[0]
    made.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Station]]:
    """Two devices, each in a process of its own."""
    spec = DeviceSpec("here", "cpu", 0, 1 << 30)
    made = Opened(
        tmp_path, 2, lambda name: WorkerExecutor(replace(spec, id=name), 1, log_dir=tmp_path)
    )
    yield made.model()
    made.close()


def test_worker_processes_generate_the_same(workers: list[Station]) -> None:
    """In one go, drawn, resumed; cancelled in the middle; and refused before a worker is asked."""
    inputs = padded(PROMPTS)
    tokens = generate(workers, inputs, Generation(24)).tokens()
    assert tokens == [greedy(WEIGHTS, prompt, 24) for prompt in PROMPTS]
    drawn = generate(workers, inputs, DRAWN).tokens()
    forced = tuple(tuple(row[:9]) for row in drawn)
    assert generate(workers, inputs, replace(DRAWN, forced=forced)).tokens() == [
        row[9:] for row in drawn
    ]
    _cancel(workers)
    failed = generate(workers, inputs, Generation(24, temperature=-1.0)).wait()
    assert [end.error.code for end in failed.values() if isinstance(end, Failed)] == ["GEN0480"] * 2


def test_wired_transfers_pass_at_the_word_of_the_executors(opened: Opened) -> None:
    stations = opened.model()
    _wired(stations)
    before = _descriptors(os.getpid())
    for _ in range(3):
        _wired(stations)
    _end_wired(stations)
    assert _descriptors(os.getpid()) == before


def test_wired_transfers_of_worker_processes(workers: list[Station]) -> None:
    _wired(workers)
    pids = [e.pid for s in workers if isinstance(e := s.executor, WorkerExecutor)]
    before = [_descriptors(pid) for pid in pids if pid]
    for _ in range(3):
        _wired(workers)
    _end_wired(workers)
    generate(workers, padded(PROMPTS), Generation(3)).tokens()  # what ended has been cleared away
    assert [_descriptors(pid) for pid in pids if pid] == before


def _wired(stations: list[Station]) -> None:
    """Generate; every transfer of the body is told of once, and carried in every turn."""
    wires = Wires()
    ring = generate(stations, padded(PROMPTS), Generation(24), wires=wires)
    assert ring.tokens() == [greedy(WEIGHTS, prompt, 24) for prompt in PROMPTS]
    wires.close()
    steps = {step for request in ring.requests.values() for step in request.triggers}
    assert (not steps) == (len(stations) == 1)
    assert {step: ring.told[step] for step in steps} == dict.fromkeys(steps, 1)
    assert wires.carried == dict.fromkeys(steps, 23)  # the last token is not fed


def _end_wired(stations: list[Station]) -> None:
    """Cancel a loop whose devices wait for bells that nobody rings."""
    wires = Wires()
    ring = generate(stations, padded(PROMPTS), Generation(24), wires=wires)
    wires.close()
    if len(stations) > 1:
        ring.cancel()
        ended = ring.wait().values()
        assert {end.error.code for end in ended if isinstance(end, Failed)} == {"GEN0415"}
    else:
        ring.wait()


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_bell_takes_a_delivery_too(opened: Opened) -> None:
    stations = opened.model()
    wires = Wires()
    requests = {s.device: wires.wired(s, _request(s)) for s in stations}
    ring = Ring(stations, [replace(r, triggers={}) for r in requests.values()])
    for station in stations:
        station.executor.run(ring.requests[station.device], ring.listener(station))
    assert ring.tokens() == [greedy(WEIGHTS, prompt, 9) for prompt in PROMPTS]
    wires.begin(ring)
    wires.close()


def _request(station: Station) -> RunRequest:
    inputs = padded(PROMPTS)
    return station.request(
        "generate",
        inputs,
        dims_of(inputs),
        state=StateUse("once", 0, keep=False),
        generation=Generation(9),
    )


def test_greedy_generation_equals_full_forwards(opened: Opened) -> None:
    ring = generate(opened.model(), padded(PROMPTS), Generation(24))
    assert ring.tokens() == [greedy(WEIGHTS, prompt, 24) for prompt in PROMPTS]


def test_a_loop_ends_when_every_row_has(opened: Opened) -> None:
    want = [greedy(WEIGHTS, prompt, 30) for prompt in PROMPTS]
    first = want[0][4]
    one_row = [greedy(WEIGHTS, prompt, 30, (first,)) for prompt in PROMPTS]
    every = {row[5] for row in want}
    shorter = [greedy(WEIGHTS, prompt, 30, tuple(every)) for prompt in PROMPTS]
    longest = max(sum(token >= 0 for token in row) for row in shorter)
    assert longest < 30
    assert any(-1 in row for row in one_row)
    ring = generate(opened.model(first), padded(PROMPTS), Generation(30))
    assert ring.tokens() == [row[: len(ring.sampled)] for row in one_row]
    stations = opened.model(*sorted(every))
    for limit in (30, longest, longest - 1):
        ring = generate(stations, padded(PROMPTS), Generation(limit))
        assert ring.tokens() == [row[: min(limit, longest)] for row in shorter]


def test_one_token_needs_no_turn(opened: Opened) -> None:
    ring = generate(opened.model(), padded(PROMPTS), Generation(1))
    assert ring.tokens() == [greedy(WEIGHTS, prompt, 1) for prompt in PROMPTS]
    assert not any(step.startswith("token/") for step in ring.deliveries)


DRAWN = Generation(20, temperature=1.3, top_k=20, top_p=0.9, seed=7)


def test_drawn_tokens_do_not_depend_on_devices_or_interruption(opened: Opened) -> None:
    stations = opened.model()
    inputs = padded(PROMPTS)
    whole = generate(stations, inputs, DRAWN).tokens()
    assert whole == SEEN.setdefault("drawn", whole)
    assert len({token for row in whole for token in row}) > 10
    assert whole != generate(stations, inputs, replace(DRAWN, seed=8)).tokens()
    forced = tuple(tuple(row[:9]) for row in whole)
    ring = generate(stations, inputs, replace(DRAWN, forced=forced))
    assert ring.tokens() == [row[9:] for row in whole]
    assert ring.sampled[0].index == 9


SEEN: dict[str, list[list[int]]] = {}
"""What the first kind of executor drew: every other draws the same."""


def test_a_row_draws_the_same_in_every_batch_at_its_place(opened: Opened) -> None:
    stations = opened.model()
    alone = generate(stations, padded(PROMPTS[:1]), DRAWN).tokens()
    both = generate(stations, padded(PROMPTS[:2]), DRAWN).tokens()
    assert both[0] == alone[0]


def test_rows_that_ended_before_the_interruption_stay_ended(opened: Opened) -> None:
    eos = greedy(WEIGHTS, PROMPTS[1], 3)[2]
    want = [greedy(WEIGHTS, prompt, 12, (eos,)) for prompt in PROMPTS]
    stations = opened.model(eos)
    for cut in (5, 12):
        forced = tuple(tuple(row[:cut]) for row in want)
        ring = generate(stations, padded(PROMPTS), Generation(12, forced=forced))
        assert ring.tokens() == ([row[cut:] for row in want] if cut < 12 else [])
    trimmed = tuple(tuple(token for token in row[:5] if token >= 0) for row in want)
    ring = generate(stations, padded(PROMPTS), Generation(12, forced=trimmed))
    assert ring.tokens() == [row[5:] for row in want]


def test_cancelling_ends_every_station_and_the_state(opened: Opened) -> None:
    _cancel(opened.model())


def _cancel(stations: list[Station]) -> None:
    inputs = padded(PROMPTS)
    ring = generate(stations, inputs, Generation(40), use=StateUse("s", 0, keep=True))
    waiting = threading.Thread(target=ring.wait)
    waiting.start()
    assert ring.first.wait(WAIT)
    ring.cancel()
    waiting.join(WAIT)
    assert not waiting.is_alive()
    states = stations[0].made.plan.state.values()
    for station in (s for s in stations if s.device in {state.device for state in states}):
        array = {"token": np.array([1, 1, 1], np.int64)}
        use = StateUse("s", 1, keep=True)
        request = station.request("decode", array, {"batch": 3}, state=use)
        station.fails(request, "GEN0475")


def test_decoding_goes_on_where_a_loop_ended(one: Station) -> None:
    """The loop's run commits once: its state is at version 1, as if it had been one prefill."""
    use = StateUse("s", 0, keep=True)
    tokens = generate([one], padded(PROMPTS), Generation(6), use=use).tokens()
    logits = one.decode([row[-1] for row in tokens], StateUse("s", 1, keep=True))
    texts = [prompt + row for prompt, row in zip(PROMPTS, tokens, strict=True)]
    assert close(logits, np.stack([full_forward(WEIGHTS, text)[-1] for text in texts]))


BAD: dict[str, tuple[str, Generation]] = {
    "too long": ("GEN0479", Generation(43)),
    "far too long": ("GEN0479", Generation(9999)),
    "no token": ("GEN0480", Generation(0)),
    "temperature": ("GEN0480", Generation(4, temperature=-1.0)),
    "temperature is no number": ("GEN0480", Generation(4, temperature=float("nan"))),
    "top_k": ("GEN0480", Generation(4, top_k=-1)),
    "top_p is 0": ("GEN0480", Generation(4, top_p=0.0)),
    "top_p": ("GEN0480", Generation(4, top_p=1.5)),
    "seed": ("GEN0480", Generation(4, seed=-1)),
    "forced rows": ("GEN0480", Generation(4, forced=((1,),))),
    "forced token": ("GEN0480", Generation(4, forced=((1,), (64,), (3,)))),
    "forced lengths": ("GEN0480", Generation(4, forced=((1,), (1, 2), (3,)))),
    "forced too many": ("GEN0480", Generation(1, forced=((1, 2), (1, 2), (3, 4)))),
    "forced after the end": ("GEN0480", Generation(4, forced=((1, 2), (-1, 2), (3, 4)))),
}


def test_bad_parameters_are_refused(one: Station, snapshot: SnapshotAssertion) -> None:
    for name, (code, generation) in BAD.items():
        ring = generate([one], padded(PROMPTS), generation)
        (failed,) = ring.wait().values()
        assert isinstance(failed, Failed)
        assert failed.error.code == code, failed.error
        assert failed.error.exit_code == 2
        assert str(failed.error) == snapshot(name=name)
        assert not ring.sampled


def test_lengths_beyond_the_prompts_are_refused(one: Station) -> None:
    for lengths in ([4, 0, 6], [4, 1, 7]):
        inputs = {**padded(PROMPTS), "lengths": np.array(lengths, np.int64)}
        (failed,) = generate([one], inputs, Generation(4)).wait().values()
        assert isinstance(failed, Failed)
        assert failed.error.code == "GEN0480"


def test_a_request_without_parameters_is_refused(one: Station) -> None:
    inputs = padded(PROMPTS)
    use = StateUse("s", 0, keep=False)
    one.fails(one.request("generate", inputs, dims_of(inputs), state=use), "GEN0467")
