"""State on executors: calls that continue each other, versions, failures, and what is refused."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from genie_runtime.executors import state as states
from genie_runtime.executors.inprocess import InProcessExecutor
from genie_runtime.executors.schedule import Form
from genie_runtime.executors.state import StateTable
from genie_runtime.ports import DeviceSpec, Failed, StateUse
from genie_runtime.supervisor import WorkerExecutor
from genie_schemas import writer
from genie_schemas.errors import GenieError
from tests import tiny_lm
from tests.runtime.executors.conftest import MakeExecutor
from tests.runtime.executors.generating import Station, close, dims_of
from tests.runtime.executors.planning import WAIT, Book, Listener, Rig, op, r
from tests.tiny_lm import full_forward, padded

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS = tiny_lm.weights()
PROMPTS = [[5, 9, 1, 33], [7], [2, 2, 60, 8, 41, 3]]
INPUTS = padded(PROMPTS)


@pytest.fixture
def anywhere(make_executor: MakeExecutor, tmp_path: Path) -> Iterator[Station]:
    """The model on every kind of executor."""
    made = Station(make_executor(), tiny_lm.tiny_lm(tmp_path), "d0")
    yield made
    made.pool.close()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    """The model on the CPU of this process."""
    executor = InProcessExecutor(DeviceSpec("here", "cpu", 0, 1 << 30), 1)
    made = Station(executor, tiny_lm.tiny_lm(tmp_path), "d0")
    yield made
    executor.close(30)
    made.pool.close()


def expected(texts: list[list[int]]) -> Any:
    return np.stack([full_forward(WEIGHTS, text)[-1] for text in texts])


def kept(expects: int, key: str = "session/chat") -> StateUse:
    return StateUse(key, expects, keep=True)


def test_prefill_then_decode_equals_full_forwards(anywhere: Station) -> None:
    station = anywhere
    texts = [list(prompt) for prompt in PROMPTS]
    assert close(station.prefill(INPUTS, kept(0)), expected(texts))
    for version, tokens in enumerate(([3, 1, 4], [15, 9, 2], [6, 53, 5]), 1):
        for text, token in zip(texts, tokens, strict=True):
            text.append(token)
        assert close(station.decode(tokens, kept(version)), expected(texts))


def test_sequences_under_different_keys_do_not_meet(station: Station) -> None:
    first, second = padded([[1, 2, 3]]), padded([[40, 41]])
    station.prefill(first, kept(0, "a"))
    station.prefill(second, kept(0, "b"))
    assert close(station.decode([9], kept(1, "a")), expected([[1, 2, 3, 9]]))
    assert close(station.decode([9], kept(1, "b")), expected([[40, 41, 9]]))
    station.executor.free_state("a")
    assert close(station.decode([8], kept(2, "b")), expected([[40, 41, 9, 8]]))
    request = station.request("decode", {"token": np.array([8])}, {"batch": 1}, state=kept(2, "a"))
    station.fails(request, "GEN0475")


def decode(station: Station, use: StateUse | None, tokens: tuple[int, ...] = (3, 1, 4)) -> Any:
    array = np.array(tokens, np.int64)
    return station.request("decode", {"token": array}, {"batch": len(tokens)}, state=use)


def test_wrong_versions_and_sizes_are_refused_and_change_nothing(
    anywhere: Station, snapshot: SnapshotAssertion
) -> None:
    station = anywhere
    error = station.fails(decode(station, kept(1)), "GEN0475").error
    assert str(error) == snapshot(name="not there")
    station.prefill(INPUTS, kept(0))
    error = station.fails(decode(station, kept(2)), "GEN0476").error
    assert str(error) == snapshot(name="another version")
    error = station.fails(decode(station, kept(1), (3, 1)), "GEN0477").error
    assert str(error) == snapshot(name="other sizes")
    error = station.fails(decode(station, None), "GEN0467").error
    assert str(error) == snapshot(name="none named")
    texts = [[*prompt, token] for prompt, token in zip(PROMPTS, (3, 1, 4), strict=True)]
    assert close(station.decode([3, 1, 4], kept(1)), expected(texts))
    station.fails(decode(station, kept(1)), "GEN0476")


def test_state_begins_anew_and_ends_with_its_run_or_its_plan(station: Station) -> None:
    station.prefill(padded([[60]]), kept(0))
    station.prefill(INPUTS, kept(0))  # another batch: nothing of the first is left
    texts = [[*prompt, 3] for prompt in PROMPTS]
    use = replace(kept(1), keep=False)
    assert close(station.decode([3, 3, 3], use), expected(texts))
    station.fails(decode(station, kept(2)), "GEN0475")
    station.prefill(INPUTS, kept(0))
    plan = station.made.plan
    station.executor.uninstall(plan.plan_digest)
    again = Station(station.executor, station.made, "d0")
    again.fails(decode(again, kept(1)), "GEN0475")
    again.pool.close()


def test_a_failed_run_can_be_replayed(station: Station) -> None:
    """A token beyond the vocabulary fails in the kernel; the state is what it was before."""
    station.prefill(INPUTS, kept(0))
    for _ in range(2):
        station.fails(decode(station, kept(1), (1, 2, 10_000)), "GEN0460")
    texts = [[*prompt, 3] for prompt in PROMPTS]
    assert close(station.decode([3, 3, 3], kept(1)), expected(texts))
    bad = {**INPUTS, "input_ids": INPUTS["input_ids"] + 10_000}
    request = station.request("prefill", bad, dims_of(bad), state=kept(0, "other"))
    station.fails(request, "GEN0460")
    station.fails(decode(station, kept(1, "other")), "GEN0475")


def test_state_dies_with_its_worker_and_the_next_one_says_so(tmp_path: Path) -> None:
    worker = WorkerExecutor(DeviceSpec("here", "cpu", 0, 1 << 30), 1, log_dir=tmp_path)
    station = Station(worker, tiny_lm.tiny_lm(tmp_path), "d0")
    station.prefill(INPUTS, kept(0))
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    code = "GEN0450"
    while code == "GEN0450":  # it may die with the run
        listener = Listener()
        worker.run(decode(station, kept(1)), listener)
        event = listener.events.get(timeout=WAIT)
        assert isinstance(event, Failed)
        code = event.error.code
    assert code == "GEN0475"
    tokens = [[*prompt, 3] for prompt in PROMPTS]
    assert close(station.prefill(padded(tokens), kept(0)), expected(tokens))
    worker.close(30)
    station.pool.close()


def counting() -> Book:
    """x f32[4] is added to `total`, and written to row `at` of `log`; fails for at ≥ 8 at its end.

    The log grows in the first step, the total and the cursor are replaced there as well.
    """
    book = Book("counting", inputs=[("x", "f32[4]", "d0"), ("index", "i64[1]", "d0")])
    book.constants = {"start": torch.full((4,), 100.0), "table": torch.zeros(8, 2)}
    book.program(
        "add",
        "x: f32[4]; log: f32[8,4]; total: f32[4]; at: i64[1]",
        "sum: f32[4]; next: i64[1]",
        "1000",
        op("row", "unsqueeze.default", r("x"), 0),
        op("-", "index_copy_.default", r("log"), 0, r("at"), r("row")),
        op("sum", "add.Tensor", r("total"), r("x")),
        op("next", "add.Tensor", r("at"), 1),
    )
    book.program(
        "check",
        "index: i64[1]; table: f32[8,2]",
        "found: f32[1,2]",
        "1000",
        op("found", "embedding.default", r("table"), r("index")),
    )
    book.step("load@d0", "load", "start table")
    book.compute("add@d0", "add", "x log total at", "sum next")
    book.steps[-1]["effect"] = [
        {"state": "log", "expects": "entry"},
        {"state": "total", "expects": "entry", "value": "sum"},
        {"state": "at", "expects": "entry", "value": "next"},
    ]
    book.compute("check@d0", "check", "index table", "found")
    book.step("return.total@d0", "return", "total")
    book.step("return.log@d0", "return", "log")
    book.step("return.found@d0", "return", "found")
    book.outputs = ["total", "log", "found"]
    return book


def state(kind: str, update: str, initial: str = "zeros") -> dict[str, Any]:
    return {"type": kind, "device": "d0", "initial": initial, "version": 0, "update": update}


STATES = {
    "log": state("f32[8,4]", "append"),
    "total": state("f32[4]", "replace", "start"),
    "at": state("i64[1]", "replace"),
}
NEW = {
    "format_version": "1.1",
    "min_reader": "1.1",
    "requires": ["compute.aten", "state.kv"],
    "state": STATES,
}


def test_replaced_state_is_swapped_at_the_commit_and_appended_state_grows(rig: Rig) -> None:
    book = counting()
    plan = book.plan(**NEW)
    rig.install(plan, book)
    key = StateUse("k", 0, keep=True)

    def run(value: float, index: int, version: int, code: str = "") -> dict[str, torch.Tensor]:
        inputs = {"x": torch.full((4,), float(value)), "index": torch.tensor([index])}
        request = rig.request(plan, "d0", {}, inputs, state=replace(key, expects=version))
        if code:
            rig.refused(request, code)
            return {}
        listener = Listener()
        rig.executor.run(request, listener)
        listener.finished()
        return rig.results(plan, request)

    assert run(1, 0, 0)["total"].tolist() == [101] * 4
    run(7, 99, 1, "GEN0460")  # fails after log and total were written
    got = run(2, 0, 1)
    assert got["total"].tolist() == [103] * 4
    assert got["log"][:3, 0].tolist() == [1, 2, 0]
    assert run(3, 0, 2)["log"][:4, 0].tolist() == [1, 2, 3, 0]
    assert run(5, 0, 0)["total"].tolist() == [105] * 4
    assert book.constants["start"].tolist() == [100] * 4


def test_kept_state_counts_as_resident(tmp_path: Path) -> None:
    made = tiny_lm.tiny_lm(tmp_path)
    caches = 4 * tiny_lm.BATCH * tiny_lm.CAPACITY * tiny_lm.WIDTH * 4
    spec = DeviceSpec("here", "cpu", 0, made.plan.devices["d0"].needs + caches)
    executor = InProcessExecutor(spec, 1)
    station = Station(executor, made, "d0")
    inputs = padded([[1, 2]] * 4)
    refused, held = "", 0
    for held in range(8):
        request = station.request("prefill", inputs, dims_of(inputs), state=kept(0, f"k{held}"))
        listener = Listener()
        station.executor.run(request, listener)
        event = listener.events.get(timeout=60)
        if error := getattr(event, "error", None):
            refused = error.code
            break
    assert refused == "GEN0463"
    assert held >= 2
    station.executor.free_state("k0")
    station.prefill(inputs, kept(0, "k9"))
    executor.close(30)
    station.pool.close()


FORMS = {"s": Form.of("f32[4]", {})}
KEY = ("session/chat", "sha256:plan", "d0")


def test_one_state_serves_one_run_after_the_other(
    monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    table = StateTable()

    def cancelled() -> None:
        raise GenieError("GEN0415", "the run was cancelled")

    with table.use(KEY, kept(0), FORMS, lambda: None) as first:
        with pytest.raises(GenieError) as caught, table.use(KEY, kept(1), FORMS, cancelled):
            pass
        assert caught.value.code == "GEN0415"
        monkeypatch.setattr(states, "_PATIENCE", 0.05)
        with pytest.raises(GenieError) as caught, table.use(KEY, kept(1), FORMS, lambda: None):
            pass
        assert str(caught.value) == snapshot
        first.commit()
    monkeypatch.undo()
    held, done = threading.Event(), threading.Event()

    def run() -> None:
        with table.use(KEY, kept(1), FORMS, lambda: None) as lease:
            held.set()
            assert done.wait(WAIT)
            lease.commit()

    thread = threading.Thread(target=run)
    thread.start()
    assert held.wait(WAIT)
    threading.Timer(0.1, done.set).start()
    with table.use(KEY, kept(2), FORMS, lambda: None) as last:  # waits, then finds version 2
        assert not last.fresh
    thread.join(WAIT)
    assert table.nbytes == 16


def test_state_that_is_freed_in_use_goes_with_its_run() -> None:
    table = StateTable()
    with table.use(KEY, kept(0), FORMS, lambda: None) as lease:
        table.free(lambda key: key[0] == "session/chat")
        assert table.nbytes == 16
        lease.commit()
    assert table.nbytes == 0
    assert table.take_gone() == [lease.uid]
    assert table.take_gone() == []


def test_another_session_knows_the_plan_but_not_the_state(rig: Rig, tmp_path: Path) -> None:
    """Two plans with one key: each has state of its own."""
    book = counting()
    plan, other = book.plan(**NEW), book.plan(**NEW, name="other")
    assert writer.plan_digest(writer.plan_data(other)) != plan.plan_digest
    for each in (plan, other):
        rig.install(each, book)
    inputs = {"x": torch.ones(4), "index": torch.tensor([0])}
    for each, code in ((plan, ""), (other, "GEN0475")):
        first = rig.request(each, "d0", {}, inputs, state=StateUse("k", 0 if not code else 1, True))
        if code:
            rig.refused(first, code)
        else:
            listener = Listener()
            rig.executor.run(first, listener)
            listener.finished()
