"""What goes wrong on an executor is a typed error that names the place, and nothing else breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from genie_schemas import writer
from genie_schemas.errors import GenieError
from tests.runtime.executors.books import grinding, lookup, slow
from tests.runtime.executors.conftest import MakeExecutor
from tests.runtime.executors.planning import WAIT, Book, Listener, Rig, op, r

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["as_strided", "_reshape_alias"])
def test_a_program_cannot_reach_beyond_what_it_was_given(rig: Rig, name: str) -> None:
    """Inputs and constants lie in memory that other runs share: strides end where they end."""
    for given in ("x", "w"):
        book = Book("greedy", inputs=[("x", "f32[4]", "d0")])
        book.constants = {"w": torch.ones(4)}
        book.program(
            "reach",
            "x: f32[4]; w: f32[4]",
            "y: f32[64]",
            "1000",
            op("far", f"{name}.default", r(given), [64], [1]),
            op("y", "clone.default", r("far")),
        )
        book.step("load@d0", "load", "w")
        book.compute("reach@d0", "reach", "x w", "y")
        book.step("return@d0", "return", "y")
        book.outputs = ["y"]
        rig.install(book.plan(), book)
        error = rig.refused(rig.request(book.plan(), "d0", {}, {"x": torch.ones(4)}), "GEN0460")
        assert "out of bounds for storage" in str(error)


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
