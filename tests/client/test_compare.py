"""Differences to eager: exact where they are measured, honest where values are special."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from genie.client.compare import Comparison, compare
from genie.client.tensors import Tensor


def f32(*values: float) -> Any:
    return np.array(values, np.float32)


def one(a: Any, b: Any, dtype: str = "float32") -> Comparison:
    return compare({"y": Tensor(dtype, np.asarray(a))}, {"y": Tensor(dtype, np.asarray(b))})


def test_equal_bits_have_no_difference() -> None:
    values = np.array([1.0, -0.0, np.nan, np.inf, -np.inf], np.float32)
    found = one(values, values)
    assert (found.max_abs, found.max_rel, found.ok) == (0.0, 0.0, True)


def test_the_difference_is_exact() -> None:
    a, b = f32(4.0, 1.0), f32(4.0, 1.0 + 2.0**-20)
    found = one(a, b)
    assert found.max_abs == 2.0**-20
    assert found.max_rel == 2.0**-20 / (1.0 + 2.0**-20)
    assert found.ok
    assert not one(f32(1.0), f32(1.001)).ok


@pytest.mark.parametrize(
    ("a", "b"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (np.inf, -np.inf)]
)
def test_special_values_differ_from_others(a: float, b: float) -> None:
    found = one(f32(a), f32(b))
    assert not found.ok
    assert math.isfinite(found.max_abs)
    assert found.max_abs > 1e300


def test_what_only_one_side_has_is_a_difference() -> None:
    x = Tensor("float32", np.zeros(2, np.float32))
    assert compare({"a": x}, {}).problems == ("a: only the plan has it",)
    assert compare({}, {"a": x}).problems == ("a: only eager has it",)
    other = Tensor("float32", np.zeros((2, 1), np.float32))
    assert not compare({"a": x}, {"a": other}).ok
    assert not compare({"a": x}, {"a": Tensor("int64", np.zeros(2, np.int64))}).ok


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_raw_bits_are_read_as_torch_reads_them(dtype: str) -> None:
    width = np.uint16 if dtype == "bfloat16" else np.uint8
    bits = np.arange(np.iinfo(width).max + 1, dtype=width)
    theirs = torch.from_numpy(bits.copy()).view(getattr(torch, dtype)).to(torch.float64).numpy()
    from genie.client.compare import _wide

    assert np.array_equal(_wide(Tensor(dtype, bits)), theirs, equal_nan=True)
    assert one(bits, bits, dtype).max_abs == 0


def test_integers_booleans_and_complex_numbers() -> None:
    assert one(np.array([True]), np.array([False]), "bool").max_abs == 1
    assert one(np.array([3]), np.array([5]), "int64").max_abs == 2
    wide = np.array([2**60 + 1]), np.array([2**60])
    assert not one(*wide, "int64").ok
    assert one(*wide, "int64").max_abs == 1
    assert one(np.array([3 + 4j]), np.array([0j]), "complex128").max_abs == 5
    assert one(np.zeros((0,), np.float32), np.zeros((0,), np.float32)).ok
