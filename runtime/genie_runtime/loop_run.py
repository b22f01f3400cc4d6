"""A run of a loop that samples tokens, on one node: its entry once, its body for every token.

The executors turn the loop by themselves, and tell each other its end; here every token that they
draw becomes visible, and transfers between devices are sent and awaited anew with every turn. A
loop is never retried here: whoever asked for it has the tokens so far, and asks again with these.
"""

from __future__ import annotations

import logging
from typing import Any

from genie_runtime.mail import Event, TransferCame
from genie_runtime.outputs import OutputRecord
from genie_runtime.plans import InstalledPlan, sampling
from genie_runtime.ports import Finished, Generation, Ready, RunEvent, Sampled
from genie_runtime.run import Run
from genie_runtime.run_errors import step_of
from genie_runtime.share import ShareRun
from genie_runtime.telemetry import Telemetry
from genie_runtime.tokens import TokenLog, assemble
from genie_schemas.errors import GenieError, InternalError
from genie_schemas.plan import Loop, Sample

__all__ = ["TOKENS", "LoopRun", "note_phase"]

_log = logging.getLogger("genie_runtime.phases")

TOKENS = "tokens"
"""The name of a loop's output."""

_MOST_WIRED = 64
"""Transfers of a device's body that are: their descriptors go to its executor in one message."""


def note_phase(telemetry: Telemetry, run_id: str, loop: Loop, phase: str) -> None:
    """A run has come to the entry (`prefill`) or to the body (`decode`) of a loop."""
    body = phase == loop.body
    telemetry.add("phase_decode" if body else "phase_prefill")
    if body:
        _log.info(
            "%s -> %s", loop.entry, loop.body, extra={"fields": {"run_id": run_id, "phase": phase}}
        )


class LoopRun(Run):
    """A prepared run of a loop. It has no outputs but its tokens, in `tokens`."""

    def __init__(
        self,
        run_id: str,
        plan: InstalledPlan,
        entrypoint: str,
        *,
        generation: Generation,
        rows: int,
        **others: Any,
    ) -> None:
        """`rows` sequences are generated; `others` are as `Run` takes them. Raises GEN0480."""
        loop = sampling(plan.plan, entrypoint)
        if loop is None or loop.sample is None:
            raise InternalError("a run of a loop that does not sample")
        self._loop = loop
        self._sample: Sample = loop.sample
        self.phase = loop.entry
        self.tokens = TokenLog(rows, generation.max_new_tokens, generation.forced)
        self.retryable = False
        """Whether another run may end better than this one, which failed."""
        super().__init__(run_id, plan, entrypoint, **others)

    def _execute(self) -> None:
        note_phase(self._telemetry, self.run_id, self._loop, self.phase)
        for share in self.shares.values():
            self._wire(share)
        super()._execute()

    def _wire(self, share: ShareRun) -> None:
        """Let the body's transfers pass without our word, where their path can.

        A device waits for them in every turn: each thread and process in between costs it.
        """
        for step in sorted(share.share.again)[:_MOST_WIRED]:
            peer = self._wires.peers.get(step)
            if peer is None:
                continue
            if step in self._landings and step in share.incoming:
                bell = self._mail.hang(peer, self._landings[step])
                if bell is not None:
                    share.bells[step] = bell
            hop = share.share.outgoing.get(step)
            if hop is not None and step in self._outgoing:
                source = share.view(share.outgoing[step])
                target = self._outgoing[step]
                trigger = self._mail.stand(peer, source, target, step, hop.priority)
                if trigger is not None:
                    share.triggers[step] = trigger

    # -- events -----------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, TransferCame) and event.error is None:
            self._entered(self.shares[event.device], event.step)
        super()._handle(event)

    def _executor_event(self, share: ShareRun, event: RunEvent) -> None:
        if isinstance(event, Sampled):
            if not share.share.samples:
                raise GenieError("GEN0454", "tokens came from a device that draws none")
            self.tokens.append(event.index, event.tokens)
            self._telemetry.add("tokens", sum(token >= 0 for token in event.tokens))
            self._enter_body()
            return
        if isinstance(event, Ready):
            self._entered(share, event.step)
        if isinstance(event, Finished):
            for step in share.triggers:
                self._mail.conclude(step)
        super()._executor_event(share, event)

    def _entered(self, share: ShareRun, step: str) -> None:
        if step in share.share.again:
            self._enter_body()

    def _enter_body(self) -> None:
        if self.phase != self._loop.body:
            self.phase = self._loop.body
            note_phase(self._telemetry, self.run_id, self._loop, self.phase)

    def _retry(self, share: ShareRun, error: GenieError, retryable: bool) -> None:
        policy = share.share.policy(step_of(error))
        self.retryable = retryable or error.code in policy.retry_on
        share.state = "finished"
        raise error

    # -- the end ----------------------------------------------------------------------------

    def _records(self) -> list[OutputRecord]:
        """What the ledger keeps under the run's id: the tokens, where they are drawn."""
        if not any(share.share.samples for share in self.shares.values()):
            return []
        steps, rows = self.tokens.steps(), self.tokens.rows
        data = assemble(steps, rows, self._sample.pad)
        return [OutputRecord(TOKENS, f"i64[{rows},{len(steps)}]", memoryview(data))]

    def _tell_end(self) -> None:
        super()._tell_end()
        self.tokens.end()
