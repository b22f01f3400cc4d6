"""Architectures of transformers: their plans give eager's bits."""

from __future__ import annotations

import pytest
import torch

from tests.capture.compiling import check as check_equal
from tests.capture.compiling import compile_module, eager, example, spec_of
from tests.capture.families import FAMILIES

DIMS = {"b": (1, 4)}

USUAL = ["bert", "gpt2", "resnet", "vit", "t5_encoder", "swin"]
"""Compiled on every run; the others in the long sweep."""

REROUTED = {"beit"}
"""transformers builds the attention mask of these only while being exported: the sum is another."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in USUAL else pytest.mark.sweep)
        for name in FAMILIES
        if name not in REROUTED
    ],
)
def test_plan_equals_eager(name: str) -> None:
    torch.backends.mha.set_fastpath_enabled(False)
    model, inputs = FAMILIES[name]()
    check_equal(model, inputs, DIMS)


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(REROUTED))
def test_plan_is_close_where_export_takes_another_route(name: str) -> None:
    model, inputs = FAMILIES[name]()
    compiled = compile_module(model.eval(), spec_of(inputs, DIMS))
    for size in (1, 3):
        given = example(compiled.spec, {"b": size})
        found, expected = list(compiled.run(given).values()), eager(model, given)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_layers_of_a_transformer_share_one_program() -> None:
    model, inputs = FAMILIES["bert"]()
    plan = compile_module(model.eval(), spec_of(inputs, DIMS)).plan
    keys = [s.program for s in plan.steps if s.kind == "compute" and "encoder.layer." in s.id]
    assert len(keys) == 2
    assert len(set(keys)) == 1
