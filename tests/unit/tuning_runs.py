"""Runs, points and planted machines for the tests of ``sut tune``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sut.cli.console import BriefConsole
from sut.config import RunConfig
from sut.mlperf.logs import Int64Array
from sut.studies.simulation import allowed_late, line, simulate
from sut.studies.tuning.bench import Bench
from sut.studies.tuning.estimate import estimate
from sut.studies.tuning.space import DEFAULT, Point
from sut.studies.tuning.state import Job, Measured, State
from sut.studies.tuning.tuner import Tuner

MS = 1_000_000


def poisson(rate: float, queries: int, seed: int) -> Int64Array:
    """Arrival times in ns of a Poisson process of ``rate`` per second: gaps are exponential with mean 1 / rate."""
    gaps = np.random.default_rng(seed).exponential(1e9 / rate, queries)
    arrivals: Int64Array = np.cumsum(gaps).astype(np.int64)
    return arrivals


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


HEADER = {"machine": "a test"}


SAID = "98.5 % same labels (95 % interval 97.5 to 99.1 %) on 1,000 crops of 11 pictures"


def speed_of(point: Point) -> float:
    """Planted: four lanes are best."""
    return 100.0 - abs(4 - dict(point.settings).get("lanes", 1))


def offline(job: Job) -> Measured:
    metric = {"name": "samples_per_second", "value": speed_of(job.point), "higher_is_better": True}
    return run_of(job, metric=metric)


LANES = [DEFAULT, *(p(lanes=n) for n in range(2, 9))]


SERVICE_NS = line(3 * MS, MS, 8)


BOUND_NS = 15 * MS


def batched(job: Job) -> Measured:
    """A Server run, simulated: batches take 3 ms + 1 ms n, twice that with two threads; judged as LoadGen judges it."""
    slower = 2 if dict(job.point.settings).get("threads") == 2 else 1
    service = [slower * took for took in SERVICE_NS]
    rate = job.qps or 20.0
    queries = max(690, int(rate * job.time_s))
    latency = simulate(poisson(rate, queries, seed=5), service)
    late = int((latency > BOUND_NS).sum())
    return run_of(
        job,
        valid=late <= allowed_late(queries),
        invalid_reasons=[],
        bound_ns=float(BOUND_NS),
        late=late,
        queries=queries,
        samples_per_second=rate,
        latency_ns={"p99": int(np.percentile(latency, 99)), "max": int(latency.max())},
        stages_ns={"queue": {"p99": int(np.percentile(latency, 99)) - service[0]}, "infer": {"p99": service[0]}},
        idle_query_ns=service[0],
        batch_ns={str(n): took for n, took in enumerate(service, 1)},
    )


class Planted(Bench):
    """Answers jobs with a function in the place of a run."""

    def __init__(self, state: State, answer: Callable[[Job], Measured], stop_after: int | None = None) -> None:
        super().__init__(RunConfig(), Path(), state, lambda text: None, BriefConsole())
        self._answer = answer
        self._stop_after = stop_after
        self.runs = 0

    def _run(self, job: Job) -> Measured:
        if self.runs == self._stop_after:
            raise KeyboardInterrupt
        self.runs += 1
        return self._answer(job)


def planted(tmp_path: Path, answer: Callable[[Job], Measured], stop_after: int | None = None) -> Planted:
    tmp_path.mkdir(exist_ok=True)
    return Planted(State.open(tmp_path, HEADER, overwrite=False), answer, stop_after)


def server_tuner(bench: Bench, *points: Point) -> Tuner:
    base = RunConfig(scenario="Server", time_s=10.0, batching="fifo")
    return Tuner(base, [DEFAULT, *points], bench, estimate)
