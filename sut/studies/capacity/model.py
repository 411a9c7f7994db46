"""What a layout of lanes and workers comes to, by what batches and pictures were measured to take.

Fused, L lanes that are all busy with batches of b make L b / T(b) pictures a second. With workers, preprocessing and
lanes are two stations in a row, W workers of P each and L lanes of b / I(b), and the slower one decides. Both share the
machine, so each is slower the more the other is at work: as measured alone and with the other always busy, in between
in proportion to the other's load. Latency is simulated, query by query, with service times that vary as they did.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sut.pipeline.deadline import Deadline, service_times
from sut.studies.capacity.measuring import ROUNDS, Doing, Timed, Window
from sut.studies.simulation import at_random, highest_held, simulate, simulate_staged

CONFIDENCE = 0.9
"""Of the intervals: in so many of 100 cases a run's own figure should lie within."""
MODEL_ERROR = 0.03
"""Standard deviation of log(measured / expected) that is thought to be there beside what the rounds show, for what the
model leaves out. Chosen beforehand; how often intervals with it hold: ``benchmarks/plan.py``."""
_T_4 = 2.132
"""Student's t of 4 degrees of freedom, that is of five rounds, which 90 % lie within on both sides."""
_Z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_QUERIES = 4000
_SETTLED = 40


@dataclass(frozen=True, slots=True, order=True)
class Layout:
    """``workers`` 0: each lane preprocesses for itself, or nothing is to be preprocessed inside the clock."""

    lanes: int
    workers: int
    batch: int

    @property
    def threads(self) -> int:
        """Threads that work at once, beside the runtime's own."""
        return self.lanes + self.workers


@dataclass(frozen=True, slots=True)
class Expected:
    """A figure that is expected, and the interval that holds a run's own with ``CONFIDENCE``.

    ``high`` is None where nothing bounds it.
    """

    value: float
    low: float
    high: float | None


def expected(value: float, by_round: Sequence[float]) -> Expected:
    """``value``, with the interval for one more measurement that its rounds allow, each of which is one by itself.

    Logarithms of the rounds are taken as normal; the model's own error comes on top. Nothing bounds what in one of the
    rounds could not be had at all.
    """
    if not value:
        return Expected(0.0, 0.0, 0.0)
    if min(by_round) <= 0:
        return Expected(value, 0.0, None)
    spread = statistics.stdev(map(math.log, by_round))
    reach = math.hypot(_T_4 * spread * math.sqrt(1 + 1 / len(by_round)), _Z * MODEL_ERROR)
    return Expected(value, value * math.exp(-reach), value * math.exp(reach))


class Times:
    """What was measured, asked by what it is needed for; ``number``: by one round alone, None by all of them."""

    def __init__(self, timed: Timed) -> None:
        self._windows: dict[tuple[Doing, int, int, int], list[Window]] = {}
        for each in timed.windows:
            lanes = 0 if each.doing == "workers" else each.lanes
            self._windows.setdefault((each.doing, lanes, each.workers, each.batch), []).append(each)
        self.stages_ns = timed.stages_ns

    def layouts(self) -> list[Layout]:
        """All that can be said something of."""
        workers = {each[2] for each in self._windows if each[0] == "workers"}
        sizes = [(each[1], each[3]) for each in self._windows if each[0] == "fused"]
        return sorted(Layout(lanes, count, size) for lanes, size in sizes for count in (0, *workers))

    def sizes(self, lanes: int) -> list[int]:
        """The batch sizes that so many lanes were timed with."""
        return sorted(each[3] for each in self._windows if each[:2] == ("fused", lanes))

    def batch_ns(self, doing: Doing, lanes: int, size: int, number: int | None = None, workers: int = 0) -> float:
        """Mean time of a batch."""
        return _mean([each.batch_ns for each in self._of(doing, lanes, workers, size, number)])

    def picture_ns(self, workers: int, lanes: int = 0, number: int | None = None) -> float:
        """Mean time of a picture in one of so many workers; ``lanes`` busy beside them."""
        found = self._of("both", lanes, workers, self.sizes(lanes)[-1], number) if lanes else None
        return _mean([each.picture_ns for each in found or self._of("workers", 0, workers, 0, number)])

    def workers(self) -> list[int]:
        """How many workers were timed, ascending; none where preprocessing is not inside the clock."""
        return sorted(each[2] for each in self._windows if each[0] == "workers")

    def lanes(self) -> list[int]:
        """How many lanes were timed, ascending."""
        return sorted({each[1] for each in self._windows if each[0] == "fused"})

    def variation(self, layout: Layout) -> tuple[list[float], list[float]]:
        """How times vary around the mean of their round: of batches in the lanes, of pictures in the workers."""
        doing: Doing = "lanes" if layout.workers else "fused"
        in_lanes = self._of(doing, layout.lanes, 0, layout.batch, None)
        in_workers = self._of("workers", 0, layout.workers, 0, None) if layout.workers else []
        return _factors([each.batch_ns for each in in_lanes]), _factors([each.picture_ns for each in in_workers])

    def _of(self, doing: Doing, lanes: int, workers: int, size: int, number: int | None) -> list[Window]:
        found = self._windows[doing, lanes, workers, size]
        return [each for each in found if number is None or each.round == number]


def _mean(windows: Sequence[Sequence[int]]) -> float:
    """The mean of windows that weigh the same."""
    return statistics.fmean(statistics.fmean(each) for each in windows)


def _factors(windows: Sequence[Sequence[int]]) -> list[float]:
    return [took / statistics.fmean(each) for each in windows for took in each]


@dataclass(frozen=True, slots=True)
class Stations:
    """What a layout works with under full load, in ns: a picture in a worker, and a batch of 1, 2, ... in a lane."""

    layout: Layout
    picture_ns: float
    service_ns: list[int]

    @property
    def prepared_per_second(self) -> float:
        """What the workers make ready; ``inf`` without workers."""
        return 1e9 * self.layout.workers / self.picture_ns if self.layout.workers else math.inf

    @property
    def answered_per_second(self) -> float:
        """What the lanes answer of what lies ready for them, in full batches."""
        return 1e9 * self.layout.lanes * self.layout.batch / self.service_ns[-1]

    @property
    def samples_per_second(self) -> float:
        """What goes through."""
        return min(self.prepared_per_second, self.answered_per_second)


def stations(times: Times, layout: Layout, number: int | None = None) -> Stations:
    """What a layout works with, by one round or by all of them."""
    lanes, workers = layout.lanes, layout.workers
    if not workers:
        return Stations(layout, 0.0, _service_ns(times, "fused", layout, number))
    largest = times.sizes(lanes)[-1]
    alone_ns, beside_ns = times.picture_ns(workers, 0, number), times.picture_ns(workers, lanes, number)
    stretch = times.batch_ns("both", lanes, largest, number, workers) / times.batch_ns("lanes", lanes, largest, number)
    ready_ns = _service_ns(times, "lanes", layout, number)

    def while_busy(lanes_busy: float, workers_busy: float) -> Stations:
        slower = 1 + workers_busy * (stretch - 1)
        picture_ns = alone_ns + lanes_busy * (beside_ns - alone_ns)
        return Stations(layout, picture_ns, [round(slower * took) for took in ready_ns])

    found = while_busy(1.0, 1.0)
    for _ in range(_SETTLED):  # how busy each side is depends on how fast it is, and that on how busy the other is
        rate = found.samples_per_second
        found = while_busy(rate / found.answered_per_second, rate / found.prepared_per_second)
    return found


def lanes_alone(times: Times, layout: Layout, number: int | None = None) -> Stations:
    """The lanes of a layout, if samples lay ready for them and nobody took anything from them."""
    doing: Doing = "lanes" if times.workers() else "fused"
    return Stations(Layout(layout.lanes, 0, layout.batch), 0.0, _service_ns(times, doing, layout, number))


def _service_ns(times: Times, doing: Doing, layout: Layout, number: int | None) -> list[int]:
    """Times of batches of 1, 2, ... to the layout's, which are run at the sizes that were timed."""
    sizes = [size for size in times.sizes(layout.lanes) if size <= layout.batch]
    by_size = {size: round(times.batch_ns(doing, layout.lanes, size, number)) for size in sizes}
    return service_times(by_size, range(1, layout.batch + 1))


def throughput(times: Times, layout: Layout) -> Expected:
    """Pictures a second where there is always work."""
    rounds = [stations(times, layout, number).samples_per_second for number in range(ROUNDS)]
    return expected(stations(times, layout).samples_per_second, rounds)


def held(times: Times, layout: Layout, bound_ns: int, number: int | None = None) -> float:
    """The highest rate in queries a second of which 99 % are answered within ``bound_ns``; 0 where none are."""
    found = stations(times, layout, number)
    return held_by(found, bound_ns, *times.variation(layout))


def held_by(
    found: Stations, bound_ns: int, batches: Sequence[float] = (1.0,), pictures: Sequence[float] = (1.0,)
) -> float:
    """The same, of stations whose times vary by the factors ``batches`` and ``pictures``, which are drawn from."""
    layout, service = found.layout, found.service_ns
    if found.picture_ns + service[0] > bound_ns:
        return 0.0
    chance = np.random.default_rng(1)
    factors = chance.choice(batches, _QUERIES).tolist()
    if layout.workers:
        took = (found.picture_ns * chance.choice(pictures, _QUERIES)).astype(np.int64).tolist()
        latencies = partial(
            simulate_staged, took_ns=took, workers=layout.workers, service_ns=service, servers=layout.lanes
        )
    else:
        latencies = partial(
            simulate, service_ns=service, servers=layout.lanes, deadline=Deadline.worthwhile(bound_ns, service)
        )
    ceiling = 1.05 * found.samples_per_second
    return highest_held(partial(latencies, factors=factors), bound_ns, ceiling, at_random(_QUERIES, 0))


def rate(times: Times, layout: Layout, bound_ns: int) -> Expected:
    """The rate that is held, as expected."""
    rounds = [held(times, layout, bound_ns, number) for number in range(ROUNDS)]
    return expected(held(times, layout, bound_ns), rounds)
