"""Torch's argument values as tagged arguments, and symbolic sizes as expressions over dims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils._sympy import functions as symfn

from genie_schemas.args import LAYOUTS, MEMORY_FORMATS, Arg, Named
from genie_schemas.expr import Expr, parse
from genie_schemas.types import FROM_TORCH, MAX_RANK


class Unsupported(Exception):
    """A value that a plan cannot hold; the text says which and why."""


class Symbols:
    """torch's symbols (s40) under the names that the spec gave the dimensions (batch)."""

    def __init__(self, names: Mapping[sympy.Symbol, str]) -> None:
        self.names: dict[Any, str] = dict(names)
        self.most: dict[Any, int] = {}
        """The most that symbols can be that no input gives: see `genie.capture.ragged`."""

    def expr(self, size: Any) -> int | Expr:
        """An int, or the expression of a SymInt or sympy expression; Unsupported otherwise."""
        if isinstance(size, int):
            return size
        node = size.node.expr if isinstance(size, torch.SymInt) else size
        node = sympy.sympify(node)
        if node.is_Integer:
            return int(node)
        return parse(self._text(node))

    def text(self, size: Any) -> str:
        """`expr` as text."""
        found = self.expr(size)
        return found.text if isinstance(found, Expr) else str(found)

    def most_text(self, size: Any) -> str:
        """`text`, with the most that it can be in place of a size that data decides."""
        if isinstance(size, int) or size.node.expr.free_symbols <= set(self.names):
            return self.text(size)
        if not _grows(size.node.expr):
            raise Unsupported(f"a size that depends on the data ({size.node.expr})")
        return self.text(
            size.node.expr.xreplace({s: sympy.Integer(n) for s, n in self.most.items()})
        )

    def _text(self, e: sympy.Basic, tight: bool = False) -> str:
        if e.is_Integer:
            return str(int(e)) if not tight or int(e) >= 0 else f"({e})"
        if isinstance(e, sympy.Symbol):
            if e not in self.names:
                raise Unsupported(f"a size that depends on the data ({e})")
            return str(self.names[e])
        text = self._compound(e)
        return f"({text})" if tight and not isinstance(e, sympy.Max | sympy.Min) else text

    def _compound(self, e: sympy.Basic) -> str:
        if isinstance(e, sympy.Add):
            terms = [self._text(a, tight=isinstance(a, sympy.Mod)) for a in self._sorted(e.args)]
            text = terms[0]
            for term in terms[1:]:
                text += f" - {term[1:]}" if term.startswith("-") else f" + {term}"
            return text.replace(" ", "")
        if isinstance(e, sympy.Mul):
            return "*".join(self._text(a, tight=True) for a in self._sorted(e.args))
        if isinstance(e, sympy.Pow) and e.exp.is_Integer and 0 < int(e.exp) <= 8:
            return "*".join([self._text(e.base, tight=True)] * int(e.exp))
        if isinstance(e, symfn.FloorDiv | symfn.CleanDiv):
            return f"{self._text(e.args[0], tight=True)}//{self._text(e.args[1], tight=True)}"
        if isinstance(e, symfn.Mod | symfn.PythonMod | sympy.Mod):
            return f"{self._text(e.args[0], tight=True)}%{self._text(e.args[1], tight=True)}"
        if isinstance(e, sympy.Max | symfn.Max):
            return "max(" + ",".join(self._text(a) for a in self._sorted(e.args)) + ")"
        if isinstance(e, sympy.Min | symfn.Min):
            return "min(" + ",".join(self._text(a) for a in self._sorted(e.args)) + ")"
        raise Unsupported(f"the size expression {e}")

    def _sorted(self, parts: Any) -> list[sympy.Basic]:
        # sympy's own order depends on symbol names that torch draws by hash: order by our text.
        return sorted(parts, key=lambda p: (not p.is_Integer, self._text(p)))


def _grows(e: Any) -> bool:
    """Whether an expression is the larger the larger its symbols are."""
    if e.is_Integer:
        return bool(e >= 0)
    if isinstance(e, symfn.FloorDiv | symfn.CleanDiv):
        return _grows(e.args[0]) and bool(e.args[1].is_Integer) and bool(e.args[1] > 0)
    grows = sympy.Symbol | sympy.Add | sympy.Mul | sympy.Max | sympy.Min | symfn.Max | symfn.Min
    return isinstance(e, grows) and all(_grows(a) for a in e.args)


def encode(value: Any, symbols: Symbols, refs: Mapping[fx.Node, Arg]) -> Arg:
    """One argument of an fx call as a tagged argument. Raises Unsupported."""
    if isinstance(value, fx.Node):
        if value not in refs:
            size = value.meta.get("val")
            if isinstance(size, torch.SymInt | int) and not isinstance(size, bool):
                return symbols.expr(size)
            raise Unsupported(f"the value {value.name}, which is no tensor")
        return refs[value]
    if value is None or isinstance(value, bool | int | float | complex | str):
        return value
    if isinstance(value, torch.SymInt):
        return symbols.expr(value)
    if isinstance(value, list | tuple):
        return tuple(encode(item, symbols, refs) for item in value)
    if isinstance(value, torch.dtype):
        name = str(value).removeprefix("torch.")
        if name not in FROM_TORCH:
            raise Unsupported(f"the dtype {value}")
        return Named("dtype", FROM_TORCH[name])
    if isinstance(value, torch.device):
        # Where the call runs is the step's decision; CPU is where the model was captured.
        return Named("device", "here")
    if isinstance(value, torch.layout):
        return _named("layout", str(value), LAYOUTS)
    if isinstance(value, torch.memory_format):
        return _named("memory_format", str(value), MEMORY_FORMATS)
    raise Unsupported(f"an argument of type {type(value).__name__}")


def _named(kind: str, text: str, known: tuple[str, ...]) -> Named:
    name = text.removeprefix("torch.")
    if name not in known:
        raise Unsupported(f"the {kind} {name}")
    return Named(kind, name)


def type_text(tensor: torch.Tensor, symbols: Symbols) -> str:
    """The plan's type text of a (fake) tensor: dtype, shape, stride order. Raises Unsupported."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in FROM_TORCH:
        raise Unsupported(f"the dtype {tensor.dtype}")
    if tensor.layout != torch.strided:
        raise Unsupported(f"the layout {tensor.layout}")
    if tensor.dim() > MAX_RANK:
        raise Unsupported(f"a tensor of {tensor.dim()} dimensions; plans have up to {MAX_RANK}")
    shape = ",".join(symbols.most_text(s) for s in tensor.shape)
    order = stride_order(tensor)
    braces = "" if order == tuple(range(tensor.dim())) else "{" + ",".join(map(str, order)) + "}"
    return f"{FROM_TORCH[name]}[{shape}]{braces}"


def stride_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """Dimensions from the largest stride to the smallest; row-major where strides do not tell.

    Strides of symbolic tensors are compared by their hints. A dimension of extent 1 or stride 0
    keeps its place: its stride says nothing about the layout.
    """
    axes = range(tensor.dim())
    if _hinted(tensor.numel()) == 0:
        return tuple(axes)
    strides = [_hinted(s) for s in tensor.stride()]
    sizes = [_hinted(s) for s in tensor.shape]
    free = [a for a in axes if sizes[a] > 1 and strides[a] > 0]
    ordered = iter(sorted(free, key=lambda a: (-strides[a], a)))
    return tuple(next(ordered) if a in free else a for a in axes)


def _hinted(size: Any) -> int:
    if isinstance(size, int):
        return size
    hint = size.node.hint
    if hint is None:
        # Decided by data: any size does, strides are compared with each other only.
        expr = size.node.expr
        hint = expr.xreplace({s: sympy.Integer(_SOME_SIZE) for s in expr.free_symbols})
    return int(hint)


_SOME_SIZE = 997
