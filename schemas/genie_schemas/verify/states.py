"""State of a plan: what it begins as, and the order in which steps move it on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from genie_schemas.errors import GenieError
from genie_schemas.plan import ComputeStep, ExecutionPlan, LoadStep, StateEffect
from genie_schemas.types import parse_type
from genie_schemas.verify._report import problem


def check_states(plan: ExecutionPlan) -> list[GenieError]:
    """Every state lies on a device of the plan, which loads the constant that it begins as."""
    errors = []
    loaded = {(n, s.device) for s in plan.steps if isinstance(s, LoadStep) for n in s.reads}
    for name, state in plan.state.items():
        path = f"state.{name}"
        if state.device not in plan.devices:
            message = f"there is no device {state.device!r}"
            errors.append(problem("GEN0308", f"{path}.device", message))
        if state.initial == "zeros":
            continue
        constant = plan.constants.get(state.initial)
        if constant is None:
            message = f"there is no constant {state.initial!r}"
            errors.append(problem("GEN0308", f"{path}.initial", message))
        elif parse_type(constant.type) != parse_type(state.type):
            message = f"it is {state.type}, {state.initial!r} is {constant.type}"
            errors.append(problem("GEN0320", f"{path}.initial", message))
        elif (state.initial, state.device) not in loaded:
            message = f"no step loads {state.initial!r} on {state.device}"
            errors.append(problem("GEN0308", f"{path}.initial", message))
    return errors


@dataclass
class Moves:
    """How the states of a plan have moved on while walking an entry point."""

    plan: ExecutionPlan
    last: dict[str, str] = field(default_factory=dict)
    """State → the step that moved it on last."""
    taken: dict[str, str] = field(default_factory=dict)
    """Value → the state that takes it when the run commits."""

    def step(self, step: ComputeStep, done: set[str]) -> Iterator[tuple[str, str]]:
        """Follow a step's effects: (code, message) of each that is wrong."""
        seen: set[str] = set()
        for effect in step.effects():
            name = effect.state
            state = self.plan.state.get(name)
            if state is None or state.device != step.device:
                yield "GEN0308", f"there is no state {name!r} on {step.device}"
                continue
            if name in seen:
                yield "GEN0309", f"it moves the state {name!r} on twice"
            seen.add(name)
            before = self.last.get(name, "entry")
            if effect.expects not in ("entry", *done):
                yield "GEN0313", f"{effect.expects!r} does not stand before it"
            elif effect.expects != before:
                message = f"it expects {name!r} as {effect.expects!r} leaves it"
                yield "GEN0313", f"{message}; the last that moved it on is {before!r}"
            self.last[name] = step.id
            if state.update == "append":
                yield from _append(step, effect)
            else:
                yield from self._replace(step, effect, state.type)

    def _replace(
        self, step: ComputeStep, effect: StateEffect, kind: str
    ) -> Iterator[tuple[str, str]]:
        if effect.value is None or effect.value not in step.writes:
            message = f"{effect.state!r} is replaced and takes {effect.value!r}"
            yield "GEN0308", f"{message}, which the step does not write"
            return
        if effect.value in self.taken:
            yield "GEN0309", f"{self.taken[effect.value]!r} takes {effect.value!r} already"
        self.taken[effect.value] = effect.state
        value = self.plan.values.get(effect.value)
        if value is not None and parse_type(value.type) != parse_type(kind):
            message = f"{effect.value!r} is {value.type}, the state {effect.state!r} is {kind}"
            yield "GEN0320", message


def _append(step: ComputeStep, effect: StateEffect) -> Iterator[tuple[str, str]]:
    if effect.value is not None:
        yield "GEN0308", f"{effect.state!r} is appended to and takes no value"
    if step.reads.count(effect.state) != 1:
        yield "GEN0308", f"{effect.state!r} is appended to and is not read once by the step"
