"""The random numbers of a run: one stream a device, which begins at the run's seed.

Operators such as dropout take no generator, so torch's own is lent: it is set to where the run's
stream stands, the program runs, and it gets its own state back. Steps of a run draw one after the
other in the plan's order, which is why a plan on one device draws what `torch.manual_seed(seed)`
and the model itself draw, and why a run that is tried again draws the same numbers.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from genie_runtime.executors.runs import deadline_error
from genie_schemas import args, rng
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import Program

__all__ = ["Stream", "seed_slot"]

_LENT = threading.Lock()
"""Held while torch's generator is lent: executors in one process share that of the CPU."""


class Stream:
    """Random numbers of one run on `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._state: torch.Tensor | None = None

    @contextmanager
    def drawing(self, seed: torch.Tensor, step: str, salt: str, timeout: float) -> Iterator[None]:
        """Operators inside draw from the stream, which moves on when they succeed.

        `seed` is int64[]; it counts at the first time only. `salt` is empty on the device that the
        seed was sent to, and names any other: two devices never draw the same numbers. Raises
        GenieError GEN0464 when `step` does not get the generator within `timeout` seconds.
        """
        if not _LENT.acquire(timeout=timeout):
            raise deadline_error(step, "waiting for the generator of random numbers")
        try:
            generator = self._generator()
            own = generator.get_state()
            try:
                if self._state is None:
                    generator.manual_seed(_seed(int(seed.item()), salt))
                else:
                    generator.set_state(self._state)
                yield
                self._state = generator.get_state()
            finally:
                generator.set_state(own)
        finally:
            _LENT.release()

    def _generator(self) -> torch.Generator:
        if self._device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            found: torch.Generator = torch.cuda.default_generators[self._device.index or 0]
            return found
        return torch.default_generator


def _seed(seed: int, salt: str) -> int:
    if not salt:
        return seed
    data = hashlib.sha256(f"{seed}@{salt}".encode()).digest()
    return int.from_bytes(data[:8], "big") >> 1


def seed_slot(program: Program, index: Mapping[str, int]) -> int | None:
    """The slot of the input that the program's ops name as their seed; None when none draws.

    Raises GenieError GEN0458 when they name no input of the program.
    """
    for position, op in enumerate(program.ops):
        if rng.KEYWORD not in op.kwargs:
            continue
        try:
            seed = args.decode(op.kwargs[rng.KEYWORD])
        except args.ArgError:
            seed = None
        slot = index.get(seed.name) if isinstance(seed, args.Ref) else None
        if slot is None or slot >= len(program.inputs):
            raise GenieError(
                "GEN0458",
                f"the program's op {position}, {op.op}, cannot be read",
                Place(path=f"ops[{position}]"),
                "its seed is no input of the program",
                "check the plan with `genie plan verify`; compile it again",
            )
        return slot
    return None
