"""The tokens of a generation loop as they come: written by its run, read by any number of streams.

A stream names the index that it goes on from, so that one that broke is resumed without a gap and
without a token twice.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from genie_schemas.errors import GenieError
from genie_schemas.messages import ENDED, GenerationReport

__all__ = ["Step", "TokenLog", "assemble"]

MAX_READERS = 4
"""Streams of one run: one, and those that broke and have not been found gone."""

Step = tuple[int, ...]
"""The tokens of one index, one for every row; `ENDED` for a row that has ended."""


class TokenLog:
    """Tokens in the order of their index. Thread-safe."""

    def __init__(self, rows: int, most: int, forced: tuple[tuple[int, ...], ...]) -> None:
        """For `rows` sequences and up to `most` steps; the first ones are `forced` (row by row).

        Raises GEN0480 when these do not fit.
        """
        lengths = {len(row) for row in forced}
        if forced and (len(forced) != rows or len(lengths) != 1 or max(lengths) >= most):
            raise GenieError(
                "GEN0480",
                "the tokens so far do not fit the run",
                cause=f"there are {len(forced)} rows of them for a batch of {rows}, with at most "
                f"{max(lengths)} tokens; {most} were asked for in all",
            )
        self.rows = rows
        self._most = most
        self._steps: list[Step] = list(zip(*forced, strict=True))
        self._forced = len(self._steps)
        self._first_ns = self._last_ns = 0
        self._ended = False
        self._readers = 0
        self._changed = threading.Condition()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Somebody streams the tokens, with a thread of the daemon's; GEN0511 beyond the limit."""
        with self._changed:
            if self._readers >= MAX_READERS:
                raise GenieError("GEN0511", f"{MAX_READERS} streams of one run at once")
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1

    def append(self, index: int, tokens: Step) -> None:
        """The next tokens were drawn; GEN0454 when an executor says what cannot be."""
        now = time.monotonic_ns()
        with self._changed:
            if index != len(self._steps) or index >= self._most or len(tokens) != self.rows:
                raise _impossible(
                    f"{len(tokens)} tokens of index {index} instead of {self.rows} "
                    f"of index {len(self._steps)}"
                )
            if any(not ENDED <= token < 2**63 for token in tokens):
                raise _impossible("a token that is no 64-bit number")
            self._first_ns = self._first_ns or now
            self._last_ns = now
            self._steps.append(tokens)
            self._changed.notify_all()

    def end(self) -> None:
        """It is known how the run ended: nothing more comes."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def after(self, index: int, timeout: float) -> tuple[list[Step], bool]:
        """The steps from `index` on, as soon as there are any, and whether these are all.

        Waits at most `timeout` seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._steps) > index or self._ended, timeout)
            return self._steps[index:], self._ended

    def steps(self) -> list[Step]:
        """All that came so far, forced ones included."""
        with self._changed:
            return list(self._steps)

    def report(self, started_ns: int) -> GenerationReport:
        """What the run that began at `started_ns` (monotonic) gave, and when."""
        with self._changed:
            count = len(self._steps) - self._forced
            first, span = self._first_ns - started_ns, self._last_ns - self._first_ns
        return GenerationReport(
            tokens=count, ttft_us=max(first, 0) // 1000 if count else 0, span_us=span // 1000
        )


def assemble(steps: list[Step], rows: int, pad: int) -> bytes:
    """Steps as an i64[rows,steps] in row-major order; `pad` stands after the end of a row."""
    flat = [pad if step[row] == ENDED else step[row] for row in range(rows) for step in steps]
    return struct.pack(f"<{len(flat)}q", *flat)


def _impossible(what: str) -> GenieError:
    return GenieError("GEN0454", "the executor reported what cannot be", cause=what)
