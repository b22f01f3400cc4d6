"""A generation loop over the nodes of a plan: its tokens as they come, and going on after a loss.

The nodes turn the loop; the client only listens. What was lost with a daemon or an executor (the
cache) is made anew by its next attempt, from the prompt and the tokens so far, which the client
has: the caller sees one stream, with the tokens that an undisturbed run gives.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from genie.client.ended import good, left, watched
from genie.client.link import Leg, LegEnd, NodeLink, RunSpec, Step
from genie.client.progress import Progress
from genie_runtime.plans import FALLBACK
from genie_runtime.run_errors import attempted
from genie_runtime.telemetry import RetryBudget
from genie_schemas.errors import GenieError
from genie_schemas.messages import RunReport

__all__ = ["RECONNECT", "Interrupted", "Recovery", "follow"]

RECONNECT = 30.0
"""Seconds that a lost daemon has to come back at its endpoint."""

_TICK = 0.25
_RESUMES = 8
"""How often a stream that broke is taken up again while its daemon lives."""


class Interrupted(Exception):
    """A node's part of a loop failed so that another attempt may end better."""

    def __init__(self, error: GenieError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class _Steps:
    first: int
    steps: list[Step]


class _Over:
    """The stream has ended."""


_Item = _Steps | _Over | LegEnd
_Legs = list[tuple[NodeLink, Leg]]


def follow(
    spec: RunSpec,
    legs: _Legs,
    drawing: NodeLink,
    progress: Progress,
    end: float,
    check_alive: Callable[[], None],
) -> list[RunReport]:
    """Hand out tokens as they come until the loop has ended on every node; their reports.

    `drawing` is the node where tokens are drawn. Raises the first failure, as `Interrupted` when
    another attempt may end better.
    """
    inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
    leg = next(leg for node, leg in legs if node is drawing)
    others = [(node, other) for node, other in legs if node is not drawing]
    forced = spec.generation.forced if spec.generation is not None else ()
    index = len(forced[0]) if forced else 0
    pump = threading.Thread(
        target=_pump, args=(drawing, leg, index, progress.rows, inbox.put), daemon=True
    )
    reports: list[RunReport] = []

    def take() -> _Item | None:
        # What came before a loss first: it need not be drawn again.
        with contextlib.suppress(queue.Empty):
            return inbox.get_nowait()
        check_alive()
        try:
            return inbox.get(timeout=min(_TICK, left(spec, end)))
        except queue.Empty:
            return None

    with watched(spec, others, end, inbox.put):
        pump.start()
        while not isinstance(item := take(), _Over):
            if isinstance(item, _Steps):
                progress.take(item.first, item.steps)
            elif item is not None:
                reports.append(_good(item))
        reports.insert(0, _good(_end_of(spec, leg, end, check_alive)))
        while len(reports) < len(legs):
            if isinstance(item := take(), LegEnd):
                reports.append(_good(item))
    return reports


def _end_of(spec: RunSpec, leg: Leg, end: float, check_alive: Callable[[], None]) -> LegEnd:
    while (found := leg.wait(left(spec, end))) is None:
        check_alive()
    return found


def _good(found: LegEnd) -> RunReport:
    if found.retryable and found.error is not None:
        raise Interrupted(found.error)
    return good(found)


def _pump(node: NodeLink, leg: Leg, index: int, rows: int, put: Callable[[_Item], None]) -> None:
    """Read the stream; take it up again where it broke, as long as its node lives."""
    for turn in range(_RESUMES):
        try:
            for first, steps in leg.tokens(index, rows):
                put(_Steps(first, steps))
                index = first + len(steps)
        except GenieError as error:
            time.sleep(_TICK)  # the heartbeat needs a moment to find a daemon gone
            if error.code == "GEN0502" and node.lost() is None and turn + 1 < _RESUMES:
                continue
            put(LegEnd(None, error))
        except Exception as error:
            cause = repr(error)[:300]
            put(LegEnd(None, GenieError("GEN0419", "reading the tokens failed", cause=cause)))
        else:
            put(_Over())
        return


class Recovery:
    """Whether, and when, a generation is tried again: bounded by its policy and a common budget."""

    def __init__(self, spec: RunSpec, budget: RetryBudget, end: float) -> None:
        shares = spec.plan.installed.shares.items()
        mine = [s for (name, _), s in shares if name == spec.entrypoint and s.computes]
        policies = [share.policy(None) for share in mine]
        self._policy = min(policies, key=lambda p: p.max_attempts, default=FALLBACK)
        self._budget = budget
        self._end = end
        self.attempts = 1
        self.error: GenieError | None = None
        """What the attempt before failed with."""

    def again(self, error: GenieError, *, retryable: bool, lost: bool) -> None:
        """Wait before another attempt, or raise `error` when there is none."""
        wanted = retryable or lost or error.code == "GEN0418" or error.code in self._policy.retry_on
        if not wanted or self.attempts >= self._policy.max_attempts or not self._budget.take():
            raise attempted(error, self.attempts) if wanted else error
        base = min(self._policy.backoff_ms / 1000 * 2 ** (self.attempts - 1), 2.0)
        pause = base * random.uniform(0.5, 1.0)  # noqa: S311
        if time.monotonic() + pause >= self._end:
            raise error
        time.sleep(pause)
        self.attempts += 1
        self.error = error
