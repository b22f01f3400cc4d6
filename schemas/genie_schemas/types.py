"""Tensor types as a plan writes them: `f32[batch,3,224,224]`, optionally with a stride order.

`f32[2,64,56,56]{0,2,3,1}` lists the dimensions from the largest stride to the smallest: this one
is channels-last. Without braces the order is 0, 1, 2, … (row-major). Types describe dense tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from genie_schemas.expr import Expr, ExprError, parse

DTYPES: Mapping[str, tuple[str, int]] = {
    "f64": ("float64", 8),
    "f32": ("float32", 4),
    "f16": ("float16", 2),
    "bf16": ("bfloat16", 2),
    "f8e4m3fn": ("float8_e4m3fn", 1),
    "f8e5m2": ("float8_e5m2", 1),
    "i64": ("int64", 8),
    "i32": ("int32", 4),
    "i16": ("int16", 2),
    "i8": ("int8", 1),
    "u8": ("uint8", 1),
    "u16": ("uint16", 2),
    "u32": ("uint32", 4),
    "u64": ("uint64", 8),
    "bool": ("bool", 1),
    "c64": ("complex64", 8),
    "c128": ("complex128", 16),
}
"""Plan name → (torch's name, bytes an element)."""

FROM_TORCH: Mapping[str, str] = {torch: name for name, (torch, _) in DTYPES.items()}
"""torch's dtype name ("float32") → plan name ("f32")."""

MAX_RANK = 16
_TYPE = re.compile(r"([a-z][a-z0-9]*)\[([^\[\]{}]*)\](?:\{([0-9]{1,2}(?:,[0-9]{1,2})*)\})?")


class TypeTextError(ValueError):
    """The text is no tensor type."""


@dataclass(frozen=True)
class TensorType:
    """dtype (plan name), shape (an expression a dimension) and stride order of a dense tensor."""

    dtype: str
    shape: tuple[Expr, ...]
    order: tuple[int, ...]

    def __str__(self) -> str:
        text = f"{self.dtype}[{','.join(e.text for e in self.shape)}]"
        if self.order != tuple(range(len(self.shape))):
            text += "{" + ",".join(map(str, self.order)) + "}"
        return text

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return DTYPES[self.dtype][1]

    @property
    def names(self) -> frozenset[str]:
        """The dimensions that the shape uses."""
        return frozenset().union(*(e.names for e in self.shape))

    def sizes(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """The shape for these dimension sizes; ExprError when one is negative or unknown."""
        sizes = tuple(e.evaluate(dims) for e in self.shape)
        if any(s < 0 for s in sizes):
            raise ExprError(f"a negative size in {self}")
        return sizes

    def nbytes(self, dims: Mapping[str, int]) -> int:
        """Bytes of the dense tensor for these dimension sizes."""
        total = self.itemsize
        for size in self.sizes(dims):
            total *= size
        return total

    def strides(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """Strides in elements of the dense tensor in this order."""
        sizes = self.sizes(dims)
        strides = [0] * len(sizes)
        step = 1
        for axis in reversed(self.order):
            strides[axis] = step
            step *= max(sizes[axis], 1)
        return tuple(strides)

    def bytes_text(self) -> str:
        """The byte count as an expression text, constants folded into one factor."""
        constant, factors = self.itemsize, []
        for e in self.shape:
            if e.names:
                factors.append(e.text if re.fullmatch(r"\w+", e.text) else f"({e.text})")
            else:
                constant *= e.evaluate({})
        if constant == 0:
            return "0"
        return "*".join([*factors, str(constant)])


@lru_cache(maxsize=65536)
def parse_type(text: str) -> TensorType:
    """Parse a type text; TypeTextError says what is wrong."""
    match = _TYPE.fullmatch(text)
    if match is None:
        raise TypeTextError(f"{text[:80]!r} is no tensor type such as f32[batch,3]")
    dtype, shape_text, order_text = match.groups()
    if dtype not in DTYPES:
        raise TypeTextError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    try:
        shape = tuple(parse(part) for part in _split(shape_text))
    except ExprError as error:
        raise TypeTextError(f"{text[:80]!r}: {error}") from None
    if len(shape) > MAX_RANK:
        raise TypeTextError(f"{text[:80]!r} has more than {MAX_RANK} dimensions")
    order = tuple(range(len(shape)))
    if order_text is not None:
        given = tuple(int(p) for p in order_text.split(","))
        canonical = ",".join(map(str, given)) == order_text
        if tuple(sorted(given)) != order or given == order or not canonical:
            raise TypeTextError(f"{text[:80]!r}: the stride order is no proper permutation")
        order = given
    return TensorType(dtype, shape, order)


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    if not text:
        return []
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return parts
