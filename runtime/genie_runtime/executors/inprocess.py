"""An executor in this process: what the embedded runtime uses. Imports torch at first use."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

from genie_runtime.ports import ArenaPort, DeviceSpec, ExecutorFacts, OnEvent, Region, RunRequest
from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    from genie_runtime.executors.device import DeviceExecutor

__all__ = ["InProcessExecutor", "busy"]

_made: weakref.WeakSet[DeviceExecutor] = weakref.WeakSet()


def busy() -> bool:
    """Whether a thread of this process computes for a run, its executor closed or not.

    Such a process must leave through `os._exit`: at an ordinary exit Python ends the thread as soon
    as its operator returns, in the middle of C++ code, which aborts the process.
    """
    return any(executor.busy() for executor in list(_made))


class InProcessExecutor:
    """One device, computed by threads of this process; an `ExecutorPort`.

    `threads` is torch's intra-op thread count for them; 0 takes what torch has. A kernel that
    crashes takes this process with it, and one that hangs cannot be ended: a daemon uses
    `genie_runtime.supervisor.WorkerExecutor`.
    """

    def __init__(self, device: DeviceSpec, threads: int = 0) -> None:
        self._spec = device
        self._threads = threads
        self._lock = threading.Lock()
        self._executor: DeviceExecutor | None = None
        self._closed = False

    @property
    def device(self) -> DeviceSpec:
        """The device that this executor was made for."""
        return self._spec

    def _get(self) -> DeviceExecutor:
        with self._lock:
            if self._closed:
                raise GenieError("GEN0415", f"the executor of {self._spec.id} is closed")
            if self._executor is None:
                from genie_runtime.executors.device import DeviceExecutor

                self._executor = DeviceExecutor(self._spec, self._threads)
                _made.add(self._executor)
            return self._executor

    def _peek(self) -> DeviceExecutor | None:
        with self._lock:
            return self._executor

    def facts(self, timeout: float) -> ExecutorFacts:
        """What this executor is; the first call imports torch. `timeout` is not needed here.

        Raises GenieError GEN0468 when the device does not exist.
        """
        return self._get().facts()

    def map_arena(self, arena: ArenaPort) -> None:
        """Make an arena's bytes reachable for regions."""
        self._get().map_arena(arena)

    def unmap_arena(self, arena_id: int) -> None:
        """Forget an arena."""
        if (executor := self._peek()) is not None:
            executor.unmap_arena(arena_id)

    def install(self, plan_text: str, plan_digest: str, plan_device: str) -> None:
        """Compile a plan's share of `plan_device`; see `DeviceExecutor.install` for errors."""
        self._get().install(plan_text, plan_digest, plan_device)

    def uninstall(self, plan_digest: str) -> None:
        """Forget a plan and its constants."""
        if (executor := self._peek()) is not None:
            executor.uninstall(plan_digest)

    def load(self, plan_digest: str, constants: Mapping[str, Region]) -> None:
        """Make constants resident; see `DeviceExecutor.load` for errors."""
        self._get().load(plan_digest, constants)

    def run(self, request: RunRequest, on_event: OnEvent) -> None:
        """Start a run; every problem with it arrives as `Failed`."""
        self._get().run(request, on_event)

    def deliver(self, run_key: str, step: str) -> None:
        """Say that the bytes of an incoming transfer lie in its region."""
        if (executor := self._peek()) is not None:
            executor.deliver(run_key, step)

    def cancel(self, run_key: str) -> None:
        """End a run before its next operator."""
        if (executor := self._peek()) is not None:
            executor.cancel(run_key)

    def free_state(self, key: str) -> None:
        """Drop the state under a key."""
        if (executor := self._peek()) is not None:
            executor.free_state(key)

    def close(self, timeout: float) -> None:
        """Cancel what runs and end the threads, waiting up to `timeout` seconds. Idempotent."""
        with self._lock:
            self._closed = True
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.close(timeout)
