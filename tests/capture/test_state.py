"""Forwards that change the model's own tensors: the new values are outputs, and runs repeat."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genie.client import connect
from genie.plan.store import write
from tests.capture.compiling import Compiled, compile_module, example, spec_of, with_forward
from tests.capture.reference import same_bits

X = {"x": ("float32", ["b", 6])}


def updated(compiled: Compiled, model: nn.Module, batch: int) -> dict[str, Tensor]:
    """Compare outputs and new values with those of one eager call; returns the new values."""
    inputs = example(compiled.spec, {"b": batch})
    found = compiled.run(inputs)
    once = copy.deepcopy(model)
    with torch.no_grad():
        assert same_bits(found["output"], once(**{n: t.clone() for n, t in inputs.items()}))
    news = {n.removeprefix("updated."): t for n, t in found.items() if n.startswith("updated.")}
    held = {**dict(once.named_parameters()), **dict(once.named_buffers())}
    for name, value in news.items():
        assert same_bits(value, held[name].detach()), name
    return news


def test_batch_norm_in_training_returns_its_statistics() -> None:
    torch.manual_seed(0)
    model = with_forward(lambda self, x: self.n(self.l(x)), l=nn.Linear(6, 6), n=nn.BatchNorm1d(6))
    model.train()
    compiled = compile_module(model, spec_of(X, {"b": (2, 8)}))
    names = {"n.running_mean", "n.running_var", "n.num_batches_tracked"}
    assert set(updated(compiled, model, 5)) == names


def test_equal_buffers_are_each_updated() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        self.keys.add_(x.sum(0))
        self.values[1:3].mul_(0).add_(2)
        return x + self.keys

    model = with_forward(forward, keys=torch.zeros(6), values=torch.zeros(6))
    compiled = compile_module(model, spec_of(X))
    assert set(updated(compiled, model, 3)) == {"keys", "values"}


def test_a_buffer_that_is_only_read_is_not_returned() -> None:
    model = with_forward(lambda self, x: x + self.keys, keys=torch.zeros(6))
    assert updated(compile_module(model, spec_of(X)), model, 3) == {}


def test_an_output_of_that_name_keeps_it() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        self.n.add_(1)
        return {"updated.n": x * self.n}

    model = with_forward(forward, n=torch.zeros(6))
    plan = compile_module(model, spec_of(X)).plan
    assert [o.name for o in plan.entrypoints["forward"].outputs] == [
        "updated.n",
        "updated.updated.n",
    ]


@pytest.mark.parametrize("run_id", [None, "again"])
def test_each_run_starts_from_the_weights(tmp_path: Path, run_id: str | None) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        self.count.add_(x.sum(0))
        return self.count * 1

    compiled = compile_module(with_forward(forward, count=torch.zeros(6)), spec_of(X), tmp_path)
    constants = next(tmp_path.glob("net.*.safetensors"))
    plan = write(compiled.plan, constants, tmp_path / "p" / "x.plan.json").plan
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    with connect() as session:
        session.install(plan)
        first = session.run({"x": x}, run_id=run_id)
        second = session.run({"x": x}, run_id=run_id)
    assert second.replayed is (run_id is not None)
    for result in (first, second):
        assert np.array_equal(result.outputs["updated.count"], x.sum(0))
