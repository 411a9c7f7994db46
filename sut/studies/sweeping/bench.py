"""Measures the points of a sweep, those together that one loaded system can answer, and none twice."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from sut.pipeline.assembly import Assembly
from sut.results.schema import Parity
from sut.run.energy.metering import AtRest
from sut.studies.driving.drive import drive
from sut.studies.driving.driven import Driven, Ready
from sut.studies.kept import Kept
from sut.studies.sweeping.points import Job, Point

Fits = Callable[[Job], bool]
"""Whether a job may still be begun."""


class _Enough(Exception):
    """No more is to be measured."""


class Bench:
    """Measures jobs. What ``kept`` has already is not measured again; what counts is kept there at once.

    ``say`` is told of each point. ``spent_s`` is the wall time of all points that were asked for so far, kept ones
    included. ``parity`` is that of the preprocessor, where preprocessing was timed in what was measured now.
    """

    def __init__(self, kept: Kept[Point], say: Callable[[Point], None]) -> None:
        self._kept, self._say = kept, say
        self.points: dict[str, Point] = {}
        self.parity: Parity | None = None
        self._rest = AtRest()

    @property
    def spent_s(self) -> float:
        """See the class."""
        return sum(point.took_s for point in self.points.values())

    def __call__(
        self, parts: Assembly, jobs: Sequence[Job], cores: int | None = None, fits: Fits = lambda job: True
    ) -> list[Point]:
        """The points of ``jobs``, all of the system of ``parts``, up to the first that does not fit.

        Raises what ``drive`` raises.
        """
        open_jobs: list[Job] = []
        for job in jobs:
            if (kept := self._kept.rows.get(job.key)) is not None:
                self.take(kept)
            elif job.key not in self.points:
                open_jobs.append(job)
        if open_jobs and fits(open_jobs[0]):
            with suppress(_Enough):
                self._measure(parts, open_jobs, cores, fits)
        return [self.points[job.key] for job in jobs if job.key in self.points]

    def take(self, point: Point) -> None:
        """A point is known, also one that does not count."""
        self.points[point.key] = point
        self._say(point)

    def _measure(self, parts: Assembly, jobs: Sequence[Job], cores: int | None, fits: Fits) -> None:
        began_s = time.monotonic()
        loaded: list[Ready] = []

        def ready(event: Ready) -> None:
            loaded.append(event)
            self.parity = event.parity or self.parity

        def told(driven: Driven) -> None:
            nonlocal began_s
            now_s = time.monotonic()
            point = Point.of(jobs[driven.number], loaded[0], driven, now_s - began_s)
            driven.path.unlink()
            began_s = now_s
            if point.ok:
                self._kept.add(point)
            self.take(point)
            if driven.number + 1 < len(jobs) and not fits(jobs[driven.number + 1]):
                raise _Enough  # which ends the process, whatever it has begun meanwhile

        with tempfile.TemporaryDirectory() as scratch:
            drives = [job.drive for job in jobs]
            drive(parts, drives, Path(scratch), cores=cores, told=told, ready=ready, rest=self._rest)
