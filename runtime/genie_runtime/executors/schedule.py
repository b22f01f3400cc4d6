"""One entry point on one device at given dimension sizes: its steps, everything resolved.

A schedule is built once for a combination of sizes and run many times. It also knows what a run
holds at most: the same accounting as `genie_schemas.verify.memory`, at actual sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from genie_runtime.executors.bound import Bound
from genie_runtime.executors.ops import DTYPE
from genie_runtime.executors.slots import SlotProgram
from genie_runtime.ports import Region, RunRequest
from genie_schemas.errors import GenieError, Place
from genie_schemas.expr import ExprError, parse
from genie_schemas.plan import (
    ComputeStep,
    EntryPoint,
    ExecutionPlan,
    FreeStep,
    LoadStep,
    ReturnStep,
    Step,
    TransferStep,
)
from genie_schemas.types import parse_type
from genie_schemas.verify.dataflow import type_of

__all__ = [
    "Compute",
    "Form",
    "Free",
    "Receive",
    "Return",
    "Schedule",
    "ScheduleStep",
    "Send",
    "build_schedule",
]


@dataclass(frozen=True)
class Form:
    """A tensor type at given sizes: what a value must be, and how it lies in a region."""

    text: str
    dtype: torch.dtype
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    nbytes: int

    @classmethod
    def of(cls, text: str, dims: Mapping[str, int]) -> Form:
        """The form of a type text. Raises ExprError when a size cannot be evaluated."""
        kind = parse_type(text)
        return cls(text, DTYPE[kind.dtype], kind.sizes(dims), kind.strides(dims), kind.nbytes(dims))

    def in_region(self, area: torch.Tensor, offset: int) -> torch.Tensor:
        """The tensor of this form that lies at `offset` of `area` (uint8), without a copy.

        Its storage ends where it ends: a program's `as_strided` cannot reach what lies beside it.
        """
        storage = area.untyped_storage()[offset : offset + self.nbytes]
        return torch.empty(0, dtype=self.dtype).set_(storage, 0, self.sizes, self.strides)

    def lies_like(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` has these strides, dimensions of one element aside."""
        strides = tensor.stride()
        if strides == self.strides or self.nbytes == 0:
            return True
        triples = zip(self.sizes, strides, self.strides, strict=True)
        return all(size == 1 or a == b for size, a, b in triples)


@dataclass(frozen=True)
class Compute:
    """Run a program. `constants[i]` is the tensor of read `i`, or None when it is a value."""

    id: str
    timeout: float
    bound: Bound
    reads: tuple[str, ...]
    constants: tuple[torch.Tensor | None, ...]
    fixed: tuple[bool, ...]
    addresses: frozenset[int]
    writes: tuple[tuple[str, Form], ...]
    live: int
    scratch: int
    salt: str = ""
    """Of the random numbers drawn: empty where the seed was sent to, else the plan's device."""


@dataclass(frozen=True)
class Send:
    """Copy a value to the region of an outgoing transfer."""

    id: str
    timeout: float
    value: str
    form: Form


@dataclass(frozen=True)
class Receive:
    """Wait for the bytes of an incoming transfer and make them a value."""

    id: str
    timeout: float
    value: str
    form: Form


@dataclass(frozen=True)
class Free:
    """Drop values."""

    id: str
    timeout: float
    values: tuple[str, ...]


@dataclass(frozen=True)
class Return:
    """Copy a value, or a constant, to its output region."""

    id: str
    timeout: float
    value: str
    constant: torch.Tensor | None
    form: Form


ScheduleStep = Compute | Send | Receive | Free | Return


@dataclass(frozen=True)
class Schedule:
    """What a run of one entry point does on one device. Byte counts are at these sizes.

    `constant_bytes` are those that the entry point loads here, `base` what is held at the start.
    """

    steps: tuple[ScheduleStep, ...]
    inputs: Mapping[str, Form]
    incoming: Mapping[str, Form]
    outgoing: Mapping[str, Form]
    outputs: Mapping[str, Form]
    constant_bytes: int
    base: int
    scratch: dict[str, int] = field(default_factory=dict)
    """Compute step → bytes that its program was seen to hold; what the plan declares until then."""

    def peak(self) -> int:
        """The most bytes that a run holds beside constants."""
        peak = self.base
        for step in self.steps:
            if isinstance(step, Compute):
                written = sum(form.nbytes for _, form in step.writes)
                scratch = self.scratch.get(step.id, step.scratch)
                peak = max(peak, step.live + max(scratch, written))
        return peak

    def check_regions(self, request: RunRequest, size_of: Callable[[int], int | None]) -> None:
        """Check that each region is there, of its value's length, aligned and inside its arena.

        Raises GenieError GEN0467 for a missing one and GEN0466 for one that does not fit.
        """
        for part, forms, regions in (
            ("inputs", self.inputs, request.inputs),
            ("incoming", self.incoming, request.incoming),
            ("outgoing", self.outgoing, request.outgoing),
            ("outputs", self.outputs, request.outputs),
        ):
            for name, form in forms.items():
                if name not in regions:
                    raise _mismatch(f"the request has no region for {name!r}", f"{part}.{name}")
                check_region(regions[name], form.nbytes, size_of, f"{part}.{name}")


def check_region(
    region: Region, nbytes: int, size_of: Callable[[int], int | None], path: str
) -> None:
    """Raise GenieError GEN0466 unless `region` holds exactly `nbytes` of a mapped arena."""
    size = size_of(region.arena)
    cause = None
    if size is None:
        cause = f"arena {region.arena} is not mapped"
    elif region.offset < 0 or region.offset % 64:
        cause = f"its offset {region.offset} is no multiple of 64"
    elif region.length != nbytes:
        cause = f"it has {region.length} bytes, the value {nbytes}"
    elif region.offset + region.length > size:
        cause = f"it ends beyond its arena of {size} bytes"
    if cause is not None:
        raise GenieError(
            "GEN0466",
            f"the region of {path} does not fit its value",
            Place(path=path),
            cause,
            "report this: the runtime should have checked it before",
        )


def _mismatch(message: str, path: str, cause: str | None = None) -> GenieError:
    return GenieError("GEN0467", message, Place(path=path), cause, "compare it with the plan")


def build_schedule(
    plan: ExecutionPlan,
    device: str,
    entrypoint: str,
    dims: Mapping[str, int],
    programs: Mapping[str, SlotProgram],
    constants: Mapping[str, torch.Tensor],
) -> Schedule:
    """Resolve the steps of `entrypoint` that concern the plan's `device`.

    Raises GenieError: GEN0467 when the plan has no such entry point or a dimension is missing or
    out of range, GEN0455 when a constant is not loaded, GEN0458 when an expression is bad.
    """
    entry = plan.entrypoints.get(entrypoint)
    if entry is None:
        known = ", ".join(plan.entrypoints)
        raise _mismatch(
            f"the plan has no entry point {entrypoint!r}", "entrypoint", f"it has {known}"
        )
    for name, dim in plan.dims.items():
        if name not in dims:
            raise _mismatch(f"the size of {name!r} is not given", f"dims.{name}")
        if not dim.min <= dims[name] <= dim.max:
            cause = f"its range is {dim.min} to {dim.max}"
            raise _mismatch(f"{name} = {dims[name]} is out of range", f"dims.{name}", cause)
    builder = _Builder(plan, device, dims, programs, constants)
    try:
        return builder.build(entry)
    except ExprError as error:
        raise GenieError(
            "GEN0458",
            "the steps of the entry point cannot be resolved",
            Place(path=f"entrypoints.{entrypoint}"),
            str(error),
            "check the plan with `genie plan verify`; compile it again",
        ) from None


class _Builder:
    def __init__(
        self,
        plan: ExecutionPlan,
        device: str,
        dims: Mapping[str, int],
        programs: Mapping[str, SlotProgram],
        constants: Mapping[str, torch.Tensor],
    ) -> None:
        self.plan = plan
        self.device = device
        self.dims = dims
        self.programs = programs
        self.constants = constants
        self.steps: list[ScheduleStep] = []
        self.incoming: dict[str, Form] = {}
        self.outgoing: dict[str, Form] = {}
        self.outputs: dict[str, Form] = {}
        self.live = 0
        self.inputs: frozenset[str] = frozenset()
        self.defined: set[str] = set()

    def form(self, name: str) -> Form:
        text = type_of(self.plan, name)
        if text is None:
            raise ExprError(f"{name!r} has no type")
        return Form.of(text, self.dims)

    def build(self, entry: EntryPoint) -> Schedule:
        by_id = {step.id: step for step in self.plan.steps}
        mine = [by_id[i] for i in entry.steps if self._concerns(by_id[i])]
        inputs = {i.name: self.form(i.name) for i in entry.inputs if i.device == self.device}
        self.inputs = frozenset(inputs)
        loaded: dict[str, int] = {}
        base = sum(form.nbytes for form in inputs.values())
        for step in mine:
            if isinstance(step, LoadStep):
                loaded |= {name: self.constant(name, step).nbytes for name in step.reads}
            elif isinstance(step, TransferStep):
                name = step.reads[0] if step.src == self.device else step.writes[0]
                base += self.form(name).nbytes
            elif isinstance(step, ReturnStep):
                base += self.form(step.reads[0]).nbytes
        self.live = base
        self.defined.update(inputs)
        for step in mine:
            self._step(step)
        return Schedule(
            tuple(self.steps),
            inputs,
            self.incoming,
            self.outgoing,
            self.outputs,
            sum(loaded.values()),
            base,
        )

    def _concerns(self, step: Step) -> bool:
        if isinstance(step, TransferStep):
            return self.device in (step.src, step.dst)
        return step.device == self.device

    def constant(self, name: str, step: Step) -> torch.Tensor:
        if name not in self.constants:
            raise GenieError(
                "GEN0455",
                f"the constant {name!r} is not loaded on {self.device}",
                Place(path=f"steps.{step.id}"),
                remedy="load the plan's constants, then run again",
            )
        return self.constants[name]

    def _step(self, step: Step) -> None:
        timeout = self.plan.policies[step.policy].timeout_ms / 1000
        match step:
            case ComputeStep():
                self.steps.append(self._compute(step, timeout))
            case TransferStep() if step.src == self.device:
                self._use(step)
                form = self.outgoing[step.id] = self.form(step.reads[0])
                self.steps.append(Send(step.id, timeout, step.reads[0], form))
            case TransferStep():
                form = self.incoming[step.id] = self.form(step.writes[0])
                self.defined.update(step.writes)
                self.steps.append(Receive(step.id, timeout, step.writes[0], form))
            case FreeStep():
                self._use(step)
                self.defined.difference_update(step.reads)
                self.live -= sum(self.form(name).nbytes for name in step.reads)
                self.steps.append(Free(step.id, timeout, tuple(step.reads)))
            case ReturnStep():
                self._use(step)
                name = step.reads[0]
                form = self.outputs[name] = self.form(name)
                constant = self.constant(name, step) if name in self.plan.constants else None
                self.steps.append(Return(step.id, timeout, name, constant, form))
            case LoadStep():
                pass  # `load` did it before the run; `build` checked

    def _use(self, step: Step) -> None:
        for name in step.reads:
            if name not in self.defined and name not in self.plan.constants:
                raise ExprError(f"{step.id} reads {name!r}, which {self.device} does not hold then")

    def drawn_at_home(self, step: ComputeStep) -> bool:
        """Whether the seed of the step's program, if it has one, came with the run's inputs."""
        slot = self.programs[step.program].seed
        return slot is None or step.reads[slot] in self.inputs

    def _compute(self, step: ComputeStep, timeout: float) -> Compute:
        self._use(step)
        constants = tuple(
            self.constant(name, step) if name in self.plan.constants else None
            for name in step.reads
        )
        scratch = parse(self.plan.programs[step.program].scratch_bytes).evaluate(self.dims)
        result = Compute(
            id=step.id,
            timeout=timeout,
            bound=self.programs[step.program].bind(self.dims),
            reads=tuple(step.reads),
            constants=constants,
            fixed=tuple(c is not None for c in constants),
            addresses=frozenset(c.untyped_storage().data_ptr() for c in constants if c is not None),
            writes=tuple((name, self.form(name)) for name in step.writes),
            live=self.live,
            scratch=max(0, scratch),
            salt="" if self.drawn_at_home(step) else self.device,
        )
        self.live += sum(form.nbytes for _, form in result.writes)
        self.defined.update(step.writes)
        return result
