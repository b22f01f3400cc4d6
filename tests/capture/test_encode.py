"""Torch's symbolic sizes as expressions over the spec's dimensions."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._sympy import functions as symfn

from genie.capture.encode import Symbols, Unsupported, encode, stride_order, type_text
from genie_schemas.expr import Expr, parse

B, N = (
    sympy.Symbol("s7", integer=True, positive=True),
    sympy.Symbol("s40", integer=True, positive=True),
)
SYMBOLS = Symbols({B: "batch", N: "n"})

sizes = st.recursive(
    st.one_of(st.sampled_from([B, N]), st.integers(1, 9).map(sympy.Integer)),
    lambda inner: st.one_of(
        st.builds(sympy.Add, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
        st.builds(sympy.Mul, inner, inner),
        st.builds(lambda a: a**2, inner),
        st.builds(lambda a, b: symfn.FloorDiv(a, b), inner, st.integers(1, 9)),
        st.builds(lambda a, b: symfn.PythonMod(a, b), inner, st.integers(2, 9)),
        st.builds(symfn.Max, inner, inner),
        st.builds(symfn.Min, inner, inner),
    ),
    max_leaves=6,
)


@given(sizes, st.integers(1, 50), st.integers(1, 50))
def test_expressions_evaluate_as_sympys_do(size: Any, batch: int, n: int) -> None:
    text = SYMBOLS.text(size)
    expected = int(sympy.sympify(size).subs({B: batch, N: n}))
    assert parse(text).evaluate({"batch": batch, "n": n}) == expected


def test_the_text_does_not_depend_on_torchs_names() -> None:
    other = Symbols({N: "batch", B: "n"})
    assert SYMBOLS.text(2 * B * N + N + 1) == other.text(2 * N * B + B + 1) == "1+2*batch*n+n"
    assert SYMBOLS.expr(sympy.Integer(6)) == 6
    assert isinstance(SYMBOLS.expr(B), Expr)


@pytest.mark.parametrize("size", [sympy.Symbol("u0"), B / 2, sympy.sqrt(B), B**-1, sympy.exp(B)])
def test_sizes_that_no_plan_holds(size: Any) -> None:
    with pytest.raises(Unsupported):
        SYMBOLS.text(size)


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (torch.empty(2, 3), "f32[2,3]"),
        (torch.empty(3, 2).t(), "f32[2,3]{1,0}"),
        (torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last), "f32[2,3,4,5]{0,2,3,1}"),
        (torch.empty(1, 3).expand(2, 3), "f32[2,3]"),
        (torch.empty(2, 1, 3).permute(1, 0, 2), "f32[1,2,3]"),
        (torch.empty(4, 6)[::2, 1:4], "f32[2,3]"),
        (torch.empty(0, 3).t(), "f32[3,0]"),
        (torch.empty((), dtype=torch.bool), "bool[]"),
        (torch.empty(2, dtype=torch.bfloat16), "bf16[2]"),
    ],
)
def test_types_of_tensors(tensor: torch.Tensor, text: str) -> None:
    assert type_text(tensor, SYMBOLS) == text
    assert sorted(stride_order(tensor)) == list(range(tensor.dim()))


def test_what_is_no_argument() -> None:
    for value in (object(), {"a": 1}, torch.sparse_coo, torch.complex32, slice(1)):
        with pytest.raises(Unsupported):
            encode(value, SYMBOLS, {})
    with pytest.raises(Unsupported):
        type_text(torch.eye(2).to_sparse(), SYMBOLS)
