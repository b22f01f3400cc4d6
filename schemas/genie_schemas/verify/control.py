"""Control-flow calls: the programs exist, take the operands, and give what the call names."""

from __future__ import annotations

from collections.abc import Iterator

from genie_schemas import args
from genie_schemas.control import CONTROL, MAX_DEPTH, Control, parse_control
from genie_schemas.plan import ExecutionPlan, Op, Program, ProgramValue
from genie_schemas.types import parse_type


def parsed(op: Op) -> Control:
    """The call taken apart. Raises ArgError."""
    if op.kwargs:
        raise args.ArgError("it takes no keyword arguments")
    return parse_control(op.op, [args.decode(item) for item in op.args])


def problems(plan: ExecutionPlan, op: Op, call: Control) -> Iterator[str]:
    """What is wrong with a call, in words."""
    programs = []
    for key in call.programs:
        if key not in plan.programs:
            yield f"there is no program {key!r}"
            return
        programs.append(plan.programs[key])
    for program in programs:
        if len(program.inputs) != len(call.operands):
            yield f"{len(call.operands)} operands for a program's {len(program.inputs)} inputs"
            return
    if call.kind == "hop.cond":
        yield from _same(programs[0].outputs, programs[1].outputs, "the two branches return")
        results = len(programs[0].outputs)
    elif call.kind == "hop.while_loop":
        yield from _while(call, programs)
        results = len(call.carried)
    else:
        (body,) = programs
        carried = len(call.carried)
        results = len(body.outputs)
        if results < carried:
            yield f"the body returns {results} values for {carried} carried ones"
            return
        yield from _same(body.inputs[:carried], body.outputs[:carried], "the body carries")
    if len(op.out) != results:
        yield f"it returns {results} values, {len(op.out)} are named"


def _while(call: Control, programs: list[Program]) -> Iterator[str]:
    condition, body = programs
    kinds = [parse_type(value.type) for value in condition.outputs]
    if len(kinds) != 1 or kinds[0].dtype != "bool" or kinds[0].shape:
        yield "the condition returns no single bool[]"
    yield from _same(body.inputs[: len(call.carried)], body.outputs, "the body carries")
    yield from _same(condition.inputs, body.inputs, "condition and body take")


def _same(first: list[ProgramValue], second: list[ProgramValue], what: str) -> Iterator[str]:
    """Equal dtypes and shapes, one by one; the order of strides is each program's own."""
    left, right = ([parse_type(value.type) for value in part] for part in (first, second))
    if [(t.dtype, t.shape) for t in left] != [(t.dtype, t.shape) for t in right]:
        shown = " and ".join("[" + ", ".join(v.type for v in p) + "]" for p in (first, second))
        yield f"{what} other types: {shown[:200]}"


def too_deep(plan: ExecutionPlan) -> list[str]:
    """Programs that call programs deeper than MAX_DEPTH; a key names its content: no cycles."""
    calls = {key: _called(program) for key, program in plan.programs.items()}
    found = []
    for key in plan.programs:
        level = {key}
        for _ in range(MAX_DEPTH):
            level = {called for other in level for called in calls.get(other, ())}
        if level:
            found.append(key)
    return found


def called(plan: ExecutionPlan) -> set[str]:
    """The programs that programs of the plan call."""
    return set[str]().union(*(_called(program) for program in plan.programs.values()))


def _called(program: Program) -> set[str]:
    return {
        leaf.key
        for op in program.ops
        if op.op in CONTROL
        for item in op.args
        for leaf in _leaves(item)
    }


def _leaves(item: object) -> Iterator[args.ProgramRef]:
    try:
        decoded = args.decode(item)
    except args.ArgError:
        return
    for leaf in args.walk(decoded):
        if isinstance(leaf, args.ProgramRef):
            yield leaf
