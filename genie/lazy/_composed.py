"""Operators that the device does not have, made of operators that it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import decomposition_table

__all__ = ["COMPOSED", "ONLY_CUDA"]

ONLY_CUDA = frozenset({"aten._thnn_fused_lstm_cell.default", "aten._thnn_fused_gru_cell.default"})
"""What torch takes for any device but the CPU, and has kernels of only for CUDA."""

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


def _lstm_cell(
    given: torch.Tensor,
    hidden: torch.Tensor,
    state: torch.Tensor,
    given_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Gates float[N, 4·H] → the new hidden and cell state, float[N, H], and what backward needs."""
    gates = _sum(given, hidden, given_bias, hidden_bias)
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    new = f * state + i * g
    return o * new.tanh(), new, torch.cat([i, f, g, o], 1)


def _lstm_cell_backward(
    grad_hidden: torch.Tensor | None,
    grad_state: torch.Tensor | None,
    state: torch.Tensor,
    new: torch.Tensor,
    kept: torch.Tensor,
    has_bias: bool,
) -> tuple[torch.Tensor | None, ...]:
    if grad_hidden is None and grad_state is None:
        return None, None, None
    i, f, g, o = kept.chunk(4, 1)
    out = torch.zeros_like(new) if grad_hidden is None else grad_hidden
    bent = new.tanh()
    cell = _sum(out * o * (1 - bent * bent), grad_state)
    parts = [cell * g * i * (1 - i), cell * state * f * (1 - f)]
    parts += [cell * i * (1 - g * g), out * bent * o * (1 - o)]
    gates = torch.cat(parts, 1)
    return gates, cell * f, gates.sum(0) if has_bias else None


def _gru_cell(
    given: torch.Tensor,
    hidden: torch.Tensor,
    state: torch.Tensor,
    given_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Gates float[N, 3·H] → the new state, float[N, H], and what backward needs."""
    given_r, given_z, given_n = _sum(given, given_bias).chunk(3, 1)
    hidden_r, hidden_z, hidden_n = _sum(hidden, hidden_bias).chunk(3, 1)
    r, z = (given_r + hidden_r).sigmoid(), (given_z + hidden_z).sigmoid()
    n = (given_n + r * hidden_n).tanh()
    return n + z * (state - n), torch.cat([r, z, n, state, hidden_n], 1)


def _gru_cell_backward(
    grad: torch.Tensor, kept: torch.Tensor, has_bias: bool
) -> tuple[torch.Tensor | None, ...]:
    r, z, n, state, hidden_n = kept.chunk(5, 1)
    new = grad * (1 - z) * (1 - n * n)
    update = grad * (state - n) * z * (1 - z)
    reset = new * hidden_n * r * (1 - r)
    given = torch.cat([reset, update, new], 1)
    hidden = torch.cat([reset, update, new * r], 1)
    biases = (given.sum(0), hidden.sum(0)) if has_bias else (None, None)
    return given, hidden, grad * z, *biases


def _sum(first: torch.Tensor, *others: torch.Tensor | None) -> torch.Tensor:
    for other in others:
        first = first if other is None else first + other
    return first


def _table() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {
        str(op): made
        for op, made in decomposition_table.items()
        if isinstance(op, torch._ops.OpOverload)
        and op._schema.name.removeprefix("aten::") in _FROM_TORCH
        and op._overloadname == "default"
    }
    found["aten.max_pool2d_with_indices_backward.default"] = _max_pool2d_backward
    found["aten._thnn_fused_lstm_cell.default"] = _lstm_cell
    found["aten._thnn_fused_lstm_cell_backward_impl.default"] = _lstm_cell_backward
    found["aten._thnn_fused_gru_cell.default"] = _gru_cell
    found["aten._thnn_fused_gru_cell_backward.default"] = _gru_cell_backward
    return found


COMPOSED = _table()
"""Operator → a function of tensors on any device."""
