"""Successive halving: all points are run briefly, the better half longer, and so on.

After K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016: each
round takes about as long as the one before. Within a round the points come in a shuffled order, so that a machine that
slows down for a while does not always hit the same ones.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sut.studies.tuning.rate import too_slow_for_any_rate
from sut.studies.tuning.space import DEFAULT, Point, tidy
from sut.studies.tuning.state import Job, Measured

SHORTEST_S = 2.0
"""Seconds of a run in the first round: shorter ones say more about starting than about running."""
_FINALISTS = 2
_SEED = 1

Measure = Callable[[Job], Measured]


@dataclass(frozen=True, slots=True)
class Search:
    """The rounds that were run, and the best point; None where none worked. ``cut``: no time was left for the rest."""

    rounds: tuple[tuple[Measured, ...], ...]
    best: Point | None
    cut: bool = False


def round_sizes(points: int, most: int | None = None) -> list[int]:
    """How many points run in each round; no rounds for a single one.

    >>> round_sizes(12), round_sizes(12, most=2), round_sizes(1)
    ([12, 6, 3, 2], [12, 6], [])
    """
    if points < _FINALISTS:
        return []
    sizes = [points]
    while sizes[-1] > _FINALISTS:
        sizes.append(math.ceil(sizes[-1] / 2))
    return sizes[:most]


def round_seconds(rounds: int, time_s: float) -> list[float]:
    """Seconds of each run: ``time_s`` in the last round, half of it in the one before, but not below two seconds.

    >>> round_seconds(4, 8)
    [2.0, 2.0, 4.0, 8.0]
    """
    return [max(min(SHORTEST_S, time_s), time_s / 2 ** (rounds - 1 - number)) for number in range(rounds)]


def in_order(points: Sequence[Point], number: int) -> list[Point]:
    """The points as round ``number`` (from 0) runs them: shuffled, the same way each time.

    The very first run is the default's: what is wrong with it is wrong with all.
    """
    ordered = list(points)
    random.Random(f"{_SEED}, {number}").shuffle(ordered)
    return sorted(ordered, key=lambda point: point != DEFAULT) if number == 0 else ordered


def ranked(rows: Sequence[Measured]) -> list[Measured]:
    """The runs of a round that have a figure, best first: VALID before INVALID, then by figure."""

    def key(row: Measured) -> tuple[bool, float]:
        assert row.figure is not None
        return not row.valid, -row.figure if row.higher_is_better else row.figure

    return sorted((row for row in rows if row.figure is not None), key=key)


def survivors(rows: Sequence[Measured], count: int) -> list[Point]:
    """The best ``count`` points of a round. INVALID ones drop out.

    Where all are INVALID in Server, the rate was too high for all of them and p99 still tells them apart; only those
    drop out for which no rate would do.
    """
    best = [row for row in ranked(rows) if not too_slow_for_any_rate(row)]
    if any(row.valid for row in best) or not any(row.qps is not None for row in best):
        best = [row for row in best if row.valid]
    return [row.point for row in best[:count]]


def next_offer(rate: float, rows: Sequence[Measured]) -> float:
    """The rate Server is asked at in the next round, near what the points can just hold.

    Far below it all have the same p99, far above it all are INVALID.
    """
    valid = sum(row.valid for row in rows)
    if valid == 0:
        return tidy(rate / 1.3)
    return tidy(rate * 1.15) if 2 * valid > len(rows) else rate


def halve(
    points: Sequence[Point],
    sizes: Sequence[int],
    seconds: Sequence[float],
    measure: Measure,
    may_go_on: Callable[[], bool],
    qps: float | None = None,
) -> Search:
    """Run the rounds. ``may_go_on`` is asked before each run but the first; when it says no, the search ends.

    A round that was cut short does not count, unless it is the first. ``qps`` is Server's rate in the first round.
    """
    rounds: list[tuple[Measured, ...]] = []
    best: Point | None = None
    cut = False
    for number, (size, time_s) in enumerate(zip(sizes, seconds, strict=True)):
        rows: list[Measured] = []
        running = in_order(points[:size], number)
        for at, point in enumerate(running, 1):
            if (rounds or rows) and not may_go_on():
                break
            rows.append(measure(Job(f"round {number + 1}", at, len(running), point, time_s, qps)))
        rounds.append(tuple(rows))
        cut = len(rows) < len(running)
        if not cut or number == 0:
            points = survivors(rows, size)
            best = points[0] if points else None
            points = points[: sizes[number + 1]] if number + 1 < len(sizes) else points
        if cut or len(points) < _FINALISTS:
            break
        if qps is not None:
            qps = next_offer(qps, rows)
    return Search(tuple(rounds), best, cut)
