"""Goes through the points of a sweep, within its budget of time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sut.errors import SutError
from sut.pipeline.assembly import Assembly, assemble
from sut.process.cgroup import usable_cores
from sut.results.statistics import FEWEST_PAIRS
from sut.run.reporter import Reporter
from sut.studies.driving.driven import Drive
from sut.studies.driving.loads import Alone, Closed, FromFile, Load, Poisson, arrivals_ns
from sut.studies.sweeping.bench import Bench
from sut.studies.sweeping.curves import decline, pair_of_decline, plateau
from sut.studies.sweeping.grids import Asked, Cell, as_offline, auto_rates, cells
from sut.studies.sweeping.points import Job, Part, Point
from sut.studies.tuning.space import tidy

_CLOSED_SHARE = 0.6
"""Of the budget, for the closed loop."""
_ROUNDS = 3
"""Of the open loop, with other times of arrival: how far apart they lie is the spread."""
_BETWEEN_S = 0.5
"""Between two loads of the open loop: until all are answered."""
_ZERO_SHARE = 0.2
"""Of the rate of one request after another: where zero load, and little load, are looked at."""
_LEAST = 20
"""Samples of a point, however long they take."""


@dataclass(slots=True)
class Loops:
    """One sweep while it goes on. ``notes`` say what the budget did not allow."""

    parts: Assembly
    asked: Asked
    bench: Bench
    console: Reporter
    notes: list[str] = field(default_factory=list)

    def closed(self) -> list[Point]:
        """The closed loop, up to the concurrency that the budget allows."""
        asked = self.asked
        if asked.concurrency is None or isinstance(asked.arrivals, FromFile):
            return []
        parts = self._loaded(max_latency_s=None)
        jobs = [self._job("closed", Closed(n)) for n in asked.concurrency]

        def fits(job: Job) -> bool:
            return self._spent_with([job]) <= _CLOSED_SHARE * asked.budget_s

        points = self.bench(parts, jobs, fits=fits)
        if len(points) < len(jobs):
            left_out = asked.concurrency[len(points)]
            self.notes.append(f"{left_out:,} outstanding and more left out: the budget is spent; --budget allows more")
        counting = [point for point in points if point.ok]
        if decline(counting) is not None:
            points += self._decline_again(parts, pair_of_decline(counting))
        return points

    def _decline_again(self, parts: Assembly, pair: Sequence[int]) -> list[Point]:
        """What looks like a decline, measured until the statistics may call it one, if the budget allows that."""
        rounds = range(2, FEWEST_PAIRS + 2)
        jobs = [self._job("closed", Closed(n), number) for number in rounds for n in pair]
        if self._spent_with(jobs) > self.asked.budget_s:
            self.notes.append("what looks like a decline was not measured again: the budget is spent")
            return []
        return self.bench(parts, jobs)

    def _spent_with(self, jobs: Sequence[Job]) -> float:
        """What has been spent and closed loops that are still to come, in seconds, by the throughput so far."""
        known = (each.samples_per_second or 0.0 for each in self.bench.points.values() if each.part == "closed")
        top = max(known, default=0.0)
        spent_s = self.bench.spent_s
        for job in jobs if top else ():
            assert isinstance(job.drive.load, Closed)
            # All of the first requests are answered before it is measured, and all of the last ones after it.
            spent_s += max(job.drive.seconds, _LEAST / top) + 2 * job.drive.load.concurrency / top
        return spent_s

    def open(self, closed: Sequence[Point]) -> list[Point]:
        """The open loop, as often as the budget allows, and what a request takes that nobody stands in the way of."""
        asked = self.asked
        parts = self._loaded(max_latency_s=None if asked.limit_ns is None else asked.limit_ns / 1e9)
        if isinstance(asked.arrivals, FromFile):
            seconds = arrivals_ns(asked.arrivals, math.inf)[-1] / 1e9 + 1e-3
            return self.bench(parts, [self._job("open", asked.arrivals, seconds=seconds)])
        if asked.rates is None:
            return []
        counting = [point for point in closed if point.ok]
        if not asked.rates and not counting:
            self.notes.append("no open loop: --rates auto needs a closed loop to know what the system can do")
            return []
        rates = asked.rates or auto_rates(plateau(counting) or 0.0)
        rounds = [
            [self._job("open", asked.arrivals(rate, number), number, self._seconds(rate)) for rate in rates]
            for number in range(1, _ROUNDS + 1)
        ]
        later = {jobs[0].key for jobs in rounds[1:]}
        round_s = sum(job.drive.seconds + _BETWEEN_S for job in rounds[0])

        def fits(job: Job) -> bool:
            """A later round is made whole, or not at all."""
            needed_s = round_s if job.key in later else job.drive.seconds if job.round == 1 else -math.inf
            return self.bench.spent_s + needed_s <= asked.budget_s

        jobs = [*self._zero(counting), *(job for jobs in rounds for job in jobs)]
        points = self.bench(parts, jobs, fits=fits)
        if len(points) < len(jobs):
            load, number = jobs[len(points)].drive.load, jobs[len(points)].round
            self.notes.append(f"{load.words} (round {number} of {_ROUNDS}) and more left out: the budget is spent")
        return points

    def _zero(self, closed: Sequence[Point]) -> list[Job]:
        alone = [tidy(_ZERO_SHARE * (each.samples_per_second or 0.0)) for each in closed if each.concurrency == 1]
        loads: list[Alone | Poisson] = [kind(rate) for rate in alone[:1] for kind in (Alone, Poisson)]
        return [self._job("zero", load, seconds=self._seconds(load.rate)) for load in loads]

    def _seconds(self, rate: float) -> float:
        return max(self.asked.seconds, _LEAST / rate)

    def scaling(self) -> Iterator[Point]:
        """Systems of more cores and devices, there and back again until there are pairs enough for an interval.

        A round after the first is made whole, or not at all.
        """
        systems, budget_s = cells(self.asked, self.parts.config), self.asked.budget_s
        rounds = math.ceil(FEWEST_PAIRS / len({cell.devices for cell in systems}))
        for number in range(1, rounds + 1):
            begin_s, counting = self.bench.spent_s, list[Cell]()
            for cell in systems:
                if number == 1 and self.bench.spent_s > budget_s:
                    self.notes.append(f"from {cell.way}, {cell.pictures} on left out: the budget is spent")
                    return
                point = self._system(cell, number)
                counting += [cell] * point.ok
                yield point
            if 2 * self.bench.spent_s - begin_s > budget_s:
                return
            systems = counting[::-1]

    def _system(self, cell: Cell, round_: int) -> Point:
        """One of them, with more outstanding than it can work on at once."""
        config = cell.config(self.parts.config, self.parts.model_bytes, self.console.note)
        enough = 2 * config.lane_count * config.largest_batch + 2 * config.preprocess_workers
        job = self._job("scaling", Closed(enough), round_, **asdict(cell))
        try:
            [point] = self.bench(assemble(config, self.console.note), [job], cores=cell.cores)
        except (SutError, ModuleNotFoundError) as error:
            point = Point.without(job, error)
            self.bench.take(point)
        return point

    def _loaded(self, **settings: Any) -> Assembly:
        config = as_offline(self.parts.config, usable_cores(), self.parts.model_bytes)
        return replace(self.parts, config=config.model_copy(update=settings))

    def _job(self, part: Part, load: Load, round_: int = 1, seconds: float | None = None, **about: Any) -> Job:
        drive = Drive(load, seconds or self.asked.seconds, least=_LEAST)
        return Job(part, drive, about, round_, self.asked.limit_ns)
