"""Rows of results, what machine they are of, and how they are shown."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure: the median of `samples`, or a count.

    `baseline` names what it is compared with and `ratio` is value ÷ the baseline's value.
    """

    case: str
    metric: str
    value: float
    unit: str
    samples: tuple[float, ...]
    baseline: str | None = None
    ratio: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As `genie bench --json` prints it."""
        data: dict[str, Any] = {
            "case": self.case,
            "metric": self.metric,
            "value": round(self.value, 6),
            "unit": self.unit,
        }
        if self.baseline is not None:
            data |= {"baseline": self.baseline, "ratio": round(self.ratio or 0.0, 4)}
        return data | {"samples": [round(s, 6) for s in self.samples]}


def median_row(case: str, metric: str, unit: str, samples: Sequence[float]) -> Row:
    """A row whose value is the median of its samples."""
    return Row(case, metric, statistics.median(samples), unit, tuple(samples))


@dataclass(frozen=True)
class Report:
    """Rows, and cases that could not be measured with the reason."""

    rows: tuple[Row, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    def to_json(self) -> dict[str, Any]:
        """As `genie bench --json` prints it."""
        return {
            "machine": self.machine,
            "rows": [row.to_json() for row in self.rows],
            "left_out": [{"case": case, "reason": reason} for case, reason in self.left_out],
        }

    def to_text(self) -> str:
        """A table for people."""
        cells = [("case", "metric", "value", "", "÷ baseline", "spread")]
        for row in self.rows:
            ratio = f"{row.ratio:.3f} × {row.baseline}" if row.ratio is not None else ""
            low, high = min(row.samples), max(row.samples)
            spread = f"{low:.4g} … {high:.4g} ({len(row.samples)})"
            cells.append((row.case, row.metric, f"{row.value:.4g}", row.unit, ratio, spread))
        widths = [max(len(line[i]) for line in cells) for i in range(6)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in cells
        ]
        lines += [f"left out: {case}: {reason}" for case, reason in self.left_out]
        about = self.machine
        lines.append(f"on {about['cpu']}, {about['cpus']} CPUs, torch {about['torch']}")
        return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What a reader needs to place the figures; no host name."""
    return {
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "torch": _version("torch"),
        "genie": _version("genie-plan"),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
