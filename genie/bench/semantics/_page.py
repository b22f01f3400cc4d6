"""`docs/benchmarks/semantics.md`: the tables of a run, beside how it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from genie.bench.report import Report, Row
from genie.bench.semantics import _plot as plot
from genie.bench.semantics._contest import MODES

__all__ = ["page", "write"]

_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"
_NAME = "semantics"


def write(report: Report, folder: Path) -> list[Path]:
    """Write the page's measured part, both plots and the raw samples; what was written.

    The page keeps its words; one that is not there is made of the measured part alone. Raises
    OSError, and ValueError when the report has no rows of the suite.
    """
    pictures = {"traffic": plot.traffic(report.rows), "latency": plot.latency(report.rows)}
    path = folder / f"{_NAME}.md"
    before = path.read_text(encoding="utf-8") if path.exists() else f"{_BEGIN}\n{_END}\n"
    head, _, rest = before.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    texts = {
        path: f"{head}{_BEGIN}\n{page(report)}{_END}{tail}",
        folder / f"{_NAME}.json": json.dumps(report.to_json(), indent=1) + "\n",
        **{folder / f"{_NAME}-{name}.svg": svg for name, svg in pictures.items()},
    }
    for target, text in texts.items():
        target.write_text(text, encoding="utf-8")
    return list(texts)


def page(report: Report) -> str:
    """The measured part: traffic, calls, latency, the ratios that are promised."""
    about = report.machine
    found = {(row.case, row.metric): row for row in report.rows}
    cases = list(dict.fromkeys(row.case for row in report.rows))
    lines = [
        f"Measured on {about['cpu']}, {about['cpus']} CPUs, torch {about['torch']}; medians. Raw "
        f"samples: [{_NAME}.json]({_NAME}.json).",
        "",
        f"![Traffic]({_NAME}-traffic.svg)",
        "",
        *_traffic(found, cases),
        "",
        f"![Latency]({_NAME}-latency.svg)",
        "",
        *_latency(found, cases),
        "",
        *_ratios(report.rows),
    ]
    if report.left_out:
        lines += ["", *(f"Left out: {out.case}: {out.reason}." for out in report.left_out)]
    return "\n".join(lines) + "\n"


Found = Mapping[tuple[str, str], Row]


def _traffic(found: Found, cases: Sequence[str]) -> list[str]:
    lines = [
        "| workload | naive, B | blind, B | genie, B | ÷ naive | ÷ blind | calls | B a call |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    metrics = [
        *(f"traffic_bytes/{mode}" for mode in ("naive", "blind", "genie")),
        *("traffic_vs_naive", "traffic_vs_blind", "operations/blind", "bytes_per_operation/blind"),
    ]
    for case in cases:
        if (case, metrics[0]) in found:
            cells = [_cell(found.get((case, metric))) for metric in metrics]
            lines.append(f"| {case} | {' | '.join(cells)} |")
    return lines


def _latency(found: Found, cases: Sequence[str]) -> list[str]:
    trips = sorted({int(m.split("/")[2]) for _, m in found if m.startswith("latency_ms/")})
    lines = [
        f"| workload | round trip, ms | {' | '.join(f'{mode}, ms' for mode in MODES)} |",
        "|---|--:|" + "--:|" * len(MODES),
    ]
    for case in cases:
        for trip in trips:
            metrics = [f"latency_ms/{mode}/{trip}" for mode in MODES]
            if (case, metrics[0]) in found:
                cells = [_cell(found.get((case, metric))) for metric in metrics]
                lines.append(f"| {case} | {trip} | {' | '.join(cells)} |")
    return lines


def _ratios(rows: Sequence[Row]) -> list[str]:
    lines = ["| workload | metric | value | against |", "|---|---|--:|---|"]
    for row in rows:
        told = row.metric.startswith(("latency_over", "bytes_per_token", "daemon_ms"))
        if told or "ms_over_" in row.metric:
            value = f"{_cell(row)} {row.unit}".strip()
            lines.append(f"| {row.case} | `{row.metric}` | {value} | {row.baseline or ''} |")
    return lines


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    value = row.value
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if value >= 0.001 or value == 0 else f"{value:.1e}"
