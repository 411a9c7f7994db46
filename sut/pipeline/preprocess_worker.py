"""One process that preprocesses: ``python -m sut.pipeline.preprocess_worker``, started by ``sut.pipeline.processes``.

It takes jobs from a pipe that all such processes share, whoever is free the next, and writes the tensors into the rows
that the lanes read. It ends when that pipe is closed, so also when the process that infers is gone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import preprocess.registry
from preprocess.base import BadPicture, Geometry, Mark, Preprocessor, Recipe, Target
from sut.errors import one_line
from sut.pipeline.lane import fill_stamped
from sut.pipeline.shared import DONE, JOB, Layout, SharedRows
from sut.process.affinity import stay_on
from sut.process.clock import CLOCKS
from sut.process.messages import from_text
from sut.process.telling import Teller, carry_out
from sut.process.workers import Ready
from sut.qsl.library import Rows, Source
from sut.qsl.shared_pictures import PictureReader, Span


@dataclass(frozen=True, slots=True)
class Orders:
    """What worker ``number`` is to do: up to ``batch`` samples at a time. The descriptors are inherited."""

    number: int
    preprocess: str
    options: Mapping[str, Any]
    recipe: Recipe
    stages: tuple[str, ...]
    batch: int
    cores: tuple[int, ...] | None
    layout: Layout
    rows: int
    pictures: int
    jobs: int
    done: int
    clock: str
    """By whose name in ``CLOCKS`` all of them stamp."""
    slowdown: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counted:
    """``Preprocessor.counts`` of a worker that has done its work."""

    counts: Mapping[str, int]
    event: Literal["counted"] = "counted"


class Job(NamedTuple):
    """A picture, by the number of its sample, that is to go into a row."""

    number: int
    span: Span
    row: int


class _Handed(Source):
    """Pictures that others have loaded; those of the jobs at hand are filled by their position."""

    def __init__(self, preprocessor: Preprocessor, stages: tuple[str, ...], pictures: PictureReader) -> None:
        self.stages = stages
        self.jobs: Sequence[Job] = ()
        self._preprocessor, self._pictures = preprocessor, pictures

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        jobs = [self.jobs[index] for index in indices]
        if any(job.span.nbytes < 0 for job in jobs):
            raise ValueError("the sample is not loaded")
        held = [self._pictures.read(job.span) for job in jobs]
        if jobs[0].span.height:
            return self._preprocessor.run_pixels(held, target, mark)
        return self._preprocessor.run(held, target, mark)


class _Worker:
    def __init__(self, orders: Orders) -> None:
        stay_on(frozenset(orders.cores) if orders.cores else None)
        self._orders, self._clock = orders, CLOCKS[orders.clock]
        kind = preprocess.registry.load(orders.preprocess, orders.options)
        self.preprocessor = kind(orders.recipe, **orders.options)
        self._handed = _Handed(self.preprocessor, orders.stages, PictureReader(orders.pictures))
        self._source = _stretched(self._handed, orders.slowdown, kind)
        self._rows = SharedRows(orders.layout, orders.rows)

    def serve(self) -> None:
        """Do what jobs there are, until there will be no more."""
        while found := os.read(self._orders.jobs, self._orders.batch * JOB.size):
            jobs = [
                Job(number, Span(offset, nbytes, height, width), row)
                for number, offset, nbytes, row, height, width in JOB.iter_unpack(found)
            ]
            for some in in_runs(jobs):
                self._do(some)

    def _do(self, jobs: Sequence[Job]) -> None:
        """Preprocess pictures into rows that follow each other, and say so."""
        self._handed.jobs = jobs
        first, positions = jobs[0].row, range(len(jobs))
        stamps = [self._clock()]
        try:
            target = Rows.of(self._rows.storage[first : first + len(jobs)])
            geometries = fill_stamped(self._source, positions, target, stamps, self._clock)
            ends = (stamps[0], *stamps[1::2])
            for job, geometry in zip(jobs, geometries, strict=True):
                self._rows.tell(job.row, job.number, geometry, ends)
        except BaseException as error:
            jobs = self._tell_failed(jobs, error)
        os.write(self._orders.done, b"".join([DONE.pack(job.row, self._orders.number) for job in jobs]))

    def _tell_failed(self, jobs: Sequence[Job], error: BaseException) -> Sequence[Job]:
        """Write what was raised into all of the rows. Returns the jobs, the one to blame first: it is the one named."""
        now = (self._clock(),) * self._orders.layout.stamps
        is_known = isinstance(error, BadPicture)
        bad = error.position if isinstance(error, BadPicture) else 0
        others = f" (in a batch of {len(jobs)})" if len(jobs) > 1 and not is_known else ""
        for job in jobs:
            text = f"{one_line(error)}{others}"
            self._rows.tell_failed(job.row, job.number, type(error).__name__, text, now)
        return [jobs[bad], *jobs[:bad], *jobs[bad + 1 :]]


def in_runs(jobs: Sequence[Job]) -> list[Sequence[Job]]:
    """Jobs whose rows follow each other, together."""
    ends = [at for at in range(1, len(jobs)) if jobs[at].row != jobs[at - 1].row + 1]
    return [jobs[begin:end] for begin, end in zip([0, *ends], [*ends, len(jobs)], strict=True)]


def _stretched(source: Source, factors: Mapping[str, float], kind: type[Preprocessor]) -> Source:
    if not factors:
        return source
    from sut.pipeline.slowdown import slow_source  # of which a run without any need not know

    return slow_source(source, factors, kind)


def _work(text: str, teller: Teller) -> None:
    worker = _Worker(from_text(Orders, text))
    teller.tell(Ready())
    worker.serve()
    teller.tell(Counted(worker.preprocessor.counts()))
    worker.preprocessor.close()


if __name__ == "__main__":
    carry_out(_work)
