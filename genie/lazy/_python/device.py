"""The device as torch knows it, and the kernels that it calls: registered once for a process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.accelerator._utils import _get_device_index

from genie.lazy._python import autocast
from genie.lazy._python.kernels import KERNELS
from genie.lazy._python.operators import operator
from genie.lazy._python.recorder import STATE, call

__all__ = ["register_device", "register_operators"]

_KEY = "PrivateUse1"
_RECURRENT = ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
_WHOLE = ("aten.linear.default", "aten.scaled_dot_product_attention.default", *_RECURRENT)
"""Composed of others by torch, and recorded whole where no gradient is wanted."""

_kept: list[Any] = []
"""Registrations last as long as these objects."""


def register_device() -> None:
    """Tell torch that there is one device, always there, without streams."""

    class Hooks(torch._C._acc.PrivateUse1Hooks):
        def is_available(self) -> bool:
            return True

        def is_built(self) -> bool:
            return True

        def has_primary_context(self, device_index: int) -> bool:
            return True

    class Guard(torch._C._acc.DeviceGuard):
        def type_(self) -> Any:
            return torch._C._autograd.DeviceType.PrivateUse1

    _kept.extend([Hooks(), Guard()])
    torch._C._acc.register_python_privateuseone_hook(_kept[0])
    torch._C._acc.register_python_privateuseone_device_guard(_kept[1])
    _synchronise()


def _synchronise() -> None:
    """`torch.accelerator.synchronize` runs what is pending: torch's own asks a guard in C++."""

    def synchronize(device: Any = None, /) -> None:
        _get_device_index(device, optional=True)  # raises for a device that is not this one
        STATE.to.flush()

    torch.accelerator.synchronize = synchronize


def register_operators(left: set[str]) -> int:
    """Register a kernel on every operator but those in `left`; how many there are."""
    library: Any = torch.library.Library("aten", "IMPL", _KEY)  # type: ignore[no-untyped-call]
    for name, kernel in KERNELS.items():
        library.impl(name, kernel)
    count = len(KERNELS)
    for full in torch._C._dispatch_get_all_op_names():
        said = full.removeprefix("aten::")
        if said == full or torch._C._dispatch_has_kernel_for_dispatch_key(full, _KEY):
            continue
        packet, _, overload = said.partition(".")
        name = f"aten.{packet}.{overload or 'default'}"
        composed = torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd")
        if (composed and name not in _WHOLE) or name in left:
            continue
        schema = torch._C._get_schema(full.partition(".")[0], overload)
        types = [str(a.type) for a in schema.arguments]
        if any("Tensor" in t or "Device" in t for t in types):
            library.impl(said, _recorded(name))
            count += 1
    whole: Any = torch.library.Library("aten", "IMPL", "AutogradPrivateUse1")  # type: ignore[no-untyped-call]
    for name in _WHOLE:
        said = name.removeprefix("aten.").removesuffix(".default")
        whole.impl(said, _whole(name))
    _kept.extend([library, whole, *autocast.register()])
    return count


def _recorded(name: str) -> Any:
    def kernel(*args: Any, **keywords: Any) -> Any:
        return call(name, args, keywords)

    return kernel


def _whole(name: str) -> Any:
    """Where a gradient is wanted the operator is composed, and each part has its derivative."""
    op = operator(name).op

    def kernel(*args: Any, **keywords: Any) -> Any:
        given: list[Any] = []
        for value in (*args, *keywords.values()):
            given += value if isinstance(value, list | tuple) else [value]
        wanted = any(isinstance(value, Tensor) and value.requires_grad for value in given)
        if name in _RECURRENT:
            # Autocast knows its products but not the whole; args[5:7] are dropout and train.
            draws = all(args[5:7]) or torch.is_autocast_enabled("genie")
        else:
            draws = ("attention" in name and any(args[4:5])) or keywords.get("dropout_p", 0.0) > 0
        if draws or (wanted and torch.is_grad_enabled()):
            return op.decompose(*args, **keywords)
        with torch._C._AutoDispatchBelowADInplaceOrView():
            return op(*args, **keywords)

    return kernel
