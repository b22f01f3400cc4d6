"""Requests and plans that an executor refuses before anything of them runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from genie_runtime.ports import Region
from genie_schemas import writer
from genie_schemas.errors import GenieError
from genie_schemas.plan import ExecutionPlan
from tests.runtime.executors.books import SQUARE, grinding, lookup, slow
from tests.runtime.executors.conftest import MakeExecutor
from tests.runtime.executors.planning import Book, Listener, Rig, e, op, r

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_that_the_device_cannot_hold_is_refused_before_it_starts(
    make_executor: MakeExecutor, snapshot: SnapshotAssertion
) -> None:
    rig = Rig(make_executor(memory=1000))
    book = lookup()
    plan = book.plan()
    rig.install(plan, book)
    _, stats = rig.run(plan, {"ids": torch.tensor([0])}, {"n": 1})
    assert stats.peak_bytes <= 1000
    book.programs["embed"]["scratch_bytes"] = "n*300"
    plan = book.plan()
    rig.install(plan, book)
    request = rig.request(plan, "d0", {"n": 4}, {"ids": torch.zeros(4, dtype=torch.int64)})
    assert str(rig.refused(request, "GEN0462")) == snapshot
    rig.pool.close()


def test_a_full_device_refuses_for_now(make_executor: MakeExecutor) -> None:
    book = slow(rounds=40)
    plan = book.plan()
    rig = Rig(make_executor(memory=plan.devices["d0"].needs + 1000))
    rig.install(plan, book)
    key, listener = grinding(rig, plan)
    other = Listener()
    rig.executor.run(rig.request(plan, "d0", {}, {"x": SQUARE}), other)
    assert other.failed("GEN0463").retryable
    rig.executor.cancel(key)
    listener.failed("GEN0415")
    rig.pool.close()


Change = Callable[[Any], Any]

MISFITS: list[tuple[str, str, Change]] = [
    ("no plan", "GEN0455", lambda q: replace(q, plan_digest="sha256:" + "1" * 64)),
    ("no device", "GEN0455", lambda q: replace(q, device="d7")),
    ("no entry point", "GEN0467", lambda q: replace(q, entrypoint="backward")),
    ("no dimension", "GEN0467", lambda q: replace(q, dims={})),
    ("out of range", "GEN0467", lambda q: replace(q, dims={"n": 5})),
    ("no input", "GEN0467", lambda q: replace(q, inputs={})),
    ("no output", "GEN0467", lambda q: replace(q, outputs={})),
    ("unknown arena", "GEN0466", lambda q: replace(q, inputs={"ids": Region(999, 0, 16)})),
    ("unaligned", "GEN0466", lambda q: _moved(q, offset=32)),
    ("short", "GEN0466", lambda q: _moved(q, length=8)),
    ("beyond", "GEN0466", lambda q: _moved(q, offset=1 << 20)),
]


def test_a_request_that_does_not_fit_is_refused(rig: Rig, snapshot: SnapshotAssertion) -> None:
    book = lookup()
    plan = book.plan()
    rig.install(plan, book)
    for name, code, change in MISFITS:
        request = rig.request(plan, "d0", {"n": 2}, {"ids": torch.tensor([1, 2])})
        error = rig.refused(change(request), code)
        if name != "beyond":  # it names an arena, whose number depends on the tests before
            assert str(error) == snapshot(name=name)


def _moved(request: Any, **change: int) -> Any:
    return replace(request, inputs={"ids": replace(request.inputs["ids"], **change)})


def test_constants_must_be_loaded_and_fit(rig: Rig, snapshot: SnapshotAssertion) -> None:
    book = lookup()
    plan = book.plan()
    digest = plan.plan_digest
    table = rig.put(book.constants["table"])
    with pytest.raises(GenieError) as caught:
        rig.executor.load(digest, {"table": table})
    assert caught.value.code == "GEN0455"
    rig.executor.install(writer.dumps(plan), digest, "d0")
    request = rig.request(plan, "d0", {"n": 1}, {"ids": torch.tensor([1])})
    assert str(rig.refused(request, "GEN0455")) == snapshot
    for regions, code in (
        ({"tabel": table}, "GEN0467"),
        ({"table": replace(table, length=8)}, "GEN0466"),
    ):
        with pytest.raises(GenieError) as caught:
            rig.executor.load(digest, regions)
        assert caught.value.code == code
    rig.executor.load(digest, {"table": table})
    got, _ = rig.run(plan, {"ids": torch.tensor([1])}, {"n": 1})
    assert got["rows"].tolist() == [[3.0, 4.0, 5.0]]
    rig.executor.uninstall(digest)
    rig.executor.uninstall(digest)
    rig.refused(replace(request, run_key="again"), "GEN0455")


def test_plans_that_cannot_run_here_are_refused(rig: Rig, snapshot: SnapshotAssertion) -> None:
    book = lookup()
    plan = book.plan()
    install = rig.executor.install

    def refused(code: str, changed: ExecutionPlan, device: str = "d0") -> str:
        with pytest.raises(GenieError) as caught:
            install(writer.dumps(changed), changed.plan_digest, device)
        assert caught.value.code == code
        return str(caught.value).replace(torch.__version__, "<torch>")

    stale = plan.opset.model_copy(
        update={"torch": "2.10.0", "schemas": plan.opset.schemas | {"aten.add.Tensor": "0" * 16}}
    )
    assert refused("GEN0456", book.plan(check=False, opset=stale)) == snapshot(name="stale")
    assert refused("GEN0467", plan, "d9") == snapshot(name="device")
    with pytest.raises(GenieError) as caught:
        install(writer.dumps(plan), "sha256:" + "2" * 64, "d0")
    assert caught.value.code == "GEN0304"
    with pytest.raises(GenieError) as caught:
        install(writer.dumps(plan)[:-90], plan.plan_digest, "d0")
    assert caught.value.code == "GEN0301"


MALFORMED: list[tuple[str, str, list[Any]]] = [
    ("unknown operator", "GEN0457", [op("y", "negg.default", r("x"))]),
    ("no overload", "GEN0457", [op("y", "__class__.default", r("x"))]),
    ("undefined", "GEN0458", [op("y", "neg.default", r("z"))]),
    ("too many results", "GEN0458", [op("y w", "neg.default", r("x"))]),
    ("twice", "GEN0458", [op("x", "neg.default", r("x"))]),
    ("bad argument", "GEN0458", [op("y", "neg.default", {"q": 1})]),
    ("unknown keyword", "GEN0458", [op("y", "neg.default", r("x"), dim=1)]),
    ("a program", "GEN0458", [op("y", "neg.default", {"program": "0" * 16})]),
    ("no result", "GEN0458", [op("w", "neg.default", r("x"))]),
]


def test_malformed_programs_are_refused(rig: Rig, snapshot: SnapshotAssertion) -> None:
    """A verified plan has none of these; an executor does not rely on that."""
    for name, code, ops in MALFORMED:
        book = Book("bad", inputs=[("x", "f32[2]", "d0")])
        book.program("p", "x: f32[2]", "y: f32[2]", "8", *ops)
        book.compute("p@d0", "p", "x", "y")
        book.step("return@d0", "return", "y")
        book.outputs = ["y"]
        plan = book.plan(check=False)
        with pytest.raises(GenieError) as caught:
            rig.executor.install(writer.dumps(plan), plan.plan_digest, "d0")
        assert caught.value.code == code
        assert str(caught.value) == snapshot(name=name)


def test_steps_that_cannot_be_resolved_are_refused(rig: Rig, snapshot: SnapshotAssertion) -> None:
    book = Book("bad", dims={"n": (0, 2)}, inputs=[("x", "f32[2]", "d0")])
    book.program("p", "x: f32[2]", "y: f32[2]", "8//n", op("y", "neg.default", r("x")))
    book.program("q", "x: f32[2]", "z: f32[2]", "8", op("z", "mul.Tensor", r("x"), e("4//n")))
    book.compute("p@d0", "p", "x", "y")
    book.compute("q@d0", "q", "ghost", "z")
    book.step("return@d0", "return", "y")
    book.outputs = ["y"]
    plan = book.plan(check=False)
    rig.install(plan, book)
    for n in (0, 1):  # a size divided by zero; then a value that no step writes
        request = rig.request(plan, "d0", {"n": n}, {"x": torch.zeros(2)})
        assert str(rig.refused(request, "GEN0458")) == snapshot(name=f"n={n}")
