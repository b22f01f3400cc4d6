"""The plans of a node: verified once, loaded on executors when first run, dropped when unused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from genie_runtime.config import Limits
from genie_runtime.plans import InstalledPlan, install
from genie_runtime.ports import ExecutorPort
from genie_runtime.store import ConstantStore
from genie_schemas.errors import GenieError


@dataclass(eq=False)
class _Entry:
    plan: InstalledPlan
    users: set[str] = field(default_factory=set)
    loaded: dict[str, set[str]] = field(default_factory=dict)
    """Node device → plan devices that its executor has installed."""
    pinned: dict[str, list[str]] = field(default_factory=dict)
    """Node device → digests held there for this plan."""
    used: float = field(default_factory=time.monotonic)
    loading: threading.Lock = field(default_factory=threading.Lock)
    dropped: bool = False


class Library:
    """Plans by digest. Thread-safe.

    The budget calls `evict` while it holds its lock; so nothing here asks the budget for anything
    while holding the library's lock, and `evict` takes only plans that nobody loads or uses.
    """

    def __init__(
        self, executors: Mapping[str, ExecutorPort], store: ConstantStore, limits: Limits
    ) -> None:
        self._executors = executors
        self._store = store
        self._limits = limits
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: str) -> InstalledPlan:
        """An installed plan; GEN0426 when there is none of that digest."""
        with self._lock:
            entry = self._entries.get(digest)
        if entry is None:
            raise GenieError("GEN0426", "the plan is not installed")
        return entry.plan

    def find(self, digest: str) -> InstalledPlan | None:
        """An installed plan, or None."""
        with self._lock:
            entry = self._entries.get(digest)
            return entry.plan if entry else None

    def install(self, text: str, digest: str) -> InstalledPlan:
        """Verify a plan and keep it; GEN03xx when it is invalid, GEN0511 beyond the limit."""
        plan = install(text, digest, self._limits)
        return self.keep(plan)

    def keep(self, plan: InstalledPlan) -> InstalledPlan:
        """Keep a plan that was verified in this process."""
        with self._lock:
            if plan.digest in self._entries:
                return self._entries[plan.digest].plan
            full = len(self._entries) >= self._limits.plans
        if full and not self._drop_oldest(lambda entry: True):
            raise GenieError("GEN0511", f"{self._limits.plans} plans are in use, the limit here")
        with self._lock:
            return self._entries.setdefault(plan.digest, _Entry(plan)).plan

    def use(self, digest: str, session: str) -> None:
        """A session installed the plan: it is not dropped while the session lives."""
        with self._lock:
            entry = self._entries.get(digest)
            if entry is None:
                raise GenieError("GEN0426", "the plan is not installed")
            entry.users.add(session)
            entry.used = time.monotonic()

    def leave(self, session: str, digests: Collection[str] | None = None) -> None:
        """A session ended, or no longer uses these plans."""
        with self._lock:
            for digest, entry in self._entries.items():
                if digests is None or digest in digests:
                    entry.users.discard(session)

    def load(self, digest: str, binding: Mapping[str, str]) -> None:
        """Make the plan ready on the executors of its node devices.

        Raises GEN0426 while constants are missing, and what the executors raise.
        """
        with self._lock:
            entry = self._entries.get(digest)
        if entry is None:
            raise GenieError("GEN0426", "the plan is not installed")
        by_node: dict[str, list[str]] = {}
        for plan_device, node_device in binding.items():
            by_node.setdefault(node_device, []).append(plan_device)
        with entry.loading:
            if entry.dropped:
                raise GenieError("GEN0426", "the plan is no longer installed")
            for node_device, plan_devices in by_node.items():
                have = entry.loaded.get(node_device, set())
                if not set(plan_devices) <= have:
                    self._load(entry, node_device, [d for d in plan_devices if d not in have])
        entry.used = time.monotonic()

    def _load(self, entry: _Entry, node_device: str, plan_devices: list[str]) -> None:
        executor, plan = self._executors[node_device], entry.plan
        names = {
            name: digest
            for device in plan_devices
            for name, (digest, _) in plan.constants[device].items()
        }
        held = entry.pinned.get(node_device, [])
        wanted = sorted(set(names.values()) - set(held))
        found = self._store.pin(node_device, wanted)
        if found is None:
            raise GenieError("GEN0426", "constants of the plan are missing on the node")
        entry.pinned[node_device] = [*held, *wanted]
        regions = {**self._store.regions(node_device, held), **found}
        try:
            for device in plan_devices:
                executor.install(plan.text, plan.digest, device)
            executor.load(plan.digest, {name: regions[digest] for name, digest in names.items()})
        except BaseException:
            self._unload(entry, node_device)
            raise
        entry.loaded.setdefault(node_device, set()).update(plan_devices)

    def _unload(self, entry: _Entry, node_device: str) -> None:
        self._executors[node_device].uninstall(entry.plan.digest)
        entry.loaded.pop(node_device, None)
        self._store.unpin(node_device, entry.pinned.pop(node_device, []))

    def evict(self, device: str) -> bool:
        """Drop what nobody uses from a device: stray constants, then the longest unused plan."""
        if self._store.drop_unclaimed(device):
            return True
        return self._drop_oldest(lambda entry: device in entry.pinned)

    def _drop_oldest(self, fits: Callable[[_Entry], bool]) -> bool:
        with self._lock:
            idle = [
                entry
                for entry in self._entries.values()
                if not entry.users and fits(entry) and entry.loading.acquire(blocking=False)
            ]
            oldest = min(idle, key=lambda entry: entry.used, default=None)
            for entry in idle:
                if entry is not oldest:
                    entry.loading.release()
            if oldest is None:
                return False
            del self._entries[oldest.plan.digest]
            oldest.dropped = True
        try:
            for node_device in list(oldest.pinned):
                self._unload(oldest, node_device)
        finally:
            oldest.loading.release()
        return True
