"""The recorder's state, and what the dispatcher's calls become: a word of the trace, or the host's.

One for a process, as torch has one device of this name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genie.lazy._python.operators import Operator, operator
from genie.lazy._python.shapes import Shapes
from genie.lazy._python.tensor import LOCK, is_lazy
from genie.lazy._python.trace import Trace

__all__ = ["SHAPES", "SMALL", "STATE", "TRACE", "Callbacks", "State", "call", "record"]

SMALL = 4096
"""Tensors of up to this many bytes travel with the next run instead of in one of their own."""

LONG = 20_000
"""Operators in a trace at which it is run without anybody having asked for a result."""


@dataclass(frozen=True)
class Callbacks:
    """The parts that talk to a session."""

    fetch: Callable[[list[Tensor], str], list[Tensor]]
    """Compute everything that is pending; the tensors' content, as tensors of the host."""
    upload: Callable[[Tensor], int]
    """Send a dense tensor of the host's; the handle under which the device keeps it."""
    host: Callable[[str, str, list[Any]], tuple[Any, ...]]
    """Run an operator on the host: name, why, arguments in the schema's order; its results."""
    flush: Callable[[], None]
    """Run what is pending."""


class State:
    """What changes while a program runs, beside the trace."""

    def __init__(self) -> None:
        self.callbacks: Callbacks | None = None
        self.ops = 0

    @property
    def to(self) -> Callbacks:
        """The callbacks; there once the device has been started."""
        assert self.callbacks is not None  # noqa: S101 - kernels are registered after start()
        return self.callbacks


STATE = State()
SHAPES = Shapes()
TRACE = Trace(SHAPES.internal)


def call(name: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """What the dispatcher calls for an operator on tensors of this device."""
    op = operator(name)
    STATE.ops += 1
    values = op.bound(args, keywords)
    if op.device:
        check_device(values[op.names.index(op.device)])
    if op.random and op.draws(values):
        return _host(op, "random", values)
    if op.has_out and not op.allowed and op.without_out is not None:
        return _with_out(op, op.without_out, values)
    _check_devices(op, values)
    if op.not_tensors:
        return _host(op, "it returns something other than tensors", values)
    made = record(op, values)
    if TRACE.ops >= LONG:
        STATE.to.flush()
    return made


def record(op: Operator, values: Sequence[Any]) -> Any:
    """Append a call to the trace; the host runs what no plan can hold."""
    entry = SHAPES.find(op, values)
    if entry.reason:
        return _host(op, entry.reason, values)
    with LOCK:
        return TRACE.record(entry, values)


def _host(op: Operator, why: str, values: Sequence[Any]) -> Any:
    results = STATE.to.host(op.name, why, list(values))
    if len(results) != op.returns:
        raise RuntimeError(f"{op.name} returned {len(results)} values on the host")
    return results[0] if op.returns == 1 else results or None


def _with_out(op: Operator, plain: Operator, values: Sequence[Any]) -> Any:
    """`foo(a, out=b)` as `b.copy_(foo(a))`, b taking the result's size as everywhere in torch."""
    given = [v for v, a in zip(values, op.parameters, strict=True) if not a.is_out]
    outs = [v for v, a in zip(values, op.parameters, strict=True) if a.is_out]
    made = plain.call(given)
    if op.returns == 1 and isinstance(outs[0], Tensor):
        made = (made,)
    elif op.returns < 2:  # a list of tensors, which nothing is returned for
        (outs,) = outs
    for out, result in zip(outs, made, strict=True):
        if out.shape != result.shape:
            out.resize_(result.shape)
        out.copy_(result)
    if not op.returns:
        return None
    return outs[0] if op.returns == 1 else tuple(outs)


def check_device(device: torch.device | None) -> None:
    """RuntimeError unless nothing is named, or a device that there is."""
    if device is not None and device.type == "genie" and device.index:
        raise RuntimeError(f"there is one genie device, genie:0; not {device}")


def _check_devices(op: Operator, values: Sequence[Any]) -> None:
    if op.foreign:
        return
    for name, value in zip(op.names, values, strict=True):
        if isinstance(value, Tensor) and value.dim() and not is_lazy(value):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{torch.device('genie', 0)} and {value.device}! (when checking argument {name} "
                f"of {op.name})"
            )
