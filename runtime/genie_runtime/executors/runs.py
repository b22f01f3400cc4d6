"""A run on a device: the state that several threads touch, its deadlines, and the threads."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from genie_runtime.executors.wired import Wired
from genie_runtime.ports import Failed, Finished, OnEvent, Ready, RunEvent, RunRequest, Sampled
from genie_schemas.errors import GenieError, Place

__all__ = ["NEVER", "Run", "RunEnded", "Stop", "Stopped", "Threads", "TurnsEnded", "Watchdog"]

log = logging.getLogger(__name__)


class Stop:
    """A flag that a program looks at between two operators; `now` says to stop."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = False


NEVER = Stop()
"""For programs that nobody stops."""


class Stopped(Exception):
    """A program found its flag set and left the rest of its operators undone."""


class RunEnded(Exception):
    """The run's last event is out already: its thread has nothing more to do."""


class TurnsEnded(Exception):
    """The device that samples has told that there is no further turn of the loop."""


def deadline_error(step: str, doing: str) -> GenieError:
    """GEN0464 for a step that took longer than its policy allows."""
    return GenieError(
        "GEN0464",
        f"the step {step} exceeded the time that its policy allows",
        Place(path=f"steps.{step}"),
        f"it was {doing}",
        "raise timeout_ms of the step's policy, or find out what it waited for",
    )


def cancelled_error(run_key: str) -> GenieError:
    """GEN0415 for a run that was ended on request."""
    return GenieError(
        "GEN0415",
        f"the run {run_key} was cancelled",
        remedy="run it again if it is wanted after all: nothing was published",
    )


@dataclass(eq=False)
class Run:
    """One request on its way. `incoming` are transfers that may be delivered."""

    request: RunRequest
    on_event: OnEvent
    changed: threading.Condition = field(default_factory=threading.Condition)
    delivered: Counter[str] = field(default_factory=Counter)
    """Incoming transfers that arrived and were not received: a loop receives one every turn."""
    cancelled: bool = False
    ended: bool = False
    stop: Stop = field(default_factory=Stop)
    """Set as soon as nobody wants the rest: the program being computed stops at its next op."""
    overdue_since: float | None = None
    computing: tuple[str, float] | None = None
    """Step being computed and when its time is up, by the monotonic clock."""
    wired: Wired = field(init=False)

    def __post_init__(self) -> None:
        self.wired = Wired(self.request.bells, self.request.triggers)

    def emit(self, event: RunEvent) -> None:
        """Report an event; after the last one, nothing. Called outside every lock of ours."""
        with self.changed:
            if self.ended:
                raise RunEnded
            self.ended = self.stop.now = not isinstance(event, Ready | Sampled)
        try:
            self.on_event(event)
        except Exception:
            log.exception("the listener of run %s failed", self.request.run_key)

    def finish(self, event: Finished | Failed) -> None:
        """Report the last event, unless one is out."""
        with contextlib.suppress(RunEnded):
            self.emit(event)

    def check(self) -> None:
        """Raise RunEnded after the last event, GEN0415 when the run is to end."""
        if self.ended:
            raise RunEnded
        if self.cancelled:
            raise cancelled_error(self.request.run_key)

    def ready(self, step: str) -> None:
        """The region of an outgoing transfer holds its value: have it sent.

        One that has a trigger is reported the first time only.
        """
        with self.changed:
            if self.ended:
                raise RunEnded
            known = self.wired.pull(step)
        if not known:
            self.emit(Ready(step))

    def deliver(self, step: str) -> None:
        """Mark the bytes of an incoming transfer as arrived."""
        with self.changed:
            if not self.wired.ring(step):
                self.delivered[step] += 1
                self.changed.notify_all()

    def cancel(self) -> None:
        """Ask the run to end before its next operator."""
        with self.changed:
            self.cancelled = self.stop.now = True
            self.changed.notify_all()
            self.wired.ring_all()

    def unwire(self) -> None:
        """Give the descriptors of wired transfers back: the run's thread needs none any more."""
        with self.changed:
            self.wired.close()

    def wait_for(self, step: str, seconds: float) -> None:
        """Wait until `step` is delivered, and take it. Raises GenieError GEN0464 or GEN0415."""
        arrived = self.wired.hear(step, seconds)
        if arrived is None:
            with self.changed:
                arrived = self.changed.wait_for(
                    lambda: self.delivered[step] > 0 or self.cancelled, seconds
                )
                self.delivered[step] -= arrived
        self.check()
        if not arrived:
            raise deadline_error(step, "waiting for its bytes")

    def stop_computing(self) -> None:
        """End the watched part. Raises RunEnded when the watchdog has ended the run meanwhile."""
        with self.changed:
            self.computing = None
            if self.ended:
                raise RunEnded


class Watchdog:
    """Ends runs that compute past their step's deadline; one kernel alone cannot be stopped.

    One thread, asleep until the earliest deadline there can be.
    """

    def __init__(self) -> None:
        self._runs: set[Run] = set()
        self._next = math.inf
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._main, name="genie-watchdog", daemon=True)
        self._thread.start()

    def add(self, run: Run) -> None:
        """Look after a run from now on."""
        with self._changed:
            self._runs.add(run)

    def remove(self, run: Run) -> None:
        """Forget a run: its thread has left it."""
        with self._changed:
            self._runs.discard(run)

    def start_computing(self, run: Run, step: str, seconds: float) -> None:
        """Begin the watched part of a step; `Run.stop_computing` ends it."""
        until = time.monotonic() + seconds
        run.computing = (step, until)
        with self._changed:
            if until < self._next:
                self._next = until
                self._changed.notify()

    def overdue_seconds(self) -> float:
        """For how long the most overdue kernel has been running past its deadline; 0 if none."""
        with self._changed:
            since = [run.overdue_since for run in self._runs if run.overdue_since is not None]
        return max(0.0, time.monotonic() - min(since)) if since else 0.0

    def _main(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                if self._next > now:
                    self._changed.wait(None if self._next == math.inf else self._next - now)
                    continue
                self._next = math.inf
                runs = list(self._runs)
            earliest = min((self._look(run) for run in runs), default=math.inf)
            with self._changed:
                self._next = min(self._next, earliest)

    def _look(self, run: Run) -> float:
        """End the run if it is overdue; returns when to look again."""
        with run.changed:
            computing = run.computing
            if run.ended or computing is None:
                return math.inf
            step, until = computing
            now = time.monotonic()
            if until > now:
                return until
            run.overdue_since = until
        run.finish(Failed(deadline_error(step, "computing"), True))
        return math.inf

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(5)


class Threads:
    """Threads that run functions, the one used last first: its OpenMP team and caches are warm."""

    def __init__(self, name: str, started: Callable[[], None]) -> None:
        self._name = name
        self._started = started
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[Callable[[], None] | None]] = []
        self._all: list[tuple[threading.Thread, queue.SimpleQueue[Callable[[], None] | None]]] = []
        self._closed = False

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` on an idle thread, or on a new one."""
        with self._lock:
            if self._closed:
                raise RuntimeError("closed")
            if self._idle:
                self._idle.pop().put(job)
                return
            jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
            jobs.put(job)
            name = f"{self._name}-{len(self._all)}"
            thread = threading.Thread(target=self._main, args=(jobs,), name=name, daemon=True)
            self._all.append((thread, jobs))
        thread.start()

    def _main(self, jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        self._started()
        while (job := jobs.get()) is not None:
            job()
            del job
            with self._lock:
                self._idle.append(jobs)

    def close(self, timeout: float) -> None:
        """Let the threads end after their jobs; wait for them up to `timeout` seconds in all."""
        with self._lock:
            self._closed = True
            threads = list(self._all)
        for _, jobs in threads:
            jobs.put(None)
        deadline = time.monotonic() + timeout
        for thread, _ in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
