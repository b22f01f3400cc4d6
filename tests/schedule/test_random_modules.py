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
    """A forward that makes these calls; numbers choose among the values that there are by then."""

    def run(self: Any, x: Tensor, y: Tensor) -> list[Tensor]:
        values = [x, y]
        for name, first, second in calls:
            a = values[first % len(values)]
            alike = [v for v in values if v.shape == a.shape]
            b = alike[second % len(alike)]
            made = call(self, name, a, b, second)
            if made is not None:
                values.append(made)
        return [values[i % len(values)] for i in outputs]

    return run


def call(self: Any, name: str, a: Tensor, b: Tensor, number: int) -> Tensor | None:
    """One call; what it makes, or None when it writes in place or does not fit."""
    wide = a.dim() == 2 and a.shape[-1] == 6
    match name:
        case "linear" if wide:
            return self.layer(a)  # type: ignore[no-any-return]
        case "add":
            return a + b
        case "cat" if wide:
            return self.cat(a, b)  # type: ignore[no-any-return]
        case "clone":
            return a.clone()
        case "contiguous":
            return a.contiguous()
        case "left" if wide:
            return a[:, : 1 + number % 5]
        case "right" if wide:
            return a[:, 1 + number % 5 :]
        case "column" if a.dim() == 2 and isinstance(a.shape[1], int):
            return a[:, number % a.shape[1]]
        case "turn" if a.dim() == 2:
            return a.t()
        case "rows" if wide:
            return a.view(-1, 2, 3)
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
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
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
