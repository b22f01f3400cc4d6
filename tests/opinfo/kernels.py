"""Entries whose bits are legitimately not eager's, each with its reason."""

from __future__ import annotations

_CHUNKS = (
    "eager adds up the loss of one chunk of the vocabulary after the other, to save memory of the "
    "backward pass, which a plan does not have: it takes the same function without chunks"
)

_UNCHUNKED = {
    "nn_functional_linear_cross_entropy_chunked": _CHUNKS,
    "nn_functional_linear_cross_entropy_chunked_none": _CHUNKS,
}

_SUMS = (
    "torch takes the dtype in which this function adds up by the kind of the device: float32 on a "
    "CPU, that of the input on a device that it does not know"
)

KERNELS: dict[str, dict[str, dict[str, str]]] = {
    "plans": {
        "float32": _UNCHUNKED,
        "bfloat16": {
            "nn_functional_linear_cross_entropy_chunked_none": _CHUNKS,
        },
    },
    "lazy device": {"bfloat16": dict.fromkeys(_UNCHUNKED, _SUMS)},
}
"""Path → dtype → operator → why other kernels, or another order of the same sums, give its bits."""


def listed(path: str, dtype: str, op: str) -> bool:
    """Whether an entry need only be within the tolerance."""
    return op in KERNELS.get(path, {}).get(dtype, {})
