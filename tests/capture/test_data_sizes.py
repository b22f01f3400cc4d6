"""Values whose size data decides: planned for the most, cut to what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genie.client import LoadedPlan, connect
from genie_runtime.plans import view
from genie_schemas import ragged
from genie_schemas.errors import GenieError
from tests.capture.compiling import Compiled, check, compile_module, spec_of, with_forward

VECTOR: dict[str, Any] = {"x": ("float32", ["b", 6])}


def masked(self: Any, x: Tensor) -> Any:
    return x[x > 0] * 2


def several(self: Any, x: Tensor) -> Any:
    y = x[x > 0]
    z = y.clone().mul_(3)
    return {"same": (y, y), "tripled": z, "sum": y.sum(), "rows": x.nonzero(), "x": x + 1}


def counted(self: Any, x: Tensor) -> Any:
    return torch.unique(x.round(), return_counts=True)


def selected(self: Any, x: Tensor) -> Any:
    return torch.masked_select(x[:, :1], x > 0)  # broadcast: more than are selected from


def bounded(self: Any, x: Tensor) -> Any:
    y = torch.bincount(x.abs().long().flatten())
    torch._check(y.shape[0] <= 9)
    return y


@pytest.mark.parametrize("forward", [masked, several, counted, selected, bounded])
def test_plan_equals_eager_at_every_size(forward: Any) -> None:
    made = check(with_forward(forward), VECTOR)
    assert ragged.FEATURE in made.plan.requires


def test_types_say_the_most_that_there_can_be() -> None:
    plan = compile_module(with_forward(masked), spec_of(VECTOR)).plan
    outputs = {o.name: o.value for o in plan.entrypoints["forward"].outputs}
    assert list(outputs) == ["output", "output.sizes"]
    assert plan.values[outputs["output"] or ""].type == "f32[48]"
    assert plan.values[outputs["output.sizes"] or ""].type == "i64[1]"


def test_a_size_that_stays_inside_needs_no_feature() -> None:
    made = check(with_forward(lambda self, x: x[x > 0].sum()), VECTOR)
    assert made.plan.requires == ["compute.aten"]


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(1, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        found: Tensor = self.second(y[y > 0].unsqueeze(1)).relu()
        return found


def test_modules_that_pass_such_a_value_are_one_step() -> None:
    torch.manual_seed(0)
    check(Stages(), VECTOR)


def test_such_a_value_is_not_sent_between_devices() -> None:
    spec = spec_of(VECTOR, stages=[("d0", ["first"]), ("d1", ["second"])])
    with pytest.raises(GenieError) as caught:
        compile_module(Stages().eval(), spec)
    assert caught.value.code == "GEN0226"
    assert "one device" in (caught.value.remedy or "")


def loaded(made: Compiled) -> LoadedPlan:
    return LoadedPlan(view(made.plan, made.text), made.folder)


def test_the_client_cuts_and_refuses_what_outgrew_its_bound(tmp_path: Path) -> None:
    made = compile_module(with_forward(bounded), spec_of(VECTOR), tmp_path)
    with connect() as session:
        session.install(loaded(made))
        x = torch.full((2, 6), 4.0)
        result = session.run({"x": x.numpy()})
        assert result.outputs["output"].tolist() == [0, 0, 0, 0, 12]
        assert list(result.outputs) == ["output"]
        with pytest.raises(GenieError) as caught:
            session.run({"x": (x * 10).numpy()})
    assert caught.value.code == "GEN0474"
    assert "[41]" in (caught.value.cause or "")


def test_numbers_that_forward_returns_are_tensors_of_no_dimensions() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        return x.sum().item(), torch.equal(x, x), (x > 0).sum().item()

    made = compile_module(with_forward(forward), spec_of(VECTOR))
    x = torch.tensor([[1.0, -2.0, 3.0, 0.0, 5.0, -6.0]])
    found = made.run({"x": x})
    assert [v.item() for v in found.values()] == [1.0, True, 3]
    assert all(v.dim() == 0 for v in found.values())
