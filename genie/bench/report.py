"""Rows of results, what machine they are of, and how they are shown."""

from __future__ import annotations

import os
import platform
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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

    def against(self, baseline: str, ratio: float) -> Row:
        """The same row with what it is compared with."""
        return replace(self, baseline=baseline, ratio=ratio)


@dataclass(frozen=True)
class LeftOut:
    """A case that a suite cannot measure here, and why."""

    case: str
    reason: str


def median_row(case: str, metric: str, unit: str, samples: Sequence[float]) -> Row:
    """A row whose value is the median of its samples."""
    return Row(case, metric, statistics.median(samples), unit, tuple(samples))


@dataclass(frozen=True)
class Report:
    """Rows, and cases that could not be measured with the reason."""

    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...] = ()
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    def to_json(self) -> dict[str, Any]:
        """As `genie bench --json` prints it."""
        return {
            "machine": self.machine,
            "rows": [row.to_json() for row in self.rows],
            "left_out": [{"case": out.case, "reason": out.reason} for out in self.left_out],
        }

    def to_text(self) -> str:
        """Tables for people: by path and size where cases have those, else a line for each row."""
        from genie.bench.transport._table import tables

        lines, others = tables(self.rows)
        if others:
            lines += [*_listed(others), ""]
        lines += _left_out(self.left_out)
        about = self.machine
        lines.append(f"on {about['cpu']}, {about['cpus']} CPUs, torch {about['torch']}")
        return "\n".join(lines)


def _listed(rows: Sequence[Row]) -> list[str]:
    """A line for each row."""
    cells = [("case", "metric", "value", "", "÷ baseline", "spread")]
    for row in rows:
        ratio = f"{row.ratio:.3f} × {row.baseline}" if row.ratio is not None else ""
        low, high = min(row.samples), max(row.samples)
        spread = f"{low:.4g} … {high:.4g} ({len(row.samples)})"
        cells.append((row.case, row.metric, f"{row.value:.4g}", row.unit, ratio, spread))
    widths = [max(len(line[i]) for line in cells) for i in range(6)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]


def _left_out(cases: Sequence[LeftOut]) -> list[str]:
    """A line for each reason: one missing part often leaves several cases out."""
    by_reason: dict[str, list[str]] = {}
    for out in cases:
        by_reason.setdefault(out.reason, []).append(out.case)
    lines = []
    for reason, names in by_reason.items():
        text = f"left out: {', '.join(names)}: {reason}"
        lines += textwrap.wrap(text, 100, subsequent_indent="  ", break_on_hyphens=False)
    return lines


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
