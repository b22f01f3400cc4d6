"""Names of a plan with several entry points: `prefill/h.0.add` and `decode/h.0.add`."""

from __future__ import annotations

from collections.abc import Iterable

from genie_schemas.plan import (
    ComputeStep,
    EntryPoint,
    FreeStep,
    LoadStep,
    ReturnStep,
    Step,
    TransferStep,
)

__all__ = ["Qualified"]


class Qualified:
    """Puts an entry point's name in front of its step ids and of the values that its steps make.

    Inputs, states and constants keep their names: callers and other entry points know them.
    """

    def __init__(self, entry: str, values: Iterable[str]) -> None:
        self.prefix = f"{entry}/"
        self.values = frozenset(values)

    def name(self, name: str) -> str:
        """A value's name in the plan."""
        return self.prefix + name if name in self.values else name

    def step(self, step: Step) -> Step:
        """The step under its name in the plan."""
        update: dict[str, object] = {
            "id": self.prefix + step.id,
            "after": [self.prefix + other for other in step.after],
        }
        if isinstance(step, ComputeStep):
            update["writes"] = [self.name(n) for n in step.writes]
            if effects := step.effects():
                update["effect"] = [
                    e.model_copy(
                        update={
                            "expects": e.expects
                            if e.expects == "entry"
                            else self.prefix + e.expects,
                            "value": None if e.value is None else self.name(e.value),
                        }
                    )
                    for e in effects
                ]
        if isinstance(step, TransferStep):
            update["writes"] = [self.name(n) for n in step.writes]
        if isinstance(step, ComputeStep | LoadStep | TransferStep | FreeStep | ReturnStep):
            update["reads"] = [self.name(n) for n in step.reads]
        return step.model_copy(update=update)

    def entry(self, entry: EntryPoint) -> EntryPoint:
        """The entry point with its steps and outputs under their names in the plan."""
        outputs = [
            output.model_copy(update={"value": self.name(output.value)})
            if output.value is not None
            else output
            for output in entry.outputs
        ]
        steps = [self.prefix + step for step in entry.steps]
        return entry.model_copy(update={"outputs": outputs, "steps": steps})
