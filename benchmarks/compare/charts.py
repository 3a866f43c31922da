"""Two kinds of plot as SVG, of numbers with names. Independent of the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["bars", "lines"]

OURS, WHISKER, GRID = "#0b6e4f", "#1c2330", "#d9dee5"
# Bars are light, so that the whisker is visible on them.
OUR_BAR, OTHER_BAR = "#5fb091", "#9fb3c8"
# Distinguishable with colour blindness, and none is a green: vthreads has it alone, and a broad line.
COLOURS = ("#d55e00", "#56b4e9", "#cc79a7", "#0072b2", "#e69f00", "#555555", "#8c510a")
BROAD, NARROW = 4, 2
# The second time, the colours are used with dashes.
DASHES = "7 4"

WIDTH, NAMES, NUMBERS, STEP = 900, 190, 80, 22
PLOT_HEIGHT, MARGIN, TOP = 400, 60, 40

Bar = tuple[str, float, float, float]
Point = tuple[float, float]


def bars(rows: Sequence[Bar]) -> str:
    """Draw horizontal bars; each has a name, a length, and a minimum and maximum, drawn as a whisker."""
    longest = max(most for _, _, _, most in rows) or 1.0
    scale = (WIDTH - NAMES - NUMBERS) / longest
    drawn = "".join(_bar(bar, number * STEP, scale) for number, bar in enumerate(rows))
    return _svg(WIDTH, len(rows) * STEP + 4, drawn)


def _bar(bar: Bar, top: float, scale: float) -> str:
    name, value, least, most = bar
    middle = top + STEP / 2
    return (
        _text(NAMES - 8, middle + 4, name, "end")
        + f'<rect x="{NAMES}" y="{top + 4}" width="{value * scale:.1f}" height="{STEP - 8}" fill="{_shade(name)}"/>'
        + _line(NAMES + least * scale, middle, NAMES + most * scale, middle, WHISKER)
        + _text(NAMES + most * scale + 6, middle + 4, f"{value:,.2f}")
    )


def _shade(name: str) -> str:
    return OUR_BAR if name.startswith("vthreads") else OTHER_BAR


def lines(series: dict[str, list[Point]], x_name: str, y_name: str) -> str:
    """Draw one curve per name; both axes are logarithmic."""
    points = [point for curve in series.values() for point in curve if min(point) > 0]
    x_axis = _Axis([x for x, _ in points], MARGIN, WIDTH - NAMES)
    y_axis = _Axis([y for _, y in points], PLOT_HEIGHT - MARGIN, TOP)
    drawn = [
        _text(MARGIN, 18, y_name),
        *(_line(x_axis(x), TOP, x_axis(x), PLOT_HEIGHT - MARGIN, GRID) for x in x_axis.decades()),
        *(_text(x_axis(x), PLOT_HEIGHT - MARGIN + 18, f"{x:,.0f}", "middle") for x in x_axis.decades()),
        *(_line(MARGIN, y_axis(y), WIDTH - NAMES, y_axis(y), GRID) for y in y_axis.decades()),
        *(_text(MARGIN - 8, y_axis(y) + 4, f"{y:,g}", "end") for y in y_axis.decades()),
        _text((MARGIN + WIDTH - NAMES) / 2, PLOT_HEIGHT - 18, x_name, "middle"),
    ]
    # The key has the order in which the curves end, from the top, so that each name is beside its curve.
    names = sorted(series, key=lambda name: -sorted(series[name])[-1][1])
    for number, (name, style) in enumerate(zip(names, _styles(names), strict=True)):
        drawn.append(_curve([(x_axis(x), y_axis(y)) for x, y in sorted(series[name]) if min(x, y) > 0], style))
        middle = TOP + 10 + number * STEP
        drawn.append(_line(WIDTH - NAMES + 8, middle, WIDTH - NAMES + 36, middle, *style))
        drawn.append(_text(WIDTH - NAMES + 44, middle + 5, name))
    return _svg(WIDTH, PLOT_HEIGHT, "".join(drawn))


class _Axis:
    """Return a logarithmic axis over whole decades, which maps a value to a position between `start` and `end`."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values, default=1)))
        self._high = max(math.ceil(math.log10(max(values, default=10))), self._low + 1)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def decades(self) -> list[float]:
        return [10.0**exponent for exponent in range(self._low, self._high + 1)]


class _Style(NamedTuple):
    colour: str
    width: int
    dashes: str


def _styles(names: Sequence[str]) -> Iterator[_Style]:
    others = (_Style(colour, NARROW, dashes) for dashes in ("", DASHES, "2 4") for colour in COLOURS)
    for name in names:
        yield _Style(OURS, BROAD, "") if name == "vthreads" else next(others)


def _curve(places: Sequence[Point], style: _Style) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{style.width + 1}" fill="{style.colour}"/>' for x, y in places
    )
    return f'<polyline points="{path}" fill="none" {_stroke(*style)}/>{dots}'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1, dashes: str = "") -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f"<line {ends} {_stroke(colour, width, dashes)}/>"


def _stroke(colour: str, width: int, dashes: str) -> str:
    return f'stroke="{colour}" stroke-width="{width}"' + (f' stroke-dasharray="{dashes}"' if dashes else "")


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, drawn: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = 'font-family="system-ui, sans-serif" font-size="15"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">{drawn}</svg>'
