"""Operators and arguments of a plan as torch's. Nothing is looked up that the allow-list lacks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from genie_schemas import optable
from genie_schemas.args import Named
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import Opset
from genie_schemas.types import DTYPES

__all__ = ["DTYPE", "called", "check_opset", "named", "resolve", "schema_hash"]

DTYPE: Mapping[str, torch.dtype] = {
    name: getattr(torch, torch_name) for name, (torch_name, _) in DTYPES.items()
}
"""Plan dtype → torch's."""


@lru_cache(maxsize=4096)
def resolve(name: str) -> torch._ops.OpOverload:
    """The overload that a plan names, e.g. "aten.conv2d.default".

    Raises GenieError: GEN0457 when the allow-list lacks it, GEN0456 when this torch does.
    """
    if optable.lookup(name) is None:
        close = optable.similar(name)
        raise GenieError(
            "GEN0457",
            f"{name} is no operator that a plan may call",
            cause=f"did you mean {close[0]}?" if close else None,
            remedy="compile the plan again with this version",
        )
    _, packet, overload = name.split(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise GenieError(
            "GEN0456",
            f"torch {torch.__version__} has no operator {name}",
            remedy="run the plan with the torch it was captured with, or compile it again",
        )
    return found


def called(name: str) -> torch._ops.OpOverload:
    """What is called for an overload: itself, or one that does the same and checks more.

    `_reshape_alias` takes any sizes and strides without looking whether memory is there, which a
    plan could use to read what is not its own; `as_strided` looks. Raises as `resolve`.
    """
    found = resolve(name)
    return resolve("aten.as_strided.default") if name == "aten._reshape_alias.default" else found


def schema_hash(op: torch._ops.OpOverload) -> str:
    """The first 16 hex digits of SHA-256 over the overload's schema text."""
    return hashlib.sha256(str(op._schema).encode()).hexdigest()[:16]


def check_opset(opset: Opset) -> None:
    """Check that every overload that the plan uses is declared here as it was at capture.

    Raises GenieError GEN0456 (exit 8) naming the first that is not; GEN0457 as `resolve`.
    """
    for name, expected in opset.schemas.items():
        found = schema_hash(resolve(name))
        if found != expected:
            raise GenieError(
                "GEN0456",
                f"{name} is declared differently by torch {torch.__version__}",
                Place(path="opset.schemas"),
                f"captured with torch {opset.torch} as {expected}, here it is {found}",
                f"run the plan with torch {opset.torch}, or compile it again with this torch",
            )


def named(value: Named, device: torch.device) -> Any:
    """A dtype, device, layout or memory format as torch's; the device "here" is `device`."""
    if value.kind == "dtype":
        return DTYPE[value.name]
    if value.kind == "device":
        return device
    return getattr(torch, value.name)  # names checked against closed lists when decoded
