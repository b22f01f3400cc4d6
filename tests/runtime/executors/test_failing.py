"""What goes wrong on an executor is a typed error that names the place, and nothing else breaks."""

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
from tests.runtime.executors.conftest import MakeExecutor
from tests.runtime.executors.planning import WAIT, Book, Listener, Rig, e, op, r

pytestmark = pytest.mark.usefixtures("one_thread")


def lookup() -> Book:
    """An embedding: an index beyond its table fails in the kernel."""
    book = Book("lookup", dims={"n": (1, 4)}, inputs=[("ids", "i64[n]", "d0")])
    book.constants = {"table": torch.arange(12.0).view(4, 3)}
    book.program(
        "embed",
        "ids: i64[n]; table: f32[4,3]",
        "rows: f32[n,3]",
        "n*100",
        op("shifted", "add.Tensor", r("ids"), 0),
        op("rows", "embedding.default", r("table"), r("shifted")),
    )
    book.step("load@d0", "load", "table")
    book.compute("embed@d0", "embed", "ids table", "rows")
    book.step("return@d0", "return", "rows")
    book.outputs = ["rows"]
    return book


def slow(rounds: int, timeout_ms: int = 60_000) -> Book:
    """Says so through a transfer, then multiplies large matrices, `rounds` times."""
    book = Book(
        "slow",
        devices={"d0": "any", "d1": "any"},
        inputs=[("x", "f32[1024,1024]", "d0")],
        timeout_ms=timeout_ms,
    )
    mm = [op(f"h{i + 1}", "mm.default", r(f"h{i}"), r("h0")) for i in range(rounds)]
    body = "h0: f32[1024,1024]", f"h{rounds}: f32[1024,1024]"
    book.program("grind", *body, "30000000", *mm)
    book.program("first", "x: f32[1024,1024]", "y: f32[4]", "10000000", *_first())
    book.compute("first@d0", "first", "x", "hint")
    book.step("hint@d0->d1", "transfer", "hint", src="d0", dst="d1", writes=["hint.1"])
    book.compute("grind@d0", "grind", "x", "out")
    book.step("return@d0", "return", "out")
    book.step("return@d1", "return", "hint.1", device="d1")
    book.outputs = ["out", "hint.1"]
    return book


def _first() -> list[Any]:
    return [
        op("row", "select.int", r("x"), 0, 0),
        op("four", "slice.Tensor", r("row"), 0, 0, 4),
        op("y", "clone.default", r("four")),
    ]


SQUARE = torch.eye(1024)


def grinding(rig: Rig, plan: ExecutionPlan) -> tuple[str, Listener]:
    """Start the slow plan; returns when its slow step is next."""
    request = rig.request(plan, "d0", {}, {"x": SQUARE})
    listener = Listener()
    rig.executor.run(request, listener)
    listener.ready("hint@d0->d1")
    return request.run_key, listener


def test_a_bad_index_is_the_users_and_names_step_and_operator(
    rig: Rig, port: tuple[str, str], snapshot: SnapshotAssertion
) -> None:
    if port[1] == "cuda":
        pytest.skip("a CUDA kernel asserts asynchronously and takes the device's context with it")
    book = lookup()
    plan = book.plan()
    rig.install(plan, book)
    request = rig.request(plan, "d0", {"n": 2}, {"ids": torch.tensor([1, 4])})
    error = rig.refused(request, "GEN0460")
    assert error.context == {"op": "aten.embedding.default", "position": 1, "out": "rows"}
    assert str(error) == snapshot
    # The next run is served; and once its sizes are known, the same error is told the same way.
    for _ in range(2):
        got, _ = rig.run(plan, {"ids": torch.tensor([3])}, {"n": 1})
        assert got["rows"].tolist() == [[9.0, 10.0, 11.0]]
    request = rig.request(plan, "d0", {"n": 1}, {"ids": torch.tensor([4])})
    assert rig.refused(request, "GEN0460").context == error.context


def test_a_value_of_another_type_does_not_leave_its_step(
    rig: Rig, snapshot: SnapshotAssertion
) -> None:
    book = Book("liar", dims={"n": (1, 4)}, inputs=[("x", "f32[n,2]", "d0")])
    book.program("p", "x: f32[n,2]", "y: f32[2,n]", "100", op("y", "neg.default", r("x")))
    book.program("q", "x: f32[n,2]", "z: i64[n,2]", "100", op("z", "abs.default", r("x")))
    book.compute("p@d0", "p", "x", "y")
    book.compute("q@d0", "q", "x", "z")
    book.step("return@d0", "return", "y")
    book.step("return.z@d0", "return", "z")
    book.outputs = ["y", "z"]
    plan = book.plan()
    rig.install(plan, book)
    for n in (3, 2):  # at 2, the shape agrees and the dtype of the second does not
        request = rig.request(plan, "d0", {"n": n}, {"x": torch.zeros(n, 2)})
        error = rig.refused(request, "GEN0461")
        assert str(error) == snapshot(name=f"n={n}")


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


def test_a_program_that_holds_more_than_it_declares_is_stopped_at_the_limit(
    make_executor: MakeExecutor, snapshot: SnapshotAssertion
) -> None:
    rig = Rig(make_executor(memory=1 << 20))
    book = Book("hungry", inputs=[("x", "f32[4]", "d0")])
    book.program(
        "grow",
        "x: f32[4]",
        "y: f32[4]",
        "16",
        op("big", "full.default", [1 << 20], 1),
        op("s", "sum.default", r("big")),
        op("y", "add.Tensor", r("x"), r("s")),
    )
    book.compute("grow@d0", "grow", "x", "y")
    book.step("return@d0", "return", "y")
    book.outputs = ["y"]
    plan = book.plan()
    rig.install(plan, book)
    request = rig.request(plan, "d0", {}, {"x": torch.zeros(4)})
    assert str(rig.refused(request, "GEN0462")) == snapshot
    rig.pool.close()


def test_no_memory_left_may_be_tried_again(rig: Rig, port: tuple[str, str]) -> None:
    book = Book("huge", inputs=[("x", "f32[4]", "d0")])
    book.program(
        "huge",
        "x: f32[4]",
        "y: f32[4]",
        "16",
        op("big", "full.default", [1 << 44], 1),
        op("s", "select.int", r("big"), 0, 0),
        op("y", "add.Tensor", r("x"), r("s")),
    )
    book.compute("huge@d0", "huge", "x", "y")
    book.step("return@d0", "return", "y")
    book.outputs = ["y"]
    plan = book.plan()
    rig.install(plan, book)
    request = rig.request(plan, "d0", {}, {"x": torch.zeros(4)})
    listener = Listener()
    rig.executor.run(request, listener)
    event = listener.failed("GEN0463")
    assert event.retryable
    assert event.error.context["op"] == "aten.full.default"
    assert event.error.place is not None
    assert event.error.place.path == "steps.huge@d0"


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


def test_a_cancelled_run_ends_before_its_next_step(rig: Rig) -> None:
    book = slow(rounds=8)
    plan = book.plan()
    rig.install(plan, book, ["d0", "d1"])
    key, listener = grinding(rig, plan)
    rig.executor.cancel(key)
    event = listener.failed("GEN0415")
    assert not event.retryable
    # One that waits for bytes ends at once.
    request = rig.request(plan, "d1", {}, {})
    waiting = Listener()
    rig.executor.run(request, waiting)
    rig.executor.cancel(request.run_key)
    waiting.failed("GEN0415")
    rig.executor.cancel("nobody")
    rig.executor.deliver("nobody", "hint@d0->d1")


def test_bytes_that_never_arrive_end_the_step_in_time(
    rig: Rig, snapshot: SnapshotAssertion
) -> None:
    book = slow(rounds=1, timeout_ms=100)
    plan = book.plan()
    rig.install(plan, book, ["d1"])
    listener = Listener()
    rig.executor.run(rig.request(plan, "d1", {}, {}), listener)
    event = listener.failed("GEN0464")
    assert event.retryable
    assert str(event.error) == snapshot


def test_a_later_attempt_replaces_the_one_before(rig: Rig) -> None:
    book = slow(rounds=1)
    plan = book.plan()
    rig.install(plan, book, ["d1"])
    first, second, third = Listener(), Listener(), Listener()
    request = rig.request(plan, "d1", {}, {})
    rig.executor.run(request, first)
    rig.executor.run(request, third)
    third.failed("GEN0469")
    rig.executor.run(replace(request, attempt=2), second)
    first.failed("GEN0415")
    rig.executor.deliver(request.run_key, "hint@d0->d1")
    second.finished()


def test_a_kernel_beyond_its_deadline_ends_the_run_and_others_go_on(
    rig: Rig, port: tuple[str, str]
) -> None:
    if port[1] == "cuda":
        pytest.skip("CUDA kernels are queued: the step ends before they do")
    book = slow(rounds=30, timeout_ms=250)
    plan = book.plan()
    rig.install(plan, book)
    _, listener = grinding(rig, plan)
    event = listener.failed("GEN0464")
    assert event.retryable
    assert event.error.place is not None
    assert event.error.place.path == "steps.grind@d0"
    quick = lookup()
    rig.install(quick.plan(), quick)
    got, _ = rig.run(quick.plan(), {"ids": torch.tensor([2])}, {"n": 1})
    assert got["rows"].tolist() == [[6.0, 7.0, 8.0]]


def test_a_listener_that_raises_disturbs_nobody(rig: Rig) -> None:
    book = lookup()
    plan = book.plan()
    rig.install(plan, book)

    def broken(event: object) -> None:
        raise ValueError(event)

    rig.executor.run(rig.request(plan, "d0", {"n": 1}, {"ids": torch.tensor([1])}), broken)
    got, _ = rig.run(plan, {"ids": torch.tensor([2])}, {"n": 1})
    assert got["rows"].tolist() == [[6.0, 7.0, 8.0]]


def test_closing_ends_what_waits(make_executor: MakeExecutor) -> None:
    rig = Rig(make_executor())
    book = slow(rounds=1)
    plan = book.plan()
    rig.install(plan, book, ["d1"])
    listener = Listener()
    request = rig.request(plan, "d1", {}, {})
    rig.executor.run(request, listener)
    rig.executor.close(WAIT)
    listener.failed("GEN0415")
    for act in (
        lambda: rig.executor.run(request, listener),
        lambda: rig.executor.facts(1),
        lambda: rig.executor.install(writer.dumps(plan), plan.plan_digest, "d1"),
    ):
        with pytest.raises(GenieError) as caught:
            act()
        assert caught.value.code == "GEN0415"
    rig.executor.cancel(request.run_key)
    rig.executor.close(WAIT)
    rig.pool.close()
