"""`genie execute --compare` of models that change their own buffers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("warm")

Run = Callable[..., Any]

SPEC = """\
genie: 1
name: training
inputs:
  x: {dtype: float32, shape: [4, 6]}
"""

MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6, momentum=MOMENTUM)
        self.again = self.norm
        self.linear = nn.Linear(6, 6)
        self.register_buffer("n", torch.zeros(6))

    def forward(self, x):
        self.n += x[0]
        y = self.again(self.linear(self.norm(x)))
        return {"y": y, "updated.n": y * 2}


def build():
    torch.manual_seed(0)
    return Net().train()
"""

STATISTICS = {"updated.norm.running_mean", "updated.norm.running_var"}


@pytest.fixture
def plan(genie: Run) -> list[str]:
    """The arguments that run a plan of the model, with momentum 0.1, on one input."""
    Path("model.py").write_text(MODEL.replace("MOMENTUM", "0.1"))
    Path("spec.yaml").write_text(SPEC)
    made = genie("compile", "model.py", "--spec", "spec.yaml", "-o", "t.plan.json")
    assert made.code == 0, made.err
    np.save("x.npy", np.random.default_rng(0).standard_normal((4, 6), dtype=np.float32))
    return ["execute", "t.plan.json", "--input", "x=x.npy", "--spec", "spec.yaml", "--json"]


def test_new_values_of_buffers_are_compared(genie: Run, plan: list[str]) -> None:
    result = genie(*plan, "--compare", "model.py")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["compare"] == {"max_abs": 0.0, "max_rel": 0.0, "ok": True}
    assert set(report["outputs"]) >= STATISTICS | {"y", "updated.n", "updated.updated.n"}


def test_a_buffer_that_ends_otherwise_is_named(genie: Run, plan: list[str]) -> None:
    Path("slower.py").write_text(MODEL.replace("MOMENTUM", "0.2"))
    result = genie(*plan, "--compare", "slower.py")
    assert result.code == 3
    assert "GEN0423" in result.err
    assert "updated.norm.running_mean: differs" in " ".join(result.err.split())
    assert " y: differs" not in result.err


def test_a_model_that_changes_less_is_seen(genie: Run, plan: list[str]) -> None:
    text = MODEL.replace("MOMENTUM", "0.1").replace("self.n += x[0]", "pass")
    Path("still.py").write_text(text)
    result = genie(*plan, "--compare", "still.py")
    assert result.code == 3
    assert "updated.updated.n: differs" in " ".join(result.err.split())
