"""`torch.genie`: the module that torch asks about the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = [
    "current_device",
    "device_count",
    "get_amp_supported_dtype",
    "get_rng_state",
    "is_available",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "set_device",
    "set_rng_state",
    "synchronize",
]

_generator: Callable[[], torch.Generator]
_flush: Callable[[], None]


def start(generator: Callable[[], torch.Generator], flush: Callable[[], None]) -> None:
    """Called once, when the device is set up."""
    global _generator, _flush
    _generator, _flush = generator, flush


def is_available() -> bool:
    """Whether programs can use the device: always, where this module is."""
    return True


def is_initialized() -> bool:
    """There is nothing to initialise before the first run."""
    return True


def _is_in_bad_fork() -> bool:
    return False


def _lazy_init() -> None:
    return None


def device_count() -> int:
    """There is one."""
    return 1


def current_device() -> int:
    """Its index."""
    return 0


def set_device(device: Any) -> None:
    """There is only one: any other index is refused."""
    index = torch.device(device if not isinstance(device, int) else f"genie:{device}").index
    if index not in (None, 0):
        raise RuntimeError(f"there is one genie device, genie:0; not genie:{index}")


def synchronize(device: Any = None) -> None:
    """Run what the program has asked for so far."""
    _flush()


def get_amp_supported_dtype() -> list[torch.dtype]:
    """What `torch.autocast("genie", dtype)` takes."""
    return [torch.bfloat16, torch.float16]


def manual_seed_all(seed: int) -> None:
    """Seed the device's random numbers; `torch.manual_seed` calls it."""
    _generator().manual_seed(seed)


def manual_seed(seed: int) -> None:
    """Seed the device's random numbers."""
    manual_seed_all(seed)


def get_rng_state(device: Any = 0) -> torch.Tensor:
    """The state of the device's random numbers, on the CPU."""
    return _generator().get_state()


def set_rng_state(state: torch.Tensor, device: Any = 0) -> None:
    """Put the device's random numbers where they were."""
    _generator().set_state(state)
