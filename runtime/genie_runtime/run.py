"""One run on one node: from its inputs' arrival to its publication, in one thread.

Everything that happens (an input arrived, an executor is ready to send, a peer verified what it
got, somebody cancelled) is an event in the run's queue, and `drive` is the only one that acts on
them: a run has no other lock. Every wait in it ends at the run's deadline at the latest.
"""

from __future__ import annotations

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
from genie_runtime.telemetry import RetryBudget, Telemetry
from genie_schemas.errors import GenieError, GenieErrors

if TYPE_CHECKING:
    from genie_transport import DMAHandle, TransferManager

QUIESCE = 180.0
"""Seconds that a stopped executor has to let go of a run's memory. Executors stop at once or, in
the middle of a long operator, when it ends; a worker that hangs is ended by its supervisor."""

_TICK = 0.5


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
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
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
            put=self._events.put,
        )
        self._ledger = ledger
        self._acceptance = acceptance
        self._on_released = on_released
        self._keep = keep
        self._outputs: Mapping[str, DMAHandle] = {}
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
        for share in self.shares.values():
            self._start_when_ready(share)
        while not self._complete():
            event = self._next()
            if event is not None:
                self._handle(event)
            self._restart_due()

    def _next(self) -> Event | None:
        now = time.monotonic()
        if now >= self.deadline:
            raise late(self.run_id, self.shares)
        waits = [s.restart_at for s in self.shares.values() if s.state == "backoff"]
        until = min([self.deadline, now + _TICK, *waits])
        try:
            return self._events.get(timeout=max(until - now, 0.0005))
        except queue.Empty:
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
        while True:
            try:
                self._handle(self._events.get_nowait())
            except queue.Empty:
                return

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
