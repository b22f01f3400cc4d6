"""Placements as a spec writes them: which call runs where, and what crosses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genie.schedule.placement import place
from genie_schemas.errors import GenieErrors
from genie_schemas.plan import ComputeStep, LoadStep, TransferStep
from tests.capture.compiling import (
    Compiled,
    assert_equals_eager,
    check,
    compile_module,
    spec_of,
    with_forward,
)
from tests.capture.zoo import ZOO

INPUT = {"x": ("float32", ["b", 6])}
Stages = Sequence[tuple[str, Sequence[str]]]


def layers(forward: Any, **more: Any) -> nn.Module:
    """Layers a, b and c of six to six under this forward."""
    torch.manual_seed(0)
    parts = {name: nn.Linear(6, 6) for name in "abc"}
    return with_forward(forward, **parts, **more)


def devices(compiled: Compiled) -> dict[str, str]:
    """First part of each compute step's id → its device."""
    steps = [s for s in compiled.plan.steps if isinstance(s, ComputeStep)]
    return {s.id.partition("/")[0]: s.device for s in steps}


def moves(compiled: Compiled) -> list[str]:
    return [s.id for s in compiled.plan.steps if isinstance(s, TransferStep)]


def test_stages_run_where_they_are_put() -> None:
    model = layers(lambda self, x: self.c(self.b(self.a(x))))
    made = check(model, INPUT, stages=[("d0", ["a"]), ("d1", ["b"]), ("d0", ["c"])])
    assert devices(made) == {"a": "d0", "b": "d1", "c": "d0"}
    assert moves(made) == ["a.linear/transfer@d0->d1", "b.linear/transfer@d1->d0"]


def test_a_residual_crosses_once() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        first = self.a(x)
        return self.c(self.b(first) + first) + first  # type: ignore[no-any-return]

    made = check(layers(forward), INPUT, stages=[("d0", ["a"]), ("d1", ["b", "c"])])
    assert moves(made) == ["a.linear/transfer@d0->d1"]


def test_the_parents_own_calls_follow_what_they_read() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        scaled = x * 2  # read by the first stage alone
        between = torch.relu(self.a(scaled))  # after the first, before the second
        return self.b(between).sum(1)  # type: ignore[no-any-return]

    made = check(layers(forward), INPUT, stages=[("d0", ["a"]), ("d1", ["b"])])
    assert moves(made) == ["relu/transfer@d0->d1"]
    assert devices(made) == {"a": "d0", "b": "d1"}


def test_a_write_of_the_parent_takes_the_value_with_it() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        first = self.a(x)
        second = self.b(first)
        first.add_(second)
        return first.relu()  # type: ignore[no-any-return]

    made = check(layers(forward), INPUT, stages=[("d0", ["a"]), ("d1", ["b"])])
    assert moves(made) == ["a.linear/transfer@d0->d1"]


def test_writes_on_the_later_device_are_read_on_the_earlier() -> None:
    class Write(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :3].mul_(2)

    def forward(self: Any, x: Tensor) -> Tensor:
        base = self.a(x)
        tail = base[:, 2:]
        self.write(base)
        return self.c(base) + tail.sum()  # type: ignore[no-any-return]

    model = layers(forward, write=Write())
    check(model, INPUT, stages=[("d0", ["a"]), ("d1", ["write"]), ("d0", ["c"])])
    check(model, INPUT, stages=[("d0", ["a", "write"]), ("d1", ["c"])])
    check(model, INPUT, stages=[("d0", ["a"]), ("d1", ["write", "c"])])


def test_a_buffer_filled_stage_by_stage() -> None:
    class Fill(nn.Module):
        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at
            self.layer = nn.Linear(6, 2)

        def forward(self, out: Tensor, x: Tensor) -> None:
            out[:, self.at : self.at + 2] = self.layer(x)

    def forward(self: Any, x: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], 6)
        for fill in (self.f0, self.f1, self.f2):
            fill(out, x)
        return out

    torch.manual_seed(0)
    model = with_forward(forward, f0=Fill(0), f1=Fill(2), f2=Fill(4))
    made = check(model, INPUT, stages=[("d0", ["f0"]), ("d1", ["f1"]), ("d2", ["f2"])])
    assert "d2" in made.plan.devices
    assert all(len(step.id) < 100 for step in made.plan.steps)


def test_many_stages_in_turn_on_one_value() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = x * 1
        for i in range(40):
            getattr(self, f"r{i}")(y)
        return y

    model = with_forward(forward, **{f"r{i}": nn.ReLU(inplace=True) for i in range(40)})
    stages = [(f"d{i % 2}", [f"r{i}"]) for i in range(40)]
    made = compile_module(model.eval(), spec_of(INPUT, stages=stages))
    assert_equals_eager(made)
    assert max(len(name) for name in made.plan.values) < 40


def test_tied_weights_are_loaded_on_both_sides() -> None:
    model, inputs = ZOO["tied_weights"]()
    made = check(model, inputs, stages=[("d0", ["embed"]), ("d1", ["middle", "head"])])
    loads = {s.device: s.reads for s in made.plan.steps if isinstance(s, LoadStep)}
    assert "embed.weight" in loads["d0"]
    assert "embed.weight" in loads["d1"]


def test_a_shared_module_under_two_names_runs_on_two_devices() -> None:
    model, inputs = ZOO["registered_twice"]()
    made = check(model, inputs, stages=[("d0", ["first"]), ("d1", ["second"])])
    assert devices(made) == {"first": "d0", "second": "d1"}


def test_an_input_goes_to_its_first_reader() -> None:
    def forward(self: Any, x: Tensor, y: Tensor) -> Tensor:
        return self.b(self.a(x) + 1) + y  # type: ignore[no-any-return]

    inputs = {"x": ("float32", ["b", 6]), "y": ("float32", ["b", 6])}
    made = check(layers(forward), inputs, stages=[("d0", ["a"]), ("d1", ["b"])])
    where = {i.name: i.device for i in made.plan.entrypoints["forward"].inputs}
    assert where == {"x": "d0", "y": "d1"}
    assert moves(made) == ["add/transfer@d0->d1"]


def test_a_constant_output_is_returned_from_where_it_is() -> None:
    table = torch.arange(6.0)
    model = layers(lambda self, x: (self.b(self.a(x)) + self.table, self.table), table=table)
    made = check(model, INPUT, stages=[("d0", ["a"]), ("d1", ["b"])])
    loads = [s.id for s in made.plan.steps if isinstance(s, LoadStep) and "table" in s.reads]
    assert len(loads) == 1


def test_the_deepest_name_decides() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.two(self.one(x))
            return out

    model = layers(lambda self, x: self.b(self.inner(x)), inner=Inner())
    made = check(model, INPUT, stages=[("d0", ["inner", "b"]), ("d1", ["inner.two"])])
    assert devices(made) == {"inner.one": "d0", "inner.two": "d1", "b": "d0"}


def test_devices_without_work_are_not_in_the_plan() -> None:
    model = layers(lambda self, x: self.b(self.a(x)))
    made = check(model, INPUT, stages=[("d0", ["a", "b"]), ("d1", ["c"])])
    assert set(made.plan.devices) == {"d0"}


@pytest.mark.parametrize(
    ("name", "hint"), [("aa", "did you mean 'a'"), ("zzz.0", "it has: a, b, c")]
)
def test_modules_that_are_not_there(name: str, hint: str) -> None:
    model = layers(lambda self, x: self.a(x))
    made = compile_module(model.eval(), spec_of(INPUT))
    assert made.work.graph is not None
    stages: Stages = [("d0", ["a"]), ("d1", [name])]
    with pytest.raises(GenieErrors) as caught:
        place(made.work.graph, spec_of(INPUT, stages=stages), "net.yaml")
    assert {e.code for e in caught.value.errors} == {"GEN0207"}
    assert hint in str(caught.value)


def test_an_expanded_view_crosses_as_what_it_expands() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        row = self.a(x[:1])
        wide = row.expand(64, 6)
        return self.b(wide) + x.sum()  # type: ignore[no-any-return]

    made = check(layers(forward), INPUT, stages=[("d0", ["a"]), ("d1", ["b"])])
    assert "a.linear/transfer@d0->d1" in moves(made)
    assert not any("expand" in move for move in moves(made))


def test_a_small_view_crosses_alone() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        tall = self.a(x).unsqueeze(1).repeat(1, 50, 1)
        return self.b(self.pick(tall))  # type: ignore[no-any-return]

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0]

    model = layers(forward, pick=First())
    made = check(model, INPUT, stages=[("d0", ["a", "pick"]), ("d1", ["b"])])
    assert moves(made) == ["pick.select/transfer@d0->d1"]


def test_a_view_on_one_device_is_no_copy() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.layer(x) * 2 + 1) + x.sum()

    def forward(self: Any, x: Tensor) -> Tensor:
        base = torch.sigmoid(self.a(x) * 2 + 1)
        left, right = base[:, :3], base[:, 3:]
        return self.l0(left) + self.l1(right)  # type: ignore[no-any-return]

    made = check(layers(forward, l0=Layer(), l1=Layer()), INPUT)
    steps = [s for s in made.plan.steps if isinstance(s, ComputeStep)]
    assert len(steps) >= 2
    assert not any("slice" in name for name in made.plan.values)


def test_views_of_views_cross_in_their_own_layout() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        base = self.a(x).unsqueeze(1).repeat(1, 9, 1)
        middle = base[:, 2:7]
        row = middle[:, 1]
        return self.read(row, middle) + self.c(row)  # type: ignore[no-any-return]

    class Read(nn.Module):
        def forward(self, row: Tensor, middle: Tensor) -> Tensor:
            return row.sum() + middle.sum() + middle.sum(1) + row

    model = layers(forward, read=Read())
    check(model, INPUT, stages=[("d0", ["a", "c"]), ("d1", ["read"])])
    check(model, INPUT, stages=[("d0", ["a"]), ("d1", ["read"]), ("d2", ["c"])])
