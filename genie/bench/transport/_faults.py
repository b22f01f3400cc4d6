"""Goodput under loss and delay: the ring with a seeded fault shim in front of it.

Every datagram of either direction passes the shim, which drops it with the given probability or
holds it for half the round trip. The ring without the shim takes turns with it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from genie.bench.report import LeftOut, Row, median_row
from genie.bench.suites import Unavailable
from genie.bench.transport import _dpdk as dpdk
from genie.bench.transport._load import load_of

__all__ = ["FULL", "QUICK", "Condition", "goodput"]


@dataclass(frozen=True)
class Condition:
    """`loss` in per cent, `rtt` in milliseconds."""

    loss: float = 0.0
    rtt: float = 0.0

    @property
    def name(self) -> str:
        """As the last part of a case name: loss1%, rtt10ms, rtt10ms-loss1%."""
        parts = [f"rtt{self.rtt:g}ms"] * bool(self.rtt) + [f"loss{self.loss:g}%"] * bool(self.loss)
        return "-".join(parts)

    @property
    def keys(self) -> str:
        """As the device takes it."""
        return f",drop={self.loss / 100:g},delay_us={round(self.rtt * 500)},seed=7"


QUICK = (Condition(loss=1), Condition(rtt=10), Condition(loss=1, rtt=10))
FULL = (
    *(Condition(loss=loss) for loss in (0.1, 1, 2, 5)),
    *(Condition(rtt=rtt) for rtt in (1, 3, 10, 30)),
    *(Condition(loss=1, rtt=rtt) for rtt in (1, 10, 30)),
)


def goodput(
    conditions: Iterable[Condition], size: int, rounds: int, progress: Callable[[str], None]
) -> Iterable[Row | LeftOut]:
    """Rows dpdk-ring/<size>/<condition>: goodput (GB/s) beside dpdk-ring/<size> of the round."""
    load = load_of(size)
    lossless = f"dpdk-ring/{load.name}"
    with ExitStack() as stack:
        try:
            clean = dpdk.ring(stack).session("dpdk-ring", sealed=False)
            clean.prepare(load)
        except Unavailable as reason:
            yield LeftOut(f"{lossless}/…", str(reason))
            return
        for condition in conditions:
            case = f"{lossless}/{condition.name}"
            progress(condition.name)
            with ExitStack() as inner:
                try:
                    ports = dpdk.ring(inner, condition.keys)
                    faulty = ports.session("dpdk-ring", sealed=False)
                    faulty.prepare(load)
                    pairs = [
                        (faulty.measure(load).rate, clean.measure(load).rate) for _ in range(rounds)
                    ]
                    faulty.finish(load)
                except Unavailable as reason:
                    yield LeftOut(case, str(reason))
                    continue
            row = median_row(case, "goodput", "GB/s", [rate for rate, _ in pairs])
            yield row.against(lossless, statistics.median(a / b for a, b in pairs))
