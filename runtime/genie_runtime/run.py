"""One run on one node: from its inputs' arrival to its publication.

Everything that happens (an input arrived, an executor is ready to send, a peer verified what it
got, somebody cancelled) is an event. While the run executes, whoever brings one acts on it, on the
run's strand: a value passes from device to device without a thread between. `drive` waits
meanwhile, looks at the clock, and acts on events itself before and after: a run has no other lock.
Every wait in it ends at the run's deadline at the latest.
"""

from __future__ import annotations

import contextlib
import enum
import queue
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from genie_runtime.execution import Execution
from genie_runtime.faults import reach
from genie_runtime.ledger import Acceptance, Ledger
from genie_runtime.mail import (
    Event,
    ExecutorSaid,
    InputCame,
    TransferCame,
    Wires,
)
from genie_runtime.outputs import OutputRecord, StoredOutputs
from genie_runtime.plans import InstalledPlan, concrete
from genie_runtime.ports import Failed, Finished
from genie_runtime.run_errors import late, transfer_failed
from genie_runtime.strand import Strand
from genie_runtime.telemetry import RetryBudget, Telemetry
from genie_schemas.errors import GenieError, GenieErrors

if TYPE_CHECKING:
    from genie_transport import DMAHandle, TransferManager

QUIESCE = 180.0
"""Seconds that a stopped executor has to let go of a run's memory. Executors stop at once or, in
the middle of a long operator, when it ends; a worker that hangs is ended by its supervisor."""

_TICK = 0.5


class _Stage(enum.Enum):
    """How far a run is, and the event on its strand that brings it there."""

    PREPARED = enum.auto()
    EXECUTING = enum.auto()
    OVER = enum.auto()
    """Its executors have ended well, or something went wrong: the rest is `drive`'s."""


class _Look(enum.Enum):
    """An event of `drive`'s: look at the clock."""

    NOW = enum.auto()


class Run(Execution):
    """A prepared run. `drive` carries it out; the other methods may be called by any thread."""

    def __init__(
        self,
        run_id: str,
        plan: InstalledPlan,
        entrypoint: str,
        *,
        dims: Mapping[str, int],
        deadline: float,
        wires: Wires,
        ledger: Callable[[], Ledger],
        acceptance: Acceptance | None,
        telemetry: Telemetry,
        retries: RetryBudget,
        fence: Callable[[], GenieError | None],
        on_released: Callable[[Run], None],
        keep: Callable[[Run], None] | None = None,
    ) -> None:
        """`keep` takes the outputs that stay on the node, once the run has come to a good end."""
        self._stage = _Stage.PREPARED
        self._early: list[Event] = []
        self._failure: Exception | None = None
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        """What `drive` has to act on; None only wakes it."""
        self._strand: Strand[Event | _Stage | _Look] = Strand(self._act)
        super().__init__(
            run_id,
            plan,
            entrypoint,
            dims=dims,
            deadline=deadline,
            wires=wires,
            telemetry=telemetry,
            retries=retries,
            fence=fence,
            put=self._strand.put,
        )
        self._ledger = ledger
        self._acceptance = acceptance
        self._on_released = on_released
        self._keep = keep
        self._outputs: Mapping[str, DMAHandle] = {}
        self._landings: Mapping[str, DMAHandle] = {}
        self._stored: StoredOutputs | None = None
        self._released = False
        self._release_lock = threading.Lock()

    # -- before it starts -------------------------------------------------------------------

    def expose(self) -> tuple[dict[str, DMAHandle], dict[str, DMAHandle]]:
        """Register where inputs and incoming transfers land: (by input, by step)."""
        inputs: dict[str, DMAHandle] = {}
        incoming: dict[str, DMAHandle] = {}
        for device, share in self.shares.items():
            if self._wires.client is not None:
                for name in sorted(share.lacking):
                    view = share.view(share.inputs[name])
                    event = partial(InputCame, device, name)
                    inputs[name] = self._mail.land(self._wires.client, view, event)
            for step, region in share.incoming.items():
                if region.length and step in self._wires.peers:
                    came = partial(TransferCame, device, step)
                    incoming[step] = self._mail.land(
                        self._wires.peers[step],
                        share.view(region),
                        came,
                        again=step in share.share.again,
                    )
        self._landings = incoming
        return inputs, incoming

    def input_view(self, name: str) -> memoryview:
        """Where an embedded client writes an input; `input_written` says that it did."""
        share = next(s for s in self.shares.values() if name in s.inputs)
        return share.view(share.inputs[name])

    def inputs_written(self) -> None:
        """Every input is in its region (embedded)."""
        for share in self.shares.values():
            share.lacking.clear()

    def output_view(self, value: str) -> memoryview:
        """The bytes of a returned value after the end of an embedded run."""
        if self._stored is not None:
            data = self._stored.read()
            entry = next(o for o in self._stored.outputs if o.value == value)
            return data[entry.offset : entry.offset + entry.nbytes]
        share = next(s for s in self.shares.values() if value in s.outputs)
        return share.view(share.outputs[value])

    # -- the run ----------------------------------------------------------------------------

    def start(self, outgoing: Mapping[str, DMAHandle], outputs: Mapping[str, DMAHandle]) -> None:
        """Drive the run in a thread of its own."""
        thread = threading.Thread(
            target=self.drive, args=(outgoing, outputs), name=f"genie-run-{self.run_id[:24]}"
        )
        thread.daemon = True
        thread.start()

    def drive(
        self, outgoing: Mapping[str, DMAHandle], outputs: Mapping[str, DMAHandle]
    ) -> GenieError | None:
        """Carry the run out; returns what made it fail. Remote runs release their memory."""
        self._outgoing, self._outputs = outgoing, outputs
        self.state = "running"
        self.totals.started_ns = time.monotonic_ns()
        try:
            self._execute()
            self._publish()
        except GenieError as error:
            self.error = error
        except Exception as error:  # a bug of ours must not leave the client waiting
            self.error = GenieError(
                "GEN0419", "the runtime failed in an unforeseen way", cause=repr(error)[:500]
            )
        except BaseException:  # Ctrl-C in an embedded client: let go of everything, then go on
            self.error = GenieError("GEN0415", f"run {self.run_id!r} was interrupted")
            self._finish()
            raise
        self.totals.ended_ns = time.monotonic_ns()
        self._finish()
        return self.error

    def _execute(self) -> None:
        self._strand.put(_Stage.EXECUTING)
        try:
            while self._stage is not _Stage.OVER:
                self._next()
                self._strand.put(_Look.NOW)
        finally:
            self._strand.put(_Stage.OVER)
        if self._failure is not None:
            raise self._failure

    def _act(self, event: Event | _Stage | _Look) -> None:
        """On the strand: act on what happens while the run executes; the rest is `drive`'s."""
        if isinstance(event, _Stage):
            self._stage = event
        if self._stage is _Stage.EXECUTING:
            try:
                self._carry_out(event)
                if self._complete():
                    self._stage = _Stage.OVER
            except Exception as error:
                self._failure = error
                self._stage = _Stage.OVER
            backing_off = any(s.state == "backoff" for s in self.shares.values())
            if self._stage is _Stage.OVER or (backing_off and event is not _Look.NOW):
                self._events.put(None)  # `drive` does not know how long to wait any more
        elif isinstance(event, _Stage):
            self._events.put(None)
        elif isinstance(event, _Look):
            return
        elif self._stage is _Stage.PREPARED:
            self._early.append(event)
        else:
            self._events.put(event)

    def _carry_out(self, event: Event | _Stage | _Look) -> None:
        if isinstance(event, _Stage):
            for share in self.shares.values():
                self._start_when_ready(share)
            for early in self._early:
                self._handle(early)
        elif isinstance(event, _Look):
            if time.monotonic() >= self.deadline:
                raise late(self.run_id, self.shares)
            self._restart_due()
        else:
            self._handle(event)

    def _next(self) -> Event | None:
        """The next event that is for `drive`; None when there is none yet but time has passed."""
        waits = [s.restart_at for s in self.shares.values() if s.state == "backoff"]
        now = time.monotonic()
        until = min([self.deadline, now + _TICK, *waits])
        with contextlib.suppress(queue.Empty):
            return self._events.get(timeout=max(until - now, 0.0005))
        return None

    # -- publication and the end ------------------------------------------------------------

    def _publish(self) -> None:
        self._check_stopped()
        fenced = self._fence()
        if fenced is not None:
            raise fenced
        if self._acceptance is not None:
            stored = self._ledger().publish(self._acceptance, self._records())
            if not stored.made_by(self._acceptance.epoch, self._acceptance.attempt):
                self._stored = stored  # an earlier attempt published: its bytes are the result
            elif self._acceptance.recorded:
                self._stored = stored
            self._acceptance = None
        if self._keep is not None:
            self._keep(self)
        if self._wires.client is not None:
            self._send_outputs(self._wires.client)
            if self._outputs:
                reach("publish.after_send")

    def _check_stopped(self) -> None:
        """Look for a stop that came with the last event: a fenced run must not publish."""
        while not self._events.empty():
            event = self._events.get_nowait()
            if event is not None:
                self._handle(event)

    def _records(self) -> list[OutputRecord]:
        return [
            OutputRecord(
                value,
                concrete(share.share.outputs[value], self.dims),
                share.view(region).toreadonly(),
            )
            for share in self.shares.values()
            for value, region in share.outputs.items()
        ]

    def _send_outputs(self, client: TransferManager) -> None:
        for share in self.shares.values():
            for value in share.outputs:
                source = self.output_view(value)
                if source.nbytes == 0:
                    continue
                handle = self._outputs.get(value)
                if handle is None:
                    raise transfer_failed(value, KeyError("the client named no buffer"))
                self._mail.post(client, source, handle, value, "prefill", self.deadline)
        while self._mail.pending:
            if time.monotonic() >= self.deadline:
                raise late(self.run_id, self.shares)
            event = self._next()
            if event is not None:
                self._handle(event)

    def _finish(self) -> None:
        if self.error is None:
            self._succeeded()
            self.state = "done"
            if self._wires.client is not None:
                self.release()
            self._tell_end()
            return
        self._record_failure(self.error)
        cancelled = self.error.code == "GEN0415"
        self._telemetry.add("cancelled" if cancelled else "failures")
        self.state = "failed"
        self._tell_end()  # the client need not wait until the executors have let go
        if self._wires.client is not None:
            self._let_go()
        else:
            threading.Thread(target=self._let_go, name="genie-let-go", daemon=True).start()

    def _tell_end(self) -> None:
        """Let those who wait for the run know that it has ended."""
        self.ended.set()

    def _let_go(self) -> None:
        self._quiesce()
        self.release()

    def _record_failure(self, error: GenieError) -> None:
        if self._acceptance is None:
            return
        try:
            self._ledger().fail(self._acceptance, error)
        except GenieError as second:
            self.error = GenieErrors([error, second])
        self._acceptance = None

    def _quiesce(self) -> None:
        """Stop the executors and wait until none uses the run's memory any more."""
        end = time.monotonic() + QUIESCE
        for share in self.shares.values():
            if share.state == "running":
                share.executor.cancel(share.key)
        while any(s.state == "running" for s in self.shares.values()):
            try:
                event = self._events.get(timeout=max(end - time.monotonic(), 0.001))
            except queue.Empty:
                return
            if isinstance(event, ExecutorSaid) and isinstance(event.event, Finished | Failed):
                share = self.shares[event.device]
                if event.attempt == share.attempt:
                    share.state = "finished"

    def release(self) -> None:
        """Withdraw every handle and free the memory; a second time does nothing."""
        with self._release_lock:
            if self._released:
                return
            self._released = True
        if self.state == "prepared":
            self._record_failure(GenieError("GEN0415", "the run was released before it began"))
            self.state = "failed"
        self._mail.withdraw()
        # An executor that does not let go in time keeps its memory: better a leak than a write
        # into another session's data. Its supervisor ends it, and the next start begins clean.
        for share in self.shares.values():
            if share.state != "running":
                share.free()
        self._on_released(self)
        self._tell_end()
        self.freed.set()
