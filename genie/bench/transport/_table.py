"""Rows by path and size as tables that fit a terminal; the other rows stay as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from genie.bench.report import Row

__all__ = ["split_case", "tables"]

_CASE = re.compile(r"(?P<name>[^/]+)/(?P<count>\d+)(?P<unit>B|KiB|MiB)(?:/(?P<condition>.+))?")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}

Cells = dict[str, dict[str, str]]  # line → column → text


def split_case(case: str) -> tuple[str, int | None, str]:
    """Path, size in bytes and condition of a case name; no size where it names none."""
    match = _CASE.fullmatch(case)
    if match is None:
        return case, None, ""
    size = int(match["count"]) * _UNITS[match["unit"]]
    return match["name"], size, match["condition"] or ""


def tables(rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
    """(lines of the tables, rows that are in none of them)."""
    plain = [row for row in rows if split_case(row.case)[1] and not split_case(row.case)[2]]
    throughput = [row for row in plain if row.metric == "throughput"]
    ratios = [row for row in throughput if row.ratio is not None]
    cpu = [row for row in plain if row.metric == "cpu_s_per_gb"]
    times = [row for row in plain if row.metric.startswith("times_")]
    trips = [row for row in plain if row.metric.startswith(("rtt_", "wake_", "cold_"))]
    faults = [row for row in rows if row.metric == "goodput"]
    lines: list[str] = []
    for title, chosen, column, text in (
        ("GB/s", throughput, _size, _value),
        ("÷ baseline, round by round", ratios, _size, _ratio),
        ("CPU seconds per GB, both sides", cpu, _size, _value),
        (
            "µs for 64 B: round trip; from idle to received (wake), to known in Python (cold)",
            trips,
            _metric,
            _value,
        ),
    ):
        if chosen:
            lines += [*_pivot(title, chosen, column, text), ""]
    if times:
        lines += [*_beside(times), ""]
    if faults:
        lines += [*_faults(faults), ""]
    shown = {id(row) for row in (*throughput, *cpu, *trips, *times, *faults)}
    return lines, [row for row in rows if id(row) not in shown]


def _size(row: Row) -> str:
    return row.case.split("/")[1]


def _metric(row: Row) -> str:
    name = row.metric.removeprefix("rtt_").removesuffix("_us")
    return name.removesuffix("_p50") if name.startswith(("wake_", "cold_")) else name


def _value(row: Row) -> str:
    return short(row.value)


def _ratio(row: Row) -> str:
    return f"{row.ratio:.2f}" if row.ratio is not None else ""


def short(value: float) -> str:
    """Three digits, without an exponent."""
    if value >= 100 or value == 0:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def _pivot(
    title: str, rows: Iterable[Row], column: Callable[[Row], str], text: Callable[[Row], str]
) -> list[str]:
    """A line for each path; the baselines, where there are some, in the last column."""
    cells: Cells = {}
    columns: dict[str, int] = {}
    baselines: dict[str, str] = {}
    # Some are not measured at the small sizes; the largest one has them in their order.
    for row in sorted(rows, key=lambda row: -(split_case(row.case)[1] or 0)):
        name, size, _ = split_case(row.case)
        columns.setdefault(column(row), size or 0)
        cells.setdefault(name, {})[column(row)] = text(row)
        if text is _ratio and row.baseline:
            baselines[name] = row.baseline
    ordered = sorted(columns, key=lambda name: columns[name])
    width = max(len(name) for name in cells)
    lines = [title, " " * width + "".join(f"{name:>8}" for name in ordered)]
    for name, line in cells.items():
        tail = f"  ÷ {baselines[name]}" if name in baselines else ""
        figures = "".join(f"{line.get(column, ''):>8}" for column in ordered)
        lines.append(f"{name:{width}}{figures}{tail}".rstrip())
    return lines


def _beside(rows: Sequence[Row]) -> list[str]:
    width = max(len(row.case) for row in rows)
    return ["beside what else one would take, round by round"] + [
        f"{row.case:{width}}  {short(row.value):>6} × {row.metric.removeprefix('times_')}"
        for row in rows
    ]


def _faults(rows: Sequence[Row]) -> list[str]:
    width = max(len(row.case) for row in rows)
    lines = ["goodput under loss and delay", f"{'':{width}}    GB/s  ÷ without"]
    for row in rows:
        ratio = f"{row.ratio:9.2f}" if row.ratio is not None else ""
        lines.append(f"{row.case:{width}}{short(row.value):>8}{ratio}".rstrip())
    return lines
