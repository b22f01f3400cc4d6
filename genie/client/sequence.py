"""A sequence: runs that continue each other, with their state on the nodes between them."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from genie.client.tensors import Array, Tensor
from genie_schemas.closing import Closing
from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    from genie.client.result import RunResult

__all__ = ["Sequence", "not_in_a_sequence"]

_DEADLINE = 600.0

Inputs = Mapping[str, Array | Tensor]


class Sequence(Closing):
    """State of its own on the nodes of a plan. Get one from `Session.sequence`; close it.

        with session.sequence() as sequence:
            sequence.run({"input_ids": prompt}, entrypoint="prefill")
            sequence.run({"token": token}, entrypoint="decode")

    The first run makes the state, and every run that ends well makes its next version: the next run
    names it, and is refused when the state is at another one. It holds memory of the daemons until
    it is closed, or its session ends. One run at a time; a session may have many sequences.
    """

    def __init__(
        self,
        run: Callable[[Inputs, str, float, str, int], RunResult],
        drop: Callable[[str], None],
    ) -> None:
        """`run` carries a run out with (inputs, entry point, deadline, key, version)."""
        self._run = run
        self._drop = drop
        self._lock = threading.Lock()
        self._key: str | None = secrets.token_hex(16)
        self._begun = False
        self.version = 0
        """The version of its state: 0 before the first run."""

    def run(
        self, inputs: Inputs, *, entrypoint: str = "forward", deadline: float = _DEADLINE
    ) -> RunResult:
        """Run an entry point on the sequence's state; `inputs` are as `Session.run` takes them.

        A run that fails leaves the state as it was, unless only a part of the nodes moved it on.
        Raises what `Session.run` does, GEN0475 when the state is not there any more (its daemon was
        started again, or the sequence is closed), GEN0476 when it is at another version, GEN0477
        for other sizes than those of the first run, GEN0478 while another run has it.
        """
        if not self._lock.acquire(blocking=False):
            raise GenieError(
                "GEN0478",
                "another run of the sequence has not ended",
                remedy="wait for it, or use a sequence for each of them",
            )
        try:
            if self._key is None:
                raise GenieError(
                    "GEN0475",
                    "the sequence is closed",
                    remedy="begin a new one with session.sequence()",
                )
            self._begun = True
            result = self._run(inputs, entrypoint, deadline, self._key, self.version)
            self.version += 1
            return result
        finally:
            self._lock.release()

    def close(self) -> None:
        """Free the state on every node; a second time does nothing."""
        key, self._key = self._key, None
        if key is not None and self._begun:
            self._drop(key)


def not_in_a_sequence(entrypoint: str) -> GenieError:
    """GEN0407 for a loop, whose state is its own."""
    return GenieError(
        "GEN0407",
        f"{entrypoint!r} generates, and is no part of a sequence",
        remedy="call session.generate, or run the entry points that it consists of",
    )
