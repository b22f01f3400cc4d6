"""Reproducible inputs for a spec: the same bits on every machine, valid for the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie.testing.weights import uniform
from genie_schemas.spec import Input, Spec

__all__ = ["sample_inputs"]


def sample_inputs(
    spec: Spec, dims: Mapping[str, int] | None = None, *, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Return one array for each input of `spec`, by name.

    `dims` gives extents (default: the spec's examples). Floats are uniform in [-1, 1), integers in
    the input's [low, high), booleans fair. An integer or boolean input whose name ends in `_mask`
    is a padding mask instead: ones, then zeros from a position on that differs from row to row, so
    that no row is masked whole. ValueError for an unknown dimension, an extent out of its range,
    or a dtype that numpy lacks (bfloat16).
    """
    extents = {name: dim.example for name, dim in spec.dims.items()}
    for name, extent in (dims or {}).items():
        if name not in extents:
            raise ValueError(f"no dimension {name!r}; the spec has {sorted(extents)}")
        low, high = spec.dims[name].min, spec.dims[name].max
        if not low <= extent <= high:
            raise ValueError(f"{name}={extent} is outside {low}..{high}")
        extents[name] = extent
    return {name: _sample(name, declared, extents, seed) for name, declared in spec.inputs.items()}


def _sample(name: str, declared: Input, extents: Mapping[str, int], seed: int) -> NDArray[Any]:
    if declared.dtype == "bfloat16":
        raise ValueError(f"input {name}: numpy has no bfloat16")
    dtype = np.dtype(declared.dtype)
    shape = tuple(extents[e] if isinstance(e, str) else e for e in declared.shape)
    if dtype.kind == "f":
        return uniform(f"input:{name}", int(np.prod(shape)), seed=seed).reshape(shape).astype(dtype)
    if name.endswith("_mask") and shape:
        lengths = _integers(name, shape[:-1], (1, shape[-1] + 1), seed)
        return (np.arange(shape[-1]) < lengths[..., None]).astype(dtype)
    return _integers(name, shape, declared.example_bounds or (0, 2), seed).astype(dtype)


def _integers(
    name: str, shape: tuple[int, ...], bounds: tuple[int, int], seed: int
) -> NDArray[np.int64]:
    """int64 in [low, high); exact while high - low is at most 2**29."""
    low, high = bounds
    unit = uniform(f"input:{name}", int(np.prod(shape)), seed=seed).astype(np.float64) / 2 + 0.5
    return (low + np.floor(unit * (high - low))).astype(np.int64).reshape(shape)
