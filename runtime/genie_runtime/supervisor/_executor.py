"""`WorkerExecutor`: the executor port over a worker process that is kept alive."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from genie_runtime.executors import messages
from genie_runtime.generation import refusal
from genie_runtime.ports import (
    ArenaPort,
    DeviceSpec,
    ExecutorFacts,
    Failed,
    Finished,
    OnEvent,
    Region,
    RunEvent,
    RunRequest,
)
from genie_runtime.supervisor._process import (
    OVERDUE_SECONDS,
    Liveness,
    WorkerProcess,
    lost_error,
)
from genie_runtime.supervisor._runs import PendingRun, RunTable, closed_error, fail
from genie_runtime.supervisor._worker import Call, InstalledPlan, Worker
from genie_schemas.errors import GenieError

__all__ = ["WorkerExecutor"]

log = logging.getLogger(__name__)

ANSWER_SECONDS = 120.0
"""How long an install or a load may take, the worker's start included."""

BACKOFF = (0.05, 2.0)
"""Seconds before a worker is started again, doubling; from the start after one finished a run."""

_LAST_WORDS = 2.0


class WorkerExecutor:
    """One device, computed by a worker process that is restarted when it dies or hangs.

    `threads` is torch's intra-op thread count there (0: torch's default); with `log_dir`, what the
    worker prints goes to `executor-<device>.log` in it, else to this process's standard error.
    Making one returns at once: the worker starts meanwhile, and methods that need it wait.

    Threads: one starts the worker and watches its liveness, one reads what it reports and calls
    listeners. Locks: `_state` guards the tables and is never held while a command is sent;
    `_order` keeps commands in order. Whoever holds `_order` may block on a worker that does not
    read, so the watching thread takes it never.
    """

    def __init__(self, device: DeviceSpec, threads: int = 0, log_dir: Path | None = None) -> None:
        self._spec = device
        self._threads = threads
        self._log_dir = log_dir
        self._state = threading.Condition()
        self._order = threading.RLock()
        self._worker: Worker | None = None
        self._arenas: dict[int, ArenaPort] = {}
        self._plans: dict[str, InstalledPlan] = {}
        self._runs = RunTable(device.id)
        self._failure: GenieError | None = None
        self._numbers = itertools.count(1)
        self._process: WorkerProcess | None = None
        self._closing: float | None = None
        self._closed = threading.Event()
        self.restarts = 0
        """How often a worker was started again."""
        self._thread = threading.Thread(
            target=self._supervise, name=f"genie-supervisor-{device.id}", daemon=True
        )
        self._thread.start()

    @property
    def device(self) -> DeviceSpec:
        """The device that this executor was made for."""
        return self._spec

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        with self._state:
            return None if self._process is None else self._process.pid

    # -- the port ------------------------------------------------------------------------------

    def facts(self, timeout: float) -> ExecutorFacts:
        """What the worker says of itself once it is up.

        Raises GenieError: GEN0468 when the device does not exist, GEN0453 when the worker cannot
        start or did not within `timeout` seconds.
        """
        worker = self._up(time.monotonic() + timeout)
        if worker.facts is None:
            raise lost_error(self._spec.id, "GEN0453", "it has not said what it is")
        return worker.facts

    def map_arena(self, arena: ArenaPort) -> None:
        """Have the worker, and every later one, map an arena."""
        with self._order:
            self._arenas[arena.id] = arena
            if (worker := self._worker) is not None:
                self._map(worker, arena)

    def unmap_arena(self, arena_id: int) -> None:
        """Forget an arena."""
        with self._order:
            if self._arenas.pop(arena_id, None) is not None:
                self._tell(messages.UnmapArena(arena=arena_id))

    def install(self, plan_text: str, plan_digest: str, plan_device: str) -> None:
        """Install a plan for one of its devices and wait until the worker has it.

        Raises GenieError: what the worker finds wrong with it, GEN0452 while it is quarantined,
        GEN0450, GEN0451 or GEN0453 when there is no worker to install it on.
        """
        self._refuse_quarantined(plan_digest)
        text = plan_text.encode()

        def send(worker: Worker, number: int) -> None:
            command = messages.Install(id=number, digest=plan_digest, device=plan_device)
            worker.process.send(command, text)

        worker = self._ask(send)
        with self._state:
            plan = self._plans.setdefault(plan_digest, InstalledPlan(text))
            plan.devices.add(plan_device)
            worker.installed.add((plan_digest, plan_device))

    def uninstall(self, plan_digest: str) -> None:
        """Forget a plan, its constants, and what speaks against it."""
        self._runs.forgive(plan_digest)
        with self._order:
            with self._state:
                known = self._plans.pop(plan_digest, None)
                if (worker := self._worker) is not None:
                    worker.forget(plan_digest)
            if known is not None:
                self._tell(messages.Uninstall(digest=plan_digest))

    def load(self, plan_digest: str, constants: Mapping[str, Region]) -> None:
        """Make constants resident, now and in every later worker: their regions must stay.

        Raises GenieError as `install`, and what the worker finds wrong with a region.
        """
        self._refuse_quarantined(plan_digest)
        areas = {name: messages.area(region) for name, region in constants.items()}

        def send(worker: Worker, number: int) -> None:
            self._restore(worker, plan_digest)
            worker.process.send(messages.Load(id=number, digest=plan_digest, constants=areas))

        worker = self._ask(send)
        with self._state:
            if (plan := self._plans.get(plan_digest)) is not None:
                plan.constants.update(constants)
            worker.loaded.setdefault(plan_digest, set()).update(constants)

    def run(self, request: RunRequest, on_event: OnEvent) -> None:
        """Start a run, now or when the worker is up; every problem arrives as `Failed`.

        Raises GenieError GEN0415 after `close`.
        """
        run = PendingRun(request, on_event)
        refused = refusal(request.generation) or self._runs.add(run)
        if refused is not None:
            run.emit_later(Failed(refused))
        self._flush()

    def deliver(self, run_key: str, step: str) -> None:
        """Say that the bytes of an incoming transfer lie in its region."""
        with self._order:
            if not self._runs.deliver(run_key, step):
                self._tell(messages.Deliver(run_key=run_key, step=step))

    def cancel(self, run_key: str) -> None:
        """End a run before its next step."""
        with self._order:
            for run in self._runs.take_waiting(run_key=run_key):
                run.emit_later(Failed(GenieError("GEN0415", f"the run {run_key} was cancelled")))
            self._tell(messages.Cancel(run_key=run_key))

    def free_state(self, key: str) -> None:
        """Drop the state under a key; a worker that died has dropped it already."""
        self._tell(messages.FreeState(key=key))

    def close(self, timeout: float) -> None:
        """End the worker, by force after `timeout` seconds. Idempotent."""
        with self._state:
            self._closing = timeout
            self._closed.set()
            process = self._process
            self._state.notify_all()
        if process is not None:
            process.hang_up()
        self._thread.join(timeout + 10)

    # -- commands ------------------------------------------------------------------------------

    def _up(self, deadline: float) -> Worker:
        """The worker, as soon as there is one that is ready."""
        with self._state:
            while True:
                if self._closed.is_set():
                    raise closed_error(self._spec.id)
                if self._worker is not None:
                    return self._worker
                if self._failure is not None:
                    raise self._failure
                left = deadline - time.monotonic()
                if left <= 0:
                    raise lost_error(self._spec.id, "GEN0453", "it was not ready in time")
                self._state.wait(left)

    def _ask(self, send: Callable[[Worker, int], None]) -> Worker:
        """Send a command and wait for its reply; once more when the worker dies meanwhile."""
        deadline = time.monotonic() + ANSWER_SECONDS
        last = False
        while True:
            worker, call, number = self._up(deadline), Call(), next(self._numbers)
            with self._order:
                with self._state:
                    if self._worker is not worker:
                        continue
                    worker.calls[number] = call
                with contextlib.suppress(OSError):  # then it is gone, and the call is lost
                    send(worker, number)
            if not call.done.wait(max(0.0, deadline - time.monotonic())):
                raise lost_error(self._spec.id, "GEN0451", "it did not answer in time")
            if call.error is None:
                return worker
            if last or not call.lost:
                raise call.error
            last = True

    def _tell(self, message: messages.Command) -> None:
        """Send a command that has no reply; without a worker there is nobody to tell."""
        with self._order, contextlib.suppress(OSError):
            if (worker := self._worker) is not None:
                worker.process.send(message)

    def _map(self, worker: Worker, arena: ArenaPort) -> None:
        with contextlib.suppress(OSError):
            parts = [list(part) for part in arena.parts]
            message = messages.MapArena(arena=arena.id, size=arena.size, parts=parts)
            worker.process.send(message, fds=() if parts else [arena.fd])

    def _restore(self, worker: Worker, digest: str) -> None:
        """Tell a worker what it lacks of a plan. Raises OSError when it is gone."""
        with self._state:
            plan = self._plans.get(digest)
            if plan is None:
                return
            devices, constants = worker.claim(digest, plan)
        for device in devices:
            worker.process.send(messages.Install(id=0, digest=digest, device=device), plan.text)
        if constants:
            areas = {name: messages.area(region) for name, region in constants.items()}
            worker.process.send(messages.Load(id=0, digest=digest, constants=areas))

    def _flush(self) -> None:
        """Send the runs that wait for a worker."""
        with self._order:
            while (worker := self._worker) is not None:
                taken = self._runs.take()
                if taken is None:
                    return
                ticket, run = taken
                try:
                    self._restore(worker, run.request.plan_digest)
                    wired = (*run.request.bells.values(), *run.request.triggers.values())
                    worker.process.send(messages.Run.of(ticket, run.request), fds=wired)
                except OSError:
                    # It is dead and did not read all of the command: the next worker gets it.
                    self._runs.put_back()
                    return
                self._runs.sent()
                for step in run.delivered:
                    self._tell(messages.Deliver(run_key=run.request.run_key, step=step))

    def _refuse_quarantined(self, digest: str) -> None:
        refused = self._runs.refusal(digest)
        if refused is not None:
            raise refused

    # -- supervision ---------------------------------------------------------------------------

    def _supervise(self) -> None:
        delay = BACKOFF[0]
        while not self._closed.is_set():
            try:
                process = WorkerProcess(self._spec, self._threads, self._log_dir)
            except OSError as error:
                self._cannot_start(lost_error(self._spec.id, "GEN0453", str(error)))
            else:
                worker = Worker(process, Liveness(process))
                self._serve(worker)
                if worker.finished:
                    delay = BACKOFF[0]
            if not self._closed.wait(delay):
                delay = min(2 * delay, BACKOFF[1])
                self.restarts += 1
        fail(self._runs.close(), closed_error(self._spec.id), retryable=False)

    def _serve(self, worker: Worker) -> None:
        """Watch one worker until it is gone, and settle what it leaves behind."""
        process = worker.process
        with self._state:
            self._process = process
        reader = threading.Thread(target=self._read, args=(worker,), daemon=True)
        reader.start()
        why = self._watch(worker)
        with self._state:
            self._worker = None
            self._process = None
            patience = _LAST_WORDS if self._closing is None else self._closing
            if self._closing is not None and not worker.liveness.started:
                patience = 0.0  # it still imports torch, and holds nothing of anyone's
        ended = process.end(0.0 if why else patience)
        # What it reported before it died counts.
        reader.join(_LAST_WORDS)
        self._lose(worker, "GEN0451" if why else "GEN0450", why or ended)
        process.close()

    def _watch(self, worker: Worker) -> str | None:
        """Wait for the worker's end; why it must be ended, or None when it ended by itself."""
        liveness = worker.liveness
        while True:
            pongs, ended = worker.process.listen(liveness.tick())
            if ended or self._closed.is_set():
                return None
            if pongs:
                liveness.answered()
                if max(pongs) >= OVERDUE_SECONDS * 1000:
                    return f"a kernel ran on {max(pongs) / 1000:.1f} s past its step's deadline"
            if (why := liveness.verdict()) is not None:
                return why

    def _read(self, worker: Worker) -> None:
        """Hand on what a worker reports, until it hangs up."""
        try:
            while (reports := worker.process.read()) is not None:
                for report in reports:
                    self._handle(worker, report)
        except GenieError as error:
            log.error("the executor of %s is ended: %s", self._spec.id, error)
            worker.process.hang_up()

    def _handle(self, worker: Worker, report: messages.Report) -> None:
        match report:
            case messages.Hello() if report.error is not None:
                worker.refusal = report.error.error()
            case messages.Hello():
                worker.facts = report.facts()
                worker.liveness.started = True
                threading.Thread(target=self._welcome, args=(worker,), daemon=True).start()
            case messages.Reply():
                error = None if report.error is None else report.error.error()
                with self._state:
                    call = worker.calls.pop(report.id, None)
                if call is not None:
                    call.error = error
                    call.done.set()
                elif error is not None:
                    log.warning("the executor of %s: %s", self._spec.id, error)
            case messages.Told():
                self._event(worker, report.ticket, report.event)
            case messages.Event():
                self._event(worker, report.ticket, report.event())

    def _event(self, worker: Worker, ticket: int, event: RunEvent) -> None:
        worker.finished |= isinstance(event, Finished)
        run = self._runs.settle(ticket, event)
        if run is not None:
            run.emit(event)

    def _welcome(self, worker: Worker) -> None:
        """Give a worker that is ready the arenas, then the runs that waited for it."""
        with self._order:
            for arena in list(self._arenas.values()):
                self._map(worker, arena)
            with self._state:
                if self._process is not worker.process:
                    return  # it is gone again
                self._worker = worker
                self._failure = None
                self._state.notify_all()
            self._flush()

    def _lose(self, worker: Worker, code: str, cause: str) -> None:
        """Settle what a worker that is gone left: its calls, its runs, and whose fault it was."""
        if worker.facts is None:
            error = worker.refusal or lost_error(self._spec.id, "GEN0453", cause)
        else:
            error = lost_error(self._spec.id, code, cause)
        with self._state:
            calls = list(worker.calls.values())
            worker.calls.clear()
        for call in calls:
            call.error, call.lost = error, True
            call.done.set()
        if self._closed.is_set():
            return  # `_supervise` ends the runs
        log.warning("%s: %s", error.message, cause)
        fail(self._runs.take_lost(), error, retryable=True)
        culprit = self._runs.blame(worker.process.ticket())
        if culprit is not None and (refused := self._runs.refusal(culprit)) is not None:
            log.error("%s", refused.message)
            fail(self._runs.take_waiting(digest=culprit), refused, retryable=False)
        if worker.facts is None:
            self._cannot_start(error)

    def _cannot_start(self, error: GenieError) -> None:
        """Tell everyone who waits for a worker that there is none."""
        with self._state:
            self._failure = error
            self._state.notify_all()
        fail(self._runs.take_waiting(), error, retryable=error.code == "GEN0453")
