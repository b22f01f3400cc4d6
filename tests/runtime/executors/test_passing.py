"""When values leave a device: as soon as they are there, whatever stands before them."""

from __future__ import annotations

import pytest
import torch

from genie_runtime.ports import RunRequest
from tests.runtime.executors.planning import Book, Listener, Rig, op, r

pytestmark = pytest.mark.usefixtures("one_thread")


def crossing() -> Book:
    """Each device makes a value for the other; `d0` sends its second one late in the plan."""
    book = Book("crossing", devices={"d0": "any", "d1": "any"})
    book.inputs = [("x", "f32[4]", "d0"), ("y", "f32[4]", "d1")]
    form = "f32[4]"
    book.program("half", f"a: {form}", f"b: {form}", "64", op("b", "mul.Tensor", r("a"), 2))
    book.program(
        "sum", f"a: {form}; b: {form}", f"c: {form}", "64", op("c", "add.Tensor", r("a"), r("b"))
    )

    def sent(name: str, src: str, dst: str) -> None:
        book.step(
            f"{name}@{src}->{dst}", "transfer", name, src=src, dst=dst, writes=[f"{name}.there"]
        )

    book.compute("h@d0", "half", "x", "h")
    book.compute("g@d1", "half", "y", "g", "d1")
    sent("g", "d1", "d0")
    book.compute("both@d0", "sum", "h g.there", "both")
    sent("h", "d0", "d1")
    sent("both", "d0", "d1")
    book.compute("end@d1", "sum", "h.there both.there", "end", "d1")
    book.step("return@d1", "return", "end", device="d1")
    book.outputs = ["end"]
    return book


def carry(rig: Rig, step: str, sender: RunRequest, receiver: RunRequest) -> None:
    """What the node does with a value that is ready."""
    source, target = sender.outgoing[step], receiver.incoming[step]
    rig.pool.view(target)[:] = rig.pool.view(source)
    rig.executor.deliver(sender.run_key, step)


def test_a_value_leaves_before_its_device_waits_for_another(rig: Rig) -> None:
    book = crossing()
    plan = book.plan()
    rig.install(plan, book, ["d0", "d1"])
    x, y = torch.arange(4.0), torch.full((4,), 0.5)
    first = rig.request(plan, "d0", {}, {"x": x, "y": y})
    second = rig.request(plan, "d1", {}, {"x": x, "y": y}, run_key=first.run_key)
    ours, theirs = Listener(), Listener()
    rig.executor.run(first, ours)
    ours.ready("h@d0->d1")  # nothing has come from the other device yet
    rig.executor.run(second, theirs)
    theirs.ready("g@d1->d0")
    carry(rig, "h@d0->d1", first, second)
    carry(rig, "g@d1->d0", second, first)
    ours.ready("both@d0->d1")
    ours.finished()
    carry(rig, "both@d0->d1", first, second)
    theirs.finished()
    assert torch.equal(rig.results(plan, second)["end"], 2 * x + (2 * x + 2 * y))
