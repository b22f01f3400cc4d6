"""The runs of an executor across workers: which wait, which are out, and whose fault a death is."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from genie_runtime.ports import Failed, Finished, OnEvent, Ready, RunEvent, RunRequest, Sampled
from genie_schemas.errors import GenieError

__all__ = ["PendingRun", "RunTable", "closed_error", "fail"]

log = logging.getLogger(__name__)

STRIKES = 3
"""Workers in a row that a plan may take down."""

_KEPT_TICKETS = 1024
"""Ended runs whose plan is remembered: a kernel may outlive its run, and crash then."""


def closed_error(device: str) -> GenieError:
    """GEN0415 for whatever asks an executor that was closed."""
    return GenieError("GEN0415", f"the executor of {device} is closed")


@dataclass(eq=False)
class PendingRun:
    """A run that has not ended. `delivered` are transfers that came before a worker had it."""

    request: RunRequest
    on_event: OnEvent
    delivered: list[str] = field(default_factory=list)

    def emit(self, event: RunEvent) -> None:
        """Tell the listener, whose own failures are its own."""
        try:
            self.on_event(event)
        except Exception:
            log.exception("the listener of run %s failed", self.request.run_key)

    def emit_later(self, event: RunEvent) -> None:
        """Tell the listener from another thread: the caller may hold locks that it takes."""
        threading.Thread(target=self.emit, args=(event,), daemon=True).start()


class RunTable:
    """Runs by ticket. Thread-safe; calls no listener."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._runs: dict[int, PendingRun] = {}
        self._waiting: deque[int] = deque()
        self._sending = 0
        self._plans: OrderedDict[int, str] = OrderedDict()
        self._strikes: dict[str, int] = {}
        self._closed = False

    def add(self, run: PendingRun) -> GenieError | None:
        """Queue a run; why not, when its plan is quarantined. Raises GEN0415 after `close`."""
        digest = run.request.plan_digest
        with self._lock:
            if self._closed:
                raise closed_error(self._device)
            if self._strikes.get(digest, 0) >= STRIKES:
                return self._quarantined(digest)
            ticket = next(self._numbers)
            self._runs[ticket] = run
            self._waiting.append(ticket)
            self._plans[ticket] = digest
            while len(self._plans) > len(self._runs) + _KEPT_TICKETS:
                self._plans.popitem(last=False)
            return None

    # -- sending: one thread at a time ---------------------------------------------------------

    def take(self) -> tuple[int, PendingRun] | None:
        """The next run to send. `sent` or `put_back` ends that."""
        with self._lock:
            if not self._waiting:
                return None
            self._sending = self._waiting.popleft()
            return self._sending, self._runs[self._sending]

    def sent(self) -> None:
        """The run that was taken is on a worker: its death is the run's end."""
        with self._lock:
            self._sending = 0

    def put_back(self) -> None:
        """The worker was gone before it had all of the run that was taken."""
        with self._lock:
            ticket, self._sending = self._sending, 0
            if ticket in self._runs:
                self._waiting.appendleft(ticket)

    def deliver(self, run_key: str, step: str) -> bool:
        """Note a delivery for runs that no worker has yet; whether there are any."""
        with self._lock:
            runs = [r for t in self._waiting if (r := self._runs[t]).request.run_key == run_key]
            for run in runs:
                run.delivered.append(step)
            return bool(runs)

    # -- the end of runs -----------------------------------------------------------------------

    def settle(self, ticket: int, event: RunEvent) -> PendingRun | None:
        """The run that an event is of; after its last event the table forgets it."""
        with self._lock:
            if isinstance(event, Ready | Sampled):
                return self._runs.get(ticket)
            if isinstance(event, Finished):
                self._strikes.pop(self._plans.pop(ticket, ""), None)
            return self._runs.pop(ticket, None)

    def take_lost(self) -> list[PendingRun]:
        """Remove the runs that were on a worker."""
        with self._lock:
            held = {*self._waiting, self._sending}
            return [self._runs.pop(ticket) for ticket in list(self._runs) if ticket not in held]

    def take_waiting(
        self, *, run_key: str | None = None, digest: str | None = None
    ) -> list[PendingRun]:
        """Remove the runs that no worker has, of a key or of a plan if given."""
        with self._lock:
            tickets = [
                ticket
                for ticket in self._waiting
                if run_key in (None, self._runs[ticket].request.run_key)
                and digest in (None, self._runs[ticket].request.plan_digest)
            ]
            for ticket in tickets:
                self._waiting.remove(ticket)
            return [self._runs.pop(ticket) for ticket in tickets]

    def close(self) -> list[PendingRun]:
        """Take no more runs; remove the ones there are."""
        with self._lock:
            self._closed = True
            runs = list(self._runs.values())
            self._runs.clear()
            self._waiting.clear()
            return runs

    # -- whose fault ---------------------------------------------------------------------------

    def blame(self, ticket: int) -> str | None:
        """Count a worker's death against the plan of this run; the plan, once quarantined."""
        with self._lock:
            digest = self._plans.get(ticket)
            if digest is None:
                return None
            self._strikes[digest] = self._strikes.get(digest, 0) + 1
            return digest if self._strikes[digest] >= STRIKES else None

    def forgive(self, digest: str) -> None:
        """Forget what speaks against a plan."""
        with self._lock:
            self._strikes.pop(digest, None)

    def refusal(self, digest: str) -> GenieError | None:
        """GEN0452 while a plan is quarantined."""
        with self._lock:
            if self._strikes.get(digest, 0) < STRIKES:
                return None
            return self._quarantined(digest)

    def _quarantined(self, digest: str) -> GenieError:
        return GenieError(
            "GEN0452",
            f"the plan {digest[:23]}… is quarantined on {self._device}",
            cause=f"the executor died {STRIKES} times in a row while computing it",
            remedy="find out why (see the executor's log), then uninstall and install it again",
        )


def fail(runs: list[PendingRun], error: GenieError, *, retryable: bool) -> None:
    """End runs with an error."""
    for run in runs:
        run.emit(Failed(error, retryable))
