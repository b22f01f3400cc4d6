"""Stage 3: definition before use, on the right device; free after the last use; order is a proof.

`steps` is a total order in which every dependency points backwards. A device runs its steps in
that order and both halves of a transfer stand at one place of it, so the union of data, control
and buffer-reuse edges has no cycle: no execution of the plan can deadlock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from genie_schemas.errors import GenieError
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
from genie_schemas.verify._report import problem
from genie_schemas.verify.states import Moves, check_states


@dataclass
class _Walk:
    """What is known while walking one entry point's steps in order."""

    plan: ExecutionPlan
    where: dict[str, str] = field(default_factory=dict)
    """Live value or state → device."""
    resident: dict[str, set[str]] = field(default_factory=dict)
    """Constant → devices that loaded it."""
    freed: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    moves: Moves = field(init=False)
    errors: list[GenieError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.moves = Moves(self.plan)

    def fail(
        self, code: str, step: Step, part: str, message: str, cause: str | None = None
    ) -> None:
        self.errors.append(problem(code, f"steps.{step.id}.{part}", message, cause))


def check_dataflow(plan: ExecutionPlan) -> list[GenieError]:
    """Walk every entry point; also: steps belong to one, devices and outputs exist."""
    position = {step.id: i for i, step in enumerate(plan.steps)}
    errors = check_states(plan)
    used: set[str] = set()
    for name, entry in plan.entrypoints.items():
        steps: list[Step] = []
        for step_id in entry.steps:
            if step_id in position:
                steps.append(plan.steps[position[step_id]])
            else:
                message = f"there is no step {step_id!r}"
                errors.append(problem("GEN0322", f"entrypoints.{name}.steps", message))
        places = [position[step.id] for step in steps]
        if places != sorted(set(places)):
            message = "its steps do not stand in the order of the plan"
            errors.append(problem("GEN0313", f"entrypoints.{name}.steps", message))
        used.update(step.id for step in steps)
        errors += _walk(plan, name, entry, steps)
    for step in plan.steps:
        if step.id not in used:
            message = "no entry point runs this step"
            errors.append(problem("GEN0322", f"steps.{step.id}", message))
    return errors


def _walk(plan: ExecutionPlan, name: str, entry: EntryPoint, steps: list[Step]) -> list[GenieError]:
    walk = _Walk(plan)
    for item in entry.inputs:
        path = f"entrypoints.{name}.inputs.{item.name}"
        if item.device not in plan.devices:
            walk.errors.append(problem("GEN0308", path, f"there is no device {item.device!r}"))
        walk.where[item.name] = item.device
    for state_name, state in plan.state.items():
        walk.where[state_name] = state.device
    returned = set()
    for step in steps:
        for other in step.after:
            if other not in walk.done:
                message = f"{other!r} does not stand before it"
                walk.fail("GEN0313", step, "after", message)
        _step(walk, step, entry)
        if isinstance(step, ReturnStep):
            if step.reads[0] in returned:
                walk.fail("GEN0322", step, "reads", f"{step.reads[0]!r} is returned twice")
            returned.update(step.reads)
        walk.done.add(step.id)
    for output in entry.outputs:
        path = f"entrypoints.{name}.outputs.{output.name}"
        if (output.value is None) == (output.literal is None):
            walk.errors.append(problem("GEN0322", path, "it is neither one value nor one literal"))
        elif output.value is not None and output.value not in returned:
            message = f"no return step hands over {output.value!r}"
            walk.errors.append(problem("GEN0322", path, message))
    return walk.errors


def _step(walk: _Walk, step: Step, entry: EntryPoint) -> None:
    devices = (step.src, step.dst) if isinstance(step, TransferStep) else (step.device,)
    for device in devices:
        if device not in walk.plan.devices:
            walk.fail("GEN0308", step, "device", f"there is no device {device!r}")
            return
    match step:
        case LoadStep():
            for name in step.reads:
                if name not in walk.plan.constants:
                    walk.fail("GEN0308", step, "reads", f"there is no constant {name!r}")
                walk.resident.setdefault(name, set()).add(step.device)
        case ComputeStep():
            for name in step.reads:
                _read(walk, step, name, step.device, constants=True)
            _signature(walk, step)
            for code, message in walk.moves.step(step, walk.done):
                walk.fail(code, step, "effect", message)
            for name in step.writes:
                _write(walk, step, name, step.device)
        case TransferStep():
            if step.src == step.dst:
                walk.fail("GEN0310", step, "dst", "source and destination are one device")
            _read(walk, step, step.reads[0], step.src, constants=False)
            _same_type(walk, step)
            _write(walk, step, step.writes[0], step.dst)
        case FreeStep():
            for name in step.reads:
                _read(walk, step, name, step.device, constants=False)
                walk.freed[name] = step.id
                if name in walk.plan.state or name in walk.moves.taken:
                    message = f"{name!r} is state, which outlives the run"
                    walk.fail("GEN0308", step, "reads", message)
        case ReturnStep():
            _read(walk, step, step.reads[0], step.device, constants=True)
            if all(output.value != step.reads[0] for output in entry.outputs):
                walk.fail("GEN0322", step, "reads", f"no output is {step.reads[0]!r}")


def _read(walk: _Walk, step: Step, name: str, device: str, *, constants: bool) -> None:
    if constants and name in walk.plan.constants:
        if device not in walk.resident.get(name, ()):
            message = f"the constant {name!r} was not loaded on {device} before"
            walk.fail("GEN0308", step, "reads", message)
        return
    if name in walk.freed:
        cause = f"{walk.freed[name]!r} freed it"
        walk.fail("GEN0308", step, "reads", f"{name!r} is read after it was freed", cause)
    elif name not in walk.where:
        walk.fail("GEN0308", step, "reads", f"{name!r} is not defined before it is read")
    elif walk.where[name] != device:
        cause = f"it lies on {walk.where[name]}, the step runs on {device}"
        walk.fail("GEN0310", step, "reads", f"{name!r} is used without a transfer", cause)


def _write(walk: _Walk, step: Step, name: str, device: str) -> None:
    walk.where[name] = device
    value = walk.plan.values.get(name)
    if value is not None and value.device != device:
        message = f"{name!r} is written on {device} but declared on {value.device}"
        walk.fail("GEN0310", step, "writes", message)


def type_of(plan: ExecutionPlan, name: str) -> str | None:
    """The declared type of a value, constant, state or input; None when there is none."""
    for table in (plan.values, plan.constants, plan.state):
        if name in table:
            return str(table[name].type)
    for entry in plan.entrypoints.values():
        for item in entry.inputs:
            if item.name == name:
                return item.type
    return None


def _signature(walk: _Walk, step: ComputeStep) -> None:
    program = walk.plan.programs.get(step.program)
    if program is None:
        walk.fail("GEN0308", step, "program", f"there is no program {step.program!r}")
        return
    for part, names, formals in (
        ("reads", step.reads, program.inputs),
        ("writes", step.writes, program.outputs),
    ):
        if len(names) != len(formals):
            message = f"{len(names)} names for the program's {len(formals)}"
            walk.fail("GEN0320", step, part, message)
            continue
        for name, formal in zip(names, formals, strict=True):
            actual = type_of(walk.plan, name)
            if actual is not None and parse_type(actual) != parse_type(formal.type):
                message = f"{name!r} is {actual}, the program's {formal.name!r} is {formal.type}"
                walk.fail("GEN0320", step, part, message)


def _same_type(walk: _Walk, step: TransferStep) -> None:
    source, target = type_of(walk.plan, step.reads[0]), type_of(walk.plan, step.writes[0])
    if source is not None and target is not None and parse_type(source) != parse_type(target):
        message = f"{step.reads[0]!r} is {source}, {step.writes[0]!r} is {target}"
        walk.fail("GEN0320", step, "writes", message)
