"""The runs of the last call of a model: what its analysis is made from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["History", "Run"]

MOST_RUNS = 64
"""Runs of one call that are remembered; of a call that looks at values more often, the last."""


@dataclass(frozen=True)
class Run:
    """The words of a run, and the numbers under which the device had and keeps its tensors."""

    words: bytes
    leaves: tuple[int, ...]
    kept: tuple[int, ...]


class History:
    """A program that looks at a value in the middle of a forward makes several runs of it."""

    def __init__(self) -> None:
        self._call = 0
        self.runs: list[Run] = []
        """Those since the last call of a model began; the last run alone where none was called."""

    def add(self, call: int, run: Run) -> None:
        """Remember a run; `call` is how many models the program has called until it."""
        if call != self._call or call == 0:
            self.runs.clear()
        self._call = call
        self.runs.append(run)
        del self.runs[:-MOST_RUNS]
