"""Which dimensions a run of an entry point gives sizes of: those that anything in it uses."""

from __future__ import annotations

from typing import Any

from genie_schemas.expr import ExprError, parse
from genie_schemas.plan import ComputeStep, EntryPoint, ExecutionPlan, Step
from genie_schemas.types import parse_type


def entry_dims(plan: ExecutionPlan, name: str) -> frozenset[str]:
    """The dimensions of the entry point or loop `name`; a loop has those of its two entry points.

    They are the ones that its inputs, values and programs use and, when a step reads or moves on a
    state, those of every state: all are made together. Raises KeyError for a name that is neither.
    """
    loop = plan.loops.get(name)
    names = (name,) if loop is None else (loop.entry, loop.body)
    by_id = {step.id: step for step in plan.steps}
    found: set[str] = set()
    for entry in (plan.entrypoints[part] for part in names):
        steps = [by_id[i] for i in entry.steps if i in by_id]
        found |= _types(plan, entry, steps)
        found |= _expressions([output.literal for output in entry.outputs])
        found |= _programs(plan, {s.program for s in steps if isinstance(s, ComputeStep)})
    return frozenset(found & plan.dims.keys())  # others are told of where they stand


def touches_state(plan: ExecutionPlan, steps: list[Step]) -> bool:
    """Whether one of the steps reads a state or moves one on."""
    return any(
        not plan.state.keys().isdisjoint(step.reads)
        or (isinstance(step, ComputeStep) and step.effects())
        for step in steps
    )


def _types(plan: ExecutionPlan, entry: EntryPoint, steps: list[Step]) -> set[str]:
    values = {name for step in steps for name in (*step.reads, *getattr(step, "writes", ()))}
    texts = {plan.values[name].type for name in values if name in plan.values}
    texts.update(item.type for item in entry.inputs)
    if touches_state(plan, steps):
        texts.update(state.type for state in plan.state.values())
    return {name for text in texts for name in parse_type(text).names}


def _programs(plan: ExecutionPlan, keys: set[str]) -> set[str]:
    """The dimensions in these programs and in those that they call."""
    found: set[str] = set()
    waiting, seen = list(keys), set(keys)
    while waiting:
        program = plan.programs.get(waiting.pop())
        if program is None:
            continue
        found |= _names(program.scratch_bytes)
        items = [(*op.args, *op.kwargs.values()) for op in program.ops]
        found |= _expressions(items)
        called = set(_tagged(items, "program")) - seen
        seen |= called
        waiting += called
    return found


def _expressions(value: Any) -> set[str]:
    return {name for text in _tagged(value, "e") for name in _names(text)}


def _names(text: str) -> frozenset[str]:
    try:
        return parse(text).names
    except ExprError:
        return frozenset()  # what is wrong with it is told where it stands


def _tagged(value: Any, tag: str) -> list[str]:
    """The texts under a tag anywhere in tagged arguments."""
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, dict) and isinstance(item.get(tag), str):
            found.append(item[tag])
    return found
