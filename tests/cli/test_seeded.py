"""A model that draws, and returns as many numbers as it happens to keep: from file to result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("warm")

Run = Callable[..., Any]

MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(8, 8), nn.Dropout(0.5)

    def forward(self, x):
        y = self.dropout(self.linear(x))
        return {"y": y, "kept": y[y != 0]}


def build():
    torch.manual_seed(0)
    return Net()
"""
SPEC = """\
genie: 1
name: noisy
inputs:
  x: {dtype: float32, shape: [batch, 8]}
dims: {batch: {max: 4}}
random: seeded
"""


@pytest.mark.slow
def test_a_seeded_plan_equals_the_model_under_that_seed(
    genie: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    Path("spec.yaml").write_text(SPEC)
    made = genie("compile", "model.py", "--spec", "spec.yaml", "-o", "noisy.plan.json")
    assert made.code == 0, made.err
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.standard_normal((3, 8), dtype=np.float32))
    kept = {}
    for seed in (7, 8, 2**40):
        np.save("seed.npy", np.array(seed))
        given = ("--input", "x=x.npy", "--input", "rng.seed=seed.npy")
        against = ("--compare", "model.py", "--spec", "spec.yaml", "--json")
        result = genie("execute", "noisy.plan.json", *given, *against)
        assert result.code == 0, result.err
        report = json.loads(result.out)
        assert report["compare"] == {"max_abs": 0.0, "max_rel": 0.0, "ok": True}
        assert list(report["outputs"]) == ["y", "kept"]
        kept[seed] = report["outputs"]["kept"]["sha256"]
    assert len(set(kept.values())) == 3
