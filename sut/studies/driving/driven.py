"""What the process that drives a system is told, and what it tells: orders in, events out, samples in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from sut.config import RunConfig
from sut.models.preparation import Prepared
from sut.process.messages import Failed, Step, vocabulary
from sut.results.energy import Energy
from sut.results.samples import Samples
from sut.results.schema import Parity
from sut.run.timing import Pace
from sut.studies.driving.loads import Closed, FromFile, Load


@dataclass(frozen=True, slots=True)
class Relative:
    """To an earlier drive of the same process: the load's rate is a share of the samples that it did in a second.

    It is measured for as long as ``samples`` requests take at that rate, where that is longer than the drive's
    ``seconds``, and for ``longest_s`` at the most.
    """

    to: int
    samples: int
    longest_s: float


@dataclass(frozen=True, slots=True)
class Drive:
    """A load, for how long it is measured, and for how long it goes on before that, in seconds.

    A closed loop is not measured before its first requests, those that all came at once, are answered, and for longer
    where fewer than ``least`` were answered in the time. A load ends earlier after ``samples`` requests in all.
    """

    load: Load
    seconds: float
    warm_s: float = 0.0
    samples: int | None = None
    least: int = 1
    relative: Relative | None = None

    def after(self, driven: Sequence[Driven]) -> Drive:
        """Itself once it is known what the drives before it did."""
        if self.relative is None or isinstance(self.load, Closed | FromFile):
            return self
        rate = self.load.rate * driven[self.relative.to].samples_per_second
        seconds = min(max(self.seconds, self.relative.samples / rate), max(self.seconds, self.relative.longest_s))
        return replace(self, load=replace(self.load, rate=rate), seconds=seconds)


@dataclass(frozen=True, slots=True)
class Orders:
    """What is to be loaded, what it is to be asked, and where the samples are written. ``cores``: None for all."""

    config: RunConfig
    prepared: Prepared | None
    drives: tuple[Drive, ...]
    directory: Path
    cores: int | None = None
    run: str = ""
    """The run's id in a broker; by chance where there is none."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The system is loaded and warm. ``pace`` is what it takes before anybody asks much of it."""

    pace: Pace
    lanes: int
    threads: int
    max_batchsize: int
    workers: int
    """Threads that only preprocess."""
    cores: int
    parity: Parity | None
    event: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Begun:
    """The drive of that number begins."""

    number: int
    event: Literal["begun"] = "begun"


@dataclass(frozen=True, slots=True)
class Driven:
    """What a system did under one load, in the ``duration_s`` that were measured. Null is what was not measured.

    Counted are, in a closed loop, the samples that were answered in that time, and elsewhere those that were scheduled
    in it, however late they were answered. ``samples_per_second`` is the work done in it: a batch that reaches over an
    edge counts for its part inside. ``cpu_s`` is the process's CPU time in it, the asking included; ``host_bytes`` the
    most that the process held, ``gpu_bytes`` the most that its GPUs did. ``first_error`` says why it does not count.
    """

    number: int
    load: Load
    duration_s: float
    samples: int
    failed: int
    first_error: str | None
    samples_per_second: float
    batch_sizes: dict[int, int]
    cost_ns: dict[str, float]
    """Mean busy time per sample of each stage, warm-up included."""
    cpu_s: float
    host_bytes: int | None
    path: Path
    gpu_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    """All memory of those GPUs."""
    begin_s: float = 0.0
    """When ``duration_s`` began, in seconds since 1970."""
    energy: Mapping[str, Energy] | None = None
    """Per sample, as a run's result has it."""
    energy_notes: tuple[str, ...] = ()
    """Why something of it is not known."""
    carried_bytes_per_sample: float = 0.0
    """Of all messages between two models, there and back, warm-up included."""
    event: Literal["driven"] = "driven"

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return self.failed == 0 and self.first_error is None

    @property
    def done(self) -> float:
        """Samples by the work done in that time."""
        return self.samples_per_second * self.duration_s

    @property
    def cpu_seconds_per_sample(self) -> float | None:
        """CPU time of the process for each sample; None where nothing was done."""
        return self.cpu_s / self.done if self.done else None

    def per_sample(self) -> Samples:
        """The samples that were counted, in the order in which they were asked.

        ``scheduled_ns`` counts from the start of the load, ``latency_ns`` from there to the answer; ``issue_delay`` and
        ``residual`` are among the stages, which add up to it.
        """
        return Samples.load(self.path)


Event = Step | Ready | Begun | Driven | Failed

STORY: TypeAdapter[Event] = vocabulary(Event)
