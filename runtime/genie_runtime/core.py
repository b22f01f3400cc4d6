"""What every part of a node works with: devices with memory and executors, sessions, the ledger."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from genie_runtime.arena import Arena
from genie_runtime.budget import Budget
from genie_runtime.config import Limits
from genie_runtime.gpu_direct import Choice, choose
from genie_runtime.ledger import Ledger
from genie_runtime.library import Library
from genie_runtime.negotiation import NegotiationLog, Offer
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import DeviceSpec, ExecutorPort
from genie_runtime.session import Session
from genie_runtime.store import ConstantStore
from genie_runtime.telemetry import RetryBudget, Telemetry
from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    from genie_transport import Decision, TransferManager

    Decided = Callable[[Decision], None]

ROUNDING = 64 << 20
"""Bytes beyond a device's memory that its pool may use: alignment, and a retry's second buffers."""


class Gateway(Protocol):
    """Data connections: what a daemon has and an embedded node has not."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The data paths on which other daemons reach this one."""
        ...

    @property
    def data_endpoint(self) -> str:
        """Where clients dial."""
        ...

    @property
    def peer_endpoint(self) -> str:
        """Where other daemons dial."""
        ...

    def expect_client(self, session: str, key: bytes, decided: Decided) -> TransferManager:
        """Await a client's connection; `decided` hears which path it takes."""
        ...

    def expect_peer(
        self, link: str, key: bytes, transport: str, decided: Decided
    ) -> TransferManager:
        """Await another daemon's connection over `transport` ("auto": the best common path)."""
        ...

    def dial(
        self, endpoint: str, link: str, key: bytes, transport: str, decided: Decided
    ) -> TransferManager:
        """Connect to another daemon."""
        ...

    def forget(self, name: str) -> None:
        """Nobody may come for this session or link any more."""
        ...


class Core:
    """The parts of a node, put together. `close` ends them in the opposite order."""

    def __init__(
        self,
        devices: Sequence[DeviceSpec],
        make_executor: Callable[[DeviceSpec], ExecutorPort],
        state_dir: Path,
        *,
        threads: int,
        limits: Limits | None = None,
        gateway: Gateway | None = None,
        gpu_direct: Choice = "auto",
    ) -> None:
        """Raises GenieError GEN0473 when `gpu_direct` is "on" and cannot be."""
        self.gpu_path = choose(gpu_direct, devices)
        self.limits = limits or Limits()
        self.devices: Mapping[str, DeviceSpec] = {device.id: device for device in devices}
        self.gateway = gateway
        self.threads = threads
        self.state_dir = state_dir
        self.boot_id = secrets.token_hex(16)
        self.started = time.monotonic()
        self.draining = False
        self.offer = Offer(
            version=_version("genie-plan"),
            torch=_version("torch"),
            threads=threads,
            paths=gateway.paths if gateway is not None else (),
        )
        self.negotiations = NegotiationLog(state_dir / "negotiations.jsonl")
        self.telemetry = Telemetry()
        self.retries = RetryBudget()
        self.sessions: dict[str, Session] = {}
        self.lock = threading.RLock()
        self._ledger: Ledger | None = None
        self._ledger_lock = threading.Lock()
        self.executors: dict[str, ExecutorPort] = {}
        self.pools: dict[str, ArenaPool] = {}
        for device in devices:
            executor = make_executor(device)
            self.executors[device.id] = executor
            self.pools[device.id] = ArenaPool(
                device.memory_bytes + ROUNDING,
                opened=_mapper(executor),
                closed=executor.unmap_arena,
            )
        self.budget = Budget(self.devices, self._evict)
        self.store = ConstantStore(
            self.pools, self.budget, self.limits.upload_seconds, self.limits.constant_seconds
        )
        self.library = Library(self.executors, self.store, self.limits)
        self.node_id = self.boot_id
        self.evict_call: Callable[[str], bool] = lambda device: False
        """Close an idle call channel that holds memory of a device; False when there is none."""
        self.look_at_calls: Callable[[float], None] = lambda at: None
        """Have the clock of the call channels look at a time (monotonic, s) or before."""

    def _evict(self, device: str) -> bool:
        dropped = self.evict_call(device) or self.library.evict(device)
        if dropped:
            self.telemetry.add("evictions")
        return dropped

    def ledger(self) -> Ledger:
        """The ledger, opened when a run with a name first needs it. Raises GEN0506 or GEN0507."""
        # Its own lock: a disk takes its time, and heartbeats are answered meanwhile.
        with self._ledger_lock:
            if self._ledger is None:
                self._ledger = Ledger(
                    self.state_dir,
                    max_bytes=self.limits.ledger_bytes,
                    max_age=self.limits.ledger_age,
                )
            return self._ledger

    def session(self, session_id: str) -> Session:
        """A live session; GEN0508 when there is none of that id."""
        with self.lock:
            found = self.sessions.get(session_id)
        if found is None or found.closed:
            raise GenieError(
                "GEN0508",
                "the daemon does not know the session",
                cause="it was restarted, or no heartbeat came for longer than the lease",
                remedy="connect again; a run with a --run-id can be asked for again safely",
            )
        return found

    def close(self, idle: Callable[[], bool] = lambda: True) -> None:
        """End executors, drop all memory, close the ledger.

        While `idle` says no, something still uses the memory: it then goes with the process.
        """
        for executor in self.executors.values():
            executor.close(5.0)
        if idle():
            for pool in self.pools.values():
                pool.close()
        with self._ledger_lock:
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None


def _mapper(executor: ExecutorPort) -> Callable[[Arena], None]:
    def opened(arena: Arena) -> None:
        executor.map_arena(arena)

    return opened


def _version(package: str) -> str:
    """The installed version of a package, without importing it; "absent" when there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
