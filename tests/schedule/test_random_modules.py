"""Random modules with views, writes in place and residuals, on random devices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.capture.compiling import (
    assert_equals_eager,
    compile_module,
    replanned,
    spec_of,
    with_forward,
)
from tests.schedule.test_placements import nothing_needless, runs

Call = tuple[str, int, int]

CALLS = [
    *("linear", "add", "cat", "clone", "contiguous"),
    *("left", "right", "column", "turn", "rows"),
    *("relu_", "add_", "mul_", "copy_", "fill_", "zero_"),
]


def forward(calls: list[Call], outputs: list[int]) -> Any:
    """A forward that makes these calls; numbers choose among the values that there are by then.

    Each value has a kind that stands for its shape, because comparing symbolic sizes would
    specialise them: columns of [b, n] are `n`, a turned value has its kind negated.
    """

    def run(self: Any, x: Tensor, y: Tensor) -> list[Tensor]:
        values = [(x, 6), (y, 6)]
        for name, first, second in calls:
            a, kind = values[first % len(values)]
            alike = [v for v, k in values if k == kind]
            made = call(self, name, a, kind, alike[second % len(alike)], second)
            if made is not None:
                values.append(made)
        return [values[i % len(values)][0] for i in outputs]

    return run


COLUMN, ROWS = 100, 101


def call(
    self: Any, name: str, a: Tensor, kind: int, b: Tensor, number: int
) -> tuple[Tensor, int] | None:
    """One call; what it makes, or None when it writes in place or does not fit."""
    at = 1 + number % 5
    match name:
        case "linear" if kind == 6:
            return self.layer(a), 6
        case "add":
            return a + b, kind
        case "cat" if kind == 6:
            return self.cat(a, b), 6
        case "clone":
            return a.clone(), kind
        case "contiguous":
            return a.contiguous(), kind
        case "left" if kind == 6:
            return a[:, :at], at
        case "right" if kind == 6:
            return a[:, at:], 6 - at
        case "column" if 0 < kind <= 6:
            return a[:, number % kind], COLUMN
        case "turn" if abs(kind) <= 6:
            return a.t(), -kind
        case "rows" if kind == 6:
            return a.reshape(-1, 2, 3), ROWS
        case "relu_":
            a.relu_()
        case "add_":
            a.add_(b)
        case "mul_":
            a.mul_(0.5 + number)
        case "copy_":
            a.copy_(b)
        case "fill_":
            a.fill_(number)
        case "zero_":
            a.zero_()
    return None


class Cat(nn.Module):
    """The first three columns of both."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        from torch import cat

        return cat([a[:, :3], b[:, :3]], 1)


calls = st.lists(
    st.tuples(st.sampled_from(CALLS), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=12
)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(calls, st.lists(st.integers(0, 15), min_size=1, max_size=3), st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_random_module_on_random_devices(
    made: list[Call], outputs: list[int], data: st.DataObject
) -> None:
    model = with_forward(forward(made, outputs), layer=nn.Linear(6, 6), cat=Cat())
    inputs = {"x": ("float32", ["b", 6]), "y": ("float32", ["b", 6])}
    compiled = compile_module(model.eval(), spec_of(inputs))
    sizes = [{"b": 1}, {"b": 3}]
    assert_equals_eager(compiled, *sizes)
    assert compiled.work.graph is not None
    count = len(compiled.work.graph.nodes)
    devices = data.draw(runs(["d0", "d1", "d2"], count), "devices")
    regions = data.draw(runs(["", "layer", "cat"], count), "regions")
    moved = replanned(compiled, regions, devices)
    assert_equals_eager(moved, *sizes)
    nothing_needless(moved.plan)
