"""State that outlives runs: a plan's named tensors on a device, versioned, for one run at a time.

A run takes the state of its key at the version that it expects and commits the next one. Append
state is written in place: what a run writes lies at or beyond a cursor, which is state that is
replaced, so a run that fails leaves nothing behind that anyone reads, and a replay writes the same
places again. Replaced state is a new tensor, which takes the place of the old at the commit.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from genie_runtime.executors.schedule import Form
from genie_runtime.ports import StateUse
from genie_schemas.errors import GenieError, Place

__all__ = ["Key", "Lease", "StateTable", "initial"]

Key = tuple[str, str, str]
"""(`StateUse.key`, plan digest, device of the plan)"""

_PATIENCE = 30.0
_LOOK = 0.02
"""Seconds between looks whether a run that waits for state was cancelled."""

_uids = itertools.count(1)


@dataclass(eq=False)
class _Held:
    """The state under a key. `dropped`: it goes as soon as the run that has it ends."""

    forms: Mapping[str, Form]
    version: int = 0
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    busy: bool = True
    dropped: bool = False
    uid: int = field(default_factory=lambda: next(_uids))

    @property
    def nbytes(self) -> int:
        return sum(form.nbytes for form in self.forms.values())


@dataclass(eq=False)
class Lease:
    """A run's hold on state. `tensors` are the run's own view: replaced ones appear here first.

    `uid` names the memory of the append state, for whoever caches something about it.
    """

    tensors: dict[str, torch.Tensor]
    fresh: bool
    uid: int
    committed: bool = False

    def commit(self) -> None:
        """Every step has run: what the run made is the next version."""
        self.committed = True


class StateTable:
    """The state of one device, by key. Thread-safe; a key serves one run after the other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[Key, _Held] = {}
        self._gone: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all state, that of running runs included."""
        with self._changed:
            return sum(held.nbytes for held in self._held.values())

    @contextmanager
    def use(
        self, key: Key, use: StateUse, forms: Mapping[str, Form], check: Callable[[], None]
    ) -> Iterator[Lease]:
        """Hold the state of a key; without a commit it is afterwards what it was before.

        `expects` 0 makes it anew, and what was there is dropped at once. `check` raises when the
        run is to end. Raises GenieError: GEN0475 when there is no such state, GEN0476 for another
        version, GEN0477 for other sizes, GEN0478 when another run did not let go of it.
        """
        held = self._take(key, use, forms, check)
        lease = Lease(dict(held.tensors), held.version == 0, held.uid)
        try:
            yield lease
        finally:
            with self._changed:
                held.busy = False
                if lease.committed and use.keep:
                    held.version += 1
                    held.tensors = lease.tensors
                elif lease.committed or held.version == 0:
                    held.dropped = True
                if held.dropped:
                    self._remove(key)
                self._changed.notify_all()

    def _take(
        self, key: Key, use: StateUse, forms: Mapping[str, Form], check: Callable[[], None]
    ) -> _Held:
        until = time.monotonic() + _PATIENCE
        with self._changed:
            while (held := self._held.get(key)) is not None and held.busy:
                check()
                if time.monotonic() >= until:
                    raise GenieError(
                        "GEN0478",
                        "the state is in use by another run",
                        cause=f"it did not end within {_PATIENCE:.0f} s",
                        remedy="wait for that run, or cancel it",
                    )
                self._changed.wait(_LOOK)
            if use.expects == 0:
                self._remove(key)
                held = self._held[key] = _Held(forms)
                return held
            if held is None:
                raise GenieError(
                    "GEN0475",
                    f"there is no state at version {use.expects} on {key[2]}",
                    cause="it was freed, or its executor was started again since",
                    remedy="begin anew with the tokens so far",
                )
            if held.version != use.expects:
                raise GenieError(
                    "GEN0476",
                    f"the state on {key[2]} is at version {held.version}, not {use.expects}",
                    remedy=f"continue from version {held.version}, or begin anew",
                )
            _same_sizes(held.forms, forms)
            held.busy = True
            return held

    def free(self, wanted: Callable[[Key], bool]) -> None:
        """Drop the state of keys; that of a running run when it ends."""
        with self._changed:
            for key in [key for key in self._held if wanted(key)]:
                self._held[key].dropped = True
                if not self._held[key].busy:
                    self._remove(key)

    def _remove(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._gone.append(held.uid)

    def take_gone(self) -> list[int]:
        """The `uid` of state that was dropped since the last call."""
        with self._changed:
            gone, self._gone = self._gone, []
            return gone


def _same_sizes(held: Mapping[str, Form], forms: Mapping[str, Form]) -> None:
    for name, form in forms.items():
        before = held.get(name)
        if before is None or before.sizes != form.sizes:
            made = "not made" if before is None else f"made as {list(before.sizes)}"
            raise GenieError(
                "GEN0477",
                f"the state was made for other sizes than {list(form.sizes)}",
                Place(path=f"state.{name}"),
                f"{name} was {made}; it is {form.text} in the plan",
                "call with as many rows as before, or begin anew",
            )


def initial(
    forms: Mapping[str, Form], given: Mapping[str, torch.Tensor], device: torch.device
) -> dict[str, torch.Tensor]:
    """New state: zeros, or a copy of the constant in `given`; each alone in its memory."""
    made = {}
    for name, form in forms.items():
        tensor = torch.empty_strided(form.sizes, form.strides, dtype=form.dtype, device=device)
        made[name] = tensor.copy_(given[name]) if name in given else tensor.zero_()
    return made
