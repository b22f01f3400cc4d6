"""The blind baseline: weights and every result stay remote under handles, the client drives.

It is told nothing of models: it sends operators as eager execution would make them, keeps no
tensor that the caller does not look at, and lets go of a handle when nothing refers to it. Handles
belong to one device. A value that another device needs is fetched and stored by the client, unless
it came from the client in the first place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from genie.bench.semantics._remote import Remote
from genie.bench.semantics._walk import Walk
from genie_schemas.plan import ComputeStep, FreeStep, ReturnStep, TransferStep

__all__ = ["Blind", "Held"]

Constants = Callable[[str], torch.Tensor]
"""A constant of the plan by name."""


@dataclass(frozen=True)
class Held:
    """A tensor that a device's server keeps for this client."""

    device: str
    slot: int


class Blind:
    """A client over one server a device. Constants are stored when first needed, and stay."""

    def __init__(self, constants: Constants, remotes: Mapping[str, Remote]) -> None:
        self._source = constants
        self._remotes = remotes
        self._constants: dict[tuple[str, str], int] = {}
        self.state: dict[str, Held] = {}
        """What the plan calls state: tensors that stay from one run to the next."""

    # -- single tensors ---------------------------------------------------------------------

    def store(self, device: str, tensor: torch.Tensor) -> Held:
        """Put a tensor on a device."""
        remote = self._remotes[device]
        held = Held(device, remote.take())
        remote.store(held.slot, tensor)
        return held

    def call(self, device: str, text: str, inputs: Sequence[Held], outputs: int = 1) -> list[Held]:
        """Make a call that is in no plan, such as `aten.argmax.default` on logits."""
        remote = self._remotes[device]
        made = [Held(device, remote.take()) for _ in range(outputs)]
        remote.call(remote.define(text), [held.slot for held in inputs], [h.slot for h in made])
        return made

    def read(self, wanted: Sequence[Held]) -> list[torch.Tensor]:
        """Fetch tensors: all are asked for before the first is waited for."""
        for held in wanted:
            self._remotes[held.device].ask(held.slot)
        self.flush()
        return [self._remotes[held.device].answer() for held in wanted]

    def flush(self) -> None:
        """Send what was collected for any device."""
        for remote in self._remotes.values():
            remote.flush()

    def drop(self, unwanted: Iterable[Held]) -> None:
        """Let go of tensors."""
        for held in unwanted:
            self._remotes[held.device].drop(held.slot)

    # -- runs -------------------------------------------------------------------------------

    def run(
        self,
        walk: Walk,
        inputs: Mapping[str, torch.Tensor | Held],
        known: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, Held]:
        """The outputs of an entry point by name, held by their devices and the caller's to drop.

        Inputs that are held already must be on the device that reads them; they stay the caller's.
        `known` are held inputs that the caller has seen: another device gets them without fetching.
        """
        run = _Run(self, walk, known or {})
        for item in walk.entry.inputs:
            run.take(item.name, item.device, inputs[item.name])
        for step in walk.steps:
            if isinstance(step, ComputeStep):
                run.compute(step)
            elif isinstance(step, TransferStep):
                run.move(step)
            elif isinstance(step, FreeStep):
                run.free(step.reads)
        returned = {s.reads[0] for s in walk.steps if isinstance(s, ReturnStep)}
        found = {o.name: run.values[o.value] for o in walk.entry.outputs if o.value in returned}
        run.free(name for name in list(run.values) if name not in returned)
        return found

    def forget(self) -> None:
        """Let go of constants and state."""
        for (device, _), slot in self._constants.items():
            self._remotes[device].release(slot)
        for held in self.state.values():
            self._remotes[held.device].release(held.slot)
        self._constants.clear()
        self.state.clear()

    def constant(self, device: str, name: str) -> int:
        """The slot of a constant on a device."""
        key = device, name
        if key not in self._constants:
            self._constants[key] = self.store(device, self._source(name)).slot
        return self._constants[key]

    def remote(self, device: str) -> Remote:
        """The server of a device."""
        return self._remotes[device]


class _Run:
    """Where the values of one run are.

    What another device will need is asked for as soon as it is made, so that all that crosses at
    one place costs one round trip together.
    """

    def __init__(self, client: Blind, walk: Walk, known: Mapping[str, torch.Tensor]) -> None:
        self._client = client
        self._walk = walk
        self._own = dict(known)
        """Values that this side has seen."""
        self._crossing = {s.reads[0] for s in walk.steps if isinstance(s, TransferStep)}
        self._asked: dict[str, deque[str]] = {}
        self._lent: set[str] = set()
        self.values: dict[str, Held] = {}

    def take(self, name: str, device: str, value: torch.Tensor | Held) -> None:
        if isinstance(value, Held):
            self._lent.add(name)
            self.values[name] = value
            self._ask(name)
        else:
            self._own[name] = value
            self.values[name] = self._client.store(device, value)

    def compute(self, step: ComputeStep) -> None:
        remote = self._client.remote(step.device)
        program = self._walk.program(step)
        slots = {
            value.name: self._slot(step.device, name)
            for value, name in zip(program.inputs, step.reads, strict=True)
        }
        for call in self._walk.calls(step):
            inputs = [slots[name] for name in call.reads]
            for name in call.makes:
                slots[name] = remote.take()
            remote.call(remote.define(call.text), inputs, [slots[name] for name in call.makes])
            for name in call.frees:
                remote.drop(slots.pop(name))
        for value, name in zip(program.outputs, step.writes, strict=True):
            self.values[name] = Held(step.device, slots[value.name])
            self._ask(name)
        for effect in step.effects():
            if effect.value is not None:
                self._client.drop([self._client.state[effect.state]])
                self._client.state[effect.state] = self.values.pop(effect.value)

    def _slot(self, device: str, name: str) -> int:
        if name in self._client.state:
            return self._client.state[name].slot
        if name in self._walk.plan.constants:
            return self._client.constant(device, name)
        return self.values[name].slot

    def _ask(self, name: str) -> None:
        if name in self._crossing and name not in self._own:
            held = self.values[name]
            self._client.remote(held.device).ask(held.slot)
            self._asked.setdefault(held.device, deque()).append(name)

    def move(self, step: TransferStep) -> None:
        name = step.reads[0]
        if name not in self._own:
            self._client.flush()  # what the other devices were told goes on meanwhile
        while name not in self._own:
            self._own[self._asked[step.src].popleft()] = self._client.remote(step.src).answer()
        self.values[step.writes[0]] = self._client.store(step.dst, self._own[name])

    def free(self, names: Iterable[str]) -> None:
        for name in names:
            held = self.values.pop(name)
            if name not in self._lent:
                self._client.drop([held])
