"""Functions of torch that look at values while they run, and what computes the same without.

`torch.cov` checks that its weights do not sum to zero, `torch.equal` answers with a Python bool:
export stops there although the result needs no such look. While a module is exported, calls of
these functions take the form below. Checks of values are left out with them: a plan does not raise
what eager raises for a variance below zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_impls import register_op_impl
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["Equivalents"]


def _equal(input: Tensor, other: Tensor) -> Any:
    if input.dim() != other.dim() or input.shape != other.shape:
        return False
    return (input == other).all().item()


def _allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    return torch.isclose(input, other, rtol=rtol, atol=atol, equal_nan=equal_nan).all().item()


def _cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """Covariance of the rows of (variables, observations), as torch.cov defines it."""
    if input.ndim > 2:
        raise RuntimeError(
            f"cov(): expected input to have two or fewer dimensions, not {input.ndim}"
        )
    rows = input.reshape(1, -1) if input.ndim < 2 else input
    count: Any = torch.scalar_tensor(rows.size(1), dtype=torch.int64, device=rows.device)
    given = [w for w in (fweights, aweights) if w is not None]
    weights = math.prod(given[1:], start=given[0]) if given else None
    total = count if weights is None else weights.sum()
    weighted = rows if weights is None else rows * weights
    if weights is None or correction == 0 or aweights is None:
        norm = total - (correction if weights is None or aweights is None else 0)
    else:
        norm = total - correction * (weights * aweights).sum() / total
    centred = rows - (weighted.sum(1) / total).unsqueeze(1)
    scaled = centred if weights is None else centred * weights
    return (centred @ scaled.t().conj() / norm.clamp(min=0)).squeeze()


def _corrcoef(input: Tensor) -> Tensor:
    covariance = _cov(input)
    if covariance.ndim == 0:
        return covariance / covariance
    diagonal = covariance.diag()
    deviation = (diagonal.real if diagonal.is_complex() else diagonal).sqrt()
    scaled = covariance / deviation.view(-1, 1) / deviation.view(1, -1)
    if scaled.is_complex():
        return torch.complex(scaled.real.clip(-1, 1), scaled.imag.clip(-1, 1))
    return scaled.clip(-1, 1)


def _combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """The rows that torch selects by a mask, by their numbers, which follow from the size."""
    if input.ndim != 1:
        raise RuntimeError(f"combinations(): expected one dimension, not {input.ndim}")
    if r == 0:
        return input.new_empty(0)
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(int(input.shape[0])), r))
    return input[torch.tensor(rows, dtype=torch.int64, device=input.device).reshape(-1, r)]


def _gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Half of log(var) + (input - target)^2 / var, with var no smaller than `eps`."""
    if not isinstance(var, Tensor):
        var = torch.full_like(input, var)
    if var.shape != input.shape and input.shape[:-1] == var.shape:
        var = var.unsqueeze(-1)
    var = var.clamp(min=eps)
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def _linear_cross_entropy(*args: Any, **kwargs: Any) -> Tensor:
    """Without chunks, which save memory of the backward pass."""
    return functional.linear_cross_entropy(*args, **(kwargs | {"options": None}))


_EQUIVALENT: Mapping[Any, Callable[..., Any]] = {
    torch.equal: _equal,
    Tensor.equal: _equal,
    torch.allclose: _allclose,
    Tensor.allclose: _allclose,
    torch.cov: _cov,
    Tensor.cov: _cov,
    torch.combinations: _combinations,
    torch.corrcoef: _corrcoef,
    Tensor.corrcoef: _corrcoef,
    functional.gaussian_nll_loss: _gaussian_nll_loss,
    getattr(functional, "linear_cross_entropy", None): _linear_cross_entropy,
}


class Equivalents(TorchFunctionMode):
    """While it is entered, the functions above are replaced by what computes the same."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the equivalent of `func`, or `func` itself."""
        return _EQUIVALENT.get(func, func)(*args, **(kwargs or {}))


@register_op_impl(torch.ops.aten._ctc_loss.default)
@register_op_impl(torch.ops.aten._ctc_loss.Tensor)
def _ctc_loss(fake_mode: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
    """One loss a sample; what only the backward pass reads is as large as it can be."""
    log_probs, targets = args[0], args[1]
    batch = log_probs.shape[1] if log_probs.dim() == 3 else 1
    longest = targets.shape[-1] if targets.dim() else 0
    with fake_mode:
        alpha = log_probs.new_empty((batch, log_probs.shape[0], 2 * longest + 1))
        return log_probs.new_empty((batch,)), alpha


@register_op_impl(torch.ops.aten.linalg_lstsq.default)
def _lstsq(fake_mode: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Which results there are, the driver says.

    Two drivers leave the residuals out where the matrices lack full rank. Types here are those of
    matrices that have it; a run on others is refused (GEN0461) if it returns the residuals.
    """
    a, b = args[0], args[1]
    driver = kwargs.get("driver") or "gelsy"
    m, n = a.shape[-2:]
    vector = b.dim() == 1 or (a.dim() - 1 == b.dim() and a.shape[:-1] == b.shape)
    right = () if vector else (b.shape[-1],)
    given = b.shape[:-1] if vector else b.shape[:-2]
    batch = torch.broadcast_shapes(a.shape[:-2], given)  # type: ignore[no-untyped-call]
    real = a.real.dtype if a.is_complex() else a.dtype
    none = (0,)
    residuals = (*batch, *right) if m > n and driver != "gelsy" else none
    rank = none if driver == "gels" else batch
    values = (*batch, min(m, n)) if driver in ("gelss", "gelsd") else none
    with fake_mode:
        return (
            a.new_empty((*batch, n, *right)),
            a.new_empty(residuals, dtype=real),
            a.new_empty(rank, dtype=torch.int64),
            a.new_empty(values, dtype=real),
        )
