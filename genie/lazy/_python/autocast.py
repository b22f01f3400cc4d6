"""Automatic mixed precision: which operators run in the lower type, and which in float32.

The lists are those of torch's own devices, without what needs a policy for its dtype argument:
softmax and its kin are single precision here whatever they are asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import fallthrough_kernel

from genie.lazy._python.tensor import DEVICE, is_lazy

__all__ = ["register"]

_KEY = "AutocastPrivateUse1"

_LOWER = (
    "conv1d conv1d.padding conv2d conv2d.padding conv3d conv3d.padding conv_tbc conv_transpose1d "
    "conv_transpose2d.input conv_transpose3d.input convolution prelu addmm addmv addr matmul "
    "einsum mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot "
    "scaled_dot_product_attention"
).split()

_SINGLE = (
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan "
    "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm "
    "group_norm cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d "
    "hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss "
    "multilabel_margin_loss soft_margin_loss triplet_margin_loss multi_margin_loss "
    "binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp softmax.int "
    "log_softmax.int cumprod cumsum prod sum norm.Scalar"
).split()


def register() -> list[Any]:
    """Register the policies; the registrations last as long as what is returned."""
    rest: Any = torch.library.Library("_", "IMPL", _KEY)  # type: ignore[no-untyped-call]
    rest.fallback(fallthrough_kernel)
    library: Any = torch.library.Library("aten", "IMPL", _KEY)  # type: ignore[no-untyped-call]
    for name in _LOWER:
        library.impl(name, _casting(name, lambda: torch.get_autocast_dtype(DEVICE)))
    for name in _SINGLE:
        library.impl(name, _casting(name, lambda: torch.float32))
    return [rest, library]


def _casting(name: str, dtype: Callable[[], torch.dtype]) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(torch.ops.aten, packet), overload or "default")
    done = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _KEY))

    def kernel(*args: Any, **keywords: Any) -> Any:
        to = dtype()
        with torch._C._ExcludeDispatchKeyGuard(done):
            return op(
                *[_cast(value, to) for value in args],
                **{key: _cast(value, to) for key, value in keywords.items()},
            )

    return kernel


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, list | tuple):
        return [_cast(item, dtype) for item in value]
    if (
        isinstance(value, Tensor)
        and is_lazy(value)
        and value.is_floating_point()
        and value.dtype not in (dtype, torch.float64)
    ):
        return value.to(dtype)
    return value
