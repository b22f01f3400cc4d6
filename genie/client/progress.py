"""A generation as its caller sees it: the tokens so far, whatever became of the nodes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from genie.client.link import RunSpec, Step
from genie.client.tensors import Tensor
from genie_runtime.ports import Generation
from genie_schemas.errors import GenieError
from genie_schemas.messages import ENDED
from genie_schemas.plan import Sample

__all__ = ["OnTokens", "Progress"]

OnTokens = Callable[[int, Step], None]
"""Called with the index of a step and its token of every row: the column `index` of `tokens`."""


class Progress:
    """The tokens of one generation over all its attempts. One thread writes it."""

    def __init__(
        self, rows: int, sample: Sample, generation: Generation, on_tokens: OnTokens | None
    ) -> None:
        self.rows = rows
        self.steps: list[Step] = []
        self.aborted = False
        """Whether the caller's own function failed: nothing is to be tried again."""
        self._sample = sample
        self._generation = generation
        self._on_tokens = on_tokens
        self._ended = [False] * rows
        self._begun_ns = time.monotonic_ns()
        self._first_ns = self._last_ns = 0

    def resumed(self, spec: RunSpec) -> RunSpec:
        """The run that goes on behind the tokens so far; the last ones are drawn once more."""
        steps = self.steps
        if len(steps) == self._generation.max_new_tokens or (steps and all(self._ended)):
            steps = steps[:-1]  # all came, and only the word of the end did not
        forced = tuple(zip(*steps, strict=True))
        return replace(spec, generation=replace(self._generation, forced=forced))

    def take(self, first: int, steps: Sequence[Step]) -> None:
        """Tokens from index `first` on; those that are known already are only compared.

        Raises GEN0509 when one is missing, or is another than before.
        """
        for index, step in enumerate(steps, first):
            if index > len(self.steps):
                raise GenieError("GEN0509", f"the token {len(self.steps)} is missing")
            if index < len(self.steps):
                if self.steps[index] != step:
                    raise GenieError("GEN0509", f"another token {index} than before")
                continue
            self._last_ns = time.monotonic_ns()
            self._first_ns = self._first_ns or self._last_ns
            self.steps.append(step)
            for row, token in enumerate(step):
                self._ended[row] |= token == ENDED or token in self._sample.eos
            self._tell(index)

    def recorded(self, tokens: Tensor) -> None:
        """The tokens of a run on record, i64[rows,steps]; those not told before are told."""
        columns = tokens.array.T.tolist()
        known = len(self.steps)
        self.steps = [tuple(column) for column in columns]
        for index in range(known, len(self.steps)):
            self._tell(index)

    def _tell(self, index: int) -> None:
        if self._on_tokens is None:
            return
        pad = self._sample.pad
        try:
            self._on_tokens(index, tuple(pad if t == ENDED else t for t in self.steps[index]))
        except BaseException:
            self.aborted = True
            raise

    def tokens(self) -> Tensor:
        """All tokens, int64[rows,steps], with the plan's padding behind the end of a row."""
        array = np.array(self.steps, np.int64).reshape(len(self.steps), self.rows).T
        return Tensor(
            "int64", np.ascontiguousarray(np.where(array == ENDED, self._sample.pad, array))
        )

    def times(self) -> tuple[float | None, float | None]:
        """(ms from the call to the first token, ms a token after it), as they came here."""
        if not self._first_ns:
            return None, None
        count = len(self.steps)
        each = (self._last_ns - self._first_ns) / 1e6 / (count - 1) if count > 1 else None
        return (self._first_ns - self._begun_ns) / 1e6, each
