"""The states of a session's sequences (KV caches): which there are, at which version, how large.

The tensors are the executors'. Here is what must be the same on every device of the node: a run
names the version that it goes on from, has the state to itself, and makes the next version or
leaves it as it was. Their memory is held from the first run until the sequence is closed, or its
session ends.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from genie_runtime.budget import Budget, Reservation
from genie_runtime.plans import InstalledPlan
from genie_runtime.ports import ExecutorPort, StateUse
from genie_schemas.errors import GenieError, Place
from genie_schemas.messages import StateRequest

__all__ = ["StateLease", "States"]

MAX_STATES = 4096
"""Sequences that one session may have at once."""


@dataclass(eq=False)
class _State:
    name: str
    plan_digest: str
    dims: Mapping[str, int]
    """The dimensions that its size depends on."""
    executors: Sequence[ExecutorPort]
    """Those that hold parts of it."""
    version: int = 0
    moved: dict[str, int] = field(default_factory=dict)
    """Plan device → version there: a run moves on what lies on the devices that it uses."""
    entrypoint: str = ""
    busy: bool = False
    dropped: bool = False


class StateLease:
    """A run's use of a sequence's state; `end` gives it back."""

    def __init__(self, states: States, state: _State) -> None:
        self._states = states
        self._state = state

    @property
    def new(self) -> bool:
        """Whether this run makes the state."""
        return self._state.version == 0

    @property
    def before(self) -> str:
        """The entry point of the run before; empty for the first."""
        return self._state.entrypoint

    def use(self, device: str) -> StateUse:
        """What the executor of a plan device is told."""
        return StateUse(self._state.name, self._state.moved.get(device, 0), keep=True)

    def hold(self, budget: Budget, reservation: Reservation, held: Mapping[str, int]) -> None:
        """Keep `held` bytes (by node device) of the run's reservation until the state is freed."""
        self._states.hold(self._state, budget, reservation, held)

    def end(
        self, entrypoint: str, used: Collection[str], moved: Collection[str], *, good: bool
    ) -> None:
        """The run is over: it was to move the state on on `used` plan devices, and did on `moved`.

        When it did on some alone, nobody can go on from there: the state is dropped. A run that
        moved nothing leaves it as it was, unless it came to a good end without any state here.
        """
        self._states.end(self._state, entrypoint, used, moved, good)


class States:
    """The states of one session. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}
        self._held: dict[str, tuple[Budget, Reservation]] = {}

    def enter(
        self,
        session: str,
        request: StateRequest,
        plan: InstalledPlan,
        dims: Mapping[str, int],
        executors: Sequence[ExecutorPort],
    ) -> StateLease:
        """Take a sequence's state for a run; at version 0 there is none yet, and it is begun.

        Raises GEN0475 when it is not there, GEN0476 for another version, GEN0477 for other sizes
        or another plan, GEN0478 while another run has it, GEN0511 beyond the limit.
        """
        sizes = {name: dims[name] for name in sorted(plan.state_dims())}
        with self._lock:
            state = self._states.get(request.sequence)
            if state is None:
                if request.version:
                    raise _missing()
                if len(self._states) >= MAX_STATES:
                    raise GenieError("GEN0511", f"{MAX_STATES} sequences in one session")
                name = f"{session}/{request.sequence}"
                state = _State(name, plan.digest, sizes, executors)
                self._states[request.sequence] = state
            elif state.plan_digest != plan.digest or state.dims != sizes:
                raise _unfit(state, plan, sizes)
            elif state.version != request.version:
                raise _stale(state.version, request.version)
            elif state.busy:
                raise GenieError(
                    "GEN0478",
                    "another run of the sequence has not ended",
                    remedy="wait for it, or use a sequence for each of them",
                )
            state.busy = True
        return StateLease(self, state)

    def hold(
        self, state: _State, budget: Budget, reservation: Reservation, held: Mapping[str, int]
    ) -> None:
        """See `StateLease.hold`."""
        kept = budget.keep_state(reservation, held)
        with self._lock:
            self._held[state.name] = (budget, kept)

    def end(
        self,
        state: _State,
        entrypoint: str,
        used: Collection[str],
        moved: Collection[str],
        good: bool,
    ) -> None:
        """See `StateLease.end`."""
        with self._lock:
            state.busy = False
            forward = good or (bool(used) and set(used) <= set(moved))
            if forward:
                state.version += 1
                state.entrypoint = entrypoint
                for device in used:
                    state.moved[device] = state.moved.get(device, 0) + 1
            if not state.dropped and (forward or (state.version and not moved)):
                return
            self._remove(state)
        self._free(state)

    def drop(self, sequence: str) -> None:
        """Free a sequence's state, when the run that has it ends at the latest."""
        with self._lock:
            state = self._states.get(sequence)
            if state is None:
                return
            if state.busy:
                state.dropped = True
                return
            self._remove(state)
        self._free(state)

    def close(self) -> None:
        """The session has ended."""
        with self._lock:
            sequences = list(self._states)
        for sequence in sequences:
            self.drop(sequence)

    def usage(self) -> tuple[int, int]:
        """(sequences, bytes) that are held."""
        with self._lock:
            return len(self._states), sum(sum(r.needs.values()) for _, r in self._held.values())

    def _remove(self, state: _State) -> None:
        self._states.pop(state.name.rpartition("/")[2], None)

    def _free(self, state: _State) -> None:
        for executor in state.executors:
            executor.free_state(state.name)
        with self._lock:
            held = self._held.pop(state.name, None)
        if held is not None:
            held[0].drop_state(held[1])


def _missing() -> GenieError:
    return GenieError(
        "GEN0475",
        "the session has no such state",
        cause="the sequence was closed, belongs to another session, or its daemon was started "
        "again since",
        remedy="begin a new sequence with its first run, such as the prefill",
    )


def _stale(has: int, named: int) -> GenieError:
    return GenieError(
        "GEN0476",
        f"the state is at version {has}; the run goes on from version {named}",
        cause="another run moved it on, or one failed for the client and not for the node",
        remedy="begin a new sequence with its first run, such as the prefill",
        context={"version": has, "expected": named},
    )


def _unfit(state: _State, plan: InstalledPlan, dims: Mapping[str, int]) -> GenieError:
    if state.plan_digest != plan.digest:
        return GenieError(
            "GEN0477",
            "the state was made by another plan",
            cause=f"by {state.plan_digest[:23]}…, and the run is of {plan.digest[:23]}…",
            remedy="use a sequence for each plan",
        )
    differ = [f"{n} = {state.dims[n]}, not {dims[n]}" for n in dims if state.dims[n] != dims[n]]
    return GenieError(
        "GEN0477",
        f"the state was made for {', '.join(differ)}",
        Place(path="dims"),
        remedy="call with the sizes of the sequence's first run, or begin a new sequence",
    )
