"""How a plan and its constants come to a node: only what is missing travels."""

from __future__ import annotations

import time

from genie_runtime.core import Core
from genie_runtime.plans import InstalledPlan, bind
from genie_runtime.session import Pending, Session
from genie_runtime.store import Upload
from genie_schemas.constants import CHUNK
from genie_schemas.errors import GenieError
from genie_schemas.messages import (
    ChunkTarget,
    InstallReply,
    InstallRequest,
    MissingConstant,
    MissingReply,
    OfferedConstant,
    PlanRequest,
    PutReply,
    PutRequest,
    PutTarget,
    SealRequest,
)

MAX_PENDING = 8192
"""Chunks that one session may have on their way at once (32 GiB)."""


class Intake:
    """Installing plans and receiving constants."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def install(self, request: InstallRequest) -> InstallReply:
        """Bind a plan in a session; asks for its text when the node does not know it."""
        core = self._core
        session = core.session(request.session)
        plan = core.library.find(request.plan_digest)
        if plan is None:
            if request.plan is None:
                return InstallReply(known=False)
            self._refuse_when_draining()
            plan = core.library.install(request.plan, request.plan_digest)
        return InstallReply(known=True, binding=self.adopt(session, plan, request.devices))

    def adopt(self, session: Session, plan: InstalledPlan, devices: list[str]) -> dict[str, str]:
        """Bind a known plan for a session; GEN0412 when it can never fit."""
        core = self._core
        binding = bind(plan.plan, devices, list(core.devices.values()), session.agreement.features)
        needs: dict[str, int] = {}
        for plan_device, node_device in binding.items():
            limit = plan.plan.devices[plan_device].needs
            needs[node_device] = needs.get(node_device, 0) + limit
        for node_device, wanted in needs.items():
            core.budget.check_fits(node_device, wanted)
        core.library.use(plan.digest, session.id)
        with session.lock:
            session.plans[plan.digest] = binding
        return binding

    def wanted(self, session: Session, digest: str) -> dict[str, dict[str, int]]:
        """What an installed plan needs in a session: node device → {constant digest: bytes}."""
        plan = self._core.library.get(digest)
        wanted: dict[str, dict[str, int]] = {}
        for plan_device, node_device in session.binding(digest).items():
            wanted.setdefault(node_device, {}).update(dict(plan.constants[plan_device].values()))
        return wanted

    def missing(self, request: PlanRequest) -> MissingReply:
        """The constants that the node's devices still lack, each once."""
        session = self._core.session(request.session)
        found: dict[str, MissingConstant] = {}
        for _, digest, nbytes in self.lacking(session, request.plan_digest):
            if digest not in found:
                chunks = self._core.store.orphan(digest)
                found[digest] = MissingConstant(digest=digest, bytes=nbytes, chunks=chunks)
        return MissingReply(constants=list(found.values()))

    def lacking(self, session: Session, plan_digest: str) -> list[tuple[str, str, int]]:
        """(node device, digest, bytes) of every constant that is missing there."""
        return [
            (device, digest, nbytes)
            for device, wanted in self.wanted(session, plan_digest).items()
            for digest, nbytes in self._core.store.missing(session.id, device, wanted)
        ]

    def put(self, request: PutRequest) -> PutReply:
        """Tell where missing chunks go; each chunk has a handle of its own."""
        core = self._core
        session = core.session(request.session)
        client = session.data()
        homes: dict[str, tuple[str, int]] = {}
        for device, digest, nbytes in self.lacking(session, request.plan_digest):
            homes.setdefault(digest, (device, nbytes))
        targets = []
        for item in request.constants:
            if item.digest not in homes:
                targets.append(PutTarget(digest=item.digest, chunks=[]))
                continue
            upload = self._begin(session, item, *homes[item.digest])
            underway = {p.index for p in session.pending if p.upload is upload}
            chunks = []
            for index in upload.missing():
                if index in underway:
                    continue
                if len(session.pending) >= MAX_PENDING:
                    raise GenieError("GEN0511", f"more than {MAX_PENDING} chunks at once")
                handle = client.register(core.store.view(upload, index))
                pending = Pending(upload, index, handle, client.arrival(handle))
                with session.lock:
                    session.pending.append(pending)
                chunks.append(ChunkTarget(index=index, handle=handle.to_json()))
            targets.append(PutTarget(digest=item.digest, chunks=chunks))
        return PutReply(targets=targets)

    def _begin(self, session: Session, item: OfferedConstant, device: str, nbytes: int) -> Upload:
        if item.bytes != nbytes or len(item.chunks) != max(1, -(-nbytes // CHUNK)):
            raise GenieError(
                "GEN0425",
                "a constant offered is not the one that the plan names",
                context={"digest": item.digest},
            )
        chunks = [bytes.fromhex(chunk) for chunk in item.chunks]
        return self._core.store.begin(session.id, device, item.digest, nbytes, chunks)

    def seal(self, request: SealRequest) -> MissingReply:
        """Verify the chunks that were sent, keep what is complete, tell what is still missing.

        Raises GEN0425 when a chunk arrived whole but is not what the digests say.
        """
        session = self._core.session(request.session)
        wanted = set(request.digests)
        with session.lock:
            mine = [p for p in session.pending if p.upload.digest in wanted]
            session.pending = [p for p in session.pending if p.upload.digest not in wanted]
        end = time.monotonic() + 10.0
        bad = [pending.upload.digest for pending in mine if not self._settle(session, pending, end)]
        for upload in {id(p.upload): p.upload for p in mine}.values():
            self._core.store.complete(upload)
        if bad:
            raise GenieError(
                "GEN0425",
                "a constant arrived with other content than its digest says",
                remedy="the weights file changed while it was sent: restore it and run again",
                context={"digests": sorted(set(bad))[:16]},
            )
        return self.missing(PlanRequest(session=request.session, plan_digest=request.plan_digest))

    def _settle(self, session: Session, pending: Pending, end: float) -> bool:
        """Wait for a chunk, withdraw its handle, verify it; a chunk that did not come is fine."""
        from genie_transport import TransferError

        store, upload = self._core.store, pending.upload
        try:
            pending.arrival.result(max(end - time.monotonic(), 0.001))
            arrived = True
        except (TransferError, TimeoutError):
            arrived = False
        try:
            session.data().deregister(pending.handle)
        except TransferError:
            return True  # lost with the connection: the chunk is sent again
        if not arrived:
            return True
        self._core.telemetry.add("bytes_in", store.view(upload, pending.index).nbytes)
        return store.check(upload, pending.index)

    def _refuse_when_draining(self) -> None:
        if self._core.draining:
            raise GenieError("GEN0510", "the daemon is shutting down", remedy="use another one")
