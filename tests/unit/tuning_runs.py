"""Runs and points for the tests of ``sut tune``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sut.tuning.space import DEFAULT, Point
from sut.tuning.state import Job, Measured

MS = 1_000_000


def run_of(job: Job | None = None, **changes: Any) -> Measured:
    """A VALID Offline run of 100 samples/s, or of a job."""
    job = job or Job("round 1", 1, 1, DEFAULT, 2.0)
    row = Measured(
        key=job.key,
        phase=job.phase,
        settings=dict(job.point.settings),
        valid=True,
        failed=False,
        invalid_reasons=[],
        time_s=job.time_s,
        qps=job.qps,
        metric={"name": "samples_per_second", "value": 100.0, "higher_is_better": True},
        latency_ns={"p50": 5 * MS, "p90": 8 * MS, "p97": 9 * MS, "p99": 10 * MS, "p99_9": 12 * MS, "max": 13 * MS},
        took_s=1.0,
        started="2026-01-01T00:00:00+00:00",
    )
    return replace(row, **changes)


def server_run(rate: float, **changes: Any) -> Measured:
    job = Job("rate", 1, 8, DEFAULT, 2.0, rate)
    return run_of(job, **{"bound_ns": 15.0 * MS, "queries": 1000, "late": 0} | changes)


def p(**changes: Any) -> Point:
    """A point of these settings."""
    return Point(tuple(changes.items()))
