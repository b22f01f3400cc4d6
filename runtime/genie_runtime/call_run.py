"""One invocation on one node: a run that its events drive, with no thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from genie_runtime.execution import Execution
from genie_runtime.mail import Event, ExecutorSaid, Posted
from genie_runtime.ports import Failed, Finished
from genie_runtime.run_errors import late, transfer_failed
from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    from genie_runtime.call_channel import CallChannel
    from genie_transport import DMAHandle

__all__ = ["REPLY", "CallRun"]

REPLY = "\0reply"
"""The name of the reply's head among what is posted: no step or value is called so."""


class CallRun(Execution):
    """A run whose inputs are all there. Every method is called on its channel's strand.

    Its regions are the channel's and stay. States: running → replying or failed → released.
    """

    channel: CallChannel
    on_released: Callable[[], None]

    def begin(self, early: Iterable[tuple[str, str]]) -> None:
        """Start its shares; `early` (device, step) are transfers that came before the request."""
        self.totals.started_ns = time.monotonic_ns()
        for device, step in early:
            self.shares[device].delivered.add(step)
        if time.monotonic() >= self.deadline:
            self.fail(late(self.run_id, self.shares))
            return
        try:
            for share in self.shares.values():
                self._start_when_ready(share)
            self._advance()
        except GenieError as error:
            self.fail(error)

    def target(self, outgoing: Mapping[str, DMAHandle]) -> None:
        """Where its transfers go."""
        self._outgoing = outgoing

    def take(self, event: Event) -> None:
        """Act on an event."""
        if self.state != "running":
            self._settle(event)
            return
        try:
            self._handle(event)
            self._advance()
        except GenieError as error:
            self.fail(error)
        except Exception as error:  # a bug of ours must not leave the client waiting
            cause = repr(error)[:500]
            self.fail(GenieError("GEN0419", "the runtime failed in an unforeseen way", cause=cause))

    def tick(self, now: float) -> None:
        """Look at the clock: the deadline, and attempts that are due."""
        if self.state != "running":
            return
        if now >= self.deadline:
            self.fail(late(self.run_id, self.shares))
            return
        try:
            self._restart_due()
        except GenieError as error:
            self.fail(error)

    def due(self) -> float:
        """When `tick` has something to do (monotonic)."""
        waits = [s.restart_at for s in self.shares.values() if s.state == "backoff"]
        return min([self.deadline, *waits])

    def _advance(self) -> None:
        if not self._complete():
            return
        fenced = self._fence()
        if fenced is not None:
            raise fenced
        self.totals.ended_ns = time.monotonic_ns()
        self.state = "replying"
        for value, view in self.channel.answer(self).items():
            # Whatever is too large for the head goes straight from its region.
            handle = self.channel.outputs[value]
            client = self.channel.client
            self._mail.post(client, view, handle, value, "prefill", self.deadline)

    def fail(self, error: GenieError) -> None:
        """End it with an error: the client is told at once, the executors are stopped."""
        self.totals.ended_ns = time.monotonic_ns()
        self.error = error
        self.state = "failed"
        self._telemetry.add("cancelled" if error.code == "GEN0415" else "failures")
        self.ended.set()
        self.channel.answer_failure(self, error)
        for share in self.shares.values():
            if share.state == "running":
                share.executor.cancel(share.key)
            elif share.state == "backoff":
                share.state = "finished"

    def _settle(self, event: Event) -> None:
        """After its end: whatever is under way comes to rest before the regions are used again."""
        match event:
            case Posted(name, error):
                self._mail.posted(name)
                if error is not None and self.error is None:
                    self.error = transfer_failed(name.lstrip("\0"), error)
            case ExecutorSaid(device, attempt, Finished() | Failed()):
                share = self.shares[device]
                if attempt == share.attempt:
                    share.state = "finished"
            case _:
                return
        resting = all(share.state != "running" for share in self.shares.values())
        if resting and not self._mail.pending:
            self.release()

    def sending(self, name: str) -> None:
        """A post of the channel's began; `Posted(name)` follows."""
        self._mail.expect(name)

    def release(self) -> None:
        """All is over. Once; the channel frees the regions when it closes."""
        if self.freed.is_set():
            return
        self._mail.withdraw()
        if self.state == "replying":
            self._note_success()
        self.on_released()
        self.ended.set()
        self.freed.set()

    def _note_success(self) -> None:
        if self.error is not None:  # the client did not get it
            self._telemetry.add("failures")
            return
        self.state = "done"
        self._succeeded()
