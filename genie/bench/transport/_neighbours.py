"""What a session feels of another one on its port whose receiver does not take what it is sent."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from contextlib import ExitStack

from genie.bench.report import LeftOut, Row, median_row
from genie.bench.suites import Unavailable
from genie.bench.transport import _dpdk as dpdk
from genie.bench.transport._load import MIB, load_of

__all__ = ["slow_consumer"]

_CASE = "dpdk-memif/64B/slow-consumer"
_QUIET = "dpdk-memif/64B/alone"


def slow_consumer(trips: int, rounds: int) -> Iterable[Row | LeftOut]:
    """Row dpdk-memif/64B/slow-consumer: rtt_p99_us beside that of the same session alone.

    In every round `trips` round trips of 64 bytes are counted alone, and as many while a second
    session between the same two ports has 64 MiB to send to an end that receives nothing. Then
    that end receives again, and its bytes are verified.
    """
    load = load_of(64 * MIB)
    with ExitStack() as stack:
        try:
            ports = dpdk.memif(stack)
            session = ports.session("dpdk-memif", sealed=False)
            slow = ports.session("dpdk-memif-slow", sealed=False)
            slow.prepare(load)
            session.trips(trips)
            pairs = []
            for _ in range(rounds):
                alone = session.trips(trips)["p99"]
                with slow.stalled(load):
                    pairs.append((session.trips(trips)["p99"], alone))
            slow.finish(load)
        except Unavailable as reason:
            yield LeftOut(_CASE, str(reason))
            return
    yield median_row(_QUIET, "rtt_p99_us", "µs", [alone for _, alone in pairs])
    row = median_row(_CASE, "rtt_p99_us", "µs", [beside for beside, _ in pairs])
    yield row.against(_QUIET, statistics.median(beside / alone for beside, alone in pairs))
