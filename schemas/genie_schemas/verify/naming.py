"""Stage 1: every name stands for one thing, every type parses, every program has its key."""

from __future__ import annotations

from genie_schemas import writer
from genie_schemas.errors import GenieError
from genie_schemas.expr import ExprError, parse
from genie_schemas.plan import ComputeStep, ExecutionPlan, TransferStep
from genie_schemas.types import TypeTextError, parse_type
from genie_schemas.verify._report import problem

MAX_OPS = 1_000_000


def check_naming(plan: ExecutionPlan) -> list[GenieError]:
    """Names are unique, declared dimensions are used, writes and values agree one to one."""
    return [
        *_dims(plan),
        *_types(plan),
        *_programs(plan),
        *_single_assignment(plan),
        *_links(plan),
    ]


def _dims(plan: ExecutionPlan) -> list[GenieError]:
    return [
        problem("GEN0320", f"dims.{name}", f"the range of {name!r} is empty: {d.min} to {d.max}")
        for name, d in plan.dims.items()
        if d.min > d.max
    ]


def _types(plan: ExecutionPlan) -> list[GenieError]:
    errors = []
    places = [(f"constants.{n}.type", c.type) for n, c in plan.constants.items()]
    places += [(f"state.{n}.type", s.type) for n, s in plan.state.items()]
    places += [(f"values.{n}.type", v.type) for n, v in plan.values.items()]
    for name, entry in plan.entrypoints.items():
        places += [(f"entrypoints.{name}.inputs.{i.name}.type", i.type) for i in entry.inputs]
    for key, program in plan.programs.items():
        both = (*program.inputs, *program.outputs)
        places += [(f"programs.{key}.{v.name}.type", v.type) for v in both]
    ranges = plan.ranges()
    for path, text in places:
        try:
            kind = parse_type(text)
            for size in kind.shape:
                if size.bounds(ranges)[1] < 0:
                    raise ExprError(f"the size {size.text} is negative")
        except (TypeTextError, ExprError) as error:
            errors.append(problem("GEN0320", path, f"{text[:80]}: {error}"))
    for name, constant in plan.constants.items():
        try:
            expected = parse_type(constant.type).nbytes({})
        except (TypeTextError, ExprError) as error:
            errors.append(problem("GEN0320", f"constants.{name}.type", str(error)))
            continue
        if expected != constant.bytes:
            message = f"{constant.type} has {expected} bytes, not {constant.bytes}"
            errors.append(problem("GEN0320", f"constants.{name}.bytes", message))
    errors += _value_bytes(plan)
    return errors


def _value_bytes(plan: ExecutionPlan) -> list[GenieError]:
    errors = []
    for name, value in plan.values.items():
        try:
            expected = parse_type(value.type).bytes_text()
        except (TypeTextError, ExprError):
            continue
        if value.bytes != expected:
            message = f"{value.type} has {expected} bytes, not {value.bytes}"
            errors.append(problem("GEN0320", f"values.{name}.bytes", message))
    return errors


def _programs(plan: ExecutionPlan) -> list[GenieError]:
    errors = []
    total = 0
    for key, program in plan.programs.items():
        total += len(program.ops)
        expected = writer.program_key(writer.to_data(program))
        if key != expected:
            message = f"the program's content gives the key {expected}"
            errors.append(problem("GEN0321", f"programs.{key}", message))
        try:
            parse(program.scratch_bytes).bounds(plan.ranges())
        except ExprError as error:
            path = f"programs.{key}.scratch_bytes"
            errors.append(problem("GEN0320", path, f"{program.scratch_bytes[:80]}: {error}"))
    if total > MAX_OPS:
        errors.append(problem("GEN0314", "programs", f"{total} operators; at most {MAX_OPS}"))
    return errors


def _single_assignment(plan: ExecutionPlan) -> list[GenieError]:
    errors = []
    defined: dict[str, str] = {}

    def define(name: str, where: str) -> None:
        if name in defined:
            cause = f"also defined at {defined[name]}"
            errors.append(problem("GEN0309", where, f"{name!r} is defined twice", cause))
        defined[name] = where

    for name in sorted(plan.loops.keys() & plan.entrypoints.keys()):
        cause = f"also defined at entrypoints.{name}"
        errors.append(problem("GEN0309", f"loops.{name}", f"{name!r} is defined twice", cause))
    for name in plan.constants:
        define(name, f"constants.{name}")
    for name in plan.state:
        define(name, f"state.{name}")
    inputs: dict[str, str] = {}
    for entry_name, entry in plan.entrypoints.items():
        for item in entry.inputs:
            if item.name not in inputs:
                define(item.name, f"entrypoints.{entry_name}.inputs.{item.name}")
            inputs[item.name] = entry_name
    ids: set[str] = set()
    for i, step in enumerate(plan.steps):
        if step.id in ids:
            errors.append(problem("GEN0309", f"steps[{i}].id", f"{step.id!r} is defined twice"))
        ids.add(step.id)
        if isinstance(step, ComputeStep | TransferStep):
            for name in step.writes:
                define(name, f"steps[{i}].writes")
                if name not in plan.values:
                    message = f"{name!r} is written but has no entry in values"
                    errors.append(problem("GEN0308", f"steps[{i}].writes", message))
    for name in plan.values:
        if name not in defined:
            message = f"the value {name!r} is never written"
            errors.append(problem("GEN0308", f"values.{name}", message))
    return errors


def _links(plan: ExecutionPlan) -> list[GenieError]:
    errors = []
    for name in plan.links:
        ends = name.split("->")
        if len(ends) != 2 or any(end not in plan.devices for end in ends):
            message = f"{name!r} does not join two of the plan's devices"
            errors.append(problem("GEN0308", f"links.{name}", message))
    return errors
