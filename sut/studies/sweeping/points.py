"""A point of a sweep: one load on one system, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from plugins.files import sha256_of
from sut.errors import ExitCode, one_line
from sut.process.telling import code_of
from sut.results.energy import Energy
from sut.studies.driving.driven import Drive, Driven, Ready
from sut.studies.driving.loads import FromFile

Part = Literal["closed", "zero", "open", "scaling"]
"""``zero``: one request at a time, and the same rate at random."""
_MEAN = ("mean", "p50", "p99")
_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Job:
    """A point that is to be measured: ``about`` are its fields that say what it is.

    ``round`` counts from 1 where a point is measured again; ``limit_ns`` is the latency over which an answer is late.
    """

    part: Part
    drive: Drive
    about: Mapping[str, Any] = field(default_factory=dict)
    round: int = 1
    limit_ns: int | None = None

    @property
    def key(self) -> str:
        """Tells it from all others of a sweep."""
        told = "".join(f", {name} {value}" for name, value in self.about.items())
        late = "" if self.limit_ns is None else f", late over {self.limit_ns / 1e6:g} ms"
        load = self.drive.load
        content = f" ({sha256_of(load.path)[:_DIGITS]})" if isinstance(load, FromFile) else ""
        return f"{self.part}: {load.words}{content}, {self.drive.seconds:g} s{told}{late}, round {self.round}"


@dataclass(frozen=True, slots=True)
class Point:
    """What one load came to. Null is what was not measured; times in ns, memory in bytes.

    ``queueing_share`` is the part of the latency, summed over the samples, before any work on them; ``late`` how many
    samples took longer than the limit. ``stages_ns`` are means over the samples, ``cost_ns`` busy time per sample.
    ``first_error`` says why a point does not count, ``left_out`` why it cannot be had on this machine.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    key: str
    part: Part
    load: str
    round: int
    seconds: float
    concurrency: int | None = None
    rate: float | None = None
    cores: int | None = None
    devices: int | None = None
    way: str | None = None
    pictures: str | None = None
    lanes: int | None = None
    threads: int | None = None
    max_batchsize: int | None = None
    workers: int = 0
    samples: int = 0
    failed: int = 0
    first_error: str | None = None
    left_out: str | None = None
    samples_per_second: float | None = None
    latency_ns: dict[str, float] = field(default_factory=dict)
    late: int | None = None
    queueing_share: float | None = None
    mean_batch: float | None = None
    batch_sizes: dict[int, int] = field(default_factory=dict)
    stages_ns: dict[str, float] = field(default_factory=dict)
    cost_ns: dict[str, float] = field(default_factory=dict)
    cpu_seconds_per_sample: float | None = None
    host_bytes: int | None = None
    gpu_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    energy: Mapping[str, Energy] | None = None
    took_s: float = 0.0
    """The point's wall time, its part of loading the system included."""

    @property
    def ok(self) -> bool:
        """Whether it counts."""
        return self.first_error is None and self.left_out is None

    @property
    def late_share(self) -> float | None:
        """Which part of the samples was late; None without a limit."""
        return None if self.late is None or not self.samples else self.late / self.samples

    @classmethod
    def without(cls, job: Job, error: Exception) -> Point:
        """The row of a point that could not be measured: because it failed, or cannot be had here."""
        why, failed = one_line(error), code_of(error) == ExitCode.FAILED
        return cls(**_named(job), first_error=why if failed else None, left_out=None if failed else why)

    @classmethod
    def of(cls, job: Job, ready: Ready, driven: Driven, took_s: float) -> Point:
        """The row of a load that was driven."""
        told = driven.per_sample()
        latency, stages = told.latency_ns, told.stages_ns
        summed = float(latency.sum())
        batches = sum(driven.batch_sizes.values())
        latencies = (latency.mean(), *np.percentile(latency, (50, 99))) if len(latency) else ()
        failure = f"{driven.failed} samples failed" if driven.failed else None
        return cls(
            **_named(job),
            lanes=ready.lanes,
            threads=ready.threads,
            max_batchsize=ready.max_batchsize,
            workers=ready.workers,
            samples=driven.samples,
            failed=driven.failed,
            first_error=driven.first_error or failure,
            samples_per_second=driven.samples_per_second,
            latency_ns=dict(zip(_MEAN, map(float, latencies), strict=False)),
            late=None if job.limit_ns is None else int((latency > job.limit_ns).sum()),
            queueing_share=float((stages["queue"] + stages["issue_delay"]).sum()) / summed if summed else None,
            mean_batch=sum(size * count for size, count in driven.batch_sizes.items()) / batches if batches else None,
            batch_sizes=driven.batch_sizes,
            stages_ns={name: float(values.mean()) for name, values in stages.items()} if len(latency) else {},
            cost_ns=driven.cost_ns,
            cpu_seconds_per_sample=driven.cpu_seconds_per_sample,
            host_bytes=driven.host_bytes,
            gpu_bytes=driven.gpu_bytes,
            gpu_memory_bytes=driven.gpu_memory_bytes,
            energy=driven.energy,
            took_s=took_s,
        )


def _named(job: Job) -> dict[str, Any]:
    load = job.drive.load
    own = {name: getattr(load, name) for name in ("concurrency", "rate") if hasattr(load, name)}
    about = {"key": job.key, "part": job.part, "load": load.words, "round": job.round, "seconds": job.drive.seconds}
    return about | own | dict(job.about)


_POINT = TypeAdapter(Point)


def point_of(row: Mapping[str, Any]) -> Point:
    """A point from what JSON has of it. Raises ``ValueError`` for what is none."""
    try:
        return _POINT.validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'a point'}: {first['msg']}") from None


def point_of_line(line: str) -> Point:
    """A point from its line of JSON. Raises ``ValueError`` for a line that is none."""
    return point_of(json.loads(line))
