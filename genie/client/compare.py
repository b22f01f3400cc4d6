"""Comparing outputs with those of eager execution: exact differences, and whether they matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from genie.client.tensors import Array, Tensor

__all__ = ["TOLERANCE", "Comparison", "compare"]

RAW = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
"""dtypes that NumPy lacks: their arrays hold bits."""

TOLERANCE = 1e-5
"""An output may differ from eager's by this, absolute plus relative; on the CPU it is 0."""


@dataclass(frozen=True)
class Comparison:
    """The largest absolute and relative difference over all outputs, in float64.

    `ok`: every element lies within TOLERANCE + TOLERANCE·|eager|, integers and NaNs coincide, and
    both sides have the same outputs, shapes and dtypes. `problems` names the outputs that do not.
    """

    max_abs: float
    max_rel: float
    ok: bool
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As `execute --json` prints it."""
        return {"max_abs": self.max_abs, "max_rel": self.max_rel, "ok": self.ok}


def compare(found: Mapping[str, Tensor], eager: Mapping[str, Tensor]) -> Comparison:
    """Compare a run's outputs with eager's, by name."""
    problems = [
        f"{name}: only {'the plan' if name in found else 'eager'} has it"
        for name in sorted(found.keys() ^ eager.keys())
    ]
    worst_abs = worst_rel = 0.0
    for name in sorted(found.keys() & eager.keys()):
        a, b = found[name], eager[name]
        if a.dtype != b.dtype or a.shape != b.shape:
            shapes = f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"
            problems.append(f"{name}: {shapes}")
            continue
        absolute, relative, close = _difference(a, b)
        worst_abs, worst_rel = max(worst_abs, absolute), max(worst_rel, relative)
        if not close:
            problems.append(f"{name}: differs by up to {absolute:.3g} (relative {relative:.3g})")
    return Comparison(worst_abs, worst_rel, not problems, tuple(problems))


def _difference(found: Tensor, eager: Tensor) -> tuple[float, float, bool]:
    """(largest absolute, largest relative difference, whether within the tolerance)."""
    a, b = _wide(found), _wide(eager)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    exact = found.array.dtype.kind in "iub" and found.dtype not in RAW
    if exact:
        same = found.array == eager.array  # float64 cannot tell all 64-bit integers apart
    if bool(same.all()):
        return 0.0, 0.0, True
    largest = float(np.finfo(np.float64).max)  # JSON has no infinity
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        gap = np.nan_to_num(np.abs(a - b), nan=largest, posinf=largest)
        gap = np.where(same, 0.0, np.maximum(gap, 1.0) if exact else gap)
        size = np.nan_to_num(np.abs(b), nan=0.0, posinf=0.0)
        relative = np.where(same, 0.0, gap / np.where(size == 0, np.finfo(np.float64).tiny, size))
        close = not exact and bool((gap <= TOLERANCE + TOLERANCE * size).all())
    return float(gap.max()), min(float(relative.max()), largest), close


def _wide(tensor: Tensor) -> Array:
    """The values as float64 or complex128."""
    array = tensor.array
    if tensor.dtype == "bfloat16":
        with np.errstate(invalid="ignore"):  # signalling NaNs
            return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if tensor.dtype.startswith("float8"):
        return _float8(array, tensor.dtype)
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    return array.astype(np.float64)


def _float8(bits: Array, dtype: str) -> Array:
    """Values of float8_e4m3fn or float8_e5m2 (OCP 8-bit floating point specification 1.0)."""
    exponent_bits, bias = (4, 7) if dtype == "float8_e4m3fn" else (5, 15)
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(256)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = codes & ((1 << mantissa_bits) - 1)
    normal = (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)
    table = sign * np.where(exponent, normal, mantissa / (1 << mantissa_bits) * 2.0 ** (1 - bias))
    top = exponent == (1 << exponent_bits) - 1
    if dtype == "float8_e4m3fn":
        table = np.where((codes & 0x7F) == 0x7F, np.nan, table)
    else:
        table = np.where(top & (mantissa != 0), np.nan, np.where(top, sign * np.inf, table))
    result: Array = table[bits]
    return result
