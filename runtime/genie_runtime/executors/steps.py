"""Running the steps of a schedule for one run, and saying what went wrong where."""

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
from genie_runtime.executors.runs import Run, Stopped, Watchdog, deadline_error
from genie_runtime.executors.schedule import Compute, Form, Free, Receive, Return, Schedule, Send
from genie_runtime.ports import Failed, Ready, Region, RunRequest, RunStats
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
    """One run's way through its schedule, on the thread that calls `run`."""

    def __init__(
        self, device: Device, run: Run, schedule: Schedule, areas: Mapping[int, torch.Tensor]
    ) -> None:
        self._device = device
        self._backend = device.backend
        self._run = run
        self._schedule = schedule
        self._areas = areas
        self._values: dict[str, torch.Tensor] = {}
        self._stream = Stream(self._backend.device)
        self._compute_ns = 0
        self._wait_ns = 0

    def run(self) -> RunStats:
        """Run every step in order.

        Raises GenieError (its place names the step), RunEnded when the watchdog reported the end.
        """
        request = self._run.request
        patience = max((step.timeout for step in self._schedule.steps), default=_PATIENCE)
        with self._holding("inputs", patience):
            for name, form in self._schedule.inputs.items():
                self._values[name] = self._backend.read(self._host(request.inputs[name], form))
        for step in self._schedule.steps:
            self._run.check()
            try:
                match step:
                    case Compute():
                        self._compute(step)
                    case Free():
                        for name in step.values:
                            del self._values[name]
                    case Receive():
                        self._receive(step, request.incoming[step.id])
                    case Send():
                        with self._holding(step.id, step.timeout):
                            host = self._host(request.outgoing[step.id], step.form)
                            self._backend.write(self._values[step.value], host)
                        self._run.emit(Ready(step.id))
                    case Return():
                        with self._holding(step.id, step.timeout):
                            value = step.constant
                            if value is None:
                                value = self._values[step.value]
                            host = self._host(request.outputs[step.value], step.form)
                            self._backend.write(value, host)
            except GenieError as error:
                error.place = error.place or Place(path=f"steps.{step.id}")
                raise
            except Exception as error:
                raise failure(error, Place(path=f"steps.{step.id}")).error from error
        self._run.check()
        return RunStats(
            compute_ns=self._compute_ns,
            wait_ns=self._wait_ns,
            peak_bytes=self._schedule.peak() + self._schedule.constant_bytes,
            steps=len(self._schedule.steps),
        )

    def _host(self, region: Region, form: Form) -> torch.Tensor:
        return form.in_region(self._areas[region.arena], region.offset)

    @contextmanager
    def _holding(self, step: str, timeout: float) -> Iterator[None]:
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
        with self._holding(step.id, step.timeout):
            self._values[step.value] = self._backend.read(self._host(region, step.form))

    def _compute(self, step: Compute) -> None:
        reads = [
            self._values[name] if constant is None else constant
            for name, constant in zip(step.reads, step.constants, strict=True)
        ]
        with self._holding(step.id, step.timeout):
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
        key = (request.plan_digest, step.id, *request.dims.values())
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
            for read, same in zip(reads, step.fixed, strict=True)
            if not same
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
