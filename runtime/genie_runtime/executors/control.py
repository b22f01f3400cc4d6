"""Control flow while running: branches, loops and scans over slot programs.

A loop looks between its turns whether its run was stopped (its programs do, between operators), so
that one that never ends is ended by its step's deadline. What a called program returns is copied
where it would share memory with an operand: results of control flow alias nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from genie_runtime.executors.ops import DTYPE
from genie_runtime.executors.runs import NEVER, Stop, Stopped
from genie_schemas.control import Control
from genie_schemas.plan import Program, ProgramValue
from genie_schemas.types import parse_type

if TYPE_CHECKING:
    from genie_runtime.executors.bound import Bound
    from genie_runtime.executors.slots import SlotProgram

__all__ = ["Nested", "turn"]

Tensors = Sequence[torch.Tensor]
Turn = Callable[[Tensors], list[torch.Tensor]]


class _Turn(threading.local):
    """What a run hands down to the programs within its programs, on its thread.

    `limit` bounds the bytes that they may hold, None when nothing is metered; `most` is what they
    held at most since it was last set to 0.
    """

    stop: Stop = NEVER
    limit: int | None = None
    most: int = 0


turn = _Turn()


@dataclass(frozen=True)
class _Form:
    dtype: torch.dtype
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, value: ProgramValue, dims: Mapping[str, int]) -> _Form:
        kind = parse_type(value.type)
        return cls(DTYPE[kind.dtype], kind.sizes(dims), kind.strides(dims))

    def check(self, tensor: torch.Tensor) -> None:
        if tensor.dtype != self.dtype or tuple(tensor.shape) != self.sizes:
            found = f"{tensor.dtype}{list(tensor.shape)}"
            raise ValueError(f"a branch or turn has {found}, not {self.dtype}{list(self.sizes)}")

    def owned(self, tensor: torch.Tensor, taken: set[int]) -> torch.Tensor:
        """The tensor, copied where its memory is another's or it lies otherwise."""
        address = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.nbytes
        if tensor.stride() != self.strides or address in taken or not whole:
            fresh = torch.empty_strided(
                self.sizes, self.strides, dtype=self.dtype, device=tensor.device
            )
            tensor = fresh.copy_(tensor)
        taken.add(tensor.untyped_storage().data_ptr())
        return tensor


class Nested:
    """A control-flow call with its programs compiled; `dims` are those that they use."""

    def __init__(
        self, call: Control, programs: Sequence[Program], compiled: Sequence[SlotProgram]
    ) -> None:
        self._call = call
        self._programs = tuple(programs)
        self._compiled = tuple(compiled)
        texts = [v.type for p in programs for v in (*p.inputs, *p.outputs)]
        names = frozenset[str]().union(*(parse_type(text).names for text in texts))
        self.dims: frozenset[str] = names.union(*(program.dims for program in compiled))

    def bind(self, dims: Mapping[str, int]) -> Callable[..., list[torch.Tensor]]:
        """What to call with the operands' tensors, in order, for these dimension sizes."""
        turns = [
            _bound(program, slots.bind(dims), dims)
            for program, slots in zip(self._programs, self._compiled, strict=True)
        ]
        outputs = [_Form.of(value, dims) for value in self._programs[-1].outputs]
        carried, scanned = len(self._call.carried), len(self._call.scanned)
        if self._call.kind == "hop.cond":
            return lambda pred, *given: turns[0 if bool(pred) else 1](given)
        if self._call.kind == "hop.while_loop":
            return lambda *given: _while(turns[0], turns[1], outputs, given, carried)
        return lambda *given: _scan(turns[0], outputs, given, carried, scanned)


def _bound(program: Program, bound: Bound, dims: Mapping[str, int]) -> Turn:
    """One run of a program on operands whose types are checked, with results of its own."""
    inputs = [_Form.of(value, dims) for value in program.inputs]
    outputs = [_Form.of(value, dims) for value in program.outputs]

    def run(given: Tensors) -> list[torch.Tensor]:
        for form, tensor in zip(inputs, given, strict=True):
            form.check(tensor)
        stop, limit, most = turn.stop, turn.limit, turn.most
        if stop.now:
            raise Stopped
        if limit is None:
            found = bound.run(given, stop)
        else:
            found, held = bound.run_metered(given, limit, stop)
            most = max(most, held)
        turn.stop, turn.limit, turn.most = stop, limit, most
        for form, tensor in zip(outputs, found, strict=True):
            form.check(tensor)
        taken = {tensor.untyped_storage().data_ptr() for tensor in given}
        return [form.owned(tensor, taken) for form, tensor in zip(outputs, found, strict=True)]

    return run


def _while(
    condition: Turn, body: Turn, forms: Sequence[_Form], given: Tensors, count: int
) -> list[torch.Tensor]:
    carried, others = list(given[:count]), given[count:]
    taken = {tensor.untyped_storage().data_ptr() for tensor in given}
    while bool(condition((*carried, *others))[0]):
        carried = body((*carried, *others))
    # Without a single turn the operands themselves are the result.
    return [form.owned(tensor, taken) for form, tensor in zip(forms, carried, strict=True)]


def _scan(
    body: Turn, forms: Sequence[_Form], given: Tensors, carried: int, scanned: int
) -> list[torch.Tensor]:
    carry = list(given[:carried])
    columns = given[carried : carried + scanned]
    others = given[carried + scanned :]
    lengths = {column.shape[0] if column.dim() else -1 for column in columns}
    if len(lengths) != 1 or -1 in lengths:
        raise ValueError("a scan goes over values of one length")
    length = lengths.pop()
    device = columns[0].device
    stacked = [
        torch.empty((length, *form.sizes), dtype=form.dtype, device=device)
        for form in forms[carried:]
    ]
    for index in range(length):
        found = body((*carry, *(column[index] for column in columns), *others))
        carry = found[:carried]
        for stack, item in zip(stacked, found[carried:], strict=True):
            stack[index].copy_(item)
    taken = {tensor.untyped_storage().data_ptr() for tensor in given}
    kept = [form.owned(t, taken) for form, t in zip(forms[:carried], carry, strict=True)]
    return [*kept, *stacked]
