"""Whether a path's results hold against eager's: the measure is the same for every path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TOLERANCE = {torch.bfloat16: 1.6e-2, torch.float16: 1e-3}
"""Relative and absolute, by dtype; 1e-5 for every other floating-point dtype."""

UNDEFINED = {
    "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided",
}  # fmt: skip
"""Operators whose elements are whatever lay in memory: their results have a shape and a dtype."""


def undefined(op: str) -> bool:
    """Whether the elements of an operator's results are whatever lay in memory."""
    return op.split(".")[0] in UNDEFINED


def different(op: str, found: Sequence[Any], expected: Sequence[Any]) -> str | None:
    """What differs, or None: count, type, dtype, shape, and elements within tolerance."""
    if len(found) != len(expected):
        return f"{len(found)} results, eager gives {len(expected)}"
    for i, (one, wanted) in enumerate(zip(found, expected, strict=True)):
        what = _different(op, one, wanted)
        if what is not None:
            return f"result {i}: {what}"
    return None


def inexact(found: Sequence[Any], expected: Sequence[Any]) -> str | None:
    """How the bits differ of results that `different` lets pass; None where they are equal.

    Every NaN is like every other; 0.0 and -0.0 are not alike.
    """
    for i, (one, wanted) in enumerate(zip(found, expected, strict=True)):
        if isinstance(wanted, Tensor):
            a, b = (t.resolve_conj().resolve_neg() for t in (one, wanted))
        elif isinstance(wanted, float | complex):
            number = one.item() if isinstance(one, Tensor) else one
            a, b = torch.tensor([number, wanted], dtype=torch.complex128)
        else:
            continue  # `different` wants the very same
        count = int((~_same_bits(a, b)).sum())
        if count:
            wide = torch.complex128 if a.is_complex() else torch.float64
            gap = (a.to(wide) - b.to(wide)).abs().nan_to_num().max().item()
            return f"result {i}: the bits of {count} of {a.numel()} elements differ, by ≤ {gap:.2g}"
    return None


def _same_bits(a: Tensor, b: Tensor) -> Tensor:
    """Whether elements are the same, as bool of the shape of `a` (complex: with a last axis)."""
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    if not a.is_floating_point():
        return a == b
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    bits = a.contiguous().view(whole) == b.contiguous().view(whole)
    return bits | (a.to(torch.float64).isnan() & b.to(torch.float64).isnan())


def _different(op: str, found: Any, wanted: Any) -> str | None:
    if not isinstance(wanted, Tensor):
        if isinstance(found, Tensor) and not found.dim():
            found = found.item()  # a number out of a tensor leaves a plan as a tensor
        if isinstance(found, Tensor) or type(found) is not type(wanted):
            return f"a {type(found).__name__}, eager gives a {type(wanted).__name__}"
        if found == wanted or (isinstance(wanted, float) and math.isclose(found, wanted)):
            return None
        return f"{found!r}, eager gives {wanted!r}"
    if not isinstance(found, Tensor):
        return f"a {type(found).__name__}, eager gives a tensor"
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        shapes = f"{list(found.shape)}, eager gives {wanted.dtype}{list(wanted.shape)}"
        return f"{found.dtype}{shapes}"
    if undefined(op):
        return None
    return _elements(found, wanted)


def _elements(found: Tensor, wanted: Tensor) -> str | None:
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return None if torch.equal(found, wanted) else "elements differ"
    limit = TOLERANCE.get(wanted.dtype, 1e-5)
    wide = torch.complex128 if wanted.is_complex() else torch.float64
    a, b = found.to(wide), wanted.to(wide)
    if torch.allclose(a, b, rtol=limit, atol=limit, equal_nan=True):
        return None
    return f"elements differ by up to {(a - b).abs().nan_to_num().max().item():.3g}"
