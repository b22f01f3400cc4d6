"""A reference interpreter of plans: the meaning of the format in plain torch, slow and suspicious.

It keeps a table of values a device, copies whatever a program returns, and asserts what the format
promises: a step finds what it reads on its own device, in the declared type and layout; a program
leaves its inputs untouched; a program never holds more than `scratch_bytes`, a device never more
than `needs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genie_schemas import args, ragged, rng
from genie_schemas.constants import ConstantFiles
from genie_schemas.constants import digest as blake3_digest
from genie_schemas.control import CONTROL, parse_control
from genie_schemas.expr import Expr, parse
from genie_schemas.plan import (
    ComputeStep,
    ExecutionPlan,
    FreeStep,
    LoadStep,
    Op,
    Program,
    ReturnStep,
    TransferStep,
)
from genie_schemas.types import DTYPES, parse_type
from genie_schemas.verify.dataflow import type_of

DTYPE = {name: getattr(torch, spelled) for name, (spelled, _) in DTYPES.items()}


class Undeclared(Exception):
    """A program computes something else, or holds more, than it declares: only running it tells.

    Everything else that this interpreter asserts is what a verified plan promises.
    """


def shaped(flat: Tensor, text: str, dims: Mapping[str, int]) -> Tensor:
    """The dense tensor of this type over the elements of `flat`."""
    kind = parse_type(text)
    return flat.as_strided(kind.sizes(dims), kind.strides(dims))


def densified(tensor: Tensor, text: str, dims: Mapping[str, int]) -> Tensor:
    """A fresh tensor of exactly this type with the elements of `tensor`."""
    kind = parse_type(text)
    if tensor.dtype != DTYPE[kind.dtype] or tuple(tensor.shape) != kind.sizes(dims):
        raise Undeclared(f"{tensor.dtype}{list(tensor.shape)} is no {text} at {dict(dims)}")
    fresh = torch.empty_strided(kind.sizes(dims), kind.strides(dims), dtype=tensor.dtype)
    return fresh.copy_(tensor)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal dtype, shape and bits: NaN equals NaN, 0.0 differs from -0.0."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    left, right = (torch.empty(t.numel(), dtype=t.dtype) for t in (a, b))
    left.copy_(a.reshape(-1))
    right.copy_(b.reshape(-1))
    return torch.equal(left.view(torch.uint8), right.view(torch.uint8))


def dims_of(plan: ExecutionPlan, inputs: Mapping[str, Tensor], entry: str) -> dict[str, int]:
    """The sizes that the inputs give the dimensions."""
    dims: dict[str, int] = {}
    for item in plan.entrypoints[entry].inputs:
        for size, actual in zip(parse_type(item.type).shape, inputs[item.name].shape, strict=True):
            if size.text in plan.dims:
                assert dims.setdefault(size.text, actual) == actual
    assert entry != "forward" or set(dims) == set(plan.dims)
    for name, size in dims.items():
        assert plan.dims[name].min <= size <= plan.dims[name].max
    return dims


@dataclass
class Interpreter:
    """Runs an entry point of a plan whose constants lie in `folder`; states last between runs."""

    plan: ExecutionPlan
    folder: Path
    entry: str = "forward"
    states: dict[str, Tensor] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    constants: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    returned: dict[str, Tensor] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    seeded: bool = False

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Output name → tensor, or the value of a literal, in the order of the plan."""
        entry = self.plan.entrypoints[self.entry]
        self.dims = dims_of(self.plan, inputs, self.entry)
        self.values = {device: {} for device in self.plan.devices}
        for item in entry.inputs:
            given = densified(inputs[item.name], item.type, self.dims)
            self.values[item.device][item.name] = given
        self._begin()
        steps = {step.id: step for step in self.plan.steps}
        for name in entry.steps:
            self._step(steps[name])
        for state, value in self.replaced.items():
            self.states[state] = self.values[self.plan.state[state].device][value]
        found = {
            o.name: self.literal(o.literal) if o.value is None else self.returned[o.value]
            for o in entry.outputs
        }
        for name, sizes in ragged.pairs(found).items():
            if ragged.FEATURE in self.plan.requires:
                found[name] = found[name][tuple(slice(0, n) for n in found.pop(sizes).tolist())]
        return found

    def _begin(self) -> None:
        """Nothing is returned or replaced yet; states are what they were, at first zeros."""
        self.returned, self.replaced = {}, {}
        for name, state in self.plan.state.items():
            kind = parse_type(state.type)
            assert (state.initial, state.version) == ("zeros", 0)
            sizes = kind.sizes(self.dims)
            fresh = self.states.setdefault(name, torch.zeros(sizes, dtype=DTYPE[kind.dtype]))
            assert fresh.shape == sizes
            self.values[state.device][name] = fresh

    def literal(self, data: Any) -> Any:
        return self._resolve(args.decode(data), {})

    def _step(self, step: Any) -> None:
        match step:
            case LoadStep():
                for name in step.reads:
                    self.constants[name, step.device] = self._constant(name)
            case ComputeStep():
                self._compute(step)
            case TransferStep():
                value = self.values[step.src][step.reads[0]]
                kind = self._type(step.writes[0])
                assert step.writes[0] not in self.values[step.dst]
                self.values[step.dst][step.writes[0]] = densified(value, kind, self.dims)
            case FreeStep():
                for name in step.reads:
                    del self.values[step.device][name]
            case ReturnStep():
                name = step.reads[0]
                assert name not in self.returned
                value = self._read(name, step.device)
                self.returned[name] = densified(value, self._type(name), self.dims)

    def _type(self, name: str) -> str:
        text = type_of(self.plan, name)
        assert text is not None
        return text

    def _constant(self, name: str) -> Tensor:
        constant = self.plan.constants[name]
        with ConstantFiles(self.folder) as files:
            raw = bytes(files.view(constant.source))
        assert len(raw) == constant.bytes
        assert blake3_digest(raw) == constant.digest
        dtype = DTYPE[parse_type(constant.type).dtype]
        flat = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        # A copy lies on 64 bytes, as the format asks; Python's buffers do not.
        return shaped(flat.clone(), constant.type, {})

    def _read(self, name: str, device: str) -> Tensor:
        if name in self.plan.constants:
            return self.constants[name, device]
        return self.values[device][name]

    def _compute(self, step: ComputeStep) -> None:
        program = self.plan.programs[step.program]
        given = []
        for name, formal in zip(step.reads, program.inputs, strict=True):
            value = self._read(name, step.device)
            kind = parse_type(formal.type)
            assert tuple(value.shape) == kind.sizes(self.dims)
            assert value.dtype == DTYPE[kind.dtype]
            given.append(value)
        before = [value.clone() for value in given]
        held = sum(t.untyped_storage().nbytes() for t in self.values[step.device].values())
        held += sum(
            t.untyped_storage().nbytes() for (_, d), t in self.constants.items() if d == step.device
        )
        outputs, most = self._program(program, given)
        effects = {effect.state: effect for effect in step.effects()}
        appended = {name for name in effects if self.plan.state[name].update == "append"}
        assert appended <= set(step.reads)
        for name, old, new in zip(step.reads, before, given, strict=True):
            if name in appended:
                continue
            assert same_bits(old, new), f"{step.id} changed {name}, which it did not create"
        for name, output in zip(step.writes, outputs, strict=True):
            value = densified(output, self._type(name), self.dims)
            assert name not in self.values[step.device]
            self.values[step.device][name] = value
        for effect in effects.values():
            if effect.value is not None:
                assert effect.value in step.writes
                assert effect.state not in self.replaced
                self.replaced[effect.state] = effect.value
        declared = parse(program.scratch_bytes).evaluate(self.dims)
        if most > max(declared, 0):
            raise Undeclared(f"{step.id} held {most} bytes and declares {declared}")
        self.peaks[step.device] = max(self.peaks.get(step.device, 0), held + most)
        assert self.peaks[step.device] <= self.plan.devices[step.device].needs, step.id

    def _program(self, program: Program, given: list[Tensor]) -> tuple[list[Tensor], int]:
        """The outputs, and the most bytes that its values held, copies of outputs included."""
        env: dict[str, Any] = {v.name: t for v, t in zip(program.inputs, given, strict=True)}
        foreign = {t.untyped_storage().data_ptr() for t in given}
        wanted = {v.name for v in program.outputs}
        last: dict[str, int] = {}
        for i, op in enumerate(program.ops):
            last.update(dict.fromkeys(reads_of(op), i))
            last.update({name: i for name in op.out if name is not None and name not in last})
        most = 0
        for i, op in enumerate(program.ops):
            self._op(op, env)
            most = max(most, held_bytes(env, foreign))
            for name, at in last.items():
                if at == i and name not in wanted:
                    env.pop(name, None)
        outputs = [env[v.name] for v in program.outputs]
        copies, taken = 0, set(foreign)
        for value, output in zip(program.outputs, outputs, strict=True):
            kind = parse_type(value.type)
            storage = output.untyped_storage()
            size = kind.nbytes(self.dims)
            if storage.data_ptr() in taken or storage.nbytes() != size:
                copies += size
            taken.add(storage.data_ptr())
        return outputs, max(most, held_bytes(dict(enumerate(outputs)), foreign) + copies)

    def _control(self, op: Op, env: dict[str, Any]) -> list[Tensor]:
        call = parse_control(op.op, [args.decode(a) for a in op.args])
        programs = [self.plan.programs[key] for key in call.programs]

        def run(program: Program, *given: Tensor) -> list[Tensor]:
            for value, formal in zip(given, program.inputs, strict=True):
                densified(value, formal.type, self.dims)
            found, self.inside = self._program(program, list(given))
            outputs = zip(program.outputs, found, strict=True)
            return [densified(t, v.type, self.dims) for v, t in outputs]

        carry, columns, others = (
            [env[n] for n in part] for part in (call.carried, call.scanned, call.others)
        )
        if call.predicate is not None:
            return run(programs[0 if env[call.predicate] else 1], *others)
        if not columns:
            while run(programs[0], *carry, *others)[0]:
                carry = run(programs[1], *carry, *others)
            return [value.clone() for value in carry]
        stacks: list[list[Tensor]] = []
        for row in zip(*columns, strict=True):
            found = run(programs[0], *carry, *row, *others)
            carry = found[: len(carry)]
            stacks.append(found[len(carry) :])
        return [*carry, *(torch.stack(s) for s in zip(*stacks, strict=True))]

    def _op(self, op: Op, env: dict[str, Any]) -> None:
        if op.op in CONTROL:
            env |= zip(op.out, self._control(op, env), strict=True)
            return
        _, packet, overload = op.op.split(".")
        function = getattr(getattr(torch.ops.aten, packet), overload)
        positional = [self._resolve(args.decode(a), env) for a in op.args]
        keywords = {k: self._resolve(args.decode(a), env) for k, a in op.kwargs.items()}
        seed = keywords.pop(rng.KEYWORD, None)
        if seed is not None and not self.seeded:
            torch.manual_seed(int(seed))
            self.seeded = True
        found = function(*positional, **keywords)
        results = list(found) if isinstance(found, list | tuple) else [found]
        for name, result in zip(op.out, results, strict=True):
            if name is not None:
                assert name not in env
                env[name] = result

    def _resolve(self, arg: args.Arg, env: Mapping[str, Any]) -> Any:
        if isinstance(arg, tuple):
            return [self._resolve(item, env) for item in arg]
        if isinstance(arg, args.Ref):
            return env[arg.name]
        if isinstance(arg, Expr):
            return arg.evaluate(self.dims)
        if isinstance(arg, args.Named):
            if arg.kind == "dtype":
                return DTYPE[arg.name]
            if arg.kind == "device":
                return torch.device("cpu")
            return getattr(torch, arg.name)
        assert not isinstance(arg, args.ProgramRef)
        return arg


def reads_of(op: Op) -> set[str]:
    """Names that a call reads."""
    return {
        leaf.name
        for item in (*op.args, *op.kwargs.values())
        for leaf in args.walk(args.decode(item))
        if isinstance(leaf, args.Ref)
    }


def held_bytes(env: Mapping[Any, Any], foreign: set[int]) -> int:
    """Bytes of the distinct storages that are not foreign."""
    found = {}
    for value in env.values():
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage.data_ptr() not in foreign:
                found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())
