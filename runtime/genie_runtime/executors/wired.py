"""The transfers of a run that pass without a word to the supervisor: eventfds."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Mapping

__all__ = ["Wired"]

_LONGEST = 1 << 30
"""Milliseconds that one wait takes at most: twelve days."""


class Wired:
    """Bells of incoming and triggers of outgoing transfers, by step; see `RunRequest`.

    Its eventfds are duplicates, open until `close`. One thread hears and pulls; the others' calls
    and `close` are serialised by the run's lock.
    """

    def __init__(self, bells: Mapping[str, int], triggers: Mapping[str, int]) -> None:
        self._bells = {step: os.dup(fd) for step, fd in bells.items()}
        self._triggers = {step: os.dup(fd) for step, fd in triggers.items()}
        self._pulled: set[str] = set()

    def pull(self, step: str) -> bool:
        """Have an outgoing transfer sent; whether that is known to the supervisor already."""
        trigger = self._triggers.get(step)
        if trigger is None:
            return False
        _add(trigger)
        known = step in self._pulled
        self._pulled.add(step)
        return known

    def ring(self, step: str) -> bool:
        """Say that an incoming transfer is there; False when it has no bell."""
        bell = self._bells.get(step)
        if bell is None:
            return False
        _add(bell)
        return True

    def ring_all(self) -> None:
        """Wake whoever listens."""
        for bell in self._bells.values():
            _add(bell)

    def hear(self, step: str, seconds: float) -> bool | None:
        """Wait for one ring of a bell; False when none came in time, None when it has no bell."""
        bell = self._bells.get(step)
        if bell is None:
            return None
        waiting = select.poll()
        waiting.register(bell, select.POLLIN)
        with contextlib.suppress(BlockingIOError):
            if waiting.poll(min(seconds * 1000, _LONGEST)):
                os.eventfd_read(bell)
                return True
        return False

    def close(self) -> None:
        """Give the descriptors back. Nobody hears or pulls any more."""
        fds = [*self._bells.values(), *self._triggers.values()]
        self._bells, self._triggers = {}, {}
        for fd in fds:
            os.close(fd)


def _add(eventfd: int) -> None:
    # One that is full, after 2^64 - 2 writes that nobody took, says already what there is to say.
    with contextlib.suppress(BlockingIOError):
        os.eventfd_write(eventfd, 1)
