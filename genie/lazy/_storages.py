"""Copies of storages: `copy.deepcopy` copies a tensor by its storage, which has no bytes here."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["install"]


def install() -> None:
    """Let storages of the device be copied as its tensors are; those of others stay torch's."""
    others: Any = torch.UntypedStorage.clone

    def clone(self: Any) -> Any:
        if self.device.type != "genie":
            return others(self)
        whole = torch.empty(0, dtype=torch.uint8, device="genie").set_(self)
        return whole.clone().untyped_storage()

    torch.UntypedStorage.clone = clone  # type: ignore[method-assign]
