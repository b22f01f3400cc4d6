"""Tensors of a model that make its results NaN: refused, at the line that computes with them.

They come from calibrations and statistics over no data, and from scales that were divided by zero.
Infinities alone are no mistake, because masks are made of them; as a factor one is. Numbers that
the code spells out (`x * float("nan")`) are the author's business.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx
from torch.export.graph_signature import InputKind

from genie.capture.walk import Walk

__all__ = ["check_numbers"]

_REMEDY = (
    "look at where it comes from: a calibration or statistics over no data, a division by zero, a "
    "checkpoint of a diverged training"
)
_FACTORS = frozenset(
    f"aten.{name}"
    for name in (
        *("mul.Tensor", "mul_.Tensor", "linear.default", "matmul.default", "mm.default"),
        *("bmm.default", "conv1d.default", "conv2d.default", "conv3d.default"),
        *("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input"),
    )
)
"""Operators that multiply with each of their first two operands."""
_SEEN_AS = frozenset(
    f"aten.{name}"
    for name in (
        *("view.default", "reshape.default", "unsqueeze.default", "expand.default", "t.default"),
        *("to.dtype", "_to_copy.default", "transpose.int", "permute.default", "detach.default"),
    )
)
"""Operators whose result holds the operand's own numbers."""


def check_numbers(
    walk: Walk, node: fx.Node, name: str, kind: InputKind, tensor: torch.Tensor
) -> None:
    """GEN0229 when a parameter or buffer holds NaN, or infinities that are multiplied with.

    A lifted constant may: it is a number that the code spells out.
    """
    if kind == InputKind.CONSTANT_TENSOR or not (tensor.is_floating_point() or tensor.is_complex()):
        return
    if tensor.is_floating_point() and tensor.itemsize == 1:
        tensor = tensor.float()  # float8 has no sum
    # One pass without an intermediate: only NaN and infinities make the sum what it is then.
    if bool(torch.isfinite(tensor.sum())):
        return
    if count := int(torch.isnan(tensor).sum()):
        raise walk.fail(
            "GEN0229",
            next(iter(node.users), node),
            f"the model's tensor {name!r} holds NaN",
            f"{count} of its {tensor.numel()} elements; everything computed from them is NaN",
            _REMEDY,
        )
    factor = next(_multiplied(node), None)
    if factor is not None and (count := int(torch.isinf(tensor).sum())):
        raise walk.fail(
            "GEN0229",
            factor,
            f"the model's tensor {name!r} is infinite and multiplied with",
            f"{count} of its {tensor.numel()} elements; a product with zero is NaN",
            _REMEDY,
        )


def _multiplied(node: fx.Node) -> Iterator[fx.Node]:
    """The calls that multiply with a tensor, or with another view of it."""
    for user in node.users:
        target = str(user.target)
        if target in _FACTORS and node in user.args[:2]:
            yield user
        elif target in _SEEN_AS:
            yield from _multiplied(user)
