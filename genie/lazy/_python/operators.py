"""What never changes about an operator, read from its schema once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import torch

__all__ = ["Operator", "allow", "operator"]

_LAYOUT_ONLY = {
    "aten.t_.default",
    "aten.transpose_.default",
    "aten.squeeze_.default",
    "aten.squeeze_.dim",
    "aten.squeeze_.dims",
    "aten.unsqueeze_.default",
    "aten.swapaxes_.default",
    "aten.swapdims_.default",
    "aten.as_strided_.default",
}
"""In place on the layout alone."""

_INDICES = ("aten.index", "aten._index", "aten._unsafe_index")

_allowed: set[str] = set()


def allow(names: set[str]) -> None:
    """Operators that plans may name, once at start."""
    _allowed.update(names)


@cache
def operator(name: str) -> Operator:
    """The operator "aten.add.Tensor"."""
    return Operator(name)


class Operator:
    """One overload."""

    def __init__(self, name: str) -> None:
        self.name = name
        _, packet, overload = name.split(".")
        self.packet = getattr(torch.ops.aten, packet)
        self.op: Any = getattr(self.packet, overload)
        schema = self.op._schema
        self.parameters = schema.arguments
        self.names = [a.name for a in self.parameters]
        types = [str(a.type) for a in self.parameters]
        self.tensor = [t in ("Tensor", "Optional[Tensor]") for t in types]
        self.tensors = [t in ("List[Tensor]", "List[Optional[Tensor]]") for t in types]
        self.writes = [a.alias_info is not None and a.alias_info.is_write for a in self.parameters]
        self.positional = sum(not a.kwarg_only for a in self.parameters)
        self.defaults = [a.default_value for a in self.parameters]
        self.returns = len(schema.returns)
        self.not_tensors = any(
            str(r.type) not in ("Tensor", "List[Tensor]") for r in schema.returns
        )
        """Returns something other than tensors."""
        self.random = (
            any("Generator" in t for t in types)
            or torch.Tag.nondeterministic_seeded in self.op.tags
        )
        """Draws numbers, or takes a generator."""
        self.silent = name in _LAYOUT_ONLY
        self.allowed = name in _allowed or self.silent
        """Plans may name it."""
        self.foreign = name.startswith(_INDICES)
        """Takes tensors of the host's with dimensions."""
        self.device = next((n for n, t in zip(self.names, types, strict=True) if "Device" in t), "")
        """The argument that says on which device, if there is one."""
        self.has_out = bool(self.parameters) and self.parameters[-1].is_out

    def bound(self, args: Sequence[Any], keywords: Mapping[str, Any]) -> list[Any]:
        """The arguments in the schema's order; what was left out is at its default."""
        values = [*args, *self.defaults[len(args) :]]
        for name, value in keywords.items():
            values[self.names.index(name)] = value
        return values

    def call(self, values: Sequence[Any]) -> Any:
        """Call it through the dispatcher."""
        at = self.positional
        return self.op(*values[:at], **dict(zip(self.names[at:], values[at:], strict=True)))

    def draws(self, values: Sequence[Any]) -> bool:
        """Whether this call draws any numbers, where the operator can."""
        given = dict(zip(self.names, values, strict=True))
        if given.get("train") is False or given.get("training") is False:
            return False
        return all(given.get(name) != 0.0 for name in ("dropout_p", "dropout"))

    @cached_property
    def without_out(self) -> Operator | None:
        """The same operator without `out=`."""
        wanted = [(a.name, str(a.type)) for a in self.parameters if not a.is_out]
        for overload in self.packet.overloads():
            schema = getattr(self.packet, overload)._schema
            same = [(a.name, str(a.type)) for a in schema.arguments] == wanted
            if same and len(schema.returns) == self.returns:
                return operator(f"{self.name.rpartition('.')[0]}.{overload}")
        return None
