"""Running a program whose arguments are resolved: fetch from slots, call, store.

Constants of the program's arguments stand in slots of their own, so that a call's arguments are one
`itemgetter` over the slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from genie_runtime.executors.control import turn
from genie_runtime.executors.runs import NEVER, Stop, Stopped
from genie_schemas.errors import GenieError
from genie_schemas.plan import Op

__all__ = ["Bound", "Fetch", "OperatorFailed", "Slots"]

Slots = list[Any]
Fetch = Callable[[Slots], Sequence[Any]]


class OperatorFailed(Exception):
    """A kernel raised `error`; which one is `name`, the `position`-th op, writing `out`."""

    def __init__(self, op: Op, position: int, error: BaseException) -> None:
        super().__init__(op.op)
        self.name = op.op
        self.out = next((name for name in op.out if name is not None), None)
        self.position = position
        self.error = error


class Bound:
    """A slot program with every argument resolved."""

    def __init__(
        self,
        template: Slots,
        calls: Sequence[tuple[Any, ...]],
        ops_: Sequence[Op],
        outputs: Sequence[int],
        seed: int | None,
        controls: bool,
    ) -> None:
        self.seed = seed
        self.controls = controls
        self._template = template
        self._calls = tuple(calls)
        self._ops = tuple(ops_)
        self._outputs = tuple(outputs)

    def run(self, inputs: Sequence[torch.Tensor], stop: Stop = NEVER) -> list[torch.Tensor]:
        """The program's outputs, which may share memory with its inputs and with each other.

        Raises OperatorFailed when a kernel does, and Stopped once `stop` is set.
        """
        slots = self._template.copy()
        slots[: len(inputs)] = inputs
        at = 0
        if self.controls:
            turn.stop, turn.limit = stop, None
        try:
            for at, fn, fetch, out, outs, frees in self._calls:  # noqa: B007 - read when one fails
                result = fn(*fetch(slots))
                if outs is None:
                    slots[out] = result
                else:
                    for slot, item in zip(outs, result, strict=True):
                        slots[slot] = item
                for slot in frees:
                    slots[slot] = None
                if stop.now:
                    raise Stopped
        except (Stopped, OperatorFailed):
            raise
        except Exception as error:
            raise OperatorFailed(self._ops[at], at, error) from error
        return [slots[slot] for slot in self._outputs]

    def run_metered(
        self, inputs: Sequence[torch.Tensor], limit: int, stop: Stop = NEVER
    ) -> tuple[list[torch.Tensor], int]:
        """`run`, counting after each op the storage that its values hold; slower.

        Returns the outputs, and the most bytes that were held beyond the inputs (the outputs
        included, what kernels allocate for themselves not). Raises OperatorFailed, Stopped, and
        GenieError GEN0462 as soon as they hold more than `limit` bytes.
        """
        meter = _Meter(inputs)
        slots = self._template.copy()
        slots[: len(inputs)] = inputs
        for position, fn, fetch, out, outs, frees in self._calls:
            turn.stop, turn.limit, turn.most = stop, limit - meter.held, 0
            try:
                result = fn(*fetch(slots))
                if outs is None:
                    slots[out] = result
                else:
                    for slot, item in zip(outs, result, strict=True):
                        slots[slot] = item
            except (Stopped, OperatorFailed, GenieError):
                raise
            except Exception as error:
                raise OperatorFailed(self._ops[position], position, error) from error
            meter.most = max(meter.most, meter.held + turn.most)
            for slot in (out,) if outs is None else outs:
                meter.store(slot, slots[slot])
            if meter.held > limit:
                raise GenieError(
                    "GEN0462",
                    f"after {self._ops[position].op} the program holds {meter.held} bytes; "
                    f"{limit} are left on the device",
                    remedy="use a smaller batch, or a device with more memory",
                )
            for slot in frees:
                meter.drop(slot)
                slots[slot] = None
            if stop.now:
                raise Stopped
        return [slots[slot] for slot in self._outputs], meter.most


class _Meter:
    """Bytes of the distinct storages that slots hold, other than those of the inputs."""

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        self._foreign = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        self._slots: dict[int, int] = {}
        self._users: dict[int, tuple[int, int]] = {}
        self.held = 0
        self.most = 0

    def store(self, slot: int, item: Any) -> None:
        self.drop(slot)
        if not isinstance(item, torch.Tensor):
            return
        storage = item.untyped_storage()
        address = storage.data_ptr()
        if address in self._foreign:
            return
        users, size = self._users.get(address, (0, storage.nbytes()))
        self._users[address] = (users + 1, size)
        self._slots[slot] = address
        if users == 0:
            self.held += size
            self.most = max(self.most, self.held)

    def drop(self, slot: int) -> None:
        address = self._slots.pop(slot, None)
        if address is None:
            return
        users, size = self._users.pop(address)
        if users > 1:
            self._users[address] = (users - 1, size)
        else:
            self.held -= size
