"""Tensors of the device without bytes behind them, made of what torch offers to Python.

A storage of this device has a size and no memory. A `Store` belongs to it and says what its bytes
are: a value of the trace that is being recorded, a tensor kept on the device (its handle), or a
small tensor of the host that travels with the next run. A tensor is a window on its storage, an
ordinary `torch.Tensor` that carries nothing of ours: whatever torch does with it (`.data =`,
`swap_tensors`, what autograd saves), the storage tells what it is.

Sizes and storages are set by torch's own kernels of other devices, which look at no bytes. They are
called past the dispatcher, which would come back here.
"""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genie.lazy._layouts import DTYPES, WITHOUT_PLAN

__all__ = [
    "DEVICE",
    "LOCK",
    "Layout",
    "Store",
    "contiguous",
    "dense_bytes",
    "dropped",
    "is_lazy",
    "layout_of",
    "make_tensor",
    "make_view",
    "number_of",
    "put_storage",
    "set_layout",
    "store_of",
]

DEVICE = "genie"
LOCK = threading.RLock()
"""Guards the trace, the cache and the stores. No session and no operator of a program runs while it
is held. A store may end at any moment, in this thread too: hence it can be taken twice."""

_NUMBERS = {getattr(torch, name): number for number, name in (DTYPES | WITHOUT_PLAN).items()}
_NO_NUMBER = 255

_KEY = torch._C.DispatchKey
_SET = torch._C.DispatchKeySet
_META, _CPU = _SET(_KEY.Meta), _SET(_KEY.CPU)
_aten = torch.ops.aten
_OWNER = "_genie_owner"

dropped: list[int] = []
"""Handles of kept tensors that no storage names any more; the caller drops them on the device."""


def number_of(dtype: torch.dtype) -> int:
    """The c10::ScalarType of a dtype; for one that no plan can hold, a number of none."""
    return _NUMBERS.get(dtype, _NO_NUMBER)


class Layout(NamedTuple):
    """How dense bytes are read; sizes, strides and the offset count elements."""

    dtype: torch.dtype
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    conj: bool = False
    neg: bool = False

    def described(self) -> tuple[int, list[int], list[int], int]:
        """What the reader of traces takes."""
        return number_of(self.dtype), list(self.sizes), list(self.strides), self.offset


def layout_of(tensor: Tensor) -> Layout:
    """A tensor's layout."""
    return Layout(
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        int(tensor.storage_offset()),
        tensor.is_conj(),
        tensor.is_neg(),
    )


class Store:
    """What a storage's bytes are."""

    __slots__ = (
        *("base", "bytes", "handle", "epoch", "value", "windows"),
        *("written", "lost", "host", "away", "gone"),
    )

    def __init__(self, base: Layout, nbytes: int) -> None:
        self.base = base
        """How the bytes lie as a whole: dense, offset 0."""
        self.bytes = nbytes
        self.handle = 0
        """A tensor kept on the device; 0: none."""
        self.epoch = 0
        """The trace in which `value` and `windows` stand for the bytes."""
        self.value = -1
        self.windows: dict[Layout, int] = {}
        """Values of the present trace that read these bytes, by how they do."""
        self.written = False
        """False: nobody has given it any content."""
        self.lost = False
        """The run that was to compute it failed."""
        self.host: Tensor | None = None
        """Its content, when that is small and has not travelled yet."""
        self.away = False
        """A run that has not ended computes its content."""
        self.gone = False
        """No storage has it any more."""


class _Owner:
    """The attribute by which a storage holds its store. It ends with the storage."""

    __slots__ = ("store",)

    def __init__(self, store: Store) -> None:
        self.store = store

    def __del__(self, lock: threading.RLock = LOCK, gone: list[int] = dropped) -> None:
        # Defaults, because the module's names go before the last tensor may, as the program ends.
        with lock:
            self.store.gone = True
            if self.store.handle:
                gone.append(self.store.handle)
                self.store.handle = 0


def is_lazy(tensor: Tensor) -> bool:
    """Whether a tensor is on this device."""
    return tensor.device.type == DEVICE


def store_of(tensor: Tensor) -> Store:
    """The store of a tensor's storage. One that torch made by itself gets an empty store."""
    storage = tensor.untyped_storage()
    owner: _Owner | None = storage.__dict__.get(_OWNER)
    if owner is None:
        nbytes = storage.nbytes()
        return _own(storage, Layout(torch.uint8, (nbytes,), (1,)), nbytes)
    return owner.store


def _own(storage: torch.UntypedStorage, base: Layout, nbytes: int) -> Store:
    store = Store(base, nbytes)
    storage.__dict__[_OWNER] = _Owner(store)
    return store


def dense_bytes(dtype: torch.dtype, sizes: tuple[int, ...]) -> int:
    """Bytes that a dense tensor of these sizes takes."""
    return math.prod(sizes) * dtype.itemsize


def contiguous(
    dtype: torch.dtype, sizes: tuple[int, ...], order: torch.memory_format | None
) -> Layout:
    """A dense layout in a memory format. Raises RuntimeError where the format has other axes."""
    if order is None or order is torch.preserve_format:
        order = torch.contiguous_format
    like = torch.empty(sizes, dtype=dtype, device="meta", memory_format=order)
    return Layout(dtype, tuple(sizes), like.stride())


def _empty(dtype: torch.dtype) -> Tensor:
    made: Tensor = torch._C._acc.create_empty_tensor((0,), dtype)
    return made


def make_tensor(base: Layout) -> Tensor:
    """A tensor on a new storage with the dense layout `base`, nothing in it."""
    made = _empty(base.dtype)
    storage = made.untyped_storage()
    put_storage(made, storage, base)  # the kernel of meta tensors lets a storage grow
    _own(storage, base, dense_bytes(base.dtype, base.sizes))
    return made


def make_view(base: Tensor, layout: Layout) -> Tensor:
    """Another window on the storage of a tensor."""
    dtype, sizes, strides, offset, conj, neg = layout
    if base.dtype == dtype:
        made: Tensor = _aten.as_strided.default.redispatch(_CPU, base, sizes, strides, offset)
        if made.is_conj() != conj:
            torch._C._set_conj(made, conj)
        if made.is_neg() != neg:
            torch._C._set_neg(made, neg)
        return made
    made = _empty(dtype)
    put_storage(made, base.untyped_storage(), layout)
    return made


def put_storage(tensor: Tensor, storage: Any, layout: Layout) -> None:
    """Move a tensor to another storage of this device, as a window of this layout."""
    _aten.set_.source_Storage_storage_offset.redispatch(
        _META, tensor, storage, layout.offset, layout.sizes, layout.strides
    )
    _bits(tensor, layout)


def set_layout(tensor: Tensor, layout: Layout) -> None:
    """Give a tensor other sizes, strides and offset, on its own storage."""
    _aten.as_strided_.default.redispatch(_CPU, tensor, layout.sizes, layout.strides, layout.offset)
    _bits(tensor, layout)


def _bits(tensor: Tensor, layout: Layout) -> None:
    if tensor.is_conj() != layout.conj:
        torch._C._set_conj(tensor, layout.conj)
    if tensor.is_neg() != layout.neg:
        torch._C._set_neg(tensor, layout.neg)
