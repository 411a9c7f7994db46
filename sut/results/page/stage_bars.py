"""Bars of stages: one by itself, by its shares, or several on one axis, where what differs is how long they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sut.errors import short
from sut.results.page.charts import brief, svg, ticks
from sut.results.page.words import STAGES

_WIDTH = 640
_LEFT, _RIGHT, _BOTTOM = 150, 60, 34
_ROW, _BAR = 24, 17
_METERS = ("CPU", "GPU")
_ALONE_WIDTH, _ALONE_HEIGHT = 1000, 40


def stage_bar(key: str, title: str, parts: Mapping[str, float]) -> Markup:
    """One bar of all ``parts``, in order.

    It stretches to any width, so it has no words, which the page writes below it.
    """
    shown = {name: value for name, value in parts.items() if value > 0}
    total = sum(shown.values())
    told = {name: f"{100 * value / total:.1f} %" for name, value in shown.items()}
    titles = {name: f"{name}: {share}" for name, share in told.items()}
    drawn = _segments(shown, titles, _ALONE_WIDTH / total, (0.0, 0.0), _ALONE_HEIGHT)
    words = ", ".join(f"{name} {share}" for name, share in told.items())
    return svg(key, title, words, drawn, (_ALONE_WIDTH, _ALONE_HEIGHT), 'class="bar" preserveAspectRatio="none"')


def _segments(
    parts: Mapping[str, float],
    titles: Mapping[str, str],
    scale: float,
    corner: tuple[float, float],
    height: float,
    classes: Mapping[str, str] = {},
) -> Markup:
    """The stages one behind the other, from the corner at the top left; ``scale`` is units of width by value."""
    x, top = corner
    drawn = Markup()
    for name, value in parts.items():
        drawn += Markup('<path class="{}" d="M{:.2f} {:g}h{:.2f}v{}h-{:.2f}z"><title>{}</title></path>').format(
            classes.get(name) or css_of(name), x, top, scale * value, height, scale * value, titles[name]
        )
        x += scale * value
    return drawn


@dataclass(frozen=True, slots=True)
class Stacked:
    """A bar: its name, and its stages in order, or what else it is made of; none below 0 is drawn."""

    name: str
    parts: Mapping[str, float]


def stage_bars(
    key: str, title: str, bars: Sequence[Stacked], unit: str = "ms", classes: Mapping[str, str] = {}
) -> Markup:
    """The bars, one below the other, from 0 to the longest. There is at least one, and one is longer than 0.

    ``classes`` are those of parts that are no stages, by name.
    """
    drawn_parts = [{name: value for name, value in bar.parts.items() if value > 0} for bar in bars]
    most = max(sum(parts.values()) for parts in drawn_parts)
    scale, bottom = (_WIDTH - _LEFT - _RIGHT) / most, _ROW * len(bars)
    drawn = Markup()
    for tick in ticks(0.0, most):
        x = _LEFT + scale * tick
        drawn += Markup('<path class="grid" d="M{:.1f} 0V{}"/>').format(x, bottom)
        drawn += Markup('<text class="tick x" x="{:.1f}" y="{}">{}</text>').format(x, bottom + 14, brief(tick))
    for row, (bar, parts) in enumerate(zip(bars, drawn_parts, strict=True)):
        drawn += _bar(bar.name, parts, scale, row * _ROW, unit, classes)
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    drawn += Markup('<text class="tick x" x="{}" y="{}">{}</text>').format(middle, bottom + 29, unit)
    words = "; ".join(
        f"{bar.name}: {', '.join(f'{name} {short(value)} {unit}' for name, value in parts.items())}"
        for bar, parts in zip(bars, drawn_parts, strict=True)
    )
    return svg(key, title, words, drawn, (_WIDTH, bottom + _BOTTOM), 'class="chart wide"')


def _bar(
    name: str, parts: Mapping[str, float], scale: float, top: float, unit: str, classes: Mapping[str, str]
) -> Markup:
    drawn = Markup('<text class="tick y" x="{}" y="{}">{}</text>').format(_LEFT - 6, top + _BAR - 4, name)
    titles = {stage: f"{name}: {stage} {short(value)} {unit}" for stage, value in parts.items()}
    drawn += _segments(parts, titles, scale, (_LEFT, top + 2), _BAR, classes)
    total = sum(parts.values())
    end = _LEFT + scale * total + 5
    return drawn + Markup('<text class="tick" x="{:.1f}" y="{}">{}</text>').format(end, top + _BAR - 4, short(total))


def css_of(stage: str) -> str:
    """The class of a stage's or meter's colour. A name that only a plug-in knows is never part of the page's code."""
    return f"st-{stage.replace('/', '-')}" if stage in (*STAGES, *_METERS) else "st-other"
