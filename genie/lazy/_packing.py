"""Packing of padded sequences: the number of rows of each step is the CPU's, on every device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["install"]

_LIBRARY: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
"""Its kernels are there as long as it is."""


def _pack(given: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """Sequences (T, N, …) without their padding; `lengths` (N,) and batch sizes are the CPU's."""
    # A CPU's own operator says what is wrong with the lengths, and how many rows each step has.
    like = torch.empty((*given.shape[:2], 1))
    _, batches = torch.ops.aten._pack_padded_sequence(like, lengths, batch_first)
    steps = given.transpose(0, 1) if batch_first else given
    rows = [steps[step, :count] for step, count in enumerate(batches.tolist())]
    return torch.cat(rows), batches


def install() -> None:
    """Register it, once for a process; above autograd, so that gradients are those of its parts."""
    for key in ("AutogradPrivateUse1", "PrivateUse1"):
        _LIBRARY.impl("_pack_padded_sequence", _pack, key)
