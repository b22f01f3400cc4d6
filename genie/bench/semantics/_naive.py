"""The naive baseline: nothing stays remote. A call ships what it reads and what it makes.

Weights travel with every call that reads them. Views are taken in the client, where their tensors
are: shipping those would only make the baseline look worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch

from genie.bench.semantics._remote import Remote
from genie.bench.semantics._server import defined
from genie.bench.semantics._walk import Call, Walk
from genie_runtime.executors.ops import resolve
from genie_schemas import args
from genie_schemas.plan import ComputeStep, ReturnStep, TransferStep

__all__ = ["Naive"]


class Naive:
    """A client over one server a device, each of which forgets everything after each call."""

    def __init__(
        self, constants: Callable[[str], torch.Tensor], remotes: Mapping[str, Remote]
    ) -> None:
        self._source = constants
        self._remotes = remotes
        self._constants: dict[str, torch.Tensor] = {}
        self.state: dict[str, torch.Tensor] = {}
        """What the plan calls state: it stays in the client."""

    def run(self, walk: Walk, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs of an entry point by name."""
        values = dict(inputs)
        for step in walk.steps:
            if isinstance(step, TransferStep):
                values[step.writes[0]] = values[step.reads[0]]
            elif isinstance(step, ComputeStep):
                given = [self._value(walk, name, values) for name in step.reads]
                made = self._compute(walk, step, given)
                values.update(zip(step.writes, made, strict=True))
                for effect in step.effects():
                    if effect.value is not None:
                        self.state[effect.state] = values[effect.value]
        returned = {s.reads[0] for s in walk.steps if isinstance(s, ReturnStep)}
        return {o.name: values[o.value] for o in walk.entry.outputs if o.value in returned}

    def _value(self, walk: Walk, name: str, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if name in self.state:
            return self.state[name]
        if name not in walk.plan.constants:
            return values[name]
        if name not in self._constants:
            self._constants[name] = self._source(name)
        return self._constants[name]

    def _compute(
        self, walk: Walk, step: ComputeStep, given: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        program = walk.program(step)
        here = dict(zip((value.name for value in program.inputs), given, strict=True))
        for call in walk.calls(step):
            inputs = [here[name] for name in call.reads]
            if _is_view(call.op.op):
                made = defined(call.text.encode()).bound.run(inputs)
            else:
                made = self._ship(self._remotes[step.device], call, inputs)
            here.update(zip(call.makes, made, strict=True))
            for name in call.frees:
                del here[name]
        return [here[value.name] for value in program.outputs]

    def _ship(self, remote: Remote, call: Call, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Send the call and what it reads, and get what it made and what it wrote to."""
        number = remote.define(call.text)
        for slot, tensor in enumerate(inputs):
            remote.store(slot, tensor)
        slots = range(len(inputs), len(inputs) + len(call.makes))
        remote.call(number, range(len(inputs)), slots)
        written = _written(call)
        for slot in (*written, *(slots if not written else ())):
            remote.ask(slot)
        if not written:
            return [remote.answer() for _ in slots]
        for slot in written:
            inputs[slot].copy_(remote.answer())
        return [inputs[slot] for slot in written][: len(call.makes)]


@lru_cache(maxsize=4096)
def _is_view(op: str) -> bool:
    """Whether a call only looks at memory that is there."""
    returns = resolve(op)._schema.returns
    infos = [item.alias_info for item in returns]
    return bool(infos) and all(info is not None and not info.is_write for info in infos)


def _written(call: Call) -> list[int]:
    """Which of a call's inputs it writes to, in the order in which it returns them."""
    schema = resolve(call.op.op)._schema
    found = []
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = call.op.args[position] if position < len(call.op.args) else None
        value = args.decode(call.op.kwargs.get(argument.name, given))
        found += [
            call.reads.index(leaf.name) for leaf in args.walk(value) if isinstance(leaf, args.Ref)
        ]
    return found
