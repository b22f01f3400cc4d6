"""torch.cond, while_loop and scan: plans that decide while running give eager's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from genie.client import connect
from genie.graph import print_graph
from genie.plan.store import write
from genie_schemas.errors import GenieError
from tests.capture.compiling import check, compile_module, spec_of, with_forward

X = {"x": ("float32", ["b", 6])}


def branches(self: Any, x: Tensor) -> Any:
    return torch.cond(x.sum() > 0, lambda y: self.a(y) + 1, lambda y: self.b(y).relu(), (x,))


def test_branches_are_programs_that_close_over_weights() -> None:
    model = with_forward(branches, a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    compiled = check(model, X)
    assert compiled.plan.requires == ["compute.aten", "compute.control"]
    call = next(op for p in compiled.plan.programs.values() for op in p.ops if op.op == "hop.cond")
    called = [arg["program"] for arg in call.args[1:3]]
    assert all(key in compiled.plan.programs for key in called)
    assert "hop.cond" not in compiled.plan.opset.schemas
    assert compiled.work.graph is not None
    assert "  body cond(" in print_graph(compiled.work.graph)


@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_both_branches_are_taken(shift: float) -> None:
    model = with_forward(
        lambda self, x: branches(self, x + shift), a=nn.Linear(6, 6), b=nn.Linear(6, 6)
    )
    check(model, X)


def test_branches_within_loops_within_branches() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        def turn(i: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            z = torch.cond(i % 2 == 0, lambda v: self.a(v).tanh(), lambda v: v * 0.5, (y,))
            return i + 1, z

        def loop(y: Tensor) -> Tensor:
            start = torch.zeros((), dtype=torch.int64)
            return while_loop(lambda i, y: i < 4, turn, (start, y))[1]

        return torch.cond(x.mean() > 0, loop, lambda y: y.neg(), (x,))

    check(with_forward(forward, a=nn.Linear(6, 6)), X)


def test_what_a_turn_passes_on_is_a_copy() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        first, second = scan(lambda c, i: (i * 1, c.clone()), x[0] * 1, x)
        second.add_(1)
        return first, second, x

    check(with_forward(forward), {"x": ("float32", [4, 6])})


def test_a_scan_over_several_values_with_sizes_inside() -> None:
    def forward(self: Any, x: Tensor, y: Tensor) -> Any:
        rows = x.shape[1]

        def step(c: tuple[Tensor, ...], i: tuple[Tensor, ...]) -> Any:
            total = c[0] + i[0] * torch.arange(rows, dtype=torch.float32)[:, None]
            return (total, c[1] * i[1]), (total.sum(), i[1] - 1)

        init = (torch.zeros(rows, 3), torch.ones(rows))
        return scan(step, init, (x, y))

    inputs = {"x": ("float32", [5, "b", 3]), "y": ("float32", [5, "b"])}
    check(with_forward(forward), inputs)


def test_bodies_survive_a_cut_between_devices() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        y = self.a(x)
        z = torch.cond(y.sum() > 0, lambda v: v + 1, lambda v: v - 1, (y,))
        return self.b(z)

    model = with_forward(forward, a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    check(model, X, stages=[("d0", ["a"]), ("d1", ["b"])])


def test_a_loop_that_never_ends_is_ended_by_its_deadline(tmp_path: Any) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        return while_loop(lambda y: y.sum() > -1, lambda y: (y * 1,), (x.abs(),))

    policies = {"default": {"timeout": "1s", "max_attempts": 1}}
    compiled = compile_module(with_forward(forward), spec_of(X, policies=policies), tmp_path)
    plan = write(compiled.plan, tmp_path / "constants.safetensors", tmp_path / "p" / "x.plan.json")
    with connect() as session:
        session.install(plan.plan)
        with pytest.raises(GenieError) as caught:
            session.run({"x": np.ones((2, 6), np.float32)}, deadline=30)
        assert caught.value.code == "GEN0464", caught.value


def test_two_runs_of_other_lengths(tmp_path: Any) -> None:
    """What the first run was seen to hold does not bound the next one, which turns more often."""

    def forward(self: Any, x: Tensor) -> Any:
        def turn(y: Tensor) -> tuple[Tensor]:
            return (torch.cat([y[:, 3:], y[:, :3] * 0.5], 1),)

        return while_loop(lambda y: y.abs().max() > 0.01, turn, (x,))

    model = with_forward(forward)
    compiled = compile_module(model, spec_of(X), tmp_path)
    plan = write(compiled.plan, tmp_path / "constants.safetensors", tmp_path / "p" / "x.plan.json")
    with connect() as session:
        session.install(plan.plan)
        for scale in (0.001, 1.0, 1000.0, 0.5):
            x = torch.linspace(-1, 1, 18).view(3, 6) * scale
            found = session.run({"x": x.numpy()}).outputs["output.0"]
            assert np.array_equal(found, model(x)[0].numpy())
