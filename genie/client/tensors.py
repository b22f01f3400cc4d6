"""Tensors as the client holds them: NumPy arrays, and raw bits where NumPy has no dtype."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from genie_schemas.types import DTYPES, TensorType

__all__ = ["Array", "Tensor", "as_tensor", "dense", "from_dense", "storage"]

Array = npt.NDArray[Any]

STORAGE: Mapping[str, str] = {"bf16": "uint16", "f8e4m3fn": "uint8", "f8e5m2": "uint8"}
"""Plan dtypes that NumPy lacks → the unsigned integer that holds their bits."""


def storage(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype that holds a plan dtype ("f32", "bf16"): its own, or that of its bits."""
    return np.dtype(STORAGE.get(dtype, DTYPES[dtype][0]))


@dataclass(frozen=True, eq=False)
class Tensor:
    """An array with its torch dtype ("float32", "bfloat16"); `array` holds bits for the latter.

    `array` has the tensor's shape; its NumPy dtype is uint16 for bfloat16 and uint8 for float8.
    """

    dtype: str
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.array.shape

    def sha256(self) -> str:
        """Hex digest of the row-major bytes."""
        return hashlib.sha256(np.ascontiguousarray(self.array).data).hexdigest()


def as_tensor(value: Array | Tensor) -> Tensor:
    """A tensor of an array under the array's own dtype; a Tensor is taken as it is."""
    return value if isinstance(value, Tensor) else Tensor(str(value.dtype), value)


def dense(tensor: Tensor, order: tuple[int, ...]) -> memoryview:
    """The bytes of a tensor laid out densely in a stride order; no copy when it lies so already."""
    array = np.ascontiguousarray(tensor.array.transpose(order))
    return array.reshape(-1).view(np.uint8).data


def from_dense(type_: TensorType, sizes: tuple[int, ...], data: memoryview) -> Tensor:
    """A row-major tensor out of dense bytes in the type's stride order. Copies."""
    laid_out = tuple(sizes[axis] for axis in type_.order)
    array = np.frombuffer(data, storage(type_.dtype)).reshape(laid_out)
    back = np.argsort(np.asarray(type_.order, dtype=np.intp)) if sizes else ()
    row_major = np.array(array.transpose(tuple(int(i) for i in back)), order="C", copy=True)
    return Tensor(DTYPES[type_.dtype][0], row_major)
