"""Building schedules: a plan's steps for one device, with tensors, forms and bytes resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from genie_runtime.executors.schedule import (
    Compute,
    Form,
    Free,
    Receive,
    Return,
    Schedule,
    ScheduleStep,
    Send,
    mismatch,
)
from genie_runtime.executors.slots import SlotProgram
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
from genie_schemas.verify.dataflow import type_of
from genie_schemas.verify.dims import entry_dims, touches_state

__all__ = ["build_schedule"]


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
        raise mismatch(
            f"the plan has no entry point {entrypoint!r}", "entrypoint", f"it has {known}"
        )
    for name in sorted(entry_dims(plan, entrypoint)):
        dim = plan.dims[name]
        if name not in dims:
            raise mismatch(f"the size of {name!r} is not given", f"dims.{name}")
        if not dim.min <= dims[name] <= dim.max:
            cause = f"its range is {dim.min} to {dim.max}"
            raise mismatch(f"{name} = {dims[name]} is out of range", f"dims.{name}", cause)
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
        mine = self._eager([by_id[i] for i in entry.steps if self._concerns(by_id[i])])
        inputs = {i.name: self.form(i.name) for i in entry.inputs if i.device == self.device}
        self.inputs = frozenset(inputs)
        states = {}
        # Of the entry point as a whole: the state of all its devices moves on together.
        if touches_state(self.plan, [by_id[i] for i in entry.steps]):
            here = {n for n, state in self.plan.state.items() if state.device == self.device}
            states = {name: self.form(name) for name in sorted(here)}
            self.defined.update(here)
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
            states,
            loaded,
            base,
        )

    def _concerns(self, step: Step) -> bool:
        if isinstance(step, TransferStep):
            return self.device in (step.src, step.dst)
        return step.device == self.device

    def _eager(self, steps: Sequence[Step]) -> list[Step]:
        """The steps in order, but for sends, which follow what makes their value.

        In the plan's order a send may stand behind computation that it has no part in, while the
        other device waits for it. What it reads is written once; state is not, and stays.
        """
        found: list[Step] = []
        for step in steps:
            place = len(found)
            if self._sends(step) and step.reads[0] not in self.plan.state:
                while place and not _makes(found[place - 1], step.reads[0]):
                    place -= 1
                while place < len(found) and self._sends(found[place]):
                    place += 1
            found.insert(place, step)
        return found

    def _sends(self, step: Step) -> bool:
        return isinstance(step, TransferStep) and step.src == self.device

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
        moved = [(e.state, e.value) for e in step.effects()]
        grown = {state for state, value in moved if value is None}
        result = Compute(
            id=step.id,
            timeout=timeout,
            bound=self.programs[step.program].bind(self.dims),
            reads=tuple(step.reads),
            constants=constants,
            fixed=tuple(
                c is not None or name in grown
                for name, c in zip(step.reads, constants, strict=True)
            ),
            addresses=frozenset(c.untyped_storage().data_ptr() for c in constants if c is not None),
            writes=tuple((name, self.form(name)) for name in step.writes),
            live=self.live,
            scratch=max(0, scratch),
            appends=bool(grown),
            replaces=tuple((state, value) for state, value in moved if value is not None),
            salt="" if self.drawn_at_home(step) else self.device,
        )
        self.live += sum(form.nbytes for _, form in result.writes)
        self.defined.update(step.writes)
        return result


def _makes(step: Step, name: str) -> bool:
    return isinstance(step, ComputeStep | TransferStep) and name in step.writes
