"""Operators that plans may not name, made of operators that they may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import decomposition_table

from genie.lazy._counters import user_place
from genie_schemas.errors import GenieError

__all__ = ["COMPOSED"]

_FROM_TORCH = (
    "embedding_dense_backward nll_loss_backward nll_loss2d_backward native_batch_norm_backward "
    "native_layer_norm_backward native_group_norm_backward native_dropout_backward "
    "select_backward slice_backward _cdist_backward rrelu_with_noise_backward "
    "binary_cross_entropy_backward soft_margin_loss_backward"
).split()

_BAG_MEAN, _BAG_MAX = 1, 2


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


def _embedding_bag_backward(
    grad: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    bag_of: torch.Tensor,
    sizes: torch.Tensor,
    maxima: torch.Tensor,
    rows: int,
    by_frequency: bool,
    mode: int,
    sparse: bool,
    weights: torch.Tensor | None,
    padding: int = -1,
) -> torch.Tensor:
    """Of the table, (rows, width), from that of the bags: what looks rows up checks indices."""
    if sparse:
        raise GenieError(
            "GEN0261",
            "no plan can hold the sparse gradient of EmbeddingBag(sparse=True)",
            user_place(),
            remedy="leave sparse=True out: the dense gradient is the same",
        )
    table = grad.new_zeros((rows, grad.shape[1]))
    sizes = sizes[: len(grad), None]
    if mode == _BAG_MAX:
        grad, maxima = grad.where(sizes > 0, 0), maxima.where(sizes > 0, 0)
        return table.scatter_add(0, maxima.to(torch.int64), grad)
    if mode == _BAG_MEAN:
        grad = grad * (1 / sizes).to(grad.dtype)
    each = grad[bag_of]
    if weights is not None:
        each = each * weights[:, None]
    if by_frequency:
        count = indices.new_zeros(rows).index_add(0, indices, torch.ones_like(indices))
        each = each * (1 / count[indices, None]).to(grad.dtype)
    if padding >= 0:
        each = each.where((indices != padding)[:, None], 0)
    return table.index_put([indices], each, accumulate=True)


def _embedding_bag_weights_backward(
    grad: torch.Tensor,
    table: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    bag_of: torch.Tensor,
    mode: int,
    padding: int = -1,
) -> torch.Tensor:
    """Of each index's weight in its bag's sum: (indices,)."""
    found = (grad[bag_of] * table[indices]).sum(1)
    return found.where(indices != padding, 0) if padding >= 0 else found


def _index_put_impl(
    given: torch.Tensor,
    indices: Sequence[torch.Tensor | None],
    values: torch.Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> torch.Tensor:
    """What gradients of `x[indices]` ask for, indices checked."""
    return torch.ops.aten.index_put_.default(given, indices, values, accumulate)  # type: ignore[no-any-return]


def _grouped_mm(
    left: torch.Tensor,
    right: torch.Tensor,
    ends: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Products of groups: where the rows (or columns, or what is summed) of each end.

    (S, K) x (G, K, N) -> (S, N); (G, M, K) x (K, S) -> (M, S); (M, S) x (S, N) -> (G, M, N);
    (G, M, K) x (G, K, N) -> (G, M, N). Where groups end is not known when it is recorded: few rows
    take a copy of their group's matrix each; more go through all of them, and keep their own.
    """
    if ends is None:
        made = left @ right
    elif left.dim() == 2 and right.dim() == 2:
        mine = _group(ends, left.shape[1]) == torch.arange(len(ends), device=left.device)[:, None]
        made = (left * mine[:, None].to(left.dtype)) @ right
    elif left.dim() == 3:
        made = _rows(right.mT, left.mT, ends).mT
    else:
        made = _rows(left, right, ends)
    made = made if bias is None else made + bias
    return made if out_dtype is None else made.to(out_dtype)


def _rows(rows: torch.Tensor, matrices: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Each row times its group's matrix: (S, K), (G, K, N) -> (S, N)."""
    group = _group(ends, len(rows))
    if len(rows) <= len(matrices):
        return (rows[:, None] @ matrices[group])[:, 0]
    return (rows @ matrices)[group, torch.arange(len(rows), device=rows.device)]


def _group(ends: torch.Tensor, count: int) -> torch.Tensor:
    """The group of each of `count` places: int64 (count,). Those behind the last end are its."""
    places = torch.arange(count, device=ends.device)
    return (places[:, None] >= ends).sum(1).clamp(max=len(ends) - 1)


def _table() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {
        str(op): made
        for op, made in decomposition_table.items()
        if isinstance(op, torch._ops.OpOverload)
        and op._schema.name.removeprefix("aten::") in _FROM_TORCH
        and op._overloadname == "default"
    }
    found["aten.max_pool2d_with_indices_backward.default"] = _max_pool2d_backward
    found["aten._embedding_bag_backward.default"] = _embedding_bag_backward
    found["aten._embedding_bag_per_sample_weights_backward.default"] = (
        _embedding_bag_weights_backward
    )
    found["aten._index_put_impl_.default"] = _index_put_impl
    found["aten._grouped_mm.default"] = _grouped_mm
    return found


COMPOSED = _table()
"""Operator → a function of tensors on any device."""
