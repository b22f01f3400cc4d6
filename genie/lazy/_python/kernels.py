"""The kernels that make and move tensors themselves: nothing of a plan names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genie.lazy._python import tensor as lazy
from genie.lazy._python.operators import operator
from genie.lazy._python.recorder import SMALL, STATE, TRACE, check_device, record
from genie.lazy._python.tensor import LOCK, Layout, Store, is_lazy, layout_of, store_of

__all__ = ["KERNELS"]


def _empty(
    sizes: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: torch.memory_format | None = None,
) -> Tensor:
    STATE.ops += 1
    check_device(device)
    kind = dtype or torch.get_default_dtype()
    return lazy.make_tensor(lazy.contiguous(kind, tuple(sizes), memory_format))


def _empty_strided(
    sizes: Sequence[int],
    strides: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> Tensor:
    STATE.ops += 1
    check_device(device)
    wanted = Layout(dtype or torch.get_default_dtype(), tuple(sizes), tuple(strides))
    like = torch.empty_strided(sizes, strides, dtype=wanted.dtype, device="meta")
    if torch.ops.aten.is_non_overlapping_and_dense(like):
        return lazy.make_tensor(wanted)
    # Bytes lie dense on the device: strides with gaps are a window on a row of elements.
    count = like.untyped_storage().nbytes() // like.itemsize
    return lazy.make_view(lazy.make_tensor(Layout(wanted.dtype, (count,), (1,))), wanted)


def _zeros(sizes: Sequence[int], *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
    return torch.zeros(tuple(sizes), dtype=dtype, device=device)


def _record_copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> None:
    record(operator("aten.copy_.default"), [target, source, non_blocking])


def _give(store: Store, source: Tensor) -> None:
    """Let a store that holds nothing yet hold the content of a host's tensor."""
    base = store.base
    content = torch.empty_strided(base.sizes, base.strides, dtype=base.dtype)
    content.copy_(source)
    if content.nbytes <= SMALL:
        with LOCK:
            store.host = content
            TRACE.list_store(store)
        return
    handle = STATE.to.upload(content)
    with LOCK:
        store.handle = handle
        store.written = True


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    STATE.ops += 1
    if not is_lazy(target):
        (found,) = STATE.to.fetch([source], "copied to the host")
        return target.copy_(found)
    if is_lazy(source):
        _record_copy(target, source, non_blocking)
        return target
    if source.device.type != "cpu":
        raise RuntimeError(f"a tensor on {source.device} cannot be copied to genie")
    store = store_of(target)
    if not store.written and not store.epoch and layout_of(target) == store.base:
        _give(store, source.expand(target.shape))
        return target
    there = lazy.make_tensor(lazy.contiguous(source.dtype, tuple(source.shape), None))
    _give(store_of(there), source)
    _record_copy(target, there, non_blocking)
    return target


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    return _copy(target, source, non_blocking)


def _local_scalar(tensor: Tensor) -> Any:
    STATE.ops += 1
    (found,) = STATE.to.fetch([tensor], "the value of a tensor was asked for")
    return found.item()


def _resize(
    tensor: Tensor, sizes: Sequence[int], *, memory_format: torch.memory_format | None = None
) -> Tensor:
    STATE.ops += 1
    store, offset = store_of(tensor), int(tensor.storage_offset())
    wanted = lazy.contiguous(tensor.dtype, tuple(sizes), memory_format)._replace(offset=offset)
    needs = lazy.dense_bytes(wanted.dtype, wanted.sizes) + offset * tensor.itemsize
    if needs > store.bytes:
        _grow(tensor, store, needs)
    lazy.set_layout(tensor, wanted)
    return tensor


def _grow(tensor: Tensor, store: Store, needs: int) -> None:
    """Give a tensor's storage more bytes, which every window on it can then see."""
    row = Layout(tensor.dtype, (needs // tensor.itemsize,), (1,))
    if store.written and store.bytes:
        grown = lazy.make_tensor(row)
        old = Layout(tensor.dtype, (store.bytes // tensor.itemsize,), (1,))
        _record_copy(lazy.make_view(grown, old), lazy.make_view(tensor, old))
        with LOCK:
            TRACE.rebase(store, row, grown)
    lazy.put_storage(tensor, tensor.untyped_storage(), row)
    store.base, store.bytes = row, needs


def _set_storage(
    tensor: Tensor, source: Any, offset: int, sizes: Sequence[int], strides: Sequence[int] = ()
) -> Tensor:
    if not strides:
        strides = lazy.contiguous(tensor.dtype, tuple(sizes), None).strides
    layout = Layout(tensor.dtype, tuple(sizes), tuple(strides), offset)
    lazy.put_storage(tensor, source, layout)
    return tensor


def _set_whole(tensor: Tensor, source: Any) -> Tensor:
    return _set_storage(tensor, source, 0, (source.nbytes() // tensor.itemsize,), (1,))


def _set_tensor(tensor: Tensor, source: Tensor) -> Tensor:
    lazy.put_storage(tensor, source.untyped_storage(), layout_of(source))
    return tensor


def _set_nothing(tensor: Tensor) -> Tensor:
    return _set_tensor(tensor, lazy.make_tensor(Layout(tensor.dtype, (0,), (1,))))


def _fused_choice(*_: Any, **__: Any) -> int:
    return 0  # the formula, whose parts all have derivatives


KERNELS: dict[str, Callable[..., Any]] = {
    "empty.memory_format": _empty,
    "empty_strided": _empty_strided,
    "copy_": _copy,
    "_copy_from": _copy_from,
    "_local_scalar_dense": _local_scalar,
    "resize_": _resize,
    "set_.source_Storage_storage_offset": _set_storage,
    "set_.source_Storage": _set_whole,
    "set_.source_Tensor": _set_tensor,
    "set_": _set_nothing,
    "_fused_sdp_choice": _fused_choice,
    "_efficientzerotensor": _zeros,
}
"""Operator → what the device does for it."""
