"""A node: the parts of the runtime behind one face, the same embedded and in the daemon.

session = node.open(hello)            negotiate; a session with a lease
node.intake.install / missing / …     plans and constants
node.dispatch.prepare / start / wait  runs
node.close_session / drain / close    the end, in the order of how much it ends
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from genie_runtime.calls import Calls
from genie_runtime.core import Core
from genie_runtime.dispatch import Dispatch
from genie_runtime.intake import Intake
from genie_runtime.loop_run import LoopRun
from genie_runtime.negotiation import AUTO, Agreement, negotiate
from genie_runtime.pool import PoolStats
from genie_runtime.run import QUIESCE
from genie_runtime.session import Session, close_session
from genie_schemas.errors import GenieError
from genie_schemas.messages import (
    ActiveRun,
    DataEndpoint,
    DeviceInfo,
    DeviceStatus,
    DialReply,
    DialRequest,
    Empty,
    ExpectReply,
    ExpectRequest,
    GpuDirectStatus,
    KeepRequest,
    LazySession,
    LinksReply,
    OpenReply,
    OpenRequest,
    PoolStatus,
    Pulse,
    SessionRequest,
    StatesStatus,
    StatusReply,
)

if TYPE_CHECKING:
    from genie_transport import Decision

_log = logging.getLogger("genie_runtime.node")
_REAP = 0.5
_IDLE = 10.0
"""Seconds without a session after which unused shared memory is given back."""
_CLOSE = 3.0
"""Seconds that closing a session, or the node, waits for runs that it had to stop."""


class Node:
    """Sessions on top of a `Core`. Thread-safe."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.intake = Intake(core)
        self.dispatch = Dispatch(core)
        self.calls = Calls(core)
        self._stop = threading.Event()
        self._reaper: threading.Thread | None = None

    # -- sessions ---------------------------------------------------------------------------

    def open(self, request: OpenRequest) -> OpenReply:
        """Open a session for a remote client; GEN0503 without a common version."""
        core = self.core
        if core.draining:
            raise GenieError("GEN0510", "the daemon is shutting down", remedy="use another one")
        if core.gateway is None:
            raise GenieError("GEN0509", "an embedded node has no remote clients")
        agreement = core.negotiations.decide(request, core.offer)
        session = self._new_session(agreement, embedded=False)
        key = secrets.token_bytes(32)
        session.client = core.gateway.expect_client(
            session.id, key, self._recorder(session, "client")
        )
        self._start_reaper()
        return OpenReply(
            protocol=session.agreement.protocol,
            session=session.id,
            node=core.node_id,
            boot_id=core.boot_id,
            epoch=core.ledger().epoch,
            version=core.offer.version,
            torch=core.offer.torch,
            threads=core.threads,
            formats=list(session.agreement.formats),
            features=list(session.agreement.features),
            devices=[
                DeviceInfo(id=d.id, kind=d.kind, memory_bytes=d.memory_bytes)
                for d in core.devices.values()
            ],
            data=DataEndpoint(
                endpoint=core.gateway.data_endpoint, session=session.id, key=key.hex()
            ),
            lease_ms=int(core.limits.lease * 1000),
            heartbeat_ms=int(core.limits.heartbeat_seconds * 1000),
            paths=list(core.offer.paths),
        )

    def open_embedded(self, request: OpenRequest) -> Session:
        """Open a session for a client in this process: no lease, no connections, no log."""
        return self._new_session(negotiate(request, self.core.offer), embedded=True)

    def _new_session(self, agreement: Agreement, *, embedded: bool) -> Session:
        core = self.core
        session = Session(agreement, core.limits.lease, embedded)
        with core.lock:
            if len(core.sessions) >= core.limits.sessions:
                raise GenieError(
                    "GEN0511",
                    f"{len(core.sessions)} sessions are open, the limit of this daemon",
                    remedy="close one, or use another daemon",
                )
            core.sessions[session.id] = session
        return session

    def heartbeat(self, request: KeepRequest) -> Pulse:
        """Renew a session's lease; tells the node's telemetry of the moment."""
        self.keep(request)
        core = self.core
        with core.lock:
            sessions = list(core.sessions.values())
        telemetry = core.telemetry
        return Pulse(
            uptime_ms=int((time.monotonic() - core.started) * 1000),
            active_runs=sum(len(s.runs) for s in sessions),
            runs=telemetry.get("runs"),
            bytes_in=telemetry.get("bytes_in"),
            bytes_out=telemetry.get("bytes_out"),
            reserved_bytes=sum(core.budget.usage(d)[0] for d in core.devices),
        )

    def keep(self, request: KeepRequest) -> None:
        """Renew a session's lease; GEN0508 when there is none of that id."""
        session = self.core.session(request.session)
        session.renew()
        self._count(session, request)

    def _count(self, session: Session, request: KeepRequest) -> None:
        for name, grown in session.count(request.lazy).items():
            self.core.telemetry.add(f"lazy_{name}", grown)

    def close_session(self, request: KeepRequest) -> Empty:
        """The client is done: runs that go on are stopped, memory is freed."""
        with self.core.lock:
            session = self.core.sessions.get(request.session)
        if session is not None:
            self._count(session, request)
            error = GenieError("GEN0415", "the client closed its session")
            ending = threading.Thread(target=self.end_session, args=(session, error), daemon=True)
            ending.start()
            ending.join(_CLOSE)  # a run in the middle of a long operator lets go later
        return Empty()

    def end_session(self, session: Session, error: GenieError, limit: float = QUIESCE) -> None:
        """End a session from this side, waiting `limit` seconds for its runs to let go."""
        core = self.core
        with session.lock:
            if session.closed:
                return
            session.closed = True
        core.budget.wake()
        if core.gateway is not None:
            core.gateway.forget(session.id)
            for link in list(session.links):
                core.gateway.forget(link)
        close_session(session, error, limit)
        core.store.abandon(session.id)
        core.library.leave(session.id)
        with core.lock:
            core.sessions.pop(session.id, None)

    # -- links between daemons --------------------------------------------------------------

    def expect(self, request: ExpectRequest) -> ExpectReply:
        """Await the data connection of another daemon for a session's transfers."""
        session, gateway = self.core.session(request.session), self.core.gateway
        if gateway is None:
            raise GenieError("GEN0509", "an embedded node has no peers")
        decided = self._recorder(session, "expected", request.transport)
        key = bytes.fromhex(request.key)
        manager = gateway.expect_peer(request.link, key, request.transport, decided)
        with session.lock:
            session.links[request.link] = manager
        return ExpectReply(endpoint=gateway.peer_endpoint)

    def dial(self, request: DialRequest) -> DialReply:
        """Connect to the daemon that expects this link."""
        session, gateway = self.core.session(request.session), self.core.gateway
        if gateway is None:
            raise GenieError("GEN0509", "an embedded node has no peers")
        choices: list[Decision] = []
        record = self._recorder(session, "dialled", request.transport)

        def decided(choice: Decision) -> None:
            choices.append(choice)
            record(choice)

        key = bytes.fromhex(request.key)
        manager = gateway.dial(request.endpoint, request.link, key, request.transport, decided)
        with session.lock:
            session.links[request.link] = manager
        older = session.agreement.protocol == "1.0"  # which does not know the field
        reasons = {path: why[:256] for path, why in choices[-1].reasons.items()}
        return DialReply(path=manager.capabilities().path, reasons={} if older else reasons)

    def links(self, request: SessionRequest) -> LinksReply:
        """The path of every link of a session, as it is now."""
        session = self.core.session(request.session)
        with session.lock:
            links = dict(session.links)
        return LinksReply(paths={name: link.capabilities().path for name, link in links.items()})

    def _recorder(
        self, session: Session, role: str, transport: str = AUTO
    ) -> Callable[[Decision], None]:
        """What notes, in the log and on record, which path a connection takes, and any change."""
        told: list[Decision] = []

        def record(choice: Decision) -> None:
            told.append(choice)
            if len(told) > 1:
                self.core.telemetry.add("path_switches")
                _log.warning("a link of session %s moved: %s", session.id[:8], choice)
            try:
                self.core.negotiations.link(session.id, role, transport, asdict(choice))
            except GenieError as error:  # a full disk does not end a connection that works
                _log.warning("the path is not on record: %s", error)

        return record

    # -- state ------------------------------------------------------------------------------

    def status(self) -> StatusReply:
        """What `genie status` shows."""
        core = self.core
        now = time.monotonic()
        with core.lock:
            sessions = list(core.sessions.values())
        active = [
            ActiveRun(
                run_id=run.run_id,
                plan_digest=run.plan.digest,
                entrypoint=run.entrypoint,
                state=run.state,
                age_ms=int((now - run.created) * 1000),
                phase=run.phase if isinstance(run, LoopRun) else "",
            )
            for session in sessions
            for run in list(session.runs.values())
            if not run.ended.is_set()
        ]
        held = [session.states.usage() for session in sessions]
        states = StatesStatus(count=sum(n for n, _ in held), bytes=sum(b for _, b in held))
        devices = []
        peak = 0
        for device in core.devices.values():
            reserved, constants, most = core.budget.usage(device.id)
            peak = max(peak, most)
            devices.append(
                DeviceStatus(
                    id=device.id,
                    kind=device.kind,
                    memory_bytes=device.memory_bytes,
                    reserved_bytes=reserved,
                    constant_bytes=constants,
                    pool=_pool_status(core.pools[device.id].stats()),
                    state_bytes=core.budget.state_bytes(device.id),
                )
            )
        return StatusReply(
            version=core.offer.version,
            node=core.node_id,
            boot_id=core.boot_id,
            epoch=core.ledger().epoch,
            uptime_s=int(now - core.started),
            draining=core.draining,
            runs=core.telemetry.get("runs"),
            plans=len(core.library),
            sessions=len(sessions),
            devices=devices,
            active=active,
            telemetry={
                **core.telemetry.snapshot(),
                "peak_bytes": peak,
                "states": states.count,
                "state_bytes": states.bytes,
            },
            gpu_direct=GpuDirectStatus(mode=core.gpu_path.mode, reason=core.gpu_path.reason),
            lazy=[
                LazySession(age_s=int(now - s.opened), **s.lazy.model_dump())
                for s in sessions
                if s.lazy is not None
            ],
            states=states,
        )

    # -- the end ----------------------------------------------------------------------------

    def _start_reaper(self) -> None:
        with self.core.lock:
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="genie-reaper", daemon=True)
                self._reaper.start()

    def _reap(self) -> None:
        """End sessions whose client stays away, and release runs that nobody starts.

        When there has been no session for a while, memory that nobody uses goes back to the system.
        """
        busy: float | None = None
        while not self._stop.wait(_REAP):
            now = time.monotonic()
            with self.core.lock:
                sessions = list(self.core.sessions.values())
            for session in sessions:
                if session.expired(now):
                    error = GenieError("GEN0415", "the client went away", cause="no heartbeat came")
                    threading.Thread(
                        target=self.end_session, args=(session, error), daemon=True
                    ).start()
                    continue
                for run in list(session.runs.values()):
                    if run.state == "prepared" and now - run.created > self.core.limits.start_lease:
                        run.release()
            self.core.store.sweep()
            if sessions:
                busy = now
            elif busy is not None and now - busy > _IDLE:
                for pool in self.core.pools.values():
                    pool.trim()
                busy = None

    def drain(self, limit: float | None = None) -> Literal["drained", "cut short"]:
        """Take nothing new, let runs that go on finish within `limit` seconds."""
        core = self.core
        core.draining = True
        end = time.monotonic() + (core.limits.drain_seconds if limit is None else limit)
        while time.monotonic() < end:
            with core.lock:
                busy = any(s.runs or _untold(s) for s in core.sessions.values())
            if not busy:
                return "drained"
            time.sleep(0.02)
        return "cut short"

    def close(self) -> None:
        """End every session, then the core."""
        self._stop.set()
        self.calls.stop()
        self.core.draining = True
        with self.core.lock:
            sessions = list(self.core.sessions.values())
        for session in sessions:
            self.end_session(session, GenieError("GEN0510", "the daemon is shutting down"), _CLOSE)
        if self._reaper is not None:
            self._reaper.join(5.0)
        runs = [run for session in sessions for run in list(session.runs.values())]
        self.core.close(lambda: all(run.freed.wait(_CLOSE) for run in runs))


def _pool_status(stats: PoolStats) -> PoolStatus:
    return PoolStatus(
        limit_bytes=stats.limit,
        arena_bytes=stats.reserved,
        huge_bytes=stats.huge,
        used_bytes=stats.used,
        peak_bytes=stats.peak,
        largest_free_bytes=stats.largest_free,
        fragmentation_ppm=round(stats.fragmentation * 1_000_000),
        arenas=stats.arenas,
        regions=stats.regions,
        assembled=stats.assembled,
        waiting=stats.waiting,
        waits=stats.waits,
        waited_ms=int(stats.waited_s * 1000),
        refused=stats.refused,
    )


def _untold(session: Session) -> bool:
    """Whether a client may still ask how a run ended."""
    return bool(session.finished) and not session.expired(time.monotonic())
