"""Type texts: round trips, sizes, strides, and texts that are none."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genie_schemas.expr import ExprError
from genie_schemas.types import DTYPES, FROM_TORCH, MAX_RANK, TypeTextError, parse_type

SIZES = ["0", "1", "7", "batch", "batch*2", "n//2+1", "max(batch,n)", "min(n,3)"]
DIMS = {"batch": 3, "n": 5}


@st.composite
def texts(draw: st.DrawFn) -> str:
    shape = draw(st.lists(st.sampled_from(SIZES), max_size=5))
    order = draw(st.permutations(range(len(shape))))
    text = f"{draw(st.sampled_from(sorted(DTYPES)))}[{','.join(shape)}]"
    if order != sorted(order):
        text += "{" + ",".join(map(str, order)) + "}"
    return text


@given(texts())
def test_text_is_canonical(text: str) -> None:
    kind = parse_type(text)
    assert str(kind) == text
    assert parse_type(str(kind)) == kind


@given(texts())
def test_strides_are_dense_in_the_given_order(text: str) -> None:
    kind = parse_type(text)
    sizes, strides = kind.sizes(DIMS), kind.strides(DIMS)
    step = 1
    for axis in reversed(kind.order):
        assert strides[axis] == step
        step *= max(sizes[axis], 1)
    assert kind.nbytes(DIMS) == (step * kind.itemsize if 0 not in sizes else 0)


@given(texts(), st.integers(1, 9), st.integers(1, 9))
def test_byte_text_counts_the_bytes(text: str, batch: int, n: int) -> None:
    from genie_schemas.expr import parse

    kind = parse_type(text)
    dims = {"batch": batch, "n": n}
    assert parse(kind.bytes_text()).evaluate(dims) == kind.nbytes(dims)
    assert kind.names <= set(dims)


@given(st.text(alphabet="f32i64[]{},0123 batch*-()x", max_size=30))
@example("f32[2,3]{1,}")
@example("f32[2,3]{,1}")
@example("f32[2,3]{01,0}")
@example("f32[2]{" + "0" * 5000 + "}")
@example("f32[" + ",".join("1" * (MAX_RANK + 1)) + "]")
@example("f32[(]")
@example("f32[1,]")
@example("f32[1]\n")
def test_any_text_is_a_type_or_a_type_error(text: str) -> None:
    try:
        kind = parse_type(text)
    except TypeTextError:
        return
    assert parse_type(str(kind)) == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f32",
        "f33[1]",
        "f32[1",
        "f32[1]]",
        "f32[1,]",
        "f32[ba ch]",
        "f32[2,3]{0,1}",
        "f32[2,3]{1,1}",
        "f32[2,3]{1}",
        "f32[2,3]{1,0,2}",
        "f32[2,3]{}",
        "f32[2,3]{1,}",
        "f32[2,3]{1,00}",
        "f32[]{}",
        "F32[1]",
        "f32[1] ",
        "f32[" + ",".join(["1"] * 17) + "]",
    ],
)
def test_refused_texts(text: str) -> None:
    with pytest.raises(TypeTextError):
        parse_type(text)


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ExprError, match="negative"):
        parse_type("f32[n-7]").sizes({"n": 5})
    with pytest.raises(ExprError, match="unknown dimension"):
        parse_type("f32[n]").nbytes({})


def test_dtypes_are_torchs() -> None:
    import torch

    for name, (spelled, size) in DTYPES.items():
        dtype = getattr(torch, spelled)
        assert torch.empty((), dtype=dtype).element_size() == size
        assert FROM_TORCH[spelled] == name
