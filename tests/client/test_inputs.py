"""Inputs that do not fit a plan: everything wrong is told at once, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from syrupy.assertion import SnapshotAssertion

from genie.client.inputs import check_inputs
from genie.client.tensors import Tensor, as_tensor, dense, from_dense
from genie_schemas.errors import GenieError
from genie_schemas.plan import ExecutionPlan
from genie_schemas.types import parse_type
from tests.plans_by_hand import two_layers


@pytest.fixture
def plan(tmp_path: Path) -> ExecutionPlan:
    """Entry point `forward(ids i64[batch,seq], mask bool[batch,2*seq], scale bf16[4])`."""
    base = two_layers(tmp_path).plan
    entry = base.entrypoints["forward"]
    item = entry.inputs[0]
    inputs = [
        item.model_copy(update={"name": name, "type": kind})
        for name, kind in (
            ("ids", "i64[batch,seq]"),
            ("mask", "bool[batch,2*seq]"),
            ("scale", "bf16[4]"),
        )
    ]
    dim = base.dims["batch"]
    return base.model_copy(
        update={
            "entrypoints": {"forward": entry.model_copy(update={"inputs": inputs})},
            "dims": {
                "batch": dim,
                "seq": dim.model_copy(update={"min": 2, "max": 16}),
                "unused": dim.model_copy(update={"min": 3, "max": 5}),
            },
        }
    )


def good() -> dict[str, Any]:
    return {
        "ids": np.zeros((2, 4), np.int64),
        "mask": np.zeros((2, 8), np.bool_),
        "scale": Tensor("bfloat16", np.zeros(4, np.uint16)),
    }


def test_inputs_that_fit_bind_every_dimension(plan: ExecutionPlan) -> None:
    checked = check_inputs(plan, "forward", good())
    assert checked.dims == {"batch": 2, "seq": 4, "unused": 3}


CASES: dict[str, dict[str, Any]] = {
    "missing": {"mask": None},
    "extra": {"idz": np.zeros(1)},
    "renamed": {"ids": None, "ids_": np.zeros((2, 4), np.int64)},
    "dtype": {"ids": np.zeros((2, 4), np.int32)},
    "bfloat16 as plain integers": {"scale": np.zeros(4, np.uint16)},
    "bfloat16 in floats": {"scale": Tensor("bfloat16", np.zeros(4, np.float32))},
    "rank": {"ids": np.zeros(8, np.int64)},
    "fixed size": {"scale": Tensor("bfloat16", np.zeros(5, np.uint16))},
    "beyond the range": {"ids": np.zeros((9, 4), np.int64), "mask": np.zeros((9, 8), np.bool_)},
    "below the range": {"ids": np.zeros((2, 1), np.int64), "mask": np.zeros((2, 2), np.bool_)},
    "inputs disagree": {"mask": np.zeros((3, 8), np.bool_)},
    "an expression disagrees": {"mask": np.zeros((2, 9), np.bool_)},
    "everything": {
        "ids": np.zeros((99, 4), np.float32),
        "mask": None,
        "scale": Tensor("float32", np.zeros((1, 2), np.float32)),
        "maks": np.zeros(3),
    },
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_told(plan: ExecutionPlan, name: str, snapshot: SnapshotAssertion) -> None:
    given_ = {k: v for k, v in {**good(), **CASES[name]}.items() if v is not None}
    with pytest.raises(GenieError) as caught:
        check_inputs(plan, "forward", given_)
    assert caught.value.exit_code == 2
    assert str(caught.value) == snapshot


def test_an_unknown_entry_point_is_told(plan: ExecutionPlan) -> None:
    with pytest.raises(GenieError) as caught:
        check_inputs(plan, "foward", good())
    assert caught.value.code == "GEN0407"
    assert "did you mean 'forward'" in (caught.value.remedy or "")


def test_the_digest_covers_names_dtypes_shapes_and_bytes(plan: ExecutionPlan) -> None:
    digests = {check_inputs(plan, "forward", good()).digest()}
    for name, change in (
        ("ids", np.ones((2, 4), np.int64)),
        ("ids", np.zeros((2, 4), np.int64)),
        ("scale", Tensor("bfloat16", np.full(4, 7, np.uint16))),
    ):
        digests.add(check_inputs(plan, "forward", {**good(), name: change}).digest())
    assert len(digests) == 3


ORDERS = ["f32[a,b,c]", "f32[a,b,c]{2,1,0}", "f32[a,b,c]{0,2,1}", "f32[a,b,c]{1,2,0}"]


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4)),
    st.sampled_from(ORDERS),
    st.booleans(),
)
def test_dense_bytes_come_back_in_every_stride_order(
    array: Any, text: str, transposed: bool
) -> None:
    if transposed:
        array = array.transpose(2, 0, 1)
    kind = parse_type(text)
    raw = bytes(dense(as_tensor(array), kind.order))
    again = from_dense(kind, array.shape, memoryview(raw))
    assert again.array.tobytes() == np.ascontiguousarray(array).tobytes()
    # The type's strides, applied to the raw bytes, show the same tensor.
    dims = dict(zip("abc", array.shape, strict=True))
    strides = [4 * s for s in kind.strides(dims)]
    seen = np.lib.stride_tricks.as_strided(np.frombuffer(raw, np.float32), array.shape, strides)
    assert seen.tobytes() == again.array.tobytes()


def test_scalars_and_empty_tensors_are_dense() -> None:
    for shape in ((), (0, 3)):
        kind = parse_type("f32[]" if not shape else "f32[0,3]")
        tensor = as_tensor(np.ones(shape, np.float32))
        raw = dense(tensor, kind.order)
        assert from_dense(kind, shape, raw).array.shape == shape
