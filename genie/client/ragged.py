"""Cutting outputs to the sizes that data decided (`genie_schemas.ragged`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from genie.client.tensors import Tensor
from genie_schemas import ragged
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import ExecutionPlan

__all__ = ["cut"]


def cut(plan: ExecutionPlan, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a run as the model returns them: cut, and without those that tell sizes.

    Raises GenieError GEN0474 when one has become larger than the plan says that it can be.
    """
    if ragged.FEATURE not in plan.requires:
        return dict(tensors)
    pairs = ragged.pairs(tensors)
    found = {}
    for name, tensor in tensors.items():
        if name in pairs:
            found[name] = _cut(name, tensor, tuple(tensors[pairs[name]].array.tolist()))
        elif name not in pairs.values():
            found[name] = tensor
    return found


def _cut(name: str, tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
    if any(not 0 <= n <= most for n, most in zip(sizes, tensor.shape, strict=True)):
        raise GenieError(
            "GEN0474",
            f"the output {name!r} has become larger than the plan allows",
            Place(path=f"outputs.{name}"),
            f"its shape is {list(sizes)}; the plan holds up to {list(tensor.shape)}",
            "widen the bound in the model's torch._check, or give inputs that keep to it",
        )
    part = tensor.array[tuple(slice(0, n) for n in sizes)]
    return Tensor(tensor.dtype, np.array(part, order="C", copy=True))
