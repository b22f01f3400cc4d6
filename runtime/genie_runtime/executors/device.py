"""One device's executor: plans, constants and runs, in the process that has torch.

A run has a thread. It takes the device's lock while it computes or copies and holds nothing while
it waits for a transfer, so runs that need each other's bytes cannot block each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from genie_runtime.executors import ops
from genie_runtime.executors.backend import is_fatal, make_backend
from genie_runtime.executors.generate import Generator, LoopSchedule
from genie_runtime.executors.installed import Installed
from genie_runtime.executors.runs import Run, RunEnded, Threads, Watchdog
from genie_runtime.executors.schedule import Form, Schedule, check_region, mismatch
from genie_runtime.executors.state import Lease, StateTable
from genie_runtime.executors.steps import Device, StepRunner, failure
from genie_runtime.ports import (
    ArenaPort,
    DeviceSpec,
    ExecutorFacts,
    Failed,
    Finished,
    OnEvent,
    Region,
    RunRequest,
    RunStats,
)
from genie_schemas.errors import GenieError, Place
from genie_schemas.reader import read_plan

__all__ = ["DeviceExecutor"]


class DeviceExecutor:
    """Runs plans on one device. `threads` is torch's intra-op thread count; 0 leaves it alone.

    Thread-safe; methods are those of `genie_runtime.ports.ExecutorPort`. `computing`, if given, is
    called with a request under the device's lock before it computes and with None after: it tells
    a supervisor which run a crash belongs to.
    """

    def __init__(
        self,
        spec: DeviceSpec,
        threads: int = 0,
        computing: Callable[[RunRequest | None], None] | None = None,
    ) -> None:
        self.spec = spec
        self._threads = threads
        self._prepare_thread()
        self._backend = make_backend(spec)
        self._arenas: dict[int, torch.Tensor] = {}
        self._plans: dict[str, Installed] = {}
        self._active: dict[str, dict[str, Run]] = {}
        self._resident = 0
        self._reserved = 0
        self._states = StateTable()
        self._lock = threading.Lock()
        """Guards the tables above; never held while computing."""
        self._watchdog = Watchdog()
        self._device = Device(self._backend, self._watchdog, spec.memory_bytes, computing)
        self._pool = Threads(f"genie-{spec.id}", self._prepare_thread)
        self._closed = False
        self.lost = False
        """The device's context is broken (a CUDA assertion): only a new process helps."""

    def _prepare_thread(self) -> None:
        # OpenMP keeps the thread count per thread: a new one would start with all cores, and
        # another thread count gives other bits.
        if self._threads:
            torch.set_num_threads(self._threads)

    def facts(self) -> ExecutorFacts:
        """What this executor is."""
        return ExecutorFacts(
            torch=torch.__version__,
            threads=self._threads or torch.get_num_threads(),
            device_name=self._backend.name(),
            memory_bytes=self._backend.memory_bytes(),
            capability=torch.backends.cpu.get_cpu_capability(),
        )

    # -- memory --------------------------------------------------------------------------------

    def map_arena(self, arena: ArenaPort) -> None:
        """Make an arena's bytes reachable for regions."""
        area = torch.frombuffer(arena.view(Region(arena.id, 0, arena.size)), dtype=torch.uint8)
        with self._lock:
            self._arenas[arena.id] = area

    def unmap_arena(self, arena_id: int) -> None:
        """Forget an arena; values that lie in it keep its memory until they are dropped."""
        with self._lock:
            self._arenas.pop(arena_id, None)

    def _size_of(self, arena_id: int) -> int | None:
        area = self._arenas.get(arena_id)
        return None if area is None else area.numel()

    # -- plans ---------------------------------------------------------------------------------

    def install(self, plan_text: str, plan_digest: str, plan_device: str) -> None:
        """Read a plan and compile what its device `plan_device` runs.

        Raises GenieError: what `read_plan` raises, GEN0304 when the text has another digest,
        GEN0467 when it lacks the device, GEN0456 to GEN0458 for its operators.
        """
        with self._lock:
            entry = self._plans.get(plan_digest)
        if entry is None:
            entry = Installed(read_plan(plan_text))
            if entry.plan.plan_digest != plan_digest:
                raise GenieError(
                    "GEN0304",
                    f"the plan has the digest {entry.plan.plan_digest}, not {plan_digest}",
                    Place(path="plan_digest"),
                )
            ops.check_opset(entry.plan.opset)
        if plan_device not in entry.plan.devices:
            known = ", ".join(entry.plan.devices)
            raise GenieError(
                "GEN0467",
                f"the plan has no device {plan_device!r}",
                Place(path="devices"),
                f"it has {known}",
            )
        programs = entry.compile(plan_device, self._backend.device)
        with self._lock:
            entry = self._plans.setdefault(plan_digest, entry)
            entry.devices.add(plan_device)
            entry.programs |= programs

    def uninstall(self, plan_digest: str) -> None:
        """Forget a plan with its constants and state; runs on their way keep what they use."""
        with self._lock:
            self._plans.pop(plan_digest, None)
        self._states.free(lambda key: key[1] == plan_digest)
        with self._device.lock:
            self._backend.forget(plan_digest)
        self._count_resident()

    def free_state(self, key: str) -> None:
        """Drop the state under a key, of every plan; a run that has it keeps none of it."""
        self._states.free(lambda held: held[0] == key)
        self._forget_states()

    def _forget_states(self) -> None:
        """Drop what the backend has recorded over state that is gone: it holds the memory."""
        gone = self._states.take_gone()
        if gone and self._backend.records:
            with self._device.lock:
                self._backend.forget_state(gone)

    def load(self, plan_digest: str, constants: Mapping[str, Region]) -> None:
        """Make constants resident. Bytes have been verified against their digests before.

        Raises GenieError: GEN0455 for a plan that is not installed, GEN0467 for a constant that it
        lacks, GEN0466 for a region that does not fit, GEN0463 when the device has no room.
        """
        entry = self._entry(plan_digest)
        loaded = {}
        for name, region in constants.items():
            constant = entry.plan.constants.get(name)
            if constant is None:
                raise GenieError("GEN0467", f"the plan has no constant {name!r}")
            form = Form.of(constant.type, {})
            check_region(region, form.nbytes, self._size_of, f"constants.{name}")
            host = form.in_region(self._arenas[region.arena], region.offset)
            try:
                loaded[name] = self._backend.read_constant(host)
            except RuntimeError as error:
                raise failure(error, Place(path=f"constants.{name}")).error from error
        entry.add_constants(loaded)
        with self._device.lock:
            self._backend.forget(plan_digest)
        self._count_resident()

    def _count_resident(self) -> None:
        """Constants count once, also when several plans share their bytes."""
        with self._lock:
            tensors = [t for entry in self._plans.values() for t in entry.constants.values()]
            self._resident = sum({t.data_ptr(): t.nbytes for t in tensors}.values())

    def _entry(self, plan_digest: str, device: str | None = None) -> Installed:
        with self._lock:
            entry = self._plans.get(plan_digest)
        if entry is None or (device is not None and device not in entry.devices):
            where = "" if device is None else f" for its device {device}"
            raise GenieError(
                "GEN0455",
                f"the plan {plan_digest[:23]}… is not installed{where}",
                remedy="install the plan, then run again",
            )
        return entry

    # -- runs ----------------------------------------------------------------------------------

    def run(self, request: RunRequest, on_event: OnEvent) -> None:
        """Start a run. Every problem with it arrives as `Failed`, from a thread of this executor.

        The request's regions belong to the run until its last event. A later attempt under the
        same key cancels the one before it. Raises GEN0415 after `close`.
        """
        run = Run(request, on_event)
        refused: GenieError | None = None
        with self._lock:
            if self._closed:
                run.unwire()
                raise GenieError("GEN0415", f"the executor of {self.spec.id} is closed")
            active = self._active.setdefault(request.run_key, {})
            other = active.get(request.device)
            if other is not None and other.request.attempt >= request.attempt:
                refused = GenieError(
                    "GEN0469",
                    f"attempt {other.request.attempt} of run {request.run_key} is still on "
                    f"{request.device}",
                    remedy="wait for it, or cancel it",
                )
            else:
                active[request.device] = run
        if refused is not None:
            failed = Failed(refused)
            run.unwire()
            self._pool.submit(lambda: run.finish(failed))
            return
        if other is not None:
            other.cancel()
        self._pool.submit(lambda: self._main(run))

    def _main(self, run: Run) -> None:
        self._watchdog.add(run)
        try:
            event: Finished | Failed | None = Finished(self._attempt(run))
        except RunEnded:
            event = None
        except Exception as error:
            event = failure(error)
            self.lost = self.lost or is_fatal(error)
        finally:
            self._watchdog.remove(run)
            self._forget(run)
            run.unwire()
        if event is not None:
            run.finish(event)

    def _attempt(self, run: Run) -> RunStats:
        request = run.request
        run.check()
        entry = self._entry(request.plan_digest, request.device)
        schedule = entry.schedule(request)
        regions = schedule.whole() if isinstance(schedule, LoopSchedule) else schedule
        regions.check_regions(request, self._size_of)
        with (
            self._leased(run, schedule) as state,
            self._reserved_for(schedule, shadows=state is not None and not state.fresh),
            self._backend.run_context(),
        ):
            if state is not None and state.fresh:
                state.tensors = entry.initial(schedule.states, self._backend.device)
            return self._run_steps(run, schedule, state)

    def _run_steps(
        self, run: Run, schedule: Schedule | LoopSchedule, state: Lease | None
    ) -> RunStats:
        areas = dict(self._arenas)
        if isinstance(schedule, LoopSchedule):
            generator = Generator(schedule, run, self._backend.device)
            runner = StepRunner(self._device, run, areas, state, generator.arrived)
            generator.run(runner)
        else:
            runner = StepRunner(self._device, run, areas, state)
            runner.read_inputs(schedule, schedule.inputs)
            runner.run(schedule)
        if state is not None:
            state.commit()
        held = schedule.peak() + schedule.constant_bytes + schedule.state_bytes
        return runner.stats(held)

    @contextmanager
    def _leased(self, run: Run, schedule: Schedule | LoopSchedule) -> Iterator[Lease | None]:
        """The state that the run names, when its steps use any."""
        request = run.request
        if not schedule.states:
            yield None
            return
        if request.state is None:
            raise mismatch(f"{request.entrypoint!r} uses state and the request names none", "state")
        key = (request.state.key, request.plan_digest, request.device)
        try:
            with self._states.use(key, request.state, schedule.states, run.check) as lease:
                yield lease
        finally:
            self._forget_states()

    @contextmanager
    def _reserved_for(self, schedule: Schedule | LoopSchedule, *, shadows: bool) -> Iterator[None]:
        """Hold the bytes that the run needs at most; GEN0462 or GEN0463 when there is no room.

        Its state is in the table of states already, and counts there. `shadows`: the loop keeps
        what its replaced state was at first, beside what it is after each turn.
        """
        limit, need = self.spec.memory_bytes, schedule.peak()
        if shadows and isinstance(schedule, LoopSchedule):
            need += schedule.replaced_bytes
        alone = need + schedule.constant_bytes + schedule.state_bytes
        if alone > limit:
            state = f", {schedule.state_bytes} of state" if schedule.states else ""
            raise GenieError(
                "GEN0462",
                f"the run needs {alone} bytes on {self.spec.id}, which may use {limit}",
                cause=f"{schedule.constant_bytes} bytes of constants, {need} of values{state}",
                remedy="use a smaller batch, a larger device, or more devices",
            )
        with self._lock:
            held = self._resident + self._reserved + self._states.nbytes
            if need + held > limit:
                raise GenieError(
                    "GEN0463",
                    f"the run needs {need} bytes on {self.spec.id}; {limit - held} are free now",
                    remedy="try again when other runs have ended, or uninstall other plans",
                )
            self._reserved += need
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= need

    def _forget(self, run: Run) -> None:
        with self._lock:
            active = self._active.get(run.request.run_key, {})
            if active.get(run.request.device) is run:
                del active[run.request.device]
            if not active:
                self._active.pop(run.request.run_key, None)

    def _runs_of(self, run_key: str) -> list[Run]:
        with self._lock:
            return list(self._active.get(run_key, {}).values())

    def deliver(self, run_key: str, step: str) -> None:
        """Say that the bytes of an incoming transfer lie in its region. Unknown runs: no effect."""
        for run in self._runs_of(run_key):
            if step in run.request.incoming:
                run.deliver(step)

    def cancel(self, run_key: str) -> None:
        """End a run before its next operator; it reports GEN0415. Unknown runs: no effect."""
        for run in self._runs_of(run_key):
            run.cancel()

    def overdue_seconds(self) -> float:
        """For how long a kernel has been running past its step's deadline; 0 when none has."""
        return self._watchdog.overdue_seconds()

    def busy(self) -> bool:
        """Whether a thread of a run is on its way; after `close`, it is in a long operator."""
        with self._lock:
            return bool(self._active)

    def close(self, timeout: float) -> None:
        """Cancel what runs, wait for its threads up to `timeout` seconds, and drop everything."""
        with self._lock:
            self._closed = True
            runs = [run for active in self._active.values() for run in active.values()]
        for run in runs:
            run.cancel()
        self._pool.close(timeout)
        self._watchdog.close()
        self._states.free(lambda key: True)
        with self._lock:
            self._plans.clear()
            self._arenas.clear()
