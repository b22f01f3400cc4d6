"""What a client says to a remote-operator server, and how both write tensors.

Integers are little-endian. A connection opens with MAGIC and a key of KEY_BYTES; then messages
follow each other in both directions without any frame around them, each a kind (u8) and a body:

    DEFINE  call u16 · length u32 · JSON         a call to be made often: operator and arguments
    CALL    call u16 · slots of its inputs · slots of its outputs
    STORE   slot · tensor
    DROP    slot
    FETCH   slot                                 answered with VALUE
    VALUE   tensor                               from the server
    FAILED  length u16 · UTF-8                   from the server, which then ends the connection

A slot is a number (u16) under which the server keeps a tensor; what comes into a slot takes the
place of what was there, so that nothing needs to be said of tensors that nobody uses. A tensor is
dtype u8 · rank u8 · sizes u32 each · stride order u8 each · its dense bytes. The JSON of DEFINE is
an op of a plan (`genie_schemas.plan.Op`) whose values are named i0, i1, … (inputs) and o0, o1, …
(outputs).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import torch

from genie_schemas.types import DTYPES

__all__ = [
    "CALL",
    "DEFINE",
    "KEY_BYTES",
    "MAGIC",
    "MAX_DEFINITION",
    "MAX_TENSOR",
    "TEXT",
    "Header",
    "Kind",
    "Malformed",
    "dense",
    "read_header",
    "room",
    "slots",
]

MAGIC = b"GRO1"
KEY_BYTES = 32
MAX_DEFINITION = 1 << 16
"""Bytes of a DEFINE's JSON."""

MAX_TENSOR = 1 << 30
"""Bytes of one tensor."""

MAX_RANK = 16

DEFINE = struct.Struct("<HI")
CALL = struct.Struct("<H")
TEXT = struct.Struct("<H")
_HEAD = struct.Struct("<BB")

_NAMES = tuple(DTYPES)
_TORCH = tuple(getattr(torch, torch_name) for torch_name, _ in DTYPES.values())
_CODES = {dtype: code for code, dtype in enumerate(_TORCH)}

Read = Callable[[int], bytes]
"""Exactly that many bytes of a connection; raises EOFError when it ends before."""


class Kind(IntEnum):
    """First byte of a message."""

    DEFINE = 1
    CALL = 2
    STORE = 3
    DROP = 4
    FETCH = 5
    VALUE = 6
    FAILED = 7


class Malformed(ValueError):
    """The peer's bytes are no message."""


@lru_cache(maxsize=64)
def slots(count: int) -> struct.Struct:
    """How `count` slots are written."""
    return struct.Struct(f"<{count}H")


@dataclass(frozen=True)
class Header:
    """What goes in front of a tensor's bytes: plan dtype code, sizes, stride order."""

    code: int
    sizes: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the dense tensor."""
        total = DTYPES[_NAMES[self.code]][1]
        for size in self.sizes:
            total *= size
        return total

    def pack(self) -> bytes:
        """As it is sent."""
        rank = len(self.sizes)
        return (
            _HEAD.pack(self.code, rank) + struct.pack(f"<{rank}I", *self.sizes) + bytes(self.order)
        )


def read_header(read: Read) -> Header:
    """Raises Malformed for a dtype, rank, order or size that no tensor here may have."""
    code, rank = _HEAD.unpack(read(_HEAD.size))
    if code >= len(_NAMES) or rank > MAX_RANK:
        raise Malformed(f"no tensor has dtype {code} and rank {rank}")
    sizes = struct.unpack(f"<{rank}I", read(4 * rank))
    order = tuple(read(rank))
    if sorted(order) != list(range(rank)):
        raise Malformed(f"{order} is no order of {rank} dimensions")
    header = Header(code, sizes, order)
    if header.nbytes > MAX_TENSOR:
        raise Malformed(f"a tensor of {header.nbytes} bytes; {MAX_TENSOR} are allowed")
    return header


def dense(tensor: torch.Tensor) -> tuple[Header, memoryview]:
    """A tensor as it is sent: dense in the order of its strides; copied only when it is not."""
    order = tuple(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
    ordered = tensor.detach().permute(order).contiguous()
    header = Header(_CODES[tensor.dtype], tuple(tensor.shape), order)
    return header, _bytes(ordered)


def room(header: Header) -> tuple[torch.Tensor, memoryview]:
    """A new tensor, aligned as torch aligns them, and its bytes to be filled."""
    ordered = torch.empty([header.sizes[axis] for axis in header.order], dtype=_TORCH[header.code])
    places = [header.order.index(axis) for axis in range(len(header.order))]
    return ordered.permute(places), _bytes(ordered)


def _bytes(contiguous: torch.Tensor) -> memoryview:
    flat = contiguous.reshape(-1)
    if flat.numel() == 0:
        return memoryview(b"")
    return flat.view(torch.uint8).numpy().data
