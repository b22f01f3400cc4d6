"""Storages of the device, as torch.save and torch.load see them.

Torch asks a storage for its address and copies from it byte by byte. There is no address: 0, which
is also what a tensor of the device says. The bytes come and go as a tensor of uint8.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["install"]


def _as_bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def install() -> None:
    """Give storages what saving and loading ask of them; once for a process."""
    kind: Any = torch.UntypedStorage
    address, to_cpu, cloned, moved = kind.data_ptr, kind.cpu, kind.clone, kind.to

    def data_ptr(self: torch.UntypedStorage) -> int:
        return 0 if self.device.type == "genie" else address(self)

    def cpu(self: torch.UntypedStorage) -> torch.UntypedStorage:
        if self.device.type != "genie":
            return to_cpu(self)  # type: ignore[no-any-return]
        return _as_bytes(self).cpu().untyped_storage()

    def clone(self: torch.UntypedStorage) -> torch.UntypedStorage:
        if self.device.type != "genie":
            return cloned(self)  # type: ignore[no-any-return]
        return _as_bytes(self).clone().untyped_storage()

    def to(
        self: torch.UntypedStorage, *, device: Any, non_blocking: bool = False
    ) -> torch.UntypedStorage:
        # torch.load calls it for what was saved on this device.
        if self.device.type == "genie":
            return self if torch.device(device).type == "genie" else cpu(self)
        if torch.device(device).type != "genie":
            return moved(self, device=device, non_blocking=non_blocking)  # type: ignore[no-any-return]
        return _as_bytes(self).to(device).untyped_storage()

    typed: Any = torch.storage.TypedStorage
    loaded = typed._data_ptr

    def _data_ptr(self: torch.storage.TypedStorage) -> Any:
        # torch.load forgets a storage whose address is 0, and then tensors no longer share it.
        held = self._untyped_storage
        return held._cdata if held.device.type == "genie" else loaded(self)

    typed._data_ptr = _data_ptr
    for method in (data_ptr, cpu, clone, to):
        setattr(kind, method.__name__, method)
