"""Resolving the arguments of a program's calls for one choice of dimension sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import torch

from genie_runtime.executors import ops
from genie_runtime.executors.bound import Bound, Fetch, Slots
from genie_runtime.executors.control import Nested
from genie_schemas import args
from genie_schemas.errors import GenieError, Place
from genie_schemas.expr import Expr, ExprError
from genie_schemas.plan import Op

__all__ = ["Binder", "Call", "malformed"]


@dataclass(frozen=True)
class Call:
    """One op. `out` is the slot of its only result, or `outs` those of several."""

    op: Op
    fn: Callable[..., Any]
    positional: tuple[args.Arg, ...]
    keywords: dict[str, args.Arg]
    out: int
    outs: tuple[int, ...] | None
    frees: tuple[int, ...]
    nested: Nested | None = None
    """What a call of control flow runs; it takes the place of `fn` when bound."""


class Binder:
    """Turns calls into what `Bound` runs, for one choice of dimension sizes."""

    def __init__(
        self, device: torch.device, index: Mapping[str, int], dims: Mapping[str, int]
    ) -> None:
        self._device = device
        self._index = index
        self._dims = dims
        self._template: Slots = [None] * len(index)

    def bind(
        self,
        inputs: int,
        calls: Sequence[Call],
        outputs: Sequence[int],
        seed: int | None,
        controls: bool,
    ) -> Bound:
        """What runs these calls. Raises GenieError GEN0458 for an expression that has no value."""
        trash = self._constant(None)  # results that nobody named go here
        bound = []
        for position, call in enumerate(calls):
            fn = call.fn if call.nested is None else call.nested.bind(self._dims)
            values = list(call.positional)
            fixed = {k: v for k, v in call.keywords.items() if not _has_ref(v)}
            named = {k: v for k, v in call.keywords.items() if _has_ref(v)}
            try:
                if fixed:
                    fn = partial(fn, **{k: self._resolve(v) for k, v in fixed.items()})
                if named:
                    fn = _with_keywords(fn, len(values), tuple(named))
                    values += named.values()
                fetch = self._fetch(values)
            except ExprError as error:
                raise malformed(call.op, position, str(error)) from None
            out = trash if call.out < 0 else call.out
            outs = call.outs
            if outs is not None:
                outs = tuple(trash if slot < 0 else slot for slot in outs)
            frees = call.frees
            if trash in ((out,) if outs is None else outs):
                frees = (*frees, trash)
            bound.append((position, fn, fetch, out, outs, frees))
        called = [call.op for call in calls]
        return Bound(self._template, bound, called, outputs, seed, controls)

    def _constant(self, value: Any) -> int:
        self._template.append(value)
        return len(self._template) - 1

    def _fetch(self, values: Sequence[args.Arg]) -> Fetch:
        if any(isinstance(value, tuple) and _has_ref(value) for value in values):
            readers = [self._reader(value) for value in values]
            return lambda slots: [read(slots) for read in readers]
        places = [
            self._index[value.name]
            if isinstance(value, args.Ref)
            else self._constant(self._resolve(value))
            for value in values
        ]
        if len(places) > 1:
            return itemgetter(*places)
        # One index alone would make itemgetter return the item itself: take a list of one.
        first = places[0] if places else 0
        return itemgetter(slice(first, first + len(places)))

    def _reader(self, value: args.Arg) -> Callable[[Slots], Any]:
        """How to get one argument out of the slots, lists of references opened."""
        if isinstance(value, args.Ref):
            return itemgetter(self._index[value.name])
        if isinstance(value, tuple) and _has_ref(value):
            readers = [self._reader(item) for item in value]
            return lambda slots: [read(slots) for read in readers]
        return itemgetter(self._constant(self._resolve(value)))

    def _resolve(self, value: args.Arg) -> Any:
        """An argument without references as torch takes it."""
        if isinstance(value, tuple):
            return [self._resolve(item) for item in value]
        if isinstance(value, Expr):
            return value.evaluate(self._dims)
        if isinstance(value, args.Named):
            return ops.named(value, self._device)
        return value


def _has_ref(value: args.Arg) -> bool:
    return any(isinstance(leaf, args.Ref) for leaf in args.walk(value))


def _with_keywords(
    fn: Callable[..., Any], count: int, names: tuple[str, ...]
) -> Callable[..., Any]:
    """`fn` whose arguments from the `count`-th on are passed by these names."""

    def call(*values: Any) -> Any:
        return fn(*values[:count], **dict(zip(names, values[count:], strict=True)))

    return call


def malformed(op: Op, position: int, cause: str) -> GenieError:
    """GEN0458 for the `position`-th op of a program."""
    return GenieError(
        "GEN0458",
        f"the program's op {position}, {op.op}, cannot be read",
        Place(path=f"ops[{position}]"),
        cause,
        "check the plan with `genie plan verify`; compile it again",
    )
