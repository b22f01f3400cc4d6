"""Flat views of the memory of foreign objects, without a copy and without importing torch.

Tried in order: the buffer protocol; `__array_interface__` (NumPy dtypes that the buffer protocol
cannot name, such as datetime64); DLPack (CPU tensors of any dtype). The capsule of a DLPack
exporter is read and kept, never consumed: dropping it runs the exporter's own deleter.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genie_transport._errors import TransferError

__all__ = ["FlatBuffer", "flat_buffer"]

_DL_CPU, _DL_CUDA_HOST = 1, 3


@dataclass(frozen=True)
class FlatBuffer:
    """`view` is unsigned bytes in one dimension; it is valid while `owner` is referenced."""

    view: memoryview
    writable: bool
    owner: object


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def flat_buffer(obj: object) -> FlatBuffer:
    """View `obj` as flat bytes.

    Raises TransferError: GEN0620 when it is not contiguous in row-major order, GEN0621 when it
    is no host memory or has none of the three interfaces.
    """
    try:
        view = memoryview(obj)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        pass
    else:
        return _from_buffer(view, obj)
    if hasattr(obj, "__array_interface__"):
        return _from_array_interface(obj)
    if hasattr(obj, "__dlpack__") and hasattr(obj, "__dlpack_device__"):
        return _from_dlpack(obj)
    raise _unsuitable(obj, "it has neither the buffer protocol nor DLPack")


def _from_buffer(view: memoryview, obj: object) -> FlatBuffer:
    if not view.c_contiguous:
        raise _not_contiguous(obj)
    # cast() refuses views with a zero in their shape.
    flat = view.cast("B") if view.nbytes else memoryview(bytearray())
    return FlatBuffer(flat, not view.readonly, obj)


def _from_array_interface(obj: Any) -> FlatBuffer:
    interface = obj.__array_interface__
    address, readonly = interface["data"]
    shape = tuple(interface["shape"])
    itemsize = int(obj.itemsize)
    strides = interface.get("strides")
    if strides is not None and not _row_major(shape, strides, itemsize):
        raise _not_contiguous(obj)
    return _from_address(address, math.prod(shape) * itemsize, not readonly, obj)


def _from_dlpack(obj: Any) -> FlatBuffer:
    try:
        device_type, _ = obj.__dlpack_device__()
        on_host = int(device_type) in (_DL_CPU, _DL_CUDA_HOST)
        capsule = obj.__dlpack__() if on_host else None
    except Exception as error:  # exporters raise what they like: requires_grad, sparse, meta
        raise _unsuitable(obj, (str(error).strip() or repr(error)).splitlines()[0]) from error
    if not on_host:
        raise _unsuitable(obj, "its memory is not on the host")
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    tensor = _DLTensor.from_address(get_pointer(capsule, b"dltensor"))
    shape = tensor.shape[: tensor.ndim]
    if tensor.bits * tensor.lanes % 8:
        raise _unsuitable(obj, "its elements are smaller than a byte")
    itemsize = tensor.bits * tensor.lanes // 8
    if tensor.strides:
        strides = [stride * itemsize for stride in tensor.strides[: tensor.ndim]]
        if not _row_major(shape, strides, itemsize):
            raise _not_contiguous(obj)
    address = (tensor.data or 0) + tensor.byte_offset
    return _from_address(address, math.prod(shape) * itemsize, True, (obj, capsule))


def _from_address(address: int, nbytes: int, writable: bool, owner: object) -> FlatBuffer:
    if nbytes == 0:
        return FlatBuffer(memoryview(bytearray()), writable, owner)
    view = memoryview((ctypes.c_ubyte * nbytes).from_address(address)).cast("B")
    return FlatBuffer(view if writable else view.toreadonly(), writable, owner)


def _row_major(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    """Contiguity as NumPy defines it: strides of dimensions of size 1 do not matter."""
    if 0 in shape:
        return True
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _not_contiguous(obj: object) -> TransferError:
    return TransferError("GEN0620", f"the {type(obj).__name__} is not contiguous (row-major)")


def _unsuitable(obj: object, why: str) -> TransferError:
    return TransferError("GEN0621", f"cannot register a {type(obj).__name__}: {why}")
