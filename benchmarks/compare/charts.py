"""Two kinds of plot as SVG, of numbers with names. Independent of the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

__all__ = ["bars", "lines"]

OURS, WHISKER, GRID = "#0b6e4f", "#1c2330", "#d9dee5"
# Bars are light, so that the whisker is visible on them.
OUR_BAR, OTHER_BAR = "#5fb091", "#9fb3c8"
# Distinguishable with colour blindness; vthreads has a colour of its own.
COLOURS = ("#d1495b", "#edae49", "#30638e", "#8d6a9f", "#66a182", "#7f4f24", "#5f6c7b", "#00a6a6", "#c17c74", "#3d405b")

WIDTH, NAMES, NUMBERS, STEP = 900, 190, 80, 22
PLOT_HEIGHT, MARGIN = 380, 60

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


def lines(series: dict[str, list[Point]], x_name: str) -> str:
    """Draw one curve per name; both axes are logarithmic."""
    points = [point for curve in series.values() for point in curve if min(point) > 0]
    x_axis = _Axis([x for x, _ in points], MARGIN, WIDTH - NAMES)
    y_axis = _Axis([y for _, y in points], PLOT_HEIGHT - MARGIN, 20)
    drawn = [
        *(_line(x_axis(x), 20, x_axis(x), PLOT_HEIGHT - MARGIN, GRID) for x in x_axis.decades()),
        *(_text(x_axis(x), PLOT_HEIGHT - MARGIN + 18, f"{x:,.0f}", "middle") for x in x_axis.decades()),
        *(_line(MARGIN, y_axis(y), WIDTH - NAMES, y_axis(y), GRID) for y in y_axis.decades()),
        *(_text(MARGIN - 8, y_axis(y) + 4, f"{y:,g}", "end") for y in y_axis.decades()),
        _text((MARGIN + WIDTH - NAMES) / 2, PLOT_HEIGHT - 18, x_name, "middle"),
    ]
    # The key has the order in which the curves end, from the top, so that each name is beside its curve.
    names = sorted(series, key=lambda name: -sorted(series[name])[-1][1])
    for number, (name, colour) in enumerate(zip(names, _colours(names), strict=True)):
        drawn.append(_curve([(x_axis(x), y_axis(y)) for x, y in sorted(series[name]) if min(x, y) > 0], colour))
        drawn.append(_line(WIDTH - NAMES + 12, 30 + number * 20, WIDTH - NAMES + 32, 30 + number * 20, colour, 3))
        drawn.append(_text(WIDTH - NAMES + 38, 34 + number * 20, name))
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


def _colours(names: Sequence[str]) -> Iterator[str]:
    others = iter(COLOURS * len(names))
    for name in names:
        yield OURS if name == "vthreads" else next(others)


def _curve(places: Sequence[Point], colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, drawn: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">{drawn}</svg>'
