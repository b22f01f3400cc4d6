"""The compiler's stages on a terminal: a line for each that ended, and one for what runs now."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from genie.cli.render import use_colour

__all__ = ["Progress"]


class Progress:
    """Call it with each stage's name as the stage starts; leave the context when all is done.

    Nothing is written unless stderr is a terminal. The line of the running stage is only drawn
    where lines can be overwritten, that is not with NO_COLOR or on a dumb terminal.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown = sys.stderr.isatty()
        self._overwrites = use_colour(sys.stderr)
        self._stage: str | None = None
        self._since = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._end()
        elif self._stage is not None:
            self._write("\r\x1b[K" if self._overwrites else "")

    def __call__(self, stage: str) -> None:
        """Say that `stage` starts, and so that the one before it has ended."""
        if (self._stage, stage) != ("capture", "model"):
            # The driver announces its capture stage, and at once the child its first part.
            self._end()
            self._since = self._clock()
        self._stage = stage
        if self._overwrites:
            self._write(f"\r\x1b[K… {stage}")

    def _end(self) -> None:
        if self._stage is not None:
            spent = self._clock() - self._since
            start, mark = ("\r\x1b[K", "\x1b[32m✓\x1b[0m") if self._overwrites else ("", "✓")
            self._write(f"{start}{mark} {self._stage:<10} {spent:6.2f} s\n")
        self._stage = None

    def _write(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(text)
            sys.stderr.flush()
