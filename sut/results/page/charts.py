"""Charts as inline SVG: pure functions from numbers to text. Every chart has a title and a description for who cannot
see it; its colours are the page's.

A chart of 360 units fills a telephone's width; it is never much larger than that, so that its words stay readable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from sut.errors import short

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 40, 14, 12, 40
LOG_FROM = 30.0
"""Largest by smallest value from which an axis is logarithmic."""
_MOST_BATCH_BARS = 64


def latency_curve(key: str, title: str, points: Sequence[tuple[str, float, float]]) -> Markup:
    """What share of the requests was answered within which time: ``points`` are (name, ms, share), both ascending."""
    low, high = points[0][1], points[-1][1]
    log = low > 0 and high / low > LOG_FROM
    low, high = (low, high) if log else (min(0.0, low), high)
    if high <= low:
        high = low + 1

    def x_of(value: float) -> float:
        part = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y_of(share: float) -> float:
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    drawn = Markup()
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn += across(y_of(share), f"{100 * share:.0f} %")
    for tick in log_ticks(low, high) if log else ticks(low, high):
        drawn += below(x_of(tick), brief(tick))
    drawn += axis_title("ms, logarithmic" if log else "ms")
    line = " ".join(f"{'L' if i else 'M'}{x_of(ms):.1f} {y_of(share):.1f}" for i, (_, ms, share) in enumerate(points))
    drawn += Markup('<path class="line" d="{}"/>').format(line)
    for name, ms, share in points:
        drawn += Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.6"><title>{}</title></circle>').format(
            x_of(ms), y_of(share), f"{name}: {short(ms)} ms"
        )
    words = "; ".join(f"{name} {short(ms)} ms" for name, ms, _ in points)
    return svg(key, title, words, drawn, (WIDTH, HEIGHT), 'class="chart"')


def batch_histogram(key: str, title: str, counts: Mapping[int, float]) -> Markup:
    """How many batches had how many samples: a bar for each size, or for each range of sizes where they are many."""
    bars = _binned(counts)
    most = max(bars.values())
    step = (WIDTH - LEFT - RIGHT) / len(bars)
    width = min(0.8 * step, 48.0)
    room = HEIGHT - BOTTOM - TOP
    drawn = Markup()
    for tick in ticks(0.0, most):
        if tick <= most:
            drawn += across(HEIGHT - BOTTOM - room * tick / most, brief(tick))
    path = ""
    every = math.ceil(len(bars) / 8)
    for i, (name, count) in enumerate(bars.items()):
        middle, height = LEFT + (i + 0.5) * step, room * count / most
        path += f"M{middle - width / 2:.1f} {HEIGHT - BOTTOM}v-{height:.2f}h{width:.1f}v{height:.2f}z"
        if i % every == 0:
            drawn += below(middle, name)
    drawn += Markup('<path class="fill" d="{}"/>').format(path)
    drawn += axis_title("pictures in a batch")
    words = ", ".join(f"{name}: {short(count)}" for name, count in bars.items())
    return svg(key, title, f"Batches by their number of pictures. {words}", drawn, (WIDTH, HEIGHT), 'class="chart"')


def _binned(counts: Mapping[int, float]) -> dict[str, float]:
    if len(counts) <= _MOST_BATCH_BARS:
        return {str(size): counts[size] for size in sorted(counts)}
    width = math.ceil((max(counts) - min(counts) + 1) / _MOST_BATCH_BARS)
    found: dict[str, float] = {}
    for size in sorted(counts):
        first = min(counts) + (size - min(counts)) // width * width
        name = f"{first}-{first + width - 1}"
        found[name] = found.get(name, 0) + counts[size]
    return found


def svg(key: str, title: str, words: str, drawn: Markup, size: tuple[int, int], attributes: str) -> Markup:
    """A chart of this size in units, with a title and a description in words; ``key`` begins its ids."""
    return Markup(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-labelledby="{key}-t {key}-d" {attributes}>'
        '<title id="{key}-t">{title}</title><desc id="{key}-d">{words}</desc>{drawn}</svg>'
    ).format(w=size[0], h=size[1], key=key, attributes=Markup(attributes), title=title, words=words, drawn=drawn)


def across(y: float, name: str) -> Markup:
    """A line across the chart at ``y``, with its name on the left."""
    return Markup('<path class="grid" d="M{} {:.1f}H{}"/><text class="tick y" x="{}" y="{:.1f}">{}</text>').format(
        LEFT, y, WIDTH - RIGHT, LEFT - 5, y + 3.5, name
    )


def below(x: float, name: str) -> Markup:
    """A name below the chart at ``x``."""
    return Markup('<text class="tick x" x="{:.1f}" y="{}">{}</text>').format(x, HEIGHT - BOTTOM + 15, name)


def axis_title(words: str) -> Markup:
    """What the axis below the chart shows."""
    x = (LEFT + WIDTH - RIGHT) / 2
    return Markup('<text class="tick x" x="{:.1f}" y="{}">{}</text>').format(x, HEIGHT - 8, words)


def brief(value: float) -> str:
    """A round number in the little room beside an axis.

    >>> [brief(value) for value in (0.5, 2000.0, 20000.0, 5e7)]
    ['0.5', '2,000', '20k', '50M']
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 10 * size:
            return f"{value / size:g}{unit}"
    return short(value)


def ticks(low: float, high: float, about: int = 5) -> Iterator[float]:
    """Round numbers from ``low`` to ``high``.

    >>> list(ticks(0.0, 9.0))
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step)
    while first * step <= high * (1 + 1e-9):
        yield first * step
        first += 1


def log_ticks(low: float, high: float) -> Iterator[float]:
    """Powers of ten, with 2 and 5 between them where these are few.

    >>> list(log_ticks(0.8, 30.0))
    [1.0, 2.0, 5.0, 10.0, 20.0]
    """
    factors = (1, 2, 5) if high / low < 1e3 else (1,)
    for exponent in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (tick for factor in factors if low <= (tick := factor * 10.0**exponent) <= high)
