"""Curves of a study as inline SVG: figures against what was varied, as many lines as there were ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sut.errors import short
from sut.results.page.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LOG_FROM,
    RIGHT,
    TOP,
    WIDTH,
    across,
    axis_title,
    below,
    brief,
    log_ticks,
    svg,
    ticks,
)

MOST_CURVES = 6
"""Whose colours can be told apart."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, in words with the unit. ``log`` None: where the values ask for it."""

    title: str
    log: bool | None = None


Point = tuple[float, float]
"""x and y."""


def curves(
    key: str,
    title: str,
    series: Mapping[str, Sequence[Point]],
    x: Axis,
    y: Axis,
    *,
    joined: bool = True,
    marks: Mapping[str, float] = {},
    intervals: Mapping[str, Sequence[tuple[float, float, float]]] = {},
) -> Markup:
    """The points of each series, ``joined`` by lines in their order or not; ``marks`` are upright lines at some x.

    ``intervals`` has of some series what is left open at some x: (x, low, high).

    There is one point at least, at most ``MOST_CURVES`` series; their names and colours are the page's legend, which
    ``legend`` gives.
    """
    points = [point for each in series.values() for point in each]
    x_of, x_ticks, x_log = _scale([*(at for at, _ in points), *marks.values()], x, LEFT, WIDTH - RIGHT)
    ends = [end for each in intervals.values() for _, *both in each for end in both]
    y_of, y_ticks, y_log = _scale([*(value for _, value in points), *ends], y, HEIGHT - BOTTOM, TOP)
    drawn = Markup()
    for tick in y_ticks:
        drawn += across(y_of(tick), brief(tick))
    for tick in x_ticks:
        drawn += below(x_of(tick), brief(tick))
    for name, at in marks.items():
        drawn += Markup('<path class="mark" d="M{:.1f} {}V{}"><title>{}</title></path>').format(
            x_of(at), HEIGHT - BOTTOM, TOP, f"{name}: {short(at)}"
        )
    for number, (name, each) in enumerate(series.items()):
        drawn += _series(
            name, f"s{number % MOST_CURVES}", [(x_of(at), y_of(value)) for at, value in each], each, joined
        )
        for at, low, high in intervals.get(name, ()):
            drawn += Markup('<path class="line s{}" d="M{:.1f} {:.1f}V{:.1f}"/>').format(
                number % MOST_CURVES, x_of(at), y_of(low), y_of(high)
            )
    drawn += axis_title(x.title + (", logarithmic" if x_log else ""))
    drawn += Markup('<text class="tick" x="{}" y="{}">{}</text>').format(
        LEFT, TOP - 2, y.title + (", logarithmic" if y_log else "")
    )
    words = "; ".join(
        f"{name}: " + ", ".join(f"{short(a)} {short(b)}" for a, b in each) for name, each in series.items()
    )
    return svg(key, title, words, drawn, (WIDTH, HEIGHT), 'class="chart"')


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """The CSS class and the name of each series, in order."""
    return [(f"s{number % MOST_CURVES}", name) for number, name in enumerate(names)]


def _series(name: str, css: str, places: Sequence[Point], values: Sequence[Point], joined: bool) -> Markup:
    drawn = Markup()
    if joined and len(places) > 1:
        line = " ".join(f"{'L' if i else 'M'}{a:.1f} {b:.1f}" for i, (a, b) in enumerate(places))
        drawn += Markup('<path class="line {}" d="{}"/>').format(css, line)
    for (a, b), (at, value) in zip(places, values, strict=True):
        drawn += Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.6"><title>{}</title></circle>').format(
            css, a, b, f"{name}: {short(at)}, {short(value)}"
        )
    return drawn


def _scale(
    values: Sequence[float], axis: Axis, begin: float, end: float
) -> tuple[Callable[[float], float], list[float], bool]:
    """Where a value lies between ``begin`` and ``end``, the ticks, and whether the scale is logarithmic."""
    low, high = min(values), max(values)
    log = low > 0 and (high / low > LOG_FROM if axis.log is None else axis.log)
    if not log:
        low, high = min(0.0, low), max(0.0, high)
    if high <= low:
        high = low * 2 if log else low + 1

    def place(value: float) -> float:
        part = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return begin + part * (end - begin)

    return place, list(log_ticks(low, high) if log else ticks(low, high)), log
