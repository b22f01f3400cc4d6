"""Plans that fail in a kernel, or take as long as a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from genie_schemas.plan import ExecutionPlan
from tests.runtime.executors.planning import Book, Listener, Op, Rig, op, r


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


def endless() -> list[Op]:
    """One operator that takes a minute or so: the distances of 4,096 rows, by an odd norm."""
    return [
        op("rows", "cat.default", [r("h1"), r("h1"), r("h1"), r("h1")]),
        op("far", "cdist.default", r("rows"), r("rows"), {"f": (3.5).hex()}),
        op("end", "slice.Tensor", r("far"), 0, 0, 1024),
        op("last", "slice.Tensor", r("end"), 1, 0, 1024),
    ]


def slow(rounds: int, timeout_ms: int = 60_000, last: Sequence[Op] = ()) -> Book:
    """Says so through a transfer, then multiplies large matrices, `rounds` times; then `last`."""
    book = Book(
        "slow",
        devices={"d0": "any", "d1": "any"},
        inputs=[("x", "f32[1024,1024]", "d0")],
        timeout_ms=timeout_ms,
    )
    mm = [op(f"h{i + 1}", "mm.default", r(f"h{i}"), r("h0")) for i in range(rounds)]
    out = last[-1].out if last else f"h{rounds}"
    body = "h0: f32[1024,1024]", f"{out}: f32[1024,1024]"
    book.program("grind", *body, "200000000" if last else "30000000", *mm, *last)
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
