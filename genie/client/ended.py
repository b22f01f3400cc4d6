"""How a run ended on its nodes, as far as the client has heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from genie.client.link import Leg, LegEnd, NodeLink, RunSpec
from genie.client.tensors import Tensor, from_dense
from genie_schemas.errors import GenieError
from genie_schemas.messages import RunReport
from genie_schemas.types import parse_type

__all__ = ["Ended", "good", "late", "left", "tensors", "watched"]


@dataclass
class Ended:
    """Reports and outputs of a run, which took `attempts` when it was a loop.

    `traffic` counts the bytes of its messages when it was an invocation over the data plane, and
    `travel_us` the time that these were under way.
    """

    reports: list[RunReport] = field(default_factory=list)
    values: dict[str, Tensor] = field(default_factory=dict)
    replayed: bool = False
    traffic: dict[str, int] | None = None
    travel_us: int = 0
    attempts: int = 0


def good(found: LegEnd) -> RunReport:
    """The report of a part that ended well; its error raised otherwise."""
    if found.error is not None:
        raise found.error
    if found.report is None:
        raise GenieError("GEN0509", "a node reported the end of a run without its report")
    return found.report


def left(spec: RunSpec, end: float) -> float:
    """Seconds until `end` (monotonic), more than 0; GEN0414 when it has passed."""
    seconds = end - time.monotonic()
    # Nodes end a run at the same deadline and say more about it: give their word a moment.
    if seconds <= -1.0:
        raise late(spec)
    return max(seconds, 0.001)


def late(spec: RunSpec) -> GenieError:
    """GEN0414 for a run that passed its deadline."""
    return GenieError(
        "GEN0414",
        f"run {spec.run_id!r} passed its deadline",
        remedy="give a longer deadline",
        context={"run_id": spec.run_id},
    )


def tensors(values: Mapping[str, tuple[str, memoryview]]) -> dict[str, Tensor]:
    """Values that came, as tensors of their own. Copies."""
    found = {}
    for name, (text, data) in values.items():
        kind = parse_type(text)
        found[name] = from_dense(kind, kind.sizes({}), data)
    return found


@contextmanager
def watched(
    spec: RunSpec,
    legs: Sequence[tuple[NodeLink, Leg]],
    end: float,
    put: Callable[[LegEnd], None],
) -> Iterator[None]:
    """Wait for legs in threads meanwhile: `put` gets how each has ended, whatever comes."""
    stop = threading.Event()

    def watch(leg: Leg) -> None:
        while not stop.is_set():
            try:
                found = leg.wait(left(spec, end))
            except GenieError as error:
                found = LegEnd(None, error)
            except Exception as error:
                cause = repr(error)[:300]
                found = LegEnd(None, GenieError("GEN0419", "waiting failed", cause=cause))
            if found is not None:
                put(found)
                return

    for node, leg in legs:
        thread = threading.Thread(target=watch, args=(leg,), name=f"genie-wait-{node.name}")
        thread.daemon = True
        thread.start()
    try:
        yield
    finally:
        stop.set()
