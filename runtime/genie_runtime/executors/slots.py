"""One program as a slot program: calls on numbered slots, arguments resolved beforehand.

`compile_program` resolves what does not depend on sizes, `SlotProgram.bind` the expressions over
dimensions, and `Bound.run` only fetches, calls and stores.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from genie_runtime.executors import ops
from genie_runtime.executors.binding import Binder, Call, malformed
from genie_runtime.executors.bound import Bound
from genie_runtime.executors.control import Nested
from genie_runtime.executors.drawing import seed_slot
from genie_schemas import args, rng
from genie_schemas.control import CONTROL, parse_control
from genie_schemas.errors import GenieError, Place
from genie_schemas.expr import Expr
from genie_schemas.plan import Op, Program

__all__ = ["SlotProgram", "compile_program"]

_KEPT_BINDINGS = 32
"""Bindings (one a combination of dimension sizes) that a program keeps, least recently used out."""


class SlotProgram:
    """A compiled program of a plan on one device.

    `inputs` and `outputs` are the program's, in order. Immutable but for its cache of bindings,
    which the device's lock guards.
    """

    def __init__(
        self,
        program: Program,
        device: torch.device,
        calls: Sequence[Call],
        index: Mapping[str, int],
    ) -> None:
        self.inputs = len(program.inputs)
        self.seed = seed_slot(program, index)
        """Which input is the seed that its ops draw from; None when none draws."""
        self.outputs = tuple(index[v.name] for v in program.outputs)
        self._device = device
        self._calls = tuple(calls)
        self._index = index
        leaves = (
            leaf
            for call in self._calls
            for value in (*call.positional, *call.keywords.values())
            for leaf in args.walk(value)
        )
        names = frozenset().union(*(leaf.names for leaf in leaves if isinstance(leaf, Expr)))
        nested = [call.nested for call in self._calls if call.nested is not None]
        self.controls = bool(nested)
        """Whether it has control flow: what it holds and computes then depends on data."""
        self.dims: frozenset[str] = names.union(*(item.dims for item in nested))
        self._dims = tuple(sorted(self.dims))
        self._bindings: OrderedDict[tuple[int, ...], Bound] = OrderedDict()

    def bind(self, dims: Mapping[str, int]) -> Bound:
        """The program for these dimension sizes. Raises GenieError GEN0458 for a bad expression."""
        key = tuple(dims[name] for name in self._dims)
        bound = self._bindings.get(key)
        if bound is None:
            bound = self._bindings[key] = Binder(self._device, self._index, dims).bind(
                self.inputs, self._calls, self.outputs, self.seed, self.controls
            )
            if len(self._bindings) > _KEPT_BINDINGS:
                self._bindings.popitem(last=False)
        else:
            self._bindings.move_to_end(key)
        return bound


def compile_program(
    program: Program, device: torch.device, others: Mapping[str, Program] | None = None
) -> SlotProgram:
    """Resolve a program for `device`; `others` are the plan's programs, which it may call.

    Raises GenieError: GEN0456 and GEN0457 for an operator that does not exist here, GEN0458 when
    the program is malformed.
    """
    index: dict[str, int] = {}
    for value in program.inputs:
        index[value.name] = len(index)
    calls = []
    for position, op in enumerate(program.ops):
        if op.op in CONTROL:
            calls.append(_control(op, position, index, device, others or {}))
        else:
            calls.append(_compile(op, position, index, device))
    missing = [v.name for v in program.outputs if v.name not in index]
    if missing:
        raise GenieError(
            "GEN0458",
            f"no op of the program computes its output {missing[0]!r}",
            Place(path="outputs"),
            remedy="check the plan with `genie plan verify`; compile it again",
        )
    keep = {index[v.name] for v in program.outputs}
    return SlotProgram(program, device, _with_frees(calls, index, keep), index)


def _control(
    op: Op,
    position: int,
    index: dict[str, int],
    device: torch.device,
    others: Mapping[str, Program],
) -> Call:
    """A call of control flow. A verified plan has no cycle of programs: keys name contents."""
    try:
        call = parse_control(op.op, [args.decode(item) for item in op.args])
    except args.ArgError as error:
        raise malformed(op, position, str(error)) from None
    missing = [name for name in call.reads if name not in index]
    if missing:
        raise malformed(op, position, f"it reads {missing[0]!r}, which nothing before writes")
    absent = [key for key in call.programs if key not in others]
    if absent:
        raise malformed(op, position, f"the plan has no program {absent[0]}")
    programs = [others[key] for key in call.programs]
    compiled = [compile_program(program, device, others) for program in programs]
    slots = []
    for name in op.out:
        if name is not None and name in index:
            raise malformed(op, position, f"{name!r} is written twice")
        slots.append(-1 if name is None else index.setdefault(name, len(index)))
    reads = tuple(args.Ref(name) for name in call.reads)
    nested = Nested(call, programs, compiled)
    return Call(op, _unbound, reads, {}, -1, tuple(slots), (), nested)


def _unbound(*_: Any) -> None:
    raise AssertionError("a call of control flow runs only when it is bound")


def _compile(op: Op, position: int, index: dict[str, int], device: torch.device) -> Call:
    overload = ops.resolve(op.op)
    try:
        values = tuple(args.decode(item) for item in op.args)
        kwargs = {k: args.decode(item) for k, item in op.kwargs.items() if k != rng.KEYWORD}
    except args.ArgError as error:
        raise malformed(op, position, str(error)) from None
    leaves = [leaf for value in (*values, *kwargs.values()) for leaf in args.walk(value)]
    for leaf in leaves:
        if isinstance(leaf, args.ProgramRef):
            raise malformed(op, position, f"{op.op} takes no program")
        if isinstance(leaf, args.Ref) and leaf.name not in index:
            raise malformed(op, position, f"it reads {leaf.name!r}, which nothing before writes")
    schema = overload._schema
    known = [argument.name for argument in schema.arguments]
    if len(values) > len(known) or not set(kwargs) <= set(known):
        raise malformed(op, position, f"its arguments do not fit {schema}")
    factory = not any(isinstance(leaf, args.Ref) for leaf in leaves)
    if factory and "device" in known[len(values) :] and kwargs.get("device") is None:
        kwargs["device"] = args.Named("device", "here")  # its own default is the CPU
    returns = [str(item.type) for item in schema.returns]
    if "List[Tensor]" in returns and len(returns) > 1:
        raise GenieError(
            "GEN0457",
            f"{op.op} returns a list among other results, which a program cannot name",
            Place(path=f"ops[{position}]"),
            remedy="compile the plan again with this version",
        )
    if returns != ["List[Tensor]"] and len(op.out) != len(returns):
        raise malformed(op, position, f"it names {len(op.out)} of {len(returns)} results")
    slots = []
    for name in op.out:
        if name is None:
            slots.append(-1)
        elif name in index:
            raise malformed(op, position, f"{name!r} is written twice")
        else:
            slots.append(index.setdefault(name, len(index)))
    single = len(returns) <= 1 and returns != ["List[Tensor]"]
    # OpOverload.__call__ only forwards to `_op`; calling that saves a Python frame an op.
    target = ops.called(op.op)
    fn = getattr(target, "_op", target)
    out = slots[0] if slots else -1
    return Call(op, fn, values, kwargs, out, None if single else tuple(slots), ())


def _with_frees(calls: Sequence[Call], index: Mapping[str, int], keep: set[int]) -> list[Call]:
    """The calls, each freeing the slots that it was the last to use."""
    seen = set(keep)
    result = []
    for call in reversed(calls):
        used = {
            index[leaf.name]
            for value in (*call.positional, *call.keywords.values())
            for leaf in args.walk(value)
            if isinstance(leaf, args.Ref)
        }
        used.update(slot for slot in (*(call.outs or ()), call.out) if slot >= 0)
        frees = tuple(sorted(used - seen))
        seen |= used
        result.append(replace(call, frees=frees))
    return result[::-1]
