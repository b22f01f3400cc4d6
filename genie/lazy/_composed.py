"""Operators that plans may not name, made of operators that they may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import decomposition_table

__all__ = ["COMPOSED"]

_FROM_TORCH = (
    "embedding_dense_backward nll_loss_backward nll_loss2d_backward native_batch_norm_backward "
    "native_layer_norm_backward native_group_norm_backward native_dropout_backward "
    "select_backward slice_backward _cdist_backward rrelu_with_noise_backward "
    "binary_cross_entropy_backward soft_margin_loss_backward"
).split()


def _max_pool2d_backward(
    grad: torch.Tensor,
    given: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
    indices: torch.Tensor,
) -> torch.Tensor:
    """Every gradient goes to where its maximum was; `scatter_add` looks whether that exists."""
    flat = torch.zeros_like(given, memory_format=torch.contiguous_format).flatten(-2)
    spread = flat.scatter_add(-1, indices.flatten(-2), grad.flatten(-2))
    return spread.view(given.shape)


def _table() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {
        str(op): made
        for op, made in decomposition_table.items()
        if isinstance(op, torch._ops.OpOverload)
        and op._schema.name.removeprefix("aten::") in _FROM_TORCH
        and op._overloadname == "default"
    }
    found["aten.max_pool2d_with_indices_backward.default"] = _max_pool2d_backward
    return found


COMPOSED = _table()
"""Operator → a function of tensors on any device."""
