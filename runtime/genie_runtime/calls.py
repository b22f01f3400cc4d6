"""The call channels of a node: opening, closing, giving their memory to others, and their clock."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from genie_runtime.admission import peak_needs
from genie_runtime.budget import Reservation
from genie_runtime.call_channel import CallChannel, Signature
from genie_runtime.core import Core
from genie_runtime.mail import Wires
from genie_runtime.plans import Share, call_layout
from genie_runtime.session import Session
from genie_runtime.share import ShareRun, reserve
from genie_schemas.calls import Layout
from genie_schemas.errors import GenieError
from genie_schemas.messages import (
    CallRequestId,
    Empty,
    LinkCallRequest,
    OpenCallReply,
    OpenCallRequest,
)

if TYPE_CHECKING:
    from genie_transport import DMAHandle

__all__ = ["Calls"]

_LOOK = 0.25
"""Seconds between looks at the invocations that go on, when none has asked for an earlier one."""


class Calls:
    """Call channels of all sessions. Thread-safe."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._stopped = False
        self._wake = threading.Event()
        self._next = math.inf
        """When the clock looks next (monotonic); infinity while it looks."""
        self._clock: threading.Thread | None = None
        core.evict_call = self._evict
        core.look_at_calls = self._look_by

    def open(self, request: OpenCallRequest) -> OpenCallReply:
        """Reserve the memory of a channel and let requests come.

        Raises GEN0404, GEN0407 or GEN0426 for what cannot be run, GEN0430 for handles that do not
        fit the plan, GEN0413, GEN0470, GEN0472 or GEN0511 when there is no room: nothing is
        waited for, runs over the control connection are.
        """
        from genie_transport import DMAHandle

        core = self._core
        if core.draining:
            raise GenieError("GEN0510", "the daemon is shutting down", remedy="use another one")
        session = core.session(request.session)
        self._make_room(session)
        plan = core.library.get(request.plan_digest)
        binding = session.binding(request.plan_digest)
        plan.check_entrypoint(request.entrypoint)
        plan.check_dims(request.dims)
        if plan.stateful(request.entrypoint):
            raise GenieError("GEN0430", "runs with state do not go over a call channel")
        layout = call_layout(plan, request.entrypoint, binding, request.dims, core.limits.io_bytes)
        reply = DMAHandle.from_json(request.reply)
        outputs = {value: DMAHandle.from_json(h) for value, h in request.outputs.items()}
        core.library.load(request.plan_digest, binding)
        wires = Wires(
            session.data(), {step: session.link(link) for step, link in request.links.items()}
        )
        active = plan.active_shares(request.entrypoint, binding)
        _check_handles(layout, active, request.dims, reply, outputs)
        shares = self._shares(session, active, binding, request.dims)
        held = None
        try:
            held = self._hold(shares, binding)
            needs = peak_needs(plan, binding)
            rest = {d: max(n - held.needs.get(d, 0), 0) for d, n in needs.items()}
            signature = Signature(plan, request.entrypoint, request.dims, layout, rest)
            channel = CallChannel(core, session, signature, shares, wires, held, reply, outputs)
        except BaseException:
            for share in shares.values():
                share.free()
            if held is not None:
                core.budget.release(held)
            raise
        return self._expose(session, channel)

    def _make_room(self, session: Session) -> None:
        """One more channel must fit the session's limit: close the longest unused; GEN0511."""
        limit = self._core.limits.calls_per_session
        with session.lock:
            channels = list(session.calls.values())
        if len(channels) >= limit and not any(channel.retire() for channel in channels):
            raise GenieError("GEN0511", f"{limit} call channels are in use in one session")

    def _shares(
        self,
        session: Session,
        active: list[Share],
        binding: Mapping[str, str],
        dims: Mapping[str, int],
    ) -> dict[str, ShareRun]:
        core = self._core
        shares: dict[str, ShareRun] = {}
        try:
            for share in active:
                node_device = binding[share.device]
                shares[share.device] = ShareRun(
                    share,
                    core.executors[node_device],
                    core.pools[node_device],
                    session.id,
                    "",
                    dims,
                    core.limits.io_bytes,
                )
            reserve(list(shares.values()), time.monotonic(), session.ended)
        except BaseException:
            for item in shares.values():
                item.free()
            raise
        return shares

    def _hold(self, shares: Mapping[str, ShareRun], binding: Mapping[str, str]) -> Reservation:
        needs: dict[str, int] = {}
        for device, share in shares.items():
            needs[binding[device]] = needs.get(binding[device], 0) + share.held_bytes()
        held = self._core.budget.try_reserve(needs)
        if held is None:
            raise GenieError(
                "GEN0413", "no room for a call channel", cause="other runs hold the memory"
            )
        return held

    def _expose(self, session: Session, channel: CallChannel) -> OpenCallReply:
        with session.lock:
            ended = session.ended()
            if ended is None:
                session.calls[channel.key] = channel
        if ended is not None:
            channel.close(ended)
            raise ended
        try:
            head, inputs, incoming = channel.open()
        except BaseException as error:
            channel.close(GenieError("GEN0418", "the channel cannot be opened", cause=str(error)))
            raise
        self._start_clock()
        return OpenCallReply(
            call=channel.key,
            request=head.to_json(),
            inputs={name: handle.to_json() for name, handle in inputs.items()},
            incoming={step: handle.to_json() for step, handle in incoming.items()},
        )

    def link(self, request: LinkCallRequest) -> Empty:
        """Where a channel's transfers go. GEN0431 when there is no such channel."""
        from genie_transport import DMAHandle

        session = self._core.session(request.session)
        with session.lock:
            channel = session.calls.get(request.call)
        if channel is None:
            raise GenieError("GEN0431", "the session has no such call channel")
        channel.link({step: DMAHandle.from_json(h) for step, h in request.outgoing.items()})
        return Empty()

    def close(self, request: CallRequestId) -> Empty:
        """Close a channel and stop what goes on in it; one that is closed already is no error."""
        session = self._core.session(request.session)
        with session.lock:
            channel = session.calls.get(request.call)
        if channel is not None:
            channel.close(GenieError("GEN0415", "the client gave the run up"))
        return Empty()

    # -- memory -----------------------------------------------------------------------------

    def _evict(self, device: str) -> bool:
        """Close one idle channel that holds memory of a device; called with the budget's lock."""
        with self._core.lock:
            sessions = list(self._core.sessions.values())
        return any(
            channel.evict(device)
            for session in sessions
            for channel in list(session.calls.values())
        )

    # -- the clock --------------------------------------------------------------------------

    def _start_clock(self) -> None:
        with self._core.lock:
            if self._clock is None and not self._stopped:
                self._clock = threading.Thread(target=self._tick, name="genie-calls", daemon=True)
                self._clock.start()

    def _tick(self) -> None:
        """Tell channels with an invocation the time. Retries are due to the millisecond or so."""
        while not self._stopped:
            self._wake.clear()
            # Whoever asks from here on is not seen below, and has to wake it.
            self._next = math.inf
            now = time.monotonic()
            with self._core.lock:
                sessions = list(self._core.sessions.values())
            busy = [c for s in sessions for c in list(s.calls.values()) if c.run is not None]
            due = [at for channel in busy if (at := channel.tick(now)) is not None]
            self._next = min([now + _LOOK, *(max(at, now + 0.001) for at in due)])
            self._wake.wait(max(self._next - time.monotonic(), 0.0))

    def _look_by(self, at: float) -> None:
        """Have the clock look at the channels at `at` (monotonic) or before. Never waits."""
        if at < self._next:
            self._wake.set()

    def stop(self) -> None:
        """End the clock."""
        self._stopped = True
        self._wake.set()
        if self._clock is not None:
            self._clock.join(5.0)


def _check_handles(
    layout: Layout,
    active: list[Share],
    dims: Mapping[str, int],
    reply: DMAHandle,
    outputs: Mapping[str, DMAHandle],
) -> None:
    """GEN0430 unless the client's buffers have exactly the sizes that the plan gives."""
    sizes = {v: kind.nbytes(dims) for share in active for v, kind in share.outputs.items()}
    wanted = {value: sizes[value] for value in layout.outputs_apart}
    given = {value: handle.length for value, handle in outputs.items()}
    if reply.length != layout.reply_bytes or given != wanted:
        raise GenieError(
            "GEN0430",
            "the buffers for replies do not fit the plan",
            cause=f"a head of {layout.reply_bytes} bytes and outputs of {wanted} are needed",
        )
