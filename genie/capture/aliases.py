"""Who shares memory with whom, read off the fake tensors that export leaves on its nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor

from genie.capture.encode import Unsupported
from genie.graph.ir import Value


class Storages:
    """Numbers storages in the order of their first appearance."""

    def __init__(self) -> None:
        self._next = 0
        self._fake: dict[int, Any] = {}
        """Our number → the fake storage's identity (kept alive by the exported program)."""

    def fresh(self, fake: torch.Tensor) -> int:
        """A number of its own for an input or a constant, or the one of what it is tied to."""
        identity = fake.untyped_storage()._cdata
        for number, known in self._fake.items():
            if known == identity:
                return number
        return self._new(identity)

    def apart(self) -> int:
        """A number for a value that no fake tensor stands for and nothing shares."""
        return self._new(None)

    def of(self, fake: torch.Tensor, operands: list[Value], *, copies: bool) -> int:
        """The number of a call's result: that of the operand whose storage it shares, else new.

        Export records a fresh copy of a lifted constant as sharing its storage: `copies` says
        that the operator really makes a new one. Raises Unsupported for a tensor that has no
        storage of its own: wrapped by torch.func, or of a layout that is not dense.
        """
        if fake.layout is not torch.strided:
            raise Unsupported(f"a tensor of the layout {fake.layout}")
        if is_functorch_wrapped_tensor(fake):
            raise Unsupported("a tensor that torch.func wraps")
        identity = fake.untyped_storage()._cdata
        if not copies:
            for operand in operands:
                if self._fake[operand.storage] == identity:
                    return operand.storage
        return self._new(identity)

    def _new(self, identity: Any) -> int:
        self._next += 1
        self._fake[self._next] = identity
        return self._next
