"""The shape cache: what a call gives, by operator, layouts of its tensors, and literals.

Two calls share an entry only when their keys are equal in every part: numbers are compared with
their types and bits, tensors by dtype, sizes, strides, offset and the bytes of their storage, and
by which of them share one. An entry is made by running the operator on meta tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genie.lazy._python.entry import (
    ARGUMENT,
    FRESH,
    LIST,
    LITERAL,
    TENSOR,
    UNDEFINED,
    VIEW,
    Entry,
    Result,
)
from genie.lazy._python.operators import Operator
from genie.lazy._python.tensor import LOCK, Layout, contiguous, is_lazy, layout_of, store_of

__all__ = ["Shapes"]

_PLAIN = (int, str, torch.dtype, torch.layout, torch.memory_format)
_below = torch._C._AutoDispatchBelowADInplaceOrView


class Unrecordable(Exception):
    """What no plan can hold; the text says why."""


class Shapes:
    """The entries of a process."""

    def __init__(self) -> None:
        self._cache: dict[tuple[Any, ...], Entry] = {}
        self.entries: list[Entry] = []
        self.hits = self.misses = 0

    def find(self, op: Operator, values: Sequence[Any]) -> Entry:
        """The entry of a call, made at the first one with these layouts and literals."""
        try:
            key = _key(op, values)
        except Unrecordable as error:
            return Entry(op.name, reason=str(error))
        with LOCK:
            found = self._cache.get(key)
            if found is not None:
                self.hits += 1
                return found
        try:
            made = _run_on_meta(op, values)
        except Exception as error:
            # A data-dependent size, no meta kernel, or the program's own mistake: the host tells.
            why = str(error).partition("\n")[0]
            made = Entry(op.name, reason=f"its result cannot be told beforehand: {why}")
        with LOCK:
            found = self._cache.get(key)
            if found is None:
                self.misses += 1
                found = self._add(key, made)
            return found

    def internal(self, op: str, arguments: list[Any], inputs: int, made: Layout) -> Entry:
        """The entry of a call that the recorder makes itself, its first arguments tensors."""
        key = (op, made, _word(arguments[inputs:], {}))
        found = self._cache.get(key)
        if found is not None:
            return found
        kinds = [TENSOR if place < inputs else LITERAL for place in range(len(arguments))]
        result = Result(VIEW if inputs else FRESH, 0, made)
        entry = Entry(op, kinds=kinds, literals=arguments, results=[result], lists=[-1])
        return self._add(key, entry)

    def _add(self, key: tuple[Any, ...], entry: Entry) -> Entry:
        entry.id = len(self.entries)
        self.entries.append(entry)
        self._cache[key] = entry
        return entry


def _key(op: Operator, values: Sequence[Any]) -> tuple[Any, ...]:
    storages: dict[int, int] = {}
    return (op, *[_word(value, storages) for value in values])


def _word(value: Any, storages: dict[int, int]) -> Any:
    """A part of a key. `storages`: those seen so far, in order."""
    if isinstance(value, Tensor):
        layout = layout_of(value)
        if not is_lazy(value):
            return value.device.type, layout
        store = store_of(value)
        return storages.setdefault(id(store), len(storages)), store.bytes, layout
    if value is None:
        return None
    if isinstance(value, bool):  # equal to 0 and 1, as numbers
        return bool, value
    if isinstance(value, float):
        return float, struct.pack("<d", value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple):
        return list, *[_word(item, storages) for item in value]
    if isinstance(value, complex):
        return complex, struct.pack("<2d", value.real, value.imag)
    if isinstance(value, torch.device):
        return torch.device, value.type
    raise Unrecordable(f"no plan holds an argument of type {type(value).__name__}")


class _Metas:
    """Meta tensors for a call.

    Those of one storage share one, so that results tell what they view.
    """

    def __init__(self) -> None:
        self._wholes: dict[tuple[int, torch.dtype], Tensor] = {}
        self.flat: list[Tensor | None] = []

    def __call__(self, value: Any) -> Any:
        """What stands for an argument; its tensors are noted in `flat`."""
        if isinstance(value, Tensor):
            self.flat.append(self._of(value))
            return self.flat[-1]
        if isinstance(value, torch.device):
            return torch.device("meta")
        return value

    def items(self, values: Sequence[Any]) -> list[Tensor | None]:
        """The same for a list of tensors, where nothing takes a place among them too."""
        found = [None if item is None else self._of(item) for item in values]
        self.flat += found
        return found

    def _of(self, tensor: Tensor) -> Tensor:
        if not is_lazy(tensor) and tensor.dim() == 0:
            return tensor
        layout = layout_of(tensor)
        storage = tensor.untyped_storage()
        place = storage._cdata, layout.dtype
        whole = self._wholes.get(place)
        if whole is None:
            count = storage.nbytes() // layout.dtype.itemsize
            whole = torch.empty(count, dtype=layout.dtype, device="meta")
            self._wholes[place] = whole
        made = whole.as_strided(layout.sizes, layout.strides, layout.offset)
        made = torch.ops.aten._conj(made) if layout.conj else made
        return torch.ops.aten._neg_view(made) if layout.neg else made


def _run_on_meta(op: Operator, values: Sequence[Any]) -> Entry:
    if not op.allowed:
        return Entry(op.name, reason="plans may not name it")
    entry = Entry(op.name, silent=op.silent)
    metas = _Metas()
    call: list[Any] = []
    with _below():
        for place, value in enumerate(values):
            start = len(metas.flat)
            if op.tensors[place] and value is not None:
                entry.kinds.append(LIST)
                entry.literals.append(len(value))
                call.append(metas.items(value))
            elif isinstance(value, Tensor):
                entry.kinds.append(TENSOR)
                entry.literals.append(None)
                call.append(metas(value))
            else:
                entry.kinds.append(LITERAL)
                entry.literals.append(value)
                call.append(metas(value))
            if op.writes[place] and not op.silent:
                entry.writes += range(start, len(metas.flat))
        _hidden_writes(op, values, entry)
        flat = metas.flat
        before = [None if tensor is None else layout_of(tensor) for tensor in flat]
        returned = op.call(call)
        for place, tensor in enumerate(flat):
            if tensor is not None and tensor.is_meta and layout_of(tensor) != before[place]:
                entry.moved.append((place, layout_of(tensor)))
        if op.returns < 2:
            returned = (returned,) * op.returns
        for item in returned:
            if isinstance(item, list | tuple):
                entry.lists.append(len(item))
                entry.results += [_result(tensor, flat) for tensor in item]
            else:
                entry.lists.append(-1)
                entry.results.append(_result(item, flat))
    return entry


def _hidden_writes(op: Operator, values: Sequence[Any], entry: Entry) -> None:
    # Batch norm writes its running statistics when it trains; its schema does not say so.
    if op.name == "aten.native_batch_norm.default" and values[5]:
        for place in (3, 4):
            if isinstance(values[place], Tensor):
                entry.writes.append(entry.kinds[:place].count(TENSOR))


def _result(out: Tensor | None, flat: Sequence[Tensor | None]) -> Result:
    if out is None:
        return Result(UNDEFINED, -1, Layout(torch.uint8, (0,), (1,)))
    if out.layout is not torch.strided:
        raise Unrecordable("it is not strided")
    layout = layout_of(out)
    for place, tensor in enumerate(flat):
        if out is tensor:
            return Result(ARGUMENT, place, layout)
    storage = out.untyped_storage()._cdata
    for place, tensor in enumerate(flat):
        if tensor is not None and tensor.untyped_storage()._cdata == storage:
            return Result(VIEW, place, layout)
    straight = layout._replace(conj=False, neg=False)
    if layout.offset == 0 and torch.ops.aten.is_non_overlapping_and_dense(out):
        return Result(FRESH, -1, straight)
    dense = contiguous(layout.dtype, layout.sizes, None)
    return Result(FRESH, -1, dense, compact=True)
