"""Runs on a node: looking them up, admitting, starting, waiting for, cancelling them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from genie_runtime.budget import Reservation
from genie_runtime.core import Core
from genie_runtime.execution import Execution
from genie_runtime.ledger import Acceptance
from genie_runtime.ledger_rules import RunKey
from genie_runtime.mail import Wires
from genie_runtime.outputs import StoredOutputs
from genie_runtime.plans import InstalledPlan, size_of
from genie_runtime.run import Run
from genie_runtime.session import Session
from genie_runtime.share import ShareRun, reserve
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.messages import (
    CancelReply,
    CancelRequest,
    Empty,
    FetchRequest,
    PrepareReply,
    PrepareRequest,
    RecallReply,
    RecallRequest,
    RecordedOutput,
    RunReport,
    RunRequestId,
    StartRequest,
    WaitReply,
    WaitRequest,
)


class Dispatch:
    """The life of runs, as far as one node sees it."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # -- recorded results -------------------------------------------------------------------

    def recall(self, request: RecallRequest) -> RecallReply:
        """What the ledger knows of a named run; GEN0410 or GEN0411 when it may not be used."""
        self._core.session(request.session)
        found = self._core.ledger().recall(_key(request))
        outputs = found.stored.outputs if found.stored else ()
        return RecallReply(
            state=found.state,
            outputs=[RecordedOutput(value=o.value, type=o.type, bytes=o.nbytes) for o in outputs],
        )

    def stored(self, request: RecallRequest | FetchRequest) -> StoredOutputs:
        """The recorded outputs of a run; GEN0416 when there are none."""
        found = self._core.ledger().recall(_key(request))
        if found.stored is None:
            raise GenieError("GEN0416", f"nothing is recorded for run {request.run_id!r}")
        self._core.telemetry.add("replays")
        return found.stored

    def fetch(self, request: FetchRequest) -> Empty:
        """Send recorded outputs to the client; returns when it has verified them."""
        from genie_transport import DMAHandle, TransferError

        client = self._core.session(request.session).data()
        stored = self.stored(request)
        data = stored.read()
        deadline = time.monotonic() + request.timeout_ms / 1000
        posts = []
        for output in stored.outputs:
            handle = request.outputs.get(output.value)
            if output.nbytes and handle is not None:
                part = data[output.offset : output.offset + output.nbytes]
                mine = client.register(part)
                target = DMAHandle.from_json(handle)
                left = max(deadline - time.monotonic(), 0.001)
                posts.append((mine, client.post(mine, target, deadline=left)))
        try:
            for _, future in posts:
                future.result(max(deadline - time.monotonic(), 0.001) + 1.0)
        except (TransferError, TimeoutError) as error:
            cause = str(error)
            raise GenieError("GEN0418", "recorded outputs did not arrive", cause=cause) from None
        finally:
            for mine, _ in posts:
                if client.failure is None:
                    client.deregister(mine)
        return Empty()

    # -- admission --------------------------------------------------------------------------

    def prepare(self, request: PrepareRequest) -> PrepareReply:
        """Admit a run for a remote client and tell where its bytes go."""
        session = self._core.session(request.session)
        wires = Wires(
            session.data(), {step: session.link(link) for step, link in request.links.items()}
        )
        run = self.admit(session, request, wires)
        if run is None:
            return PrepareReply(run=None)
        try:
            inputs, incoming = run.expose()
        except BaseException:
            run.release()
            raise
        return PrepareReply(
            run=run.key,
            inputs={name: handle.to_json() for name, handle in inputs.items()},
            incoming={step: handle.to_json() for step, handle in incoming.items()},
        )

    def admit(self, session: Session, request: PrepareRequest, wires: Wires) -> Run | None:
        """Reserve all that a run needs on this node, or raise; None when it runs already.

        In this order: limits, the plan on its executors, memory, the ledger's acceptance, and
        the regions. Whatever fails, what was reserved before it is released.
        """
        core = self._core
        if core.draining:
            raise GenieError("GEN0510", "the daemon is shutting down", remedy="use another one")
        with session.lock:
            if len(session.runs) >= core.limits.runs_per_session:
                raise GenieError("GEN0511", f"{len(session.runs)} runs at once in one session")
        plan = core.library.get(request.plan_digest)
        binding = session.binding(request.plan_digest)
        plan.check_entrypoint(request.entrypoint)
        plan.check_dims(request.dims)
        core.library.load(request.plan_digest, binding)
        session.kept.drop(request.drop)
        core.library.leave(session.id, session.forget_plans(request.forget))
        session.kept.check(request.keep.values())
        now = time.monotonic()
        deadline = now + min(request.deadline_ms / 1000, core.limits.run_seconds)
        wait = min(request.wait_ms / 1000, core.limits.admission_seconds)
        needs = peak_needs(plan, binding)
        reservation = core.budget.reserve(needs, min(now + wait, deadline), session.ended)
        acceptance: Acceptance | None = None
        try:
            if request.durable:
                acceptance = core.ledger().accept(_key(request), core.threads)
                if acceptance is None:
                    core.budget.release(reservation)
                    return None
            until = min(now + wait, deadline)
            return self._build(
                session, request, plan, wires, reservation, acceptance, deadline, until
            )
        except GenieError as error:
            core.budget.release(reservation)
            if acceptance is not None:
                core.ledger().fail(acceptance, error)
            raise

    def _build(
        self,
        session: Session,
        request: PrepareRequest,
        plan: InstalledPlan,
        wires: Wires,
        reservation: Reservation,
        acceptance: Acceptance | None,
        deadline: float,
        until: float,
    ) -> Run:
        core = self._core
        binding = session.binding(request.plan_digest)

        lent: list[str] = []

        def released(run: Run) -> None:
            session.kept.give_back(lent)
            core.budget.release(reservation)
            with session.lock:
                session.runs.pop(run.key, None)

        run = Run(
            request.run_id,
            plan,
            request.entrypoint,
            dims=request.dims,
            deadline=deadline,
            wires=wires,
            ledger=core.ledger,
            acceptance=acceptance,
            telemetry=core.telemetry,
            retries=core.retries,
            fence=session.ended,
            on_released=released,
            keep=partial(self._keep, session, request, binding) if request.keep else None,
        )
        try:
            for share in plan.active_shares(request.entrypoint, binding):
                node_device = binding[share.device]
                wanted = {
                    name: (key, size_of(share.inputs[name], request.dims, core.limits.io_bytes))
                    for name, key in request.resident.items()
                    if name in share.inputs
                }
                regions = session.kept.lend(node_device, wanted)
                lent += [key for key, _ in wanted.values()]
                run.shares[share.device] = ShareRun(
                    share,
                    core.executors[node_device],
                    core.pools[node_device],
                    session.id,
                    run.key,
                    request.dims,
                    core.limits.io_bytes,
                    regions,
                )
            reserve(list(run.shares.values()), until, session.ended)
        except BaseException:
            for item in run.shares.values():
                item.free()
            session.kept.give_back(lent)
            raise
        with session.lock:
            ended = session.ended()
            if request.plan_digest not in session.plans:
                ended = GenieError("GEN0426", "the session has forgotten the plan")
            if ended is None:
                session.runs[run.key] = run
        if ended is not None:
            for item in run.shares.values():
                item.free()
            session.kept.give_back(lent)
            raise ended
        return run

    def _keep(
        self, session: Session, request: PrepareRequest, binding: Mapping[str, str], run: Run
    ) -> None:
        """Let the session have the outputs that it keeps."""
        core = self._core
        for share in run.shares.values():
            device = binding[share.share.device]
            for value in [name for name in request.keep if name in share.outputs]:
                region = share.take(value)
                try:
                    session.kept.keep(
                        request.keep[value],
                        device,
                        region,
                        region.length,
                        core.pools,
                        core.budget,
                    )
                except BaseException:
                    core.pools[device].free(region)
                    raise

    # -- a prepared run ---------------------------------------------------------------------

    def start(self, request: StartRequest) -> Empty:
        """Let a prepared run go; the handles are where its bytes are to be sent."""
        from genie_transport import DMAHandle

        session = self._core.session(request.session)
        run = session.run(request.run)
        with session.lock:
            if not isinstance(run, Run) or run.state != "prepared":
                raise GenieError("GEN0416", "the run was started before, or released")
            run.state = "starting"
        outgoing = {step: DMAHandle.from_json(h) for step, h in request.outgoing.items()}
        outputs = {value: DMAHandle.from_json(h) for value, h in request.outputs.items()}
        session.finished.append(run)
        run.start(outgoing, outputs)
        return Empty()

    def wait(self, request: WaitRequest) -> WaitReply:
        """Wait for the end of a run; `running` when it has not come within the time asked."""
        session = self._core.session(request.session)
        run = session.started(request.run)
        if not run.ended.wait(request.timeout_ms / 1000):
            return WaitReply(state="running")
        session.forget(run)
        if run.error is None:
            return WaitReply(state="done", report=report(run))
        errors = run.error.errors if isinstance(run.error, GenieErrors) else (run.error,)
        return WaitReply(
            state="failed", report=report(run), errors=[error.to_json() for error in errors]
        )

    def release(self, request: RunRequestId) -> Empty:
        """Give a run up: a prepared one is released, a running one stopped."""
        session = self._core.session(request.session)
        with session.lock:
            run = session.runs.get(request.run)
        if run is not None:
            give_up(run, GenieError("GEN0415", "the client gave the run up"))
        return Empty()

    def cancel(self, request: CancelRequest) -> CancelReply:
        """Stop every run under a run id; GEN0416 when there is none."""
        found = [
            run
            for session in self._sessions()
            for run in list(session.runs.values())
            if run.run_id == request.run_id and not run.ended.is_set()
        ]
        if not found:
            raise GenieError(
                "GEN0416",
                f"no run {request.run_id!r} is going on here",
                remedy="`genie status` shows the runs that are going on",
            )
        for run in found:
            give_up(run, _cancelled(run.run_id))
        return CancelReply(cancelled=len(found))

    def _sessions(self) -> list[Session]:
        with self._core.lock:
            return list(self._core.sessions.values())


def _cancelled(run_id: str) -> GenieError:
    return GenieError(
        "GEN0415",
        f"run {run_id!r} was cancelled",
        remedy="run it again if it is wanted after all: nothing was published",
    )


def give_up(run: Execution, error: GenieError) -> None:
    """End a run whatever its state."""
    if run.state == "prepared":
        run.release()
    else:
        run.stop(error)


def report(run: Execution) -> RunReport:
    """What a run cost on this node."""
    stats = [share.stats[-1] for share in run.shares.values() if share.stats]
    totals = run.totals
    return RunReport.model_construct(  # our own numbers need no checking
        attempts=max((share.attempt for share in run.shares.values()), default=0),
        total_us=max(totals.ended_ns - totals.started_ns, 0) // 1000,
        compute_us=sum(s.compute_ns for s in stats) // 1000,
        wait_us=sum(s.wait_ns for s in stats) // 1000,
        transfer_us=run.transfer_ns // 1000,
        peak_bytes={
            device: share.stats[-1].peak_bytes
            for device, share in run.shares.items()
            if share.stats
        },
        steps=sum(s.steps for s in stats),
    )


def _key(request: RecallRequest | FetchRequest | PrepareRequest) -> RunKey:
    if request.inputs_digest is None:
        raise GenieError("GEN0509", "a named run comes without the digest of its inputs")
    return RunKey(request.run_id, request.plan_digest, request.entrypoint, request.inputs_digest)


def peak_needs(plan: InstalledPlan, binding: Mapping[str, str]) -> dict[str, int]:
    """Bytes to reserve by node device: each plan device's peak without its constants."""
    needs: dict[str, int] = {}
    for plan_device, node_device in binding.items():
        peak = plan.plan.devices[plan_device].needs - plan.constant_bytes[plan_device]
        needs[node_device] = needs.get(node_device, 0) + max(peak, 0)
    return needs
