"""Two SVGs: bytes of each workload in each mode, and latency by round trip; logarithmic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from genie.bench.report import Row

__all__ = ["latency", "traffic"]

Point = tuple[float, float]

_COLOURS = {"local": "#000000", "naive": "#D55E00", "blind": "#0072B2", "genie": "#009E73"}
"""Okabe and Ito's palette: told apart by everyone."""

_LEFT, _TOP, _BOTTOM = 70, 50, 50
_PANEL, _GAP, _HEIGHT = 170, 20, 360


def traffic(rows: Iterable[Row]) -> str:
    """Bytes that crossed process boundaries: a group of bars for each workload on two devices.

    Raises ValueError when no row has a traffic.
    """
    bars: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        metric, _, mode = row.metric.partition("/")
        if metric == "traffic_bytes" and "/" not in row.case:
            bars.setdefault(row.case, []).append((mode, max(row.value, 1.0)))
    scale = _Scale([value for found in bars.values() for _, value in found])
    parts = []
    for number, (case, found) in enumerate(bars.items()):
        left = _LEFT + number * (_PANEL + _GAP)
        width = _PANEL / max(len(found), 1)
        for place, (mode, value) in enumerate(found):
            x, y = left + place * width, scale.y(value)
            parts.append(
                f'<rect x="{x + 4:.1f}" y="{y:.1f}" width="{width - 8:.1f}" '
                f'height="{_HEIGHT - _BOTTOM - y:.1f}" fill="{_COLOURS[mode]}"/>'
                f'<text x="{x + width / 2:.1f}" y="{y - 4:.1f}" text-anchor="middle" '
                f'font-size="10">{_short(value)}</text>'
            )
        parts.append(_caption(left, case))
    title = "Bytes that crossed process boundaries, a request (llm-decode: a token)"
    return _document(title, len(bars), scale, parts, ("naive", "blind", "genie"), _short)


def latency(rows: Iterable[Row]) -> str:
    """Milliseconds by round trip: a panel for each workload on two devices, a line for each mode.

    Raises ValueError when no row has a latency.
    """
    panels: dict[str, dict[str, list[Point]]] = {}
    for row in rows:
        metric, _, rest = row.metric.partition("/")
        mode, _, trip = rest.partition("/")
        if metric == "latency_ms" and "/" not in row.case:
            lines = panels.setdefault(row.case, {})
            lines.setdefault(mode, []).append((float(trip), row.value))
    points = [p for lines in panels.values() for found in lines.values() for p in found]
    scale = _Scale([value for _, value in points])
    longest = max((trip for trip, _ in points), default=0.0) or 1.0
    parts = []
    for number, (case, lines) in enumerate(panels.items()):
        left = _LEFT + number * (_PANEL + _GAP)
        parts += [_line(left, longest, scale, mode, found) for mode, found in lines.items()]
        parts.append(
            _trips(left, longest, sorted({t for found in lines.values() for t, _ in found}))
        )
        parts.append(_caption(left, case))
    title = "Milliseconds a request (llm-decode: a token) by round trip of the client's links, ms"
    return _document(title, len(panels), scale, parts, tuple(_COLOURS), lambda v: f"{v:g}")


class _Scale:
    """From values to the plane, over whole powers of ten."""

    def __init__(self, values: Sequence[float]) -> None:
        if not values:
            raise ValueError("there is nothing to plot")
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values)) + 1e-9), self.low + 1)

    def y(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _line(left: float, longest: float, scale: _Scale, mode: str, points: Sequence[Point]) -> str:
    places = [(left + t / longest * _PANEL, scale.y(value)) for t, value in sorted(points)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
    colour = _COLOURS[mode]
    line = f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return f'{line}<g fill="{colour}">{dots}</g>'


def _trips(left: float, longest: float, trips: Sequence[float]) -> str:
    y = _HEIGHT - _BOTTOM + 14
    return "".join(
        f'<text x="{left + t / longest * _PANEL:.1f}" y="{y}" text-anchor="middle" '
        f'font-size="10">{t:g}</text>'
        for t in trips
    )


def _caption(left: float, case: str) -> str:
    middle = left + _PANEL / 2
    return (
        f'<path d="M{left} {_TOP}V{_HEIGHT - _BOTTOM}h{_PANEL}" fill="none" stroke="#333"/>'
        f'<text x="{middle}" y="{_HEIGHT - 16}" text-anchor="middle">{escape(case)}</text>'
    )


def _document(
    title: str,
    panels: int,
    scale: _Scale,
    parts: Sequence[str],
    modes: Sequence[str],
    text: Callable[[float], str],
) -> str:
    width = _LEFT + panels * (_PANEL + _GAP)
    lines = []
    for power in range(scale.low, scale.high + 1):
        y = scale.y(10.0**power)
        lines.append(
            f'<path d="M{_LEFT} {y:.1f}H{width}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text(10.0**power)}</text>'
        )
    for number, mode in enumerate(modes):
        x = _LEFT + 90 * number
        lines.append(
            f'<path d="M{x} 36h20" stroke="{_COLOURS[mode]}" stroke-width="4"/>'
            f'<text x="{x + 26}" y="40">{mode}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{_HEIGHT}" fill="white"/>\n'
        f'<text x="{_LEFT}" y="20" font-size="15">{title}</text>\n'
        + "\n".join([*lines, *parts])
        + "\n</svg>\n"
    )


def _short(value: float) -> str:
    """Bytes in three digits at most."""
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"
