"""Admitting runs: everything that a run needs on this node is reserved, or nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from genie_runtime.budget import Reservation
from genie_runtime.core import Core
from genie_runtime.generation import check_fits, check_generation
from genie_runtime.ledger import Acceptance
from genie_runtime.ledger_rules import RunKey
from genie_runtime.loop_run import LoopRun, note_phase
from genie_runtime.mail import Wires
from genie_runtime.plans import InstalledPlan, called, sampling, size_of
from genie_runtime.ports import Generation, StateUse
from genie_runtime.run import Run
from genie_runtime.session import Session
from genie_runtime.share import ShareRun, reserve
from genie_runtime.states import StateLease
from genie_schemas.errors import GenieError
from genie_schemas.messages import (
    FetchRequest,
    GenerationRequest,
    PrepareRequest,
    RecallRequest,
)
from genie_schemas.types import parse_type

__all__ = ["Admission", "peak_needs", "run_key", "to_generation"]


@dataclass
class _Admitted:
    """What a run is made of once it may run, on the way to its regions."""

    session: Session
    request: PrepareRequest
    plan: InstalledPlan
    wires: Wires
    binding: Mapping[str, str]
    generation: Generation | None
    lease: StateLease | None
    reservation: Reservation
    acceptance: Acceptance | None
    deadline: float
    until: float


class Admission:
    """Admits runs on one node."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def admit(self, session: Session, request: PrepareRequest, wires: Wires) -> Run | None:
        """Reserve all that a run needs on this node, or raise; None when it runs already.

        In this order: limits, the plan on its executors, the state, memory, the ledger's
        acceptance, and the regions. Whatever fails, what was reserved before it is released.
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
        generation = _generation(plan, request)
        core.library.load(request.plan_digest, binding)
        session.kept.drop(request.drop)
        core.library.leave(session.id, session.forget_plans(request.forget))
        session.kept.check(request.keep.values())
        now = time.monotonic()
        deadline = now + min(request.deadline_ms / 1000, core.limits.run_seconds)
        until = min(now + min(request.wait_ms / 1000, core.limits.admission_seconds), deadline)
        with contextlib.ExitStack() as undo:
            lease = None
            if request.state is not None:
                executors = [core.executors[name] for name in sorted(set(binding.values()))]
                lease = session.states.enter(
                    session.id, request.state, plan, request.dims, executors
                )
                undo.callback(lease.end, "", (), (), good=False)
            needs = peak_needs(plan, binding)
            if lease is not None and not lease.new:
                for device, held in _state_bytes(plan, binding, None).items():
                    needs[device] = max(needs[device] - held, 0)
            reservation = core.budget.reserve(needs, until, session.ended)
            undo.callback(core.budget.release, reservation)
            acceptance: Acceptance | None = None
            if request.durable:
                acceptance = core.ledger().accept(run_key(request), core.threads)
                if acceptance is None:
                    return None
            admitted = _Admitted(
                *(session, request, plan, wires, binding, generation, lease),
                *(reservation, acceptance, deadline, until),
            )
            try:
                run = self._build(admitted)
            except GenieError as error:
                if acceptance is not None:
                    core.ledger().fail(acceptance, error)
                raise
            undo.pop_all()
        return run

    def _build(self, admitted: _Admitted) -> Run:
        core, session, request = self._core, admitted.session, admitted.request
        lent: list[str] = []
        run = self._make(admitted, lent)
        try:
            self._give_shares(admitted, run, lent)
            reserve(list(run.shares.values()), admitted.until, session.ended)
            if admitted.lease is not None and admitted.lease.new:
                sizes = _state_bytes(admitted.plan, admitted.binding, request.dims)
                admitted.lease.hold(core.budget, admitted.reservation, sizes)
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
        if admitted.lease is not None:
            self._note_phase(admitted, admitted.lease)
        return run

    def _make(self, admitted: _Admitted, lent: list[str]) -> Run:
        core, session, request = self._core, admitted.session, admitted.request

        def released(run: Run) -> None:
            session.kept.give_back(lent)
            if admitted.lease is not None:
                shares = [share for share in run.shares.values() if share.uses is not None]
                admitted.lease.end(
                    request.entrypoint,
                    [share.share.device for share in shares],
                    [share.share.device for share in shares if share.stats],
                    good=run.error is None and run.state != "failed",
                )
            core.budget.release(admitted.reservation)
            with session.lock:
                session.runs.pop(run.key, None)

        keep = partial(self._keep, session, request, admitted.binding) if request.keep else None
        common: dict[str, Any] = {
            "dims": request.dims,
            "deadline": admitted.deadline,
            "wires": admitted.wires,
            "ledger": core.ledger,
            "acceptance": admitted.acceptance,
            "telemetry": core.telemetry,
            "retries": core.retries,
            "fence": session.ended,
            "on_released": released,
            "keep": keep,
        }
        if admitted.generation is None:
            return Run(request.run_id, admitted.plan, request.entrypoint, **common)
        return LoopRun(
            request.run_id,
            admitted.plan,
            request.entrypoint,
            generation=admitted.generation,
            rows=_rows(admitted.plan, request),
            **common,
        )

    def _give_shares(self, admitted: _Admitted, run: Run, lent: list[str]) -> None:
        core, session, request = self._core, admitted.session, admitted.request
        for share in admitted.plan.active_shares(request.entrypoint, admitted.binding):
            node_device = admitted.binding[share.device]
            wanted = {
                name: (key, size_of(share.inputs[name], request.dims, core.limits.io_bytes))
                for name, key in request.resident.items()
                if name in share.inputs
            }
            regions = session.kept.lend(node_device, wanted)
            lent += [key for key, _ in wanted.values()]
            uses = None
            if share.states:
                lease = admitted.lease
                ends_with_run = StateUse(f"{session.id}/{run.key}", 0, keep=False)
                uses = ends_with_run if lease is None else lease.use(share.device)
            run.shares[share.device] = ShareRun(
                share,
                core.executors[node_device],
                core.pools[node_device],
                session.id,
                run.key,
                request.dims,
                core.limits.io_bytes,
                regions,
                uses,
                admitted.generation,
            )

    def _note_phase(self, admitted: _Admitted, lease: StateLease) -> None:
        """A sequence has come to another phase, if its entry point is one of a loop's."""
        name = admitted.request.entrypoint
        for loop in admitted.plan.plan.loops.values():
            if name in (loop.entry, loop.body) and name != lease.before:
                note_phase(self._core.telemetry, admitted.request.run_id, loop, name)
                return

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


def run_key(request: RecallRequest | FetchRequest | PrepareRequest) -> RunKey:
    """What a named run is bound to; GEN0509 without the digest of its inputs."""
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


def _state_bytes(
    plan: InstalledPlan, binding: Mapping[str, str], dims: Mapping[str, int] | None
) -> dict[str, int]:
    """Bytes of a sequence's state by node device, for these dims or at most."""
    found: dict[str, int] = {}
    for device, node_device in binding.items():
        nbytes = plan.most_state_bytes(device) if dims is None else plan.state_bytes(device, dims)
        found[node_device] = found.get(node_device, 0) + nbytes
    return found


def to_generation(request: GenerationRequest) -> Generation:
    """How a loop samples, as its executors are told."""
    return Generation(
        request.max_new_tokens,
        float.fromhex(request.temperature),
        request.top_k,
        float.fromhex(request.top_p),
        int(request.seed),
        tuple(tuple(row) for row in request.forced),
    )


def _generation(plan: InstalledPlan, request: PrepareRequest) -> Generation | None:
    """How the run's loop samples, checked; None for other entry points.

    Raises GEN0480 for parameters out of range, GEN0479 for more tokens than the cache holds,
    GEN0509 when the request is no such thing.
    """
    loop = sampling(plan.plan, request.entrypoint)
    if loop is None or loop.sample is None:
        if request.generation is not None:
            raise GenieError("GEN0509", f"{request.entrypoint!r} does not generate")
        return None
    if request.generation is None or request.state is not None or request.keep:
        raise GenieError(
            "GEN0509", f"a run of {request.entrypoint!r} says how to sample, and keeps nothing"
        )
    try:
        generation = to_generation(request.generation)
    except OverflowError as error:
        raise GenieError("GEN0480", "a parameter is no finite number", cause=str(error)) from None
    check_generation(generation)
    check_fits(1, generation.max_new_tokens, loop.sample.capacity)
    return generation


def _rows(plan: InstalledPlan, request: PrepareRequest) -> int:
    """How many sequences a run of a loop generates: the size of its prompts' lengths."""
    loop = sampling(plan.plan, request.entrypoint)
    name = loop.sample.lengths if loop is not None and loop.sample is not None else ""
    inputs = called(plan.plan, request.entrypoint).inputs
    found = next((item.type for item in inputs if item.name == name), None)
    if found is None:  # verify() has established that the entry takes it
        raise KeyError(name)
    return parse_type(found).sizes(request.dims)[0]
