"""Inputs of one call that share memory.

A plan takes its inputs by value: each is copied into the run's own memory, so that arrays which
overlap make no difference as long as the forward only reads them. Where it writes to one of them,
eager execution would have changed the other one as well, and the plan does not. Such a call is
refused rather than answered otherwise than the model would.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from genie.client.tensors import Array, Tensor
from genie_schemas import args, optable
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import ComputeStep, ExecutionPlan, Program, TransferStep
from genie_schemas.verify.operators import bind, values_in

__all__ = ["check_apart", "written_inputs"]

_MAX_WORK = 10_000
"""How long to look for one common element before two arrays whose ranges meet count as one."""


def check_apart(
    tensors: Mapping[str, Tensor],
    resident: Mapping[str, str],
    written: Callable[[], frozenset[str]],
) -> None:
    """GEN0409 when the plan writes to an input that shares memory with another one.

    `tensors` are arrays that the caller gave, `resident` inputs with the names of the kept tensors
    that they are; `written` says which inputs the plan writes to, and is asked only where two
    overlap. The error's place is the caller's line.
    """
    for one, other in (*_overlapping(tensors), *_the_same(resident)):
        both = sorted({one, other} & written())
        if both:
            first = both[0]
            second = other if first == one else one
            raise GenieError(
                "GEN0409",
                f"the inputs {first!r} and {second!r} share memory, and the forward writes to "
                f"{first!r}",
                _callers_line(),
                "run eagerly, it would change both; a plan works on a copy of each",
                f"give a copy of one of them, such as {second}.copy()",
                {"inputs": [first, second]},
            )


def _overlapping(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Pairs of arrays with a byte in common."""
    if len(tensors) < 2:
        return
    ranges = sorted((*_range(t.array), name) for name, t in tensors.items() if t.array.size)
    for at, (_, end, name) in enumerate(ranges):
        for start, _, other in ranges[at + 1 :]:
            if start >= end:
                break
            if _share(tensors[name].array, tensors[other].array):
                yield name, other


def _range(array: Array) -> tuple[int, int]:
    """The addresses that an array's elements lie between."""
    low = high = array.__array_interface__["data"][0]
    for size, stride in zip(array.shape, array.strides, strict=True):
        reach = (size - 1) * stride
        low, high = low + min(reach, 0), high + max(reach, 0)
    return low, high + array.itemsize


def _share(one: Array, other: Array) -> bool:
    try:
        # NumPy takes any bound; its stubs know only those that stand for all or nothing.
        return np.shares_memory(one, other, max_work=_MAX_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _the_same(resident: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of inputs that are one kept tensor."""
    first: dict[str, str] = {}
    for name, kept in resident.items():
        if first.setdefault(kept, name) != name:
            yield first[kept], name


def _callers_line() -> Place | None:
    """The innermost line on the stack that is not Genie's."""
    ours = str(Path(__file__).parents[1]) + "/"
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(ours):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return Place(file=frame.f_code.co_filename, line=frame.f_lineno)


def written_inputs(plan: ExecutionPlan, entrypoint: str) -> frozenset[str]:
    """The inputs of an entry point that its programs write to: on a clone, which they make."""
    entry = plan.entrypoints[entrypoint]
    origin = {item.name: item.name for item in entry.inputs}
    wanted = set(entry.steps)
    found: set[str] = set()
    for step in plan.steps:
        if step.id not in wanted:
            continue
        if isinstance(step, TransferStep) and step.reads[0] in origin:
            origin[step.writes[0]] = origin[step.reads[0]]
        elif isinstance(step, ComputeStep):
            program = plan.programs[step.program]
            given = zip(program.inputs, step.reads, strict=True)
            names = {v.name: origin[read] for v, read in given if read in origin}
            found |= _cloned_and_written(program, names)
    return frozenset(found)


def _cloned_and_written(program: Program, given: Mapping[str, str]) -> set[str]:
    """Which of `given` (a program's value → an input) the program clones and then writes to."""
    viewed = dict(given)
    cloned: dict[str, str] = {}
    found = set()
    for op in program.ops:
        info = optable.lookup(op.op)
        if info is None:
            continue  # control flow, which writes to nothing from outside
        bound = bind(op, info)
        results = [name for name in op.out if name is not None]
        found |= {cloned[n] for n in values_in(bound, info.mutated(bound)) if n in cloned}
        operand = bound.get("self")
        if op.op == "aten.clone.default":
            if isinstance(operand, args.Ref) and operand.name in viewed:
                cloned.update(dict.fromkeys(results, viewed[operand.name]))
            continue
        for name in values_in(bound, info.aliased()):
            for known in (viewed, cloned):
                if name in known:
                    known.update(dict.fromkeys(results, known[name]))
    return found
