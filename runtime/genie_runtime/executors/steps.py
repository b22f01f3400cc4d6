"""Running the steps of schedules for one run, and saying what went wrong where."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from genie_runtime.executors.backend import Backend, is_out_of_memory
from genie_runtime.executors.bound import OperatorFailed
from genie_runtime.executors.drawing import Stream
from genie_runtime.executors.runs import (
    Run,
    RunEnded,
    Stopped,
    TurnsEnded,
    Watchdog,
    deadline_error,
)
from genie_runtime.executors.schedule import (
    Compute,
    Form,
    Free,
    Receive,
    Return,
    Schedule,
    ScheduleStep,
    Send,
)
from genie_runtime.executors.state import Lease
from genie_runtime.ports import Failed, Region, RunRequest, RunStats
from genie_schemas.errors import GenieError, Place

__all__ = ["Device", "StepRunner", "failure"]

_MAX_CAUSE = 500
_PATIENCE = 60.0
_RETRYABLE = ("GEN0463", "GEN0464")


@dataclass(frozen=True)
class Device:
    """What the runs of a device share. `lock` is held by the one that computes or copies."""

    backend: Backend
    watchdog: Watchdog
    memory_bytes: int
    computing: Callable[[RunRequest | None], None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class StepRunner:
    """One run's way through its schedules, on the thread that calls it.

    With `state`, the schedules' states are its tensors, and replaced ones change there. With
    `arrived`, the body of a loop is passed again and again: values that arrive are copied out of
    their regions, which the next turn's bytes may overwrite, and become what `arrived` makes of
    them (name, value); returned values are kept in `returned` and not copied anywhere.
    """

    def __init__(
        self,
        device: Device,
        run: Run,
        areas: Mapping[int, torch.Tensor],
        state: Lease | None,
        arrived: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self._device = device
        self._backend = device.backend
        self._run = run
        self._areas = areas
        self._state = state
        self._arrived = arrived
        self._values: dict[str, torch.Tensor] = {}
        self._inputs: dict[str, torch.Tensor] = {}
        self._stream = Stream(self._backend.device)
        self._compute_ns = 0
        self._wait_ns = 0
        self._steps = 0
        self.returned: dict[str, torch.Tensor] = {}

    def read_inputs(self, schedule: Schedule, forms: Mapping[str, Form]) -> None:
        """Make inputs values; they are there in every pass."""
        with self.holding("inputs", _patience(schedule)):
            for name, form in forms.items():
                host = self._host(self._run.request.inputs[name], form)
                self._inputs[name] = self._backend.read(host)

    def input(self, name: str) -> torch.Tensor | None:
        """An input's value; None when it is not on this device."""
        return self._inputs.get(name)

    def feed(self, name: str, value: torch.Tensor) -> None:
        """Make a tensor of the device the value of an input from the next pass on."""
        self._inputs[name] = value

    def run(self, schedule: Schedule, sent: Callable[[], None] | None = None) -> None:
        """Run every step of a schedule in order; call `sent` when what it begins with is sent.

        Raises GenieError (its place names the step), RunEnded when the watchdog reported the end.
        """
        self._schedule = schedule
        self._values = {**self._inputs, **(self._state.tensors if self._state else {})}
        for step in schedule.steps:
            self._run.check()
            if sent is not None and not isinstance(step, Send):
                sent()
                sent = None
            try:
                self._step(step)
            except GenieError as error:
                error.place = error.place or Place(path=f"steps.{step.id}")
                raise
            except (RunEnded, Stopped, TurnsEnded):
                raise
            except Exception as error:
                raise failure(error, Place(path=f"steps.{step.id}")).error from error
        self._steps += len(schedule.steps)
        self._run.check()

    def stats(self, peak_bytes: int) -> RunStats:
        """What it cost up to now."""
        return RunStats(self._compute_ns, self._wait_ns, peak_bytes, self._steps)

    def _step(self, step: ScheduleStep) -> None:
        request = self._run.request
        match step:
            case Compute():
                self._compute(step)
            case Free():
                for name in step.values:
                    del self._values[name]
            case Receive():
                self._receive(step, request.incoming[step.id])
            case Send():
                self.send(step, self._values[step.value])
            case Return():
                value = self._values[step.value] if step.constant is None else step.constant
                if self._arrived is not None:
                    self.returned[step.value] = value
                    return
                with self.holding(step.id, step.timeout):
                    self._backend.write(value, self._host(request.outputs[step.value], step.form))

    def send(self, step: Send, value: torch.Tensor) -> None:
        """Copy a value to the region of an outgoing transfer, and have it sent."""
        with self.holding(step.id, step.timeout):
            host = self._host(self._run.request.outgoing[step.id], step.form)
            self._backend.write(value, host)
        self._run.ready(step.id)

    def _host(self, region: Region, form: Form) -> torch.Tensor:
        return form.in_region(self._areas[region.arena], region.offset)

    @contextmanager
    def holding(self, step: str, timeout: float) -> Iterator[None]:
        """The device's lock, and the time spent with it; GEN0464 when it is not had in time."""
        start = time.perf_counter_ns()
        if not self._device.lock.acquire(timeout=timeout):
            raise deadline_error(step, "waiting for its device")
        held = time.perf_counter_ns()
        self._wait_ns += held - start
        computing = self._device.computing
        try:
            if computing is not None:
                computing(self._run.request)
            yield
        finally:
            if computing is not None:
                computing(None)
            self._compute_ns += time.perf_counter_ns() - held
            self._device.lock.release()

    def _receive(self, step: Receive, region: Region) -> None:
        start = time.perf_counter_ns()
        self._run.wait_for(step.id, step.timeout)
        self._wait_ns += time.perf_counter_ns() - start
        with self.holding(step.id, step.timeout):
            host = self._host(region, step.form)
            value = self._backend.read(host)
            if self._arrived is not None:
                value = self._arrived(step.value, host.clone() if value is host else value)
            self._values[step.value] = value

    def _compute(self, step: Compute) -> None:
        reads = [
            self._values[name] if constant is None else constant
            for name, constant in zip(step.reads, step.constants, strict=True)
        ]
        with self.holding(step.id, step.timeout):
            self._device.watchdog.start_computing(self._run, step.id, step.timeout)
            try:
                outputs = self._call(step, reads)
                written = self._own(step, reads, outputs)
            except Stopped:
                self._run.check()  # raises what the reason was
                raise
            finally:
                self._run.stop_computing()
        self._values.update(written)
        if step.replaces and self._state is not None:
            moved = {state: self._values[value] for state, value in step.replaces}
            self._state.tensors.update(moved)
            self._values.update(moved)

    def _call(self, step: Compute, reads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The program's outputs. Out of memory: once more, after giving cached memory back."""
        try:
            return self._call_once(step, reads)
        except OperatorFailed as error:
            if not is_out_of_memory(error.error):
                raise
        self._backend.recover()
        return self._call_once(step, reads)

    def _call_once(self, step: Compute, reads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if step.bound.seed is None:
            return self._run_program(step, reads)
        seed = reads[step.bound.seed]
        with self._stream.drawing(seed, step.id, step.salt, step.timeout):
            return self._run_program(step, reads)

    def _run_program(self, step: Compute, reads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if step.id not in self._schedule.scratch:
            left = self._device.memory_bytes - self._schedule.constant_bytes - step.live
            outputs, most = step.bound.run_metered(reads, left, self._run.stop)
            # Another branch or more turns may hold more than what was just seen.
            self._schedule.scratch[step.id] = (
                max(most, step.scratch) if step.bound.controls else most
            )
            return outputs
        if step.bound.seed is not None:
            # Never as a CUDA graph: its replay would not see where the stream stands.
            return step.bound.run(reads, self._run.stop)
        request = self._run.request
        # What is recorded holds the state's own tensors: each state has recordings of its own.
        uid = self._state.uid if step.appends and self._state is not None else 0
        key = (request.plan_digest, step.id, *request.dims.values(), uid)
        return self._backend.call(key, step.bound, reads, step.fixed, self._run.stop)

    def _own(
        self, step: Compute, reads: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The outputs as values: of the declared type, aligned, each alone in its storage.

        What shares memory with an input, a constant or another output, is part of something
        larger, or lies in another stride order, is copied.
        """
        taken = set(step.addresses)
        taken.update(
            read.untyped_storage().data_ptr()
            for read, constant in zip(reads, step.constants, strict=True)
            if constant is None
        )
        written = {}
        for (name, form), output in zip(step.writes, outputs, strict=True):
            self._check_type(step, name, form, output)
            storage = output.untyped_storage()
            address = storage.data_ptr()
            if (
                address in taken
                or storage.nbytes() != form.nbytes
                or address % 64
                or not form.lies_like(output)
            ):
                fresh = torch.empty_strided(
                    form.sizes, form.strides, dtype=form.dtype, device=output.device
                )
                output = fresh.copy_(output)
                address = output.untyped_storage().data_ptr()
            if form.nbytes:
                taken.add(address)
            written[name] = output
        return written

    def _check_type(self, step: Compute, name: str, form: Form, output: object) -> None:
        if (
            isinstance(output, torch.Tensor)
            and output.dtype == form.dtype
            and output.size() == form.sizes
            and output.layout == torch.strided
        ):
            return
        found = type(output).__name__
        if isinstance(output, torch.Tensor):
            dtype = str(output.dtype).removeprefix("torch.")
            found = f"{dtype}{list(output.size())} ({output.layout})"
        raise GenieError(
            "GEN0461",
            f"the step {step.id} computed {name!r} as another type than declared",
            Place(path=f"values.{name}"),
            f"declared {form.text}, which is {form.sizes} here; computed {found}",
            "compile the plan again; report it when that does not help",
        )


def _patience(schedule: Schedule) -> float:
    return max((step.timeout for step in schedule.steps), default=_PATIENCE)


def failure(error: BaseException, place: Place | None = None) -> Failed:
    """What an exception means for the run that met it."""
    if isinstance(error, GenieError):
        return Failed(error, error.code in _RETRYABLE)
    context: dict[str, object] = {}
    what = "copying a value"
    if isinstance(error, OperatorFailed):
        name = f", {error.out!r}" if error.out else ""
        what = f"{error.name} (op {error.position}{name})"
        context = {"op": error.name, "position": error.position, "out": error.out}
        error = error.error
    cause = f"{type(error).__name__}: {error}"[:_MAX_CAUSE]
    if is_out_of_memory(error):
        found = GenieError(
            "GEN0463",
            f"the device had no memory left for {what}",
            place,
            cause,
            "use a smaller batch, or run less at the same time",
            context,
        )
    else:
        found = GenieError(
            "GEN0460",
            f"{what} failed",
            place,
            cause,
            "check the values of the inputs; the same inputs fail again",
            context,
        )
    return Failed(found, found.code in _RETRYABLE)
