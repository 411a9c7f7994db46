"""Makes the runs of a tune through the product: each a child process, as ``sut run`` makes it, and none twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sut.config import RunConfig
from sut.errors import ExitCode, SutError, error_of, one_line, short
from sut.mlperf.logs import Detail, read_detail
from sut.results.schema import Metric, Result, used
from sut.results.wording import agreement_lines
from sut.run.auto import fixed
from sut.run.energy.metering import AtRest
from sut.run.folders import run_folder
from sut.run.reporter import Reporter
from sut.run.runner import check_same_model, run_experiment
from sut.studies.tuning.state import Job, Measured, State


class Bench:
    """Measures jobs. What ``state`` has already is not run again; what is run is kept there at once.

    ``say`` gets a line for each run. A point that cannot be run is a failed run; only if the very first of all cannot
    is it an error, a ``SutError``: then nothing else can.

    ``spent_s`` is the wall time of the runs that were asked for so far, those that ``state`` had included; not of those
    that it has for later: a tune that is gone through again is then cut where it was before.
    """

    def __init__(
        self, base: RunConfig, directory: Path, state: State, say: Callable[[str], None], console: Reporter
    ) -> None:
        self._base = base.model_copy(update={"output": directory, "overwrite": True})
        self._state = state
        self._say = say
        self._console = console
        self.spent_s = 0.0
        self._first: Result | None = None
        self._rest = AtRest()

    @property
    def rows(self) -> list[Measured]:
        """All runs so far."""
        return list(self._state.rows.values())

    def pin(self, **settings: object) -> None:
        """Settings that all further runs have."""
        self._base = self._base.model_copy(update=settings)

    def __call__(self, job: Job) -> Measured:
        """The run that ``job`` describes. Raises ``KeyboardInterrupt`` if it was interrupted; it is not kept then."""
        row = self._state.rows.get(job.key)
        if row is None:
            row = self._run(job)
            self._state.add(row)
        self.spent_s += row.took_s
        self._say(f"{job.phase}, {job.number} of {job.of}: {line_of(row)}")
        return row

    def _run(self, job: Job) -> Measured:
        begin = time.monotonic()
        # What the point's first run has chosen: auto learns from every run of the tune.
        used_then = next((row.used for row in self.rows if row.point == job.point and row.used), {})
        more: dict[str, Any] = fixed(used_then, self._base.scenario) | dict(job.point.settings)
        more |= {"time_s": job.time_s} | ({} if job.qps is None else {"qps": job.qps})
        config = job.point.apply(self._base, **more)
        try:
            ran = run_experiment([config], self._console, "sut tune", rest=self._rest)
        except (SutError, ModuleNotFoundError) as error:
            if not self._state.rows:
                raise
            return _measured(job, begin, valid=False, failed=True, invalid_reasons=[one_line(error)])
        result, code = ran.results[0], ran.codes[0]
        self._first = self._first or result
        check_same_model([self._first, result])
        if ExitCode.INTERRUPTED in ran.codes:
            raise KeyboardInterrupt
        if code in (ExitCode.USAGE, ExitCode.SETUP) and not self._state.rows:
            raise error_of(code, result.first_error or "the run could not be started")
        return _measured(job, begin, **_told(result, run_folder(ran.home, config.scenario, config.mode, result.audit)))


def _measured(job: Job, begin: float, **told: Any) -> Measured:
    """What a job came to; ``begin`` is when it was begun, by ``time.monotonic``."""
    return Measured(
        key=job.key,
        phase=job.phase,
        settings=dict(job.point.settings),
        time_s=job.time_s,
        qps=job.qps,
        took_s=time.monotonic() - begin,
        **told,
    )


_AS_TOLD = {
    *("invalid_reasons", "metric", "samples_per_second", "queries", "latency_ns", "stages_ns", "cost_ns"),
    *("batch_sizes", "cpu_seconds_per_sample", "started"),
}
"""What a run has from its result as it stands there."""


def _told(result: Result, directory: Path) -> dict[str, Any]:
    """What the result of a run says of it, and LoadGen's log."""
    try:
        detail = read_detail(directory)
    except ValueError:
        detail = Detail({}, ())
    late = detail.number("result_overlatency_query_count")
    calibration = result.calibration or {}
    return result.model_dump(include=_AS_TOLD) | {
        "valid": bool(result.valid),
        "failed": result.failed,
        "late": None if late is None else int(late),
        "bound_ns": detail.number("effective_target_latency_ns") if result.scenario == "Server" else None,
        "idle_query_ns": calibration.get("idle_query_ns"),
        "batch_ns": {str(size): took for size, took in calibration.get("batch_ns", {}).items()},
        "agreement_line": next(iter(agreement_lines([result])), None),
        "used": used(result),
    }


def line_of(row: Measured) -> str:
    """A run in one line.

    >>> line_of(Measured("", "", {"lanes": 2}, False, True, ["no luck"], 2.0))
    'lanes=2: FAILED: no luck'
    """
    at = "" if row.qps is None else f" at {row.qps:g} queries/s"
    reason = row.invalid_reasons[0] if row.invalid_reasons else ""
    if row.failed:
        return f"{row.point.label}{at}: FAILED: {reason}"
    if row.bound_ns is not None and (row.p99_ns or 0) > row.bound_ns:
        reason = f"over {row.bound_ns / 1e6:.4g} ms"
    verdict = "VALID" if row.valid else f"INVALID: {reason}"
    return f"{row.point.label}{at}: {figure_words(row)}, {verdict}"


def figure_words(row: Measured) -> str:
    """What a run is ranked by, with its unit."""
    if row.qps is not None or row.metric is None or row.metric["value"] is None:
        return "-" if row.p99_ns is None else f"p99 {short(row.p99_ns / 1e6)} ms"
    metric = Metric(**row.metric)
    value = row.metric["value"]
    return f"{short(value)} samples/s" if metric.percentile is None else f"{metric.percentile} {short(value / 1e6)} ms"
