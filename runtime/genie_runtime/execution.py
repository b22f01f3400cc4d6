"""What a run does when something happens, whoever brings it the events.

A run of its own (`run.py`) takes them from a queue in a thread; an invocation of a call channel
(`call_run.py`) gets them on its channel's strand. Nothing here is called by two threads at once.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genie_runtime.mail import (
    Event,
    ExecutorSaid,
    InputCame,
    Mail,
    Posted,
    Stop,
    TransferCame,
    Unwired,
    Wires,
)
from genie_runtime.plans import Hop, InstalledPlan
from genie_runtime.ports import Failed, Finished, Ready, RunEvent
from genie_runtime.run_errors import attempted, step_of, transfer_failed
from genie_runtime.share import ShareRun
from genie_runtime.telemetry import RetryBudget, Telemetry
from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    from genie_transport import DMAHandle

__all__ = ["Execution", "Totals"]

_NO_MEMORY = 0.05
"""Seconds until an attempt looks again whether its memory came free."""


@dataclass
class Totals:
    """What the run cost, in nanoseconds, for its report."""

    started_ns: int = 0
    ended_ns: int = 0


class Execution(ABC):
    """One entry point going on at this node: attempts at its devices' shares, and its transfers."""

    def __init__(
        self,
        run_id: str,
        plan: InstalledPlan,
        entrypoint: str,
        *,
        dims: Mapping[str, int],
        deadline: float,
        wires: Wires,
        telemetry: Telemetry,
        retries: RetryBudget,
        fence: Callable[[], GenieError | None],
        put: Callable[[Event], None],
    ) -> None:
        """`put` takes the run's events, in any thread; `deadline` is monotonic time."""
        self.key = secrets.token_hex(16)
        self.run_id = run_id
        self.plan = plan
        self.entrypoint = entrypoint
        self.shares: dict[str, ShareRun] = {}
        """By plan device; filled by whoever admits the run."""
        self.dims = dims
        self.deadline = deadline
        self.created = time.monotonic()
        self.state = "prepared"
        self.error: GenieError | None = None
        self.totals = Totals()
        self.ended = threading.Event()
        """It is known how the run ended."""
        self.freed = threading.Event()
        """Its memory is free, and nobody uses its plan any more."""
        self._wires = wires
        self._telemetry = telemetry
        self._retries = retries
        self._fence = fence
        self._put = put
        self._mail = Mail(put, telemetry)
        self._outgoing: Mapping[str, DMAHandle] = {}

    def stop(self, error: GenieError) -> None:
        """End the run with `error`, wherever it stands; nothing is published after that."""
        self._put(Stop(error))

    @abstractmethod
    def release(self) -> None:
        """Withdraw every handle and let go of the memory; a second time does nothing."""

    @property
    def transfer_ns(self) -> int:
        """Nanoseconds that its posts took, added up: they overlap."""
        return self._mail.transfer_ns

    # -- events -----------------------------------------------------------------------------

    def _complete(self) -> bool:
        done = all(s.state == "finished" for s in self.shares.values())
        return done and not self._mail.pending

    def _handle(self, event: Event) -> None:
        match event:
            case Stop(error):
                raise error
            case InputCame(device, name, error) | TransferCame(device, name, error) if (
                error is not None
            ):
                raise transfer_failed(name, error)
            case Unwired(step, error):
                raise transfer_failed(step, error)
            case Posted(step, error):
                self._mail.posted(step)
                if error is not None:
                    raise transfer_failed(step, error)
            case InputCame(device, name, _):
                self.shares[device].lacking.discard(name)
                self._start_when_ready(self.shares[device])
            case TransferCame(device, step, _):
                self.shares[device].deliver(step)
            case ExecutorSaid(device, attempt, what):
                if attempt == self.shares[device].attempt:
                    self._executor_event(self.shares[device], what)

    def _start_when_ready(self, share: ShareRun) -> None:
        if share.state in ("waiting", "backoff") and not share.lacking:
            attempt = share.attempt + 1

            def on_event(event: RunEvent) -> None:
                self._put(ExecutorSaid(share.share.device, attempt, event))

            try:
                share.start(self.plan.digest, self.entrypoint, on_event)
            except GenieError as error:
                if error.code != "GEN0472" or not share.attempt:
                    raise
                share.state, share.restart_at = "backoff", time.monotonic() + _NO_MEMORY
                return
            self._telemetry.add("attempts")

    def _executor_event(self, share: ShareRun, event: RunEvent) -> None:
        match event:
            case Ready(step):
                hop = share.share.outgoing.get(step)
                if step in share.triggers:
                    return  # it is on its way
                if hop is not None and (step not in share.sent or step in share.share.again):
                    share.sent.add(step)
                    self._send(share, hop)
            case Finished(stats):
                share.stats.append(stats)
                share.state = "finished"
            case Failed(error, retryable):
                self._retry(share, error, retryable)

    def _send(self, share: ShareRun, hop: Hop) -> None:
        source = share.view(share.outgoing[hop.step])
        target = self.shares.get(hop.dst)
        if target is not None and hop.step not in self._wires.peers:
            landing = target.view(target.incoming[hop.step])
            if landing.nbytes != source.nbytes:  # both sizes come from the same type and dims
                raise transfer_failed(hop.step, ValueError("the two ends differ in length"))
            landing[:] = source
            self._telemetry.add("local_bytes", source.nbytes)
            target.deliver(hop.step)
            return
        if not source.nbytes:
            return
        handle = self._outgoing.get(hop.step)
        if handle is None:
            raise transfer_failed(hop.step, KeyError("the client named no destination"))
        peer = self._wires.peers[hop.step]
        again = hop.step in share.share.again
        self._mail.post(peer, source, handle, hop.step, hop.priority, self.deadline, again=again)

    # -- failure ----------------------------------------------------------------------------

    def _retry(self, share: ShareRun, error: GenieError, retryable: bool) -> None:
        policy = share.share.policy(step_of(error))
        wanted = retryable or error.code in policy.retry_on
        if not wanted or share.attempt >= policy.max_attempts or not self._retries.take():
            share.state = "finished"
            raise attempted(error, share.attempt)
        self._telemetry.add("retries")
        # Exponential, with full jitter in its upper half, so that many runs do not come at once.
        base = min(policy.backoff_ms / 1000 * 2 ** (share.attempt - 1), 2.0)
        share.restart_at = time.monotonic() + base * random.uniform(0.5, 1.0)  # noqa: S311
        share.state = "backoff"

    def _restart_due(self) -> None:
        now = time.monotonic()
        for share in self.shares.values():
            if share.state == "backoff" and now >= share.restart_at:
                self._start_when_ready(share)

    # -- the end ----------------------------------------------------------------------------

    def _succeeded(self) -> None:
        """Count a good end, and what the run cost beyond its executors' own time."""
        self._telemetry.add("runs")
        self._retries.succeeded()
        busy = max(
            (sum(s.compute_ns + s.wait_ns for s in share.stats) for share in self.shares.values()),
            default=0,
        )
        spent = self.totals.ended_ns - self.totals.started_ns
        self._telemetry.overhead(max(spent - busy, 0) // 1000)
