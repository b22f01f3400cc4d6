"""Awkward modules: each compiles into a plan that gives eager's bits at several sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.capture.compiling import Compiled, check, compile_module, eager, example, spec_of
from tests.capture.zoo import DIMS, ZOO


@pytest.fixture(autouse=True)
def plain_attention() -> None:
    """Eager runs the operators that nn.TransformerEncoder is defined by, as a capture does."""
    torch.backends.mha.set_fastpath_enabled(False)


def compiled(name: str) -> Compiled:
    model, inputs = ZOO[name]()
    return compile_module(model.eval(), spec_of(inputs, DIMS.get(name)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ZOO)
def test_plan_equals_eager(name: str) -> None:
    model, inputs = ZOO[name]()
    check(model, inputs, DIMS.get(name))


def test_compiling_again_gives_the_same_text() -> None:
    for name in ("buffers_of_all_kinds", "odd_names", "several_results", "symbolic_shapes"):
        torch.manual_seed(1)
        first = compiled(name).text
        torch.manual_seed(1)
        assert compiled(name).text == first


def test_output_names_tell_where_an_output_lies_in_the_result() -> None:
    outputs = compiled("nested_outputs").plan.entrypoints["forward"].outputs
    expected = ["output.0.0", "output.0.1.b.0", "output.0.1.a.0", "output.1.c.left"]
    assert [o.name for o in outputs] == expected
    outputs = compiled("dataclass_output").plan.entrypoints["forward"].outputs
    assert [o.name for o in outputs] == ["first", "second.deep"]


def test_numbers_that_forward_returns_are_literals() -> None:
    plan = compiled("literal_outputs").plan
    literals = {o.name: o.literal for o in plan.entrypoints["forward"].outputs if o.value is None}
    assert literals == {"n": 3, "f": {"f": (0.5).hex()}, "s": {"s": "text"}, "t": True}
    sizes = compiled("size_outputs").plan.entrypoints["forward"].outputs
    assert [o.literal for o in sizes] == [None, {"e": "b"}, {"e": "1+2*b"}]


def test_one_value_is_returned_once() -> None:
    plan = compiled("duplicate_outputs").plan
    returns = [step.reads[0] for step in plan.steps if step.kind == "return"]
    assert sorted(returns) == sorted(set(returns))
    assert len(plan.entrypoints["forward"].outputs) == 5


def test_tied_and_equal_tensors_are_stored_once() -> None:
    plan = compiled("tied_weights").plan
    assert "head.weight" not in plan.constants
    assert "embed.weight" in plan.constants


def test_constants_are_named_by_the_model() -> None:
    names = set(compiled("odd_names").plan.constants)
    assert {"my_layer.weight", "my_layer.weight.2", "x.2"} <= names
    assert all(len(name) <= 128 for name in names)


def test_results_that_nobody_uses_have_no_name() -> None:
    program = next(iter(compiled("several_results").plan.programs.values()))
    outs = {op.op: op.out for op in program.ops}
    assert outs["aten.topk.default"][1] is None
    assert outs["aten.split_with_sizes.default"][1] is None


def test_inactive_dropout_leaves_no_trace() -> None:
    assert not any("dropout" in op for op in compiled("vision_mix").ops)


def test_metadata_changes_become_views() -> None:
    ops = compiled("metadata_in_place").ops
    assert {"aten.unsqueeze.default", "aten.t.default", "aten.transpose.int"} <= set(ops)
    assert not any(op.split(".")[1] in ("unsqueeze_", "t_", "transpose_") for op in ops)


def test_writing_to_what_may_be_an_input_copies_it_first() -> None:
    made = compiled("contiguous_then_written")
    assert "aten.clone.default" in made.ops
    x = example(made.spec, {"b": 1})
    before = x["x"].clone()
    found = made.run(x)
    assert torch.equal(x["x"], before)
    assert torch.equal(found["output"], eager(made.model, {"x": before})[0])


def test_regions_without_effect_are_inlined() -> None:
    assert "aten.relu_.default" in compiled("mixed_gradient_modes").ops
    assert compiled("autocast_turned_off").ops.count("aten.linear.default") == 1


def test_dimension_names_are_the_specs() -> None:
    plan = compiled("dims_named_like_sympy").plan
    assert set(plan.dims) == {"I", "E"}
    assert {i.type for i in plan.entrypoints["forward"].inputs} == {"f32[I,E]", "f32[E]"}


def test_positional_only_parameters_are_told_apart() -> None:
    made = compiled("all_positional_only")
    x, y = torch.ones(2, 6), torch.zeros(2, 6)
    found: Tensor = made.run({"x": x, "y": y})["output"]
    assert torch.equal(found, x)
