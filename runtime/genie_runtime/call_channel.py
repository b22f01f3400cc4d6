"""A call channel on a node: regions that stay, and one invocation after the other in them.

All that happens to a channel (a message arrived, an executor spoke, a post was verified, the clock
moved, somebody closes it) is an event on its strand, so it has no lock. It executes one request at
a time. Only a good end leaves it open: after any failure it answers, comes to rest, and closes.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from genie_runtime.budget import Reservation
from genie_runtime.call_reply import LAST_WORDS, ReplySlot
from genie_runtime.call_run import REPLY, CallRun
from genie_runtime.core import Core
from genie_runtime.dispatch import report
from genie_runtime.mail import Event, InputCame, Posted, Stop, TransferCame, Wires
from genie_runtime.plans import InstalledPlan
from genie_runtime.session import Session
from genie_runtime.share import ShareRun
from genie_runtime.strand import Strand
from genie_schemas.calls import RECORD_BYTES, Invocation, Layout, Reply, Status
from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    from genie_transport import DMAHandle, TransferFuture, TransferManager

__all__ = ["CallChannel", "Signature"]

_HEAD = ""
"""The name of a request's head among what has to arrive: no input is called so."""


@dataclass(frozen=True)
class Signature:
    """What every invocation of a channel has in common."""

    plan: InstalledPlan
    entrypoint: str
    dims: Mapping[str, int]
    layout: Layout
    needs: Mapping[str, int]
    """Bytes to reserve for each invocation by node device, beyond what the channel holds."""


@dataclass(frozen=True)
class _Tick:
    now: float


@dataclass(frozen=True)
class _Close:
    error: GenieError


@dataclass(frozen=True)
class _OfRun:
    run: CallRun
    event: Event


@dataclass(frozen=True)
class _Sent:
    run: CallRun | None
    error: Exception | None


_Event = InputCame | TransferCame | _OfRun | _Sent | _Tick | _Close


class CallChannel:
    """One open channel. `open` exposes it; `close` may be called by any thread."""

    def __init__(
        self,
        core: Core,
        session: Session,
        signature: Signature,
        shares: Mapping[str, ShareRun],
        wires: Wires,
        held: Reservation,
        reply: DMAHandle,
        outputs: Mapping[str, DMAHandle],
    ) -> None:
        """`shares` (by plan device) have their regions; `held` is the reservation for these."""
        self.id = secrets.token_bytes(16)
        self.outputs = outputs
        """Where the client wants large outputs."""
        self.client: TransferManager = session.data()
        self.closed = threading.Event()
        self.held = held
        self.run: CallRun | None = None
        self._core = core
        self._session = session
        self._signature = signature
        self._shares = shares
        self._wires = wires
        self._outgoing: Mapping[str, DMAHandle] = {}
        layout = signature.layout
        self._request = memoryview(bytearray(layout.request_bytes))
        self._reply = ReplySlot(self.client, layout.reply_bytes, reply, core.telemetry)
        self._devices = sorted(session.binding(signature.plan.digest))
        self._landings: dict[str, tuple[TransferManager, DMAHandle]] = {}
        self._sequence = 0
        self._lacking = {_HEAD, *layout.inputs_apart}
        self._early: set[tuple[str, str]] = set()
        self._closing = False
        self._strand: Strand[_Event] = Strand(self._take)

    @property
    def plan_digest(self) -> str:
        """The plan that it invokes."""
        return self._signature.plan.digest

    @property
    def key(self) -> str:
        """What control messages call it."""
        return self.id.hex()

    # -- opening ----------------------------------------------------------------------------

    def open(self) -> tuple[DMAHandle, dict[str, DMAHandle], dict[str, DMAHandle]]:
        """Let requests come: handles of the head, of large inputs, of incoming transfers."""
        head = self._land(self.client, self._request, partial(InputCame, "", _HEAD))
        inputs: dict[str, DMAHandle] = {}
        incoming: dict[str, DMAHandle] = {}
        for device, share in self._shares.items():
            for name in self._signature.layout.inputs_apart:
                if name in share.inputs:
                    view = share.view(share.inputs[name])
                    inputs[name] = self._land(self.client, view, partial(InputCame, device, name))
            for step, region in share.incoming.items():
                if region.length and step in self._wires.peers:
                    came = partial(TransferCame, device, step)
                    incoming[step] = self._land(self._wires.peers[step], share.view(region), came)
        return head, inputs, incoming

    def link(self, outgoing: Mapping[str, DMAHandle]) -> None:
        """Where transfers to other nodes go: said before the first request."""
        self._outgoing = outgoing

    def _land(
        self,
        manager: TransferManager,
        view: memoryview,
        event: partial[InputCame] | partial[TransferCame],
    ) -> DMAHandle:
        handle = manager.register(view)
        self._landings[f"{event.args}"] = (manager, handle)

        def done(future: TransferFuture) -> None:
            error = future.exception(0)
            if error is None:
                self._core.telemetry.add("bytes_in", future.length)
                manager.arrival(handle).add_done_callback(done)
            self._strand.put(event(error))

        manager.arrival(handle).add_done_callback(done)
        return handle

    # -- events -----------------------------------------------------------------------------

    def _take(self, event: _Event) -> None:
        match event:
            case _OfRun(run, what):
                run.take(what)
                self._look_in_time()
            case InputCame(_, name, error):
                if error is not None:
                    self._close(GenieError("GEN0415", "the data connection ended"))
                else:
                    self._input(name)
            case TransferCame(device, step, error):
                if self.run is not None and self.run.state == "running":
                    self.run.take(event)
                elif error is None:
                    self._early.add((device, step))
                elif not self._closing:
                    self._retire("a link between daemons ended")
            case _Sent(run, error):
                self._reply.sending = False
                if run is not None:
                    run.take(Posted(REPLY, error))
                if self.closed.is_set():
                    self._reply.withdraw()
            case _Tick(now):
                if self.run is not None:
                    self.run.tick(now)
            case _Close(error):
                self._close(error)

    def _input(self, name: str) -> None:
        if name not in self._lacking:
            if not self._closing:
                self._refuse(_overlap())
            return
        self._lacking.discard(name)
        # The client may be quicker than the word that its last reply arrived.
        if not self._lacking and self.run is None:
            self._begin()

    def _begin(self) -> None:
        """Execute the request that has come, if it may be."""
        layout = self._signature.layout
        self._lacking = {_HEAD, *layout.inputs_apart}
        if self._closing:
            return
        try:
            record = bytes(self._request[:RECORD_BYTES])  # a hostile peer may change it meanwhile
            invocation = Invocation.read(record, self.id, self._sequence + 1)
        except GenieError as error:
            self._refuse(error)
            return
        self._sequence += 1
        session = self._session
        refusal = session.ended()
        if refusal is None and self._core.draining:
            refusal = GenieError("GEN0510", "the daemon is shutting down", remedy="use another one")
        if refusal is not None:
            self._answer(Status.FAILED, refusal)
            self._close(refusal)
            return
        reservation = None
        if len(session.runs) < self._core.limits.runs_per_session:
            reservation = self._core.budget.try_reserve(self._signature.needs)
        if reservation is None:
            self._unadmitted("no room for the run now")
            return
        run = self._make(invocation, reservation)
        with session.lock:
            session.runs[run.key] = run
        early, self._early = self._early, set()
        run.begin(early)
        self._look_in_time()

    def _look_in_time(self) -> None:
        """A short deadline, or an attempt to begin again, comes before the clock's next look."""
        if self.run is not None and self.run.state == "running":
            self._core.look_at_calls(self.run.due())

    def _make(self, invocation: Invocation, reservation: Reservation) -> CallRun:
        core, session, signature = self._core, self._session, self._signature
        seconds = min(invocation.timeout_us / 1e6, core.limits.run_seconds)

        def released() -> None:
            core.budget.release(reservation)
            with session.lock:
                session.runs.pop(made.key, None)
            self._rest()

        made = CallRun(
            invocation.run_id,
            signature.plan,
            signature.entrypoint,
            dims=signature.dims,
            deadline=time.monotonic() + seconds,
            wires=self._wires,
            telemetry=core.telemetry,
            retries=core.retries,
            fence=session.ended,
            put=lambda event: self._strand.put(_OfRun(made, event)),
        )
        made.channel = self
        made.on_released = released
        made.state = "running"
        made.target(self._outgoing)
        for device, share in self._shares.items():
            share.rewind(made.key)
            made.shares[device] = share
            for name, region in share.inputs.items():
                at = signature.layout.inputs.get(name)
                if at is not None and region.length:
                    share.view(region)[:] = self._request[at : at + region.length]
        self.run = made
        return made

    # -- answers ----------------------------------------------------------------------------

    def answer(self, run: CallRun) -> dict[str, memoryview]:
        """Send the head of a good reply; returns the outputs that go apart."""
        layout = self._signature.layout
        apart: dict[str, memoryview] = {}
        for share in run.shares.values():
            for value, region in share.outputs.items():
                at = layout.outputs.get(value)
                if at is None:
                    apart[value] = share.view(region)
                elif region.length:
                    self._reply.view[at : at + region.length] = share.view(region)
            # A second attempt has left regions behind that only closing gives back.
            self._closing = self._closing or share.attempt > 1
        reply = Reply(Status.DONE, self._sequence, report(run), None, self._closing)
        reply.write(self._reply.view, self._devices)
        self._send(run)
        return apart

    def answer_failure(self, run: CallRun, error: GenieError) -> None:
        """Tell the client why a run failed. The channel closes when the run is at rest."""
        self._closing = True
        self._answer(Status.FAILED, error, run)

    def _answer(self, status: Status, error: GenieError, run: CallRun | None = None) -> None:
        sequence = self._sequence
        Reply(status, sequence, None, error, last=True).write(self._reply.view, self._devices)
        self._send(run)

    def _send(self, run: CallRun | None) -> None:
        if run is not None:
            run.sending(REPLY)
        # A client that takes nothing must not hold the channel's memory for ever.
        left = max(run.deadline - time.monotonic(), LAST_WORDS) if run else LAST_WORDS
        self._reply.send(left, lambda error: self._strand.put(_Sent(run, error)))

    # -- the end ----------------------------------------------------------------------------

    def _rest(self) -> None:
        """The run is over, and nothing uses the regions."""
        self.run = None
        if self._closing:
            self._free()
        elif not self._lacking:
            self._begin()

    def _refuse(self, error: GenieError) -> None:
        """The client broke the rules: nothing more is executed."""
        if self.run is not None:
            self.run.take(Stop(error))
            self._closing = True
            return
        self._sequence += 1
        self._answer(Status.FAILED, error)
        self._close(error)

    def _unadmitted(self, why: str) -> None:
        """Answer the present request without having begun it, and make room."""
        busy = GenieError("GEN0413", why, remedy="try again later, or with a longer deadline")
        self._answer(Status.UNADMITTED, busy)
        self._close(busy)

    def _retire(self, why: str) -> None:
        """Answer the next request before it comes: the channel closes, nothing was begun."""
        self._sequence += 1
        self._unadmitted(why)

    def evict(self, device: str) -> bool:
        """Close if it holds memory of a node device and nothing is going on. Never waits."""
        if not self.held.needs.get(device):
            return False

        return self.retire()

    def retire(self) -> bool:
        """Close if nothing is going on; False otherwise. Never waits."""

        def idle() -> bool:
            if self.run is not None or self._closing:
                return False
            self._retire("the channel was idle, and its memory was needed")
            return True

        return self._strand.try_now(idle)

    def tick(self, now: float) -> float | None:
        """The clock has moved; when to be told again, None when nothing is going on."""
        self._strand.put(_Tick(now))
        run = self.run
        return None if run is None or run.state != "running" else run.due()

    def close(self, error: GenieError) -> None:
        """Stop what is going on with `error`; `closed` is set when all memory is free."""
        self._strand.put(_Close(error))

    def _close(self, error: GenieError) -> None:
        self._closing = True
        if self.run is not None:
            self.run.take(Stop(error))
        else:
            self._free()

    def _free(self) -> None:
        from genie_transport import TransferError

        if self.closed.is_set():
            return
        # Handles first: no peer may write into memory that is about to be freed.
        for manager, handle in self._landings.values():
            with contextlib.suppress(TransferError):  # withdrawn with its connection
                manager.deregister(handle)
        for share in self._shares.values():
            share.free()
        self._core.budget.release(self.held)
        with self._session.lock:
            self._session.calls.pop(self.key, None)
        self.closed.set()
        if not self._reply.sending:
            self._reply.withdraw()


def _overlap() -> GenieError:
    return GenieError(
        "GEN0430",
        "a request does not fit its call channel",
        cause="it came before the one before it was answered",
        remedy="open a new channel; nothing was executed",
    )
