"""Layouts that the device does not have, refused by name where a program asks for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from genie.lazy._counters import user_place
from genie_schemas.errors import GenieError

__all__ = ["refuse_others"]

_SPARSE = (
    "sparse",
    "move it there dense, `x.to_dense().to('genie')`; a gradient is dense without sparse=True",
)
_OTHERS = {
    "SparsePrivateUse1": _SPARSE,
    "SparseCsrPrivateUse1": _SPARSE,
    "QuantizedPrivateUse1": ("quantised", "move its values there, `x.dequantize().to('genie')`"),
    "NestedTensorPrivateUse1": ("nested", "make it with layout=torch.jagged, which works there"),
}
"""What torch calls such tensors of this device → their name, and the remedy."""

_kept: list[Any] = []
"""Registrations last as long as these objects."""


def refuse_others() -> None:
    """Have every operator on such a tensor, its making first of all, raise GEN0261."""
    library: Any = torch.library.Library("_", "IMPL")  # type: ignore[no-untyped-call]
    for key, (kind, remedy) in _OTHERS.items():
        library.fallback(_refusing(kind, remedy), key)
    _kept.append(library)


def _refusing(kind: str, remedy: str) -> Callable[..., Any]:
    def refuse(op: Any, *args: Any, **keywords: Any) -> Any:
        message = f"no plan can hold a {kind} tensor, which {op} makes or takes"
        raise GenieError("GEN0261", message, user_place(), remedy=remedy)

    return refuse
