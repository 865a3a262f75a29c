"""
Two kinds of plot as SVG: dots with their quartiles, and lines against a logarithmic or linear axis.

No library is needed to draw a few dots, and the page stays one file without scripts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#0b6e99", "#c4572e", "#4f7a28", "#7a4fa3", "#8a6d1d")
_WIDTH = 760


def dots(
    title: str, rows: Sequence[tuple[str, float, float, float, bool]], unit: str, mark: float | None = None
) -> str:
    """
    One row for each value: a dot at the median and a line from quartile to quartile.

    Args:
        title: Above the plot.
        rows: Label, first quartile, median, third quartile, and whether it is drawn in the second colour.
        unit: Below the axis.
        mark: Where a vertical line stands, as for a ratio of 1.
    """
    left, line, top = 250, 18, 34
    height = top + line * len(rows) + 44
    most = max([row[3] for row in rows] + [mark or 0]) * 1.05
    scale = (_WIDTH - left - 70) / most

    def x(value: float) -> float:
        return left + value * scale

    bottom = top + line * len(rows)
    parts = _frame(title, height)
    for tick in ticks(0, most):
        parts.append(_line(x(tick), top, x(tick), bottom, "#ddd"))
        parts.append(_text(x(tick), bottom + 14, f"{tick:g}", "middle"))
    if mark is not None:
        parts.append(_line(x(mark), top, x(mark), bottom, "#999"))
    for number, (label, low, median, high, second) in enumerate(rows):
        y, colour = top + line * number + line / 2, _COLOURS[second]
        parts.append(_text(left - 8, y + 4, label, "end"))
        parts.append(_line(x(low), y, x(high), y, colour, width=3))
        parts.append(f'<circle cx="{x(median):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        parts.append(_text(x(high) + 8, y + 4, f"{median:,.0f}" if median >= 100 else f"{median:.3g}"))
    parts.append(_text(left, bottom + 34, unit))
    return "".join([*parts, "</svg>"])


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float, float, float]]],
    axes: tuple[str, str],
    *,
    logarithmic: bool = False,
) -> str:
    """
    A line for each series, with quartiles.

    Args:
        title: Above the plot.
        series: For each name its points: x, first quartile, median, third quartile.
        axes: What x and y are.
        logarithmic: Whether x is. The y axis starts at nought.
    """
    left, top, height, bottom = 60, 34, 340, 280
    points = [point for each in series.values() for point in each]
    wide = [math.log10(point[0]) if logarithmic else point[0] for point in points]
    least, span = min(wide), (max(wide) - min(wide)) or 1
    most = max(point[3] for point in points) * 1.05

    def x(value: float) -> float:
        place = math.log10(value) if logarithmic else value
        return left + (place - least) / span * (_WIDTH - left - 230)

    def y(value: float) -> float:
        return bottom - value / most * (bottom - top)

    parts = _frame(title, height)
    for tick in ticks(0, most):
        parts.append(_line(left, y(tick), x(max(point[0] for point in points)), y(tick), "#ddd"))
        parts.append(_text(left - 6, y(tick) + 4, f"{tick:g}", "end"))
    for value in sorted({point[0] for point in points}):
        parts.append(_text(x(value), bottom + 16, f"{value:,.0f}", "middle"))
    for number, (name, each) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x(point[0]):.1f},{y(point[2]):.1f}" for point in each)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for place, low, median, high in each:
            parts.append(_line(x(place), y(low), x(place), y(high), colour, width=3))
            parts.append(f'<circle cx="{x(place):.1f}" cy="{y(median):.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<rect x="{_WIDTH - 155}" y="{top + 20 * number}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(_WIDTH - 140, top + 20 * number + 9, name))
    parts.append(_text(left, bottom + 40, f"{axes[0]}; y: {axes[1]}"))
    return "".join([*parts, "</svg>"])


def ticks(least: float, most: float) -> list[float]:
    """
    Four to ten round numbers from *least* to *most*.
    """
    step = 10 ** math.floor(math.log10((most - least) / 2))
    while (most - least) / step > 10:
        step *= 2 if str(step / 10 ** math.floor(math.log10(step)))[0] == "1" else 2.5
    return [round(least + step * number, 10) for number in range(int((most - least) / step + 1e-9) + 1)]


def _frame(title: str, height: int) -> list[str]:
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
