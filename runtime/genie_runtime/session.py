"""A client's session on a node: its lease, its data connections, its plans and its runs."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genie_runtime.execution import Execution
from genie_runtime.kept import KeptTensors
from genie_runtime.negotiation import Agreement
from genie_runtime.run import QUIESCE
from genie_runtime.states import States
from genie_runtime.store import Upload
from genie_schemas.errors import GenieError
from genie_schemas.messages import LazyCounters

if TYPE_CHECKING:
    from genie_runtime.call_channel import CallChannel
    from genie_transport import DMAHandle, TransferFuture, TransferManager


@dataclass
class Pending:
    """A chunk of an upload that is on its way: its handle and its arrival."""

    upload: Upload
    index: int
    handle: DMAHandle
    arrival: TransferFuture


@dataclass(eq=False)
class Session:
    """State of one session. `lock` guards the tables; nothing slow happens under it."""

    agreement: Agreement
    lease: float
    embedded: bool
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    client: TransferManager | None = None
    links: dict[str, TransferManager] = field(default_factory=dict)
    plans: dict[str, dict[str, str]] = field(default_factory=dict)
    """Plan digest → binding (plan device → node device)."""
    runs: dict[str, Execution] = field(default_factory=dict)
    """Runs that hold memory, prepared or going on."""
    calls: dict[str, CallChannel] = field(default_factory=dict)
    """Open call channels, the longest unused first."""
    finished: deque[Execution] = field(default_factory=lambda: deque(maxlen=256))
    """Runs that were started, until their client has learned how they ended."""
    pending: list[Pending] = field(default_factory=list)
    kept: KeptTensors = field(default_factory=KeptTensors)
    """Outputs that stay for later runs."""
    states: States = field(default_factory=States)
    """The states of its sequences."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    closed: bool = False
    expires: float = 0.0
    opened: float = field(default_factory=time.monotonic)
    lazy: LazyCounters | None = None
    """What the client's lazy device has counted, as it says."""

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A heartbeat came."""
        self.expires = time.monotonic() + self.lease

    def count(self, lazy: LazyCounters | None) -> dict[str, int]:
        """Note what the client's lazy device counts; by how much each number has grown.

        A number that is smaller than before is not believed.
        """
        if lazy is None or lazy == self.lazy:
            return {}
        with self.lock:
            before = (self.lazy or LazyCounters()).model_dump()
            now = {name: max(n, before[name]) for name, n in lazy.model_dump().items()}
            self.lazy = LazyCounters(**now)
        return {name: n - before[name] for name, n in now.items() if n > before[name]}

    def expired(self, now: float) -> bool:
        """Whether the client stayed away for longer than the lease; never when embedded."""
        return not self.embedded and now > self.expires

    def binding(self, plan_digest: str) -> dict[str, str]:
        """The binding of an installed plan; GEN0426 when it is not installed."""
        with self.lock:
            found = self.plans.get(plan_digest)
        if found is None:
            raise GenieError("GEN0426", "the plan is not installed in this session")
        return found

    def run(self, key: str) -> Execution:
        """A run of this session; GEN0416 when there is none of that key."""
        with self.lock:
            found = self.runs.get(key)
        if found is None:
            raise GenieError("GEN0416", "the session has no such run")
        return found

    def started(self, key: str) -> Execution:
        """A run that was started, also when it has ended since; GEN0416 when there is none."""
        with self.lock:
            found = next((run for run in self.finished if run.key == key), None)
        return found if found is not None else self.run(key)

    def forget_plans(self, digests: Collection[str]) -> list[str]:
        """Unbind plans; those that a run or a call channel still uses are not. What was unbound."""
        with self.lock:
            busy = {run.plan.digest for run in self.runs.values()}
            busy |= {call.plan_digest for call in self.calls.values()}
            found = [d for d in digests if d in self.plans and d not in busy]
            for digest in found:
                del self.plans[digest]
            return found

    def forget(self, run: Execution) -> None:
        """The client knows how the run ended."""
        with self.lock:
            if run in self.finished:
                self.finished.remove(run)

    def link(self, link_id: str) -> TransferManager:
        """A peer link; GEN0418 when it was not set up."""
        with self.lock:
            found = self.links.get(link_id)
        if found is None:
            raise GenieError("GEN0418", "the session has no such link between daemons")
        return found

    def data(self) -> TransferManager:
        """The client's data connection; GEN0418 when there is none."""
        if self.client is None:
            raise GenieError("GEN0418", "the session has no data connection")
        return self.client

    def ended(self) -> GenieError | None:
        """GEN0508 once the session is closed, or its lease has run out.

        A daemon that was stopped and comes back must not act for a client that gave it up, even
        in the moment before the reaper has looked.
        """
        if self.closed or self.expired(time.monotonic()):
            return GenieError("GEN0508", "the session has ended", remedy="connect again")
        return None


def close_session(session: Session, error: GenieError, limit: float = QUIESCE) -> None:
    """Stop the session's runs, wait until they have let go of their memory, drop its links."""
    with session.lock:
        runs = list(session.runs.values())
        calls = list(session.calls.values())
        pending, session.pending = session.pending, []
    for run in runs:
        if run.state == "prepared":
            run.release()
        else:
            run.stop(error)
    for call in calls:
        call.close(error)
    # Handles first: no peer may write into memory that is about to be freed.
    for chunk in pending:
        _withdraw(session, chunk)
    end = time.monotonic() + limit
    for run in runs:
        run.freed.wait(max(end - time.monotonic(), 0.001))
    session.kept.close()
    session.states.close()
    with session.lock:
        managers = [*session.links.values()]
        session.links.clear()
        if session.client is not None:
            managers.append(session.client)
            session.client = None
    for manager in managers:
        manager.close()


def _withdraw(session: Session, chunk: Pending) -> None:
    from genie_transport import TransferError

    if session.client is not None:
        try:
            session.client.deregister(chunk.handle)
        except TransferError:
            return
