"""Random numbers: from a seed that each run is given, those of torch itself on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genie.client import LoadedPlan, Session, connect
from genie_runtime.plans import view
from genie_schemas import rng
from genie_schemas.errors import GenieError
from tests.capture.compiling import Compiled, compile_module, spec_of

VECTOR: dict[str, Any] = {"x": ("float32", ["b", 16])}


class Noisy(nn.Module):
    """Layers of one kind, which share a program, and draws of two kinds."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.5)) for _ in range(3)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found + torch.randn_like(found)


def compiled(tmp_path: Path, **more: Any) -> Compiled:
    torch.manual_seed(3)
    return compile_module(Noisy(), spec_of(VECTOR, random="seeded", **more), tmp_path)


def run(session: Session, made: Compiled, x: Tensor, seed: int) -> Tensor:
    plan = session.install(LoadedPlan(view(made.plan, made.text), made.folder))
    inputs = {"x": x.numpy(), rng.SEED: np.array(seed)}
    return torch.from_numpy(session.run(inputs, plan=plan).outputs["output"])


def test_a_run_draws_what_the_model_itself_draws(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    assert rng.FEATURE in made.plan.requires
    x = torch.randn(4, 16)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    with connect() as session:
        first, again, other = (run(session, made, x, seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)  # the caller's own generator is given back
    torch.manual_seed(7)
    with torch.no_grad():
        expected = made.model(x)
    assert torch.allclose(first, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_devices_draw_different_numbers(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Dropout(0.5), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Any:
            return self.first(x + 0), self.second(x + 1)

    stages = [("d0", ["first"]), ("d1", ["second"])]
    made = compile_module(Pair(), spec_of(VECTOR, stages=stages, random="seeded"), tmp_path)
    assert set(made.plan.devices) == {"d0", "d1"}
    x = torch.zeros(4, 16)
    x[:] = 2.0
    with connect() as session:
        plan = session.install(LoadedPlan(view(made.plan, made.text), made.folder))
        inputs = {"x": x.numpy(), rng.SEED: np.array(5)}
        once = session.run(inputs, plan=plan).outputs
        twice = session.run(inputs, plan=plan).outputs
    assert all(np.array_equal(once[n], twice[n]) for n in once)
    left, right = (once[n] != 0 for n in once)
    assert not np.array_equal(left, right)


def test_the_seed_is_an_input_like_any_other(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    with connect() as session:
        session.install(LoadedPlan(view(made.plan, made.text), made.folder))
        with pytest.raises(Exception, match=r"rng\.seed") as caught:
            session.run({"x": np.zeros((1, 16), np.float32)})
    assert "GEN0400" in str(caught.value)


def test_without_leave_random_operators_are_refused() -> None:
    with pytest.raises(GenieError) as caught:
        compile_module(Noisy(), spec_of(VECTOR))
    assert caught.value.code == "GEN0225"
    assert "random: seeded" in (caught.value.remedy or "")
