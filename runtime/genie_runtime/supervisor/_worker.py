"""One generation of a worker, and what the next one has to be told."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from genie_runtime.ports import ExecutorFacts, Region
from genie_runtime.supervisor._process import Liveness, WorkerProcess
from genie_schemas.errors import GenieError

__all__ = ["Call", "InstalledPlan", "Worker"]


@dataclass
class InstalledPlan:
    """What a new worker needs to hold a plan."""

    text: bytes
    devices: set[str] = field(default_factory=set)
    constants: dict[str, Region] = field(default_factory=dict)


@dataclass(eq=False)
class Call:
    """A command that waits for its reply. `lost` says that the worker died before it came."""

    done: threading.Event = field(default_factory=threading.Event)
    error: GenieError | None = None
    lost: bool = False


@dataclass(eq=False)
class Worker:
    """A process and what it was told to hold. `finished`: it brought a run to its end."""

    process: WorkerProcess
    liveness: Liveness
    finished: bool = False
    installed: set[tuple[str, str]] = field(default_factory=set)
    loaded: dict[str, set[str]] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    facts: ExecutorFacts | None = None
    refusal: GenieError | None = None

    def claim(self, digest: str, plan: InstalledPlan) -> tuple[list[str], dict[str, Region]]:
        """What it lacks of a plan (devices, constants), which it counts as having from now on."""
        devices = [d for d in sorted(plan.devices) if (digest, d) not in self.installed]
        loaded = self.loaded.setdefault(digest, set())
        constants = {n: region for n, region in plan.constants.items() if n not in loaded}
        self.installed.update((digest, device) for device in devices)
        loaded.update(constants)
        return devices, constants

    def forget(self, digest: str) -> None:
        """It is told to drop a plan."""
        self.installed = {key for key in self.installed if key[0] != digest}
        self.loaded.pop(digest, None)
