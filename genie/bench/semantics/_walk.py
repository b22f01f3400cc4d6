"""A compiled plan taken apart for a client that knows nothing but operators.

The baselines make the very calls that Genie's daemons make: same operators, same arguments, same
devices, same cut. What differs is who drives. `Walk` has an entry point's steps for one choice of
sizes, with the calls of every program in order; where tensors are is the driver's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from genie_schemas import args, canonical
from genie_schemas.control import CONTROL
from genie_schemas.expr import Expr
from genie_schemas.plan import ComputeStep, ExecutionPlan, LoadStep, Op, Program, Step
from genie_schemas.types import parse_type

__all__ = ["Call", "Walk", "sizes"]


@dataclass(frozen=True)
class Call:
    """One call of a program: names of what it reads and makes, and what is not read after it.

    `text` is the definition that a server takes (`_messages`): the op with its values renamed.
    """

    op: Op
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    frees: tuple[str, ...]
    dims: Mapping[str, int]

    @cached_property
    def text(self) -> str:
        """JSON of the op, its values named by position and its expressions evaluated."""
        names = {name: f"i{number}" for number, name in enumerate(self.reads)}
        made = {name: f"o{number}" for number, name in enumerate(self.makes)}

        def written(value: args.Arg) -> args.Arg:
            if isinstance(value, args.Ref):
                return args.Ref(names[value.name])
            if isinstance(value, Expr):
                return value.evaluate(self.dims)
            return tuple(written(item) for item in value) if isinstance(value, tuple) else value

        def again(item: Any) -> Any:
            return args.encode(written(args.decode(item)))

        data: dict[str, Any] = {
            "out": [made.get(name) if name is not None else None for name in self.op.out],
            "op": self.op.op,
            "args": [again(item) for item in self.op.args],
        }
        if self.op.kwargs:
            data["kwargs"] = {key: again(item) for key, item in self.op.kwargs.items()}
        return canonical.compact(data)


class Walk:
    """The steps of an entry point, and the calls of its compute steps, for these sizes.

    Raises ValueError for a plan with control flow, whose branches only an executor can take.
    """

    def __init__(self, plan: ExecutionPlan, entrypoint: str, dims: Mapping[str, int]) -> None:
        self.plan = plan
        self.entry = plan.entrypoints[entrypoint]
        steps = {step.id: step for step in plan.steps}
        self.steps: tuple[Step, ...] = tuple(steps[name] for name in self.entry.steps)
        self._calls: dict[str, tuple[Call, ...]] = {}
        for step in self.steps:
            if isinstance(step, ComputeStep) and step.program not in self._calls:
                self._calls[step.program] = _calls(plan.programs[step.program], dims)

    def calls(self, step: ComputeStep) -> tuple[Call, ...]:
        """The calls of a step's program, in order."""
        return self._calls[step.program]

    def program(self, step: ComputeStep) -> Program:
        """A step's program."""
        return self.plan.programs[step.program]

    @property
    def loads(self) -> list[LoadStep]:
        """Which constants each device needs."""
        return [step for step in self.steps if isinstance(step, LoadStep)]


def sizes(
    plan: ExecutionPlan, entrypoint: str, shape: Callable[[str], Sequence[int]]
) -> dict[str, int]:
    """The dimensions that inputs of these shapes have; `shape` tells that of an input's name."""
    found: dict[str, int] = {}
    for item in plan.entrypoints[entrypoint].inputs:
        for size, actual in zip(parse_type(item.type).shape, shape(item.name), strict=True):
            if size.names:
                found[size.text] = actual
    return found


def _calls(program: Program, dims: Mapping[str, int]) -> tuple[Call, ...]:
    kept = {value.name for value in program.outputs}
    kept |= {value.name for value in program.inputs}
    found: list[Call] = []
    used = set(kept)
    for op in reversed(program.ops):
        if op.op in CONTROL:
            raise ValueError(f"{op.op} calls other programs, which a call-by-call client cannot")
        makes = tuple(name for name in op.out if name is not None)
        reads = _reads(op)
        frees = tuple(name for name in dict.fromkeys((*reads, *makes)) if name not in used)
        used.update(frees)
        found.append(Call(op, reads, makes, frees, dims))
    return tuple(reversed(found))


def _reads(op: Op) -> tuple[str, ...]:
    values = [args.decode(item) for item in (*op.args, *op.kwargs.values())]
    names = [
        leaf.name for value in values for leaf in args.walk(value) if isinstance(leaf, args.Ref)
    ]
    return tuple(dict.fromkeys(names))
