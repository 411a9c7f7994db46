"""What the points of a sweep say: plateau, knee, decline, rates that hold a bound, cores that a device needs.

Pure functions of what was measured. Points that do not count are left out by who calls.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sut.results.prices import PREPROCESSING, Pipeline, limiting_stage, pipeline
from sut.results.statistics import Difference, difference
from sut.studies.sweeping.points import Point

KNEE = 0.95
"""Share of the plateau at which the knee is. A convention, as every knee is one; this one needs no parameter of
smoothing, and is what the operator loses at the most by asking no more at once."""
LATE_SHARE = 0.01
"""What may be over the latency bound: Server's percentile is the 99th."""
_FULL = 0.95
"""Share of the memory from which on it is called full: allocators keep a rest for themselves."""
_NEAR = 0.1


def plateau(points: Sequence[Point]) -> float | None:
    """Samples per second of a closed loop that has enough outstanding: the median of the first three that have.

    Enough is 2 x lanes x batch. The median, because the highest of many is the luckiest one; of the first three,
    because far more outstanding may be too much. Where none has enough, the highest. None without points.
    """
    ns, rates = _rates(points)
    enough = max(map(saturating, points), default=0)
    full = [rate for n, rate in zip(ns, rates, strict=True) if n >= enough]
    return statistics.median(full[:3]) if full else max(rates, default=None)


def saturating(point: Point) -> int:
    """Requests outstanding that keep all lanes at their largest batch: one in each lane, and one that waits for it."""
    return 2 * (point.lanes or 1) * (point.max_batchsize or 1)


def crossing(xs: Sequence[float], ys: Sequence[float], level: float) -> float | None:
    """Where ``ys`` first comes up to ``level``, on straight lines between ascending ``xs``; None where it never does.

    >>> crossing([1, 2, 4], [10, 20, 40], 30), crossing([1, 2], [10, 20], 5), crossing([1, 2], [10, 20], 30)
    (3.0, 1, None)
    """
    if not ys or ys[0] >= level:
        return xs[0] if ys else None
    for (x, y), (next_x, next_y) in pairwise(zip(xs, ys, strict=True)):
        if next_y >= level:
            return x + (next_x - x) * (level - y) / (next_y - y)
    return None


def knee(points: Sequence[Point]) -> float | None:
    """The fewest requests outstanding that have 95 % of the plateau, between those that were measured."""
    top = plateau(points)
    return None if top is None else crossing(*_rates(points), KNEE * top)


def decline(points: Sequence[Point]) -> float | None:
    """Requests outstanding from which on throughput stays under 95 % of the plateau again; None where it does not."""
    top = plateau(points)
    if top is None:
        return None
    ns, rates = _rates(points)
    reached = [n for n, rate in zip(ns, rates, strict=True) if rate >= KNEE * top]
    if not reached or reached[-1] == ns[-1]:
        return None
    last = ns.index(reached[-1])
    return crossing(ns[last:], [-rate for rate in rates[last:]], -KNEE * top)


def pair_of_decline(points: Sequence[Point]) -> tuple[int, int]:
    """The concurrencies that tell whether a decline is one: of most throughput, and the highest."""
    best = max(points, key=lambda point: point.samples_per_second or 0.0)
    return best.concurrency or 1, max(point.concurrency or 1 for point in points)


def decline_by_pairs(points: Sequence[Point]) -> Difference:
    """The highest concurrency against the one of most throughput, by the rounds of both.

    Not by the first: in it the best was picked, and the best of many is the luckiest one.
    """
    pair = pair_of_decline([point for point in points if point.round == 1])
    again = [point for point in points if point.round > 1]
    sides = [{each.round: each.samples_per_second for each in again if each.concurrency == n} for n in pair]
    both = sorted(sides[0].keys() & sides[1].keys())
    before, after = ([side[number] for number in both] for side in sides)
    return difference(before, after, higher_is_better=True)


def memory_full(points: Sequence[Point], host_bytes: int | None) -> float | None:
    """Requests outstanding at which 95 % of the GPUs' memory is in use, or of the host's ``host_bytes``.

    None where there is always more room than that, or nobody tells.
    """
    ns = [float(point.concurrency or 0) for point in points]
    shares = []
    for point in points:
        pairs = ((point.gpu_bytes, point.gpu_memory_bytes), (point.host_bytes, host_bytes))
        shares.append(max((used / there for used, there in pairs if used is not None and there), default=0.0))
    return crossing(ns, shares, _FULL)


def sets_in_with_memory(decline_at: float, full_at: float | None) -> bool:
    """Whether throughput declines within 10 % of the concurrency at which memory is full."""
    return full_at is not None and abs(decline_at - full_at) <= _NEAR * full_at


def best_under(points: Sequence[Point], limit_ns: float) -> Point | None:
    """The point of most throughput whose p99 is within the limit."""
    within = [point for point in points if point.latency_ns["p99"] <= limit_ns]
    return max(within, key=lambda point: point.samples_per_second or 0.0, default=None)


@dataclass(frozen=True, slots=True)
class Rates:
    """How far a rate can be raised, in requests per second.

    ``highest``: at it and all lower ones the usual round holds the bound; ``safe``: every round does. None: no rate.
    """

    highest: float | None
    safe: float | None

    @property
    def below(self) -> float | None:
        """By what share the safe rate lies below the highest."""
        return None if self.highest is None or self.safe is None else 1 - self.safe / self.highest


def rates_within(points: Sequence[Point], limit_ns: float) -> Rates:
    """The highest rates at which p99, and the share of late ones, are within the limit; the rounds are the spread."""
    highest = safe = None
    is_safe = True
    for rate in sorted({point.rate for point in points if point.rate is not None}):
        rounds = [_holds(point, limit_ns) for point in points if point.rate == rate]
        if 2 * sum(rounds) <= len(rounds):
            break
        highest = rate
        is_safe = is_safe and all(rounds)
        safe = rate if is_safe else safe
    return Rates(highest, safe)


def _holds(point: Point, limit_ns: float) -> bool:
    return point.latency_ns["p99"] <= limit_ns and (point.late_share or 0.0) <= LATE_SHARE


def cores_per_device(inference: Sequence[Point], preprocessing: Sequence[Point]) -> Difference:
    """How many cores preprocess as fast as one device infers: I / P, with its interval.

    By pairs: of inference alone its rate per device, of preprocessing on the cores how long its stages keep a thread
    busy for a sample, which is what a core does where each thread has one.
    """
    rates = [(point.samples_per_second or 0.0) / (point.devices or 1) for point in inference]
    busy_ns = [pipeline_of(point).preprocessing_ns for point in preprocessing]
    per_core = [1e9 / busy if busy else None for busy in busy_ns]
    return difference(per_core, rates, higher_is_better=True)


def limit_of(point: Point) -> str:
    """The stage that limits a closed loop: of most busy time per sample and thread that does it.

    Lanes that workers feed take what is ready: where that is less than full batches though enough is outstanding, the
    lanes wait for the workers, and small batches make inference look as long as the preprocessing that limits it.
    """
    found = pipeline_of(point)
    is_fed = (point.mean_batch or 1.0) >= KNEE * (point.max_batchsize or 1)
    if found.workers and not is_fed and (point.concurrency or 0) >= saturating(point):
        return max(PREPROCESSING, key=lambda stage: point.cost_ns.get(stage, 0.0))
    return limiting_stage(point.cost_ns, found)


def pipeline_of(point: Point) -> Pipeline:
    """How a point was worked on."""
    return pipeline(point.cost_ns, "Server", point.lanes or 1, point.workers)


def _rates(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    ordered = sorted(points, key=lambda point: point.concurrency or 0)
    return [float(each.concurrency or 0) for each in ordered], [each.samples_per_second or 0.0 for each in ordered]
