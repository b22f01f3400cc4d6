"""Throughput by message size as an SVG: a line for each path, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from genie.bench.report import Row
from genie.bench.transport._load import size_name
from genie.bench.transport._table import split_case

__all__ = ["plot"]

_WIDTH, _HEIGHT = 900, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 210, 40, 60
# Okabe and Ito's palette: told apart by everyone; dashes tell the second time round.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
_DASHES = ("", "6 3", "2 3")

Point = tuple[int, float]


def plot(rows: Iterable[Row]) -> str:
    """The SVG document. Raises ValueError when no row is a throughput by size."""
    lines: dict[str, list[Point]] = {}
    for row in rows:
        name, size, condition = split_case(row.case)
        if row.metric == "throughput" and size is not None and not condition:
            lines.setdefault(name, []).append((size, row.value))
    if not lines:
        raise ValueError("there is no throughput to plot")
    points = [point for series in lines.values() for point in series]
    sizes = sorted({size for size, _ in points})
    low = 10.0 ** math.floor(math.log10(max(1e-6, min(rate for _, rate in points))))
    high = 10.0 ** math.ceil(math.log10(max(rate for _, rate in points)) + 1e-9)
    scale = _Scale(sizes[0], sizes[-1], low, high)
    # The legend in the order in which the lines end.
    ordered = sorted(lines.items(), key=lambda item: -max(item[1])[1])
    parts = [_frame(scale, sizes), *(_line(scale, i, *item) for i, item in enumerate(ordered))]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        f'<text x="{_LEFT}" y="22" font-size="15">Throughput by message size</text>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


class _Scale:
    """From sizes and rates to the plane."""

    def __init__(self, least: int, most: int, low: float, high: float) -> None:
        self.low, self.high = low, high
        self._least = math.log2(least)
        self._sizes = max(1e-9, math.log2(most) - self._least)
        self._rates = math.log10(high / low)

    def x(self, size: int) -> float:
        share = (math.log2(size) - self._least) / self._sizes
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, rate: float) -> float:
        share = math.log10(max(rate, self.low) / self.low) / self._rates
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _frame(scale: _Scale, sizes: Sequence[int]) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    rate = scale.low
    while rate <= scale.high * 1.001:
        y = scale.y(rate)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{rate:g}</text>')
        rate *= 10
    for size in sizes:
        x = scale.x(size)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#eee"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{size_name(size)}</text>'
        )
    parts.append(
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#333"/>'
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 14}" text-anchor="middle">'
        f"message size</text>"
        f'<text transform="translate(18 {(_TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"GB/s (10^9 bytes a second)</text>"
    )
    return "\n".join(parts)


def _line(scale: _Scale, index: int, name: str, points: Sequence[Point]) -> str:
    colour = _COLOURS[index % len(_COLOURS)]
    dash = _DASHES[index // len(_COLOURS) % len(_DASHES)]
    style = f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
    places = [(scale.x(size), scale.y(rate)) for size, rate in sorted(points)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    left, y = _WIDTH - _RIGHT + 16, _TOP + 10 + 18 * index
    return (
        f'<path d="M{path}" fill="none" stroke-width="2" {style}/>{dots}'
        f'<path d="M{left} {y}h24" stroke-width="2" {style}/>'
        f'<text x="{left + 30}" y="{y + 4}">{escape(name)}</text>'
    )
