"""What a call of an operator gives, told beforehand: an entry of the shape cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from genie.lazy._python.tensor import Layout, number_of

__all__ = ["ARGUMENT", "FRESH", "LIST", "LITERAL", "TENSOR", "UNDEFINED", "VIEW", "Entry", "Result"]

LITERAL, TENSOR, LIST = range(3)
"""What an argument is. The numbers, like those below, are the native recorder's."""

FRESH, ARGUMENT, VIEW, UNDEFINED = range(4)
"""Where a result comes from: new memory, tensor argument `source` itself, other sizes on that
argument's memory, or it is no tensor."""

_FORMATS = (
    torch.contiguous_format,
    torch.preserve_format,
    torch.channels_last,
    torch.channels_last_3d,
)


@dataclass(frozen=True)
class Result:
    """One tensor that an operator returns.

    `compact`: the kernel's own strides have gaps, so that the value is a clone without them.
    """

    origin: int
    source: int
    layout: Layout
    compact: bool = False


@dataclass
class Entry:
    """One operator with one set of layouts and literals: all that a call of it can tell."""

    op: str
    id: int = -1
    kinds: list[int] = field(default_factory=list)
    literals: list[Any] = field(default_factory=list)
    """By argument; a list's length for LIST."""
    results: list[Result] = field(default_factory=list)
    lists: list[int] = field(default_factory=list)
    """By return: -1 a tensor, else the length of a list."""
    writes: list[int] = field(default_factory=list)
    """Tensor arguments, lists opened, whose memory is written."""
    moved: list[tuple[int, Layout]] = field(default_factory=list)
    """Tensor arguments that get another layout."""
    silent: bool = False
    """Nothing is computed: only layouts change."""
    reason: str = ""
    """Why the host has to do it; empty: the device can."""

    def described(self) -> tuple[Any, ...]:
        """What the reader of traces takes."""
        results = [
            (result.origin, result.source, result.layout.described(), result.compact)
            for result in self.results
        ]
        literals = [_plain(value) for value in self.literals]
        return self.op, self.kinds, literals, results, self.lists, self.writes


def _plain(value: Any) -> Any:
    """An argument as the dispatcher's numbers say it."""
    if isinstance(value, torch.dtype):
        return number_of(value)
    if isinstance(value, torch.layout):
        return 0 if value is torch.strided else 1
    if isinstance(value, torch.memory_format):
        return _FORMATS.index(value)
    return value
