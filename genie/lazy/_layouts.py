"""What the recorder says of tensors, as plans write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from genie_schemas.args import Arg, Named
from genie_schemas.types import FROM_TORCH

__all__ = ["DTYPES", "WITHOUT_PLAN", "Layout", "Unsupported", "literal", "type_text"]

DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    9: "complex64",
    10: "complex128",
    11: "bool",
    15: "bfloat16",
    23: "float8_e5m2",
    24: "float8_e4m3fn",
    27: "uint16",
    28: "uint32",
    29: "uint64",
}
"""c10::ScalarType → torch's name. The numbers are part of torch's ABI and never change."""

WITHOUT_PLAN = {
    8: "complex32",
    12: "qint8",
    13: "quint8",
    14: "qint32",
    25: "float8_e5m2fnuz",
    26: "float8_e4m3fnuz",
}
"""Those that plans do not have, for messages."""

_FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")


class Unsupported(Exception):
    """A plan cannot hold this; the text says what."""


class Layout(NamedTuple):
    """As the recorder describes it: c10::ScalarType, sizes, strides, offset in elements."""

    dtype: int
    sizes: Sequence[int]
    strides: Sequence[int]
    offset: int

    @property
    def torch_dtype(self) -> str:
        """Torch's name of the dtype ("float32"). Raises Unsupported."""
        if self.dtype not in DTYPES:
            name = WITHOUT_PLAN.get(self.dtype, f"c10::ScalarType {self.dtype}")
            raise Unsupported(f"tensors of {name}")
        return DTYPES[self.dtype]


def type_text(layout: Layout, *, row_major: bool = False) -> str:
    """The plan's type of a tensor: dtype, shape, and the order of its strides."""
    shape = ",".join(map(str, layout.sizes))
    text = f"{FROM_TORCH[layout.torch_dtype]}[{shape}]"
    axes = range(len(layout.sizes))
    if row_major or 0 in layout.sizes:
        return text
    # A dimension of one element keeps its place: its stride says nothing.
    free = [a for a in axes if layout.sizes[a] > 1 and layout.strides[a] > 0]
    ordered = iter(sorted(free, key=lambda a: (-layout.strides[a], a)))
    order = tuple(next(ordered) if a in free else a for a in axes)
    return text if order == tuple(axes) else f"{text}{{{','.join(map(str, order))}}}"


def literal(value: Any, kind: str) -> Arg:
    """An argument without tensors; `kind` is its type in the operator table ("ScalarType?")."""
    base = kind.rstrip("?")
    if value is None:
        return None
    if base == "ScalarType":
        return Named("dtype", FROM_TORCH[Layout(int(value), (), (), 0).torch_dtype])
    if base == "Device":
        return Named("device", "here")
    if base == "Layout":
        if int(value) != 0:
            raise Unsupported("a layout other than strided")
        return Named("layout", "strided")
    if base == "MemoryFormat":
        return Named("memory_format", _FORMATS[int(value)])
    if isinstance(value, list | tuple):
        return tuple(literal(item, base.removesuffix("[]")) for item in value)
    if isinstance(value, bool | int | float | complex | str):
        return value
    raise Unsupported(f"an argument of type {type(value).__name__}")
