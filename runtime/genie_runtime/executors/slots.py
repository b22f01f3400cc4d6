"""One program as a slot program: calls on numbered slots, arguments resolved beforehand.

`compile_program` resolves what does not depend on sizes, `SlotProgram.bind` the expressions over
dimensions, and `Bound.run` only fetches, calls and stores. Constants of the program's arguments
stand in slots of their own, so that a call's arguments are one `itemgetter` over the slots.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

import torch

from genie_runtime.executors import ops
from genie_runtime.executors.control import Nested, turn
from genie_runtime.executors.drawing import seed_slot
from genie_runtime.executors.runs import NEVER, Stop, Stopped
from genie_schemas import args, rng
from genie_schemas.control import CONTROL, parse_control
from genie_schemas.errors import GenieError, Place
from genie_schemas.expr import Expr, ExprError
from genie_schemas.plan import Op, Program

__all__ = ["Bound", "OperatorFailed", "SlotProgram", "compile_program"]

_KEPT_BINDINGS = 32
"""Bindings (one a combination of dimension sizes) that a program keeps, least recently used out."""

Slots = list[Any]
Fetch = Callable[[Slots], Sequence[Any]]


class OperatorFailed(Exception):
    """A kernel raised `error`; which one is `name`, the `position`-th op, writing `out`."""

    def __init__(self, op: Op, position: int, error: BaseException) -> None:
        super().__init__(op.op)
        self.name = op.op
        self.out = next((name for name in op.out if name is not None), None)
        self.position = position
        self.error = error


@dataclass(frozen=True)
class _Call:
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


class SlotProgram:
    """A compiled program of a plan on one device.

    `inputs` and `outputs` are the program's, in order. Immutable but for its cache of bindings,
    which the device's lock guards.
    """

    def __init__(
        self,
        program: Program,
        device: torch.device,
        calls: Sequence[_Call],
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
            bound = self._bindings[key] = _Binder(self._device, self._index, dims).bind(
                self.inputs, self._calls, self.outputs, self.seed, self.controls
            )
            if len(self._bindings) > _KEPT_BINDINGS:
                self._bindings.popitem(last=False)
        else:
            self._bindings.move_to_end(key)
        return bound


class Bound:
    """A slot program with every argument resolved."""

    def __init__(
        self,
        template: Slots,
        calls: Sequence[tuple[Any, ...]],
        ops_: Sequence[Op],
        outputs: Sequence[int],
        seed: int | None,
        controls: bool,
    ) -> None:
        self.seed = seed
        self.controls = controls
        self._template = template
        self._calls = tuple(calls)
        self._ops = tuple(ops_)
        self._outputs = tuple(outputs)

    def run(self, inputs: Sequence[torch.Tensor], stop: Stop = NEVER) -> list[torch.Tensor]:
        """The program's outputs, which may share memory with its inputs and with each other.

        Raises OperatorFailed when a kernel does, and Stopped once `stop` is set.
        """
        slots = self._template.copy()
        slots[: len(inputs)] = inputs
        at = 0
        if self.controls:
            turn.stop, turn.limit = stop, None
        try:
            for at, fn, fetch, out, outs, frees in self._calls:  # noqa: B007 - read when one fails
                result = fn(*fetch(slots))
                if outs is None:
                    slots[out] = result
                else:
                    for slot, item in zip(outs, result, strict=True):
                        slots[slot] = item
                for slot in frees:
                    slots[slot] = None
                if stop.now:
                    raise Stopped
        except (Stopped, OperatorFailed):
            raise
        except Exception as error:
            raise OperatorFailed(self._ops[at], at, error) from error
        return [slots[slot] for slot in self._outputs]

    def run_metered(
        self, inputs: Sequence[torch.Tensor], limit: int, stop: Stop = NEVER
    ) -> tuple[list[torch.Tensor], int]:
        """`run`, counting after each op the storage that its values hold; slower.

        Returns the outputs, and the most bytes that were held beyond the inputs (the outputs
        included, what kernels allocate for themselves not). Raises OperatorFailed, Stopped, and
        GenieError GEN0462 as soon as they hold more than `limit` bytes.
        """
        meter = _Meter(inputs)
        slots = self._template.copy()
        slots[: len(inputs)] = inputs
        for position, fn, fetch, out, outs, frees in self._calls:
            turn.stop, turn.limit, turn.most = stop, limit - meter.held, 0
            try:
                result = fn(*fetch(slots))
                if outs is None:
                    slots[out] = result
                else:
                    for slot, item in zip(outs, result, strict=True):
                        slots[slot] = item
            except (Stopped, OperatorFailed, GenieError):
                raise
            except Exception as error:
                raise OperatorFailed(self._ops[position], position, error) from error
            meter.most = max(meter.most, meter.held + turn.most)
            for slot in (out,) if outs is None else outs:
                meter.store(slot, slots[slot])
            if meter.held > limit:
                raise GenieError(
                    "GEN0462",
                    f"after {self._ops[position].op} the program holds {meter.held} bytes; "
                    f"{limit} are left on the device",
                    remedy="use a smaller batch, or a device with more memory",
                )
            for slot in frees:
                meter.drop(slot)
                slots[slot] = None
            if stop.now:
                raise Stopped
        return [slots[slot] for slot in self._outputs], meter.most


class _Meter:
    """Bytes of the distinct storages that slots hold, other than those of the inputs."""

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        self._foreign = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        self._slots: dict[int, int] = {}
        self._users: dict[int, tuple[int, int]] = {}
        self.held = 0
        self.most = 0

    def store(self, slot: int, item: Any) -> None:
        self.drop(slot)
        if not isinstance(item, torch.Tensor):
            return
        storage = item.untyped_storage()
        address = storage.data_ptr()
        if address in self._foreign:
            return
        users, size = self._users.get(address, (0, storage.nbytes()))
        self._users[address] = (users + 1, size)
        self._slots[slot] = address
        if users == 0:
            self.held += size
            self.most = max(self.most, self.held)

    def drop(self, slot: int) -> None:
        address = self._slots.pop(slot, None)
        if address is None:
            return
        users, size = self._users.pop(address)
        if users > 1:
            self._users[address] = (users - 1, size)
        else:
            self.held -= size


class _Binder:
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
        calls: Sequence[_Call],
        outputs: Sequence[int],
        seed: int | None,
        controls: bool,
    ) -> Bound:
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
                raise _malformed(call.op, position, str(error)) from None
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


def _malformed(op: Op, position: int, cause: str) -> GenieError:
    return GenieError(
        "GEN0458",
        f"the program's op {position}, {op.op}, cannot be read",
        Place(path=f"ops[{position}]"),
        cause,
        "check the plan with `genie plan verify`; compile it again",
    )


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
) -> _Call:
    """A call of control flow. A verified plan has no cycle of programs: keys name contents."""
    try:
        call = parse_control(op.op, [args.decode(item) for item in op.args])
    except args.ArgError as error:
        raise _malformed(op, position, str(error)) from None
    missing = [name for name in call.reads if name not in index]
    if missing:
        raise _malformed(op, position, f"it reads {missing[0]!r}, which nothing before writes")
    absent = [key for key in call.programs if key not in others]
    if absent:
        raise _malformed(op, position, f"the plan has no program {absent[0]}")
    programs = [others[key] for key in call.programs]
    compiled = [compile_program(program, device, others) for program in programs]
    slots = []
    for name in op.out:
        if name is not None and name in index:
            raise _malformed(op, position, f"{name!r} is written twice")
        slots.append(-1 if name is None else index.setdefault(name, len(index)))
    reads = tuple(args.Ref(name) for name in call.reads)
    nested = Nested(call, programs, compiled)
    return _Call(op, _unbound, reads, {}, -1, tuple(slots), (), nested)


def _unbound(*_: Any) -> None:
    raise AssertionError("a call of control flow runs only when it is bound")


def _compile(op: Op, position: int, index: dict[str, int], device: torch.device) -> _Call:
    overload = ops.resolve(op.op)
    try:
        values = tuple(args.decode(item) for item in op.args)
        kwargs = {k: args.decode(item) for k, item in op.kwargs.items() if k != rng.KEYWORD}
    except args.ArgError as error:
        raise _malformed(op, position, str(error)) from None
    leaves = [leaf for value in (*values, *kwargs.values()) for leaf in args.walk(value)]
    for leaf in leaves:
        if isinstance(leaf, args.ProgramRef):
            raise _malformed(op, position, f"{op.op} takes no program")
        if isinstance(leaf, args.Ref) and leaf.name not in index:
            raise _malformed(op, position, f"it reads {leaf.name!r}, which nothing before writes")
    schema = overload._schema
    known = [argument.name for argument in schema.arguments]
    if len(values) > len(known) or not set(kwargs) <= set(known):
        raise _malformed(op, position, f"its arguments do not fit {schema}")
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
        raise _malformed(op, position, f"it names {len(op.out)} of {len(returns)} results")
    slots = []
    for name in op.out:
        if name is None:
            slots.append(-1)
        elif name in index:
            raise _malformed(op, position, f"{name!r} is written twice")
        else:
            slots.append(index.setdefault(name, len(index)))
    single = len(returns) <= 1 and returns != ["List[Tensor]"]
    # OpOverload.__call__ only forwards to `_op`; calling that saves a Python frame an op.
    target = ops.called(op.op)
    fn = getattr(target, "_op", target)
    out = slots[0] if slots else -1
    return _Call(op, fn, values, kwargs, out, None if single else tuple(slots), ())


def _with_frees(calls: Sequence[_Call], index: Mapping[str, int], keep: set[int]) -> list[_Call]:
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
