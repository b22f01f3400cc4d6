"""What torch does for devices that it knows when modules move, done for this one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["install"]


def install(tell: Callable[[nn.Module], None]) -> None:
    """`model.to("genie")` moves parameters: they stay the same objects.

    `tell` hears of every model that has been moved, to whatever device.

    torch puts new ones in the place of those whose `.data` cannot become a tensor of the other
    device, one for each module: parameters that two modules share would be two, and an optimiser
    made before would go on with the old ones. For a device of its own, torch changes them in place.
    """
    plain: Any = nn.Module._apply
    moving = threading.local()

    def apply(self: nn.Module, fn: Any, recurse: bool = True) -> Any:
        outermost = not hasattr(moving, "replaced")
        if outermost:
            moving.replaced = {}
        try:
            before = list(self._parameters.items())
            result = plain(self, fn, recurse)
            for name, parameter in before:
                if parameter is not None:
                    self._parameters[name] = _moved(
                        parameter, self._parameters[name], moving.replaced
                    )
            return result
        finally:
            if outermost:
                del moving.replaced
                tell(self)

    nn.Module._apply = apply  # type: ignore[method-assign]


def _moved(
    before: nn.Parameter,
    after: nn.Parameter | None,
    replaced: dict[nn.Parameter, nn.Parameter],
) -> nn.Parameter | None:
    """The parameter that a module has after a move: the one before, where torch allows that."""
    if after is None or after is before:
        return after
    if "genie" not in (before.device.type, after.device.type):
        return after
    if before not in replaced:
        kind, attributes = type(before), before.__dict__
        try:
            torch.utils.swap_tensors(before, after)  # type: ignore[no-untyped-call]
        except RuntimeError:  # something else holds it, a graph for instance: at least one for all
            replaced[before] = after
        else:
            before.__class__, before.__dict__ = kind, attributes
            return before
    return replaced[before]
