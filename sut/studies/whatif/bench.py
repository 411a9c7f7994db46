"""Makes the runs of what is asked: each a run of the product in its world, and its figure at the speed of our clock."""

from __future__ import annotations

from pathlib import Path

from sut.config import RunConfig
from sut.errors import ExitCode, InputError, RunError, error_of
from sut.mlperf.logs import Detail, read_detail
from sut.pipeline.deadline import service_times
from sut.pipeline.slowdown import NOT_STRETCHED
from sut.results.schema import Result, used
from sut.run.auto import fixed
from sut.run.energy.metering import AtRest
from sut.run.folders import run_folder
from sut.run.planning import EARLY_STOPPING_QUERIES
from sut.run.reporter import Reporter
from sut.run.runner import check_same_model, run_experiment
from sut.studies.simulation import highest_rate
from sut.studies.whatif.rate import Asked, Search
from sut.studies.whatif.worlds import World

PERCENTILES = {"SingleStream": "p90", "MultiStream": "p99", "Server": "p99"}
"""What of the latencies is compared: as it was seen, as LoadGen's estimates from few queries are those of the slowest.
"""
_LOOK_S = 1.0
_SIGMA = 0.05
"""How much the time of a batch varies, for where the search for Server's rate begins."""


class Bench:
    """Runs worlds of ``base``, whose ``time_s`` is set, after a ``look`` at what it is like."""

    def __init__(self, base: RunConfig, directory: Path, console: Reporter) -> None:
        self.base = base.model_copy(update={"output": directory / "runs", "overwrite": True})
        self.results: list[Result] = []
        """Of the world as it is, round by round."""
        self.bound_ns: float | None = None
        self.stages: list[str] = []
        """Those that can be stretched."""
        self._console = console
        self.runs = 0
        """How many were made."""
        self._searches = {World(): Search()}
        self._start = 0.0
        self._first: Result | None = None
        self._rest = AtRest()

    @property
    def finds_rate(self) -> bool:
        """Whether the figure is Server's highest rate; else the rate is given, and it is a latency."""
        return self.base.scenario == "Server" and self.base.qps is None

    @property
    def higher_is_better(self) -> bool:
        """Whether the figure is a rate."""
        return self.finds_rate or self.base.scenario == "Offline"

    def look(self) -> Result:
        """A run that counts for nothing, after which all do the same: with the lanes, threads and batch it chose.

        Server is asked faster than it can be: what it measures before it runs is what is wanted. Raises ``InputError``
        where no rate can be in time.
        """
        qps = EARLY_STOPPING_QUERIES["Server"] / _LOOK_S if self.finds_rate else self.base.qps
        result, detail = self._run(self.base.model_copy(update={"qps": qps}))
        self.stages = [stage for stage in result.cost_ns if stage not in NOT_STRETCHED]
        self.base = self.base.model_copy(update=fixed(used(result), self.base.scenario))
        if self.base.scenario == "Server":
            # Of the world as it is: else it would be MLPerf's in all of them, or each run's own.
            self.bound_ns = detail.number("effective_target_latency_ns")
            self.base = self.base.model_copy(update={"max_latency_s": (self.bound_ns or 0.0) / 1e9 or None})
        if self.finds_rate:
            self._start = self._expected(result)
        return result

    def _expected(self, result: Result) -> float:
        """About the rate at the bound, by the times of batches. Raises ``InputError`` where there is none."""
        calibration = result.calibration or {}
        batch_ns = {int(size): took for size, took in calibration.get("batch_ns", {}).items()}
        idle_ns = calibration.get("idle_query_ns")
        if not self.bound_ns or not batch_ns:
            raise RunError("the run tells no latency bound and no times of its batches: there is no rate to find")
        if idle_ns and idle_ns > self.bound_ns:
            raise InputError(
                f"one picture takes {idle_ns / 1e6:.3g} ms, longer than Server's latency bound of "
                f"{self.bound_ns / 1e6:.3g} ms: no rate is in time; relax it (--max-latency), or ask another --scenario"
            )
        service_ns = service_times(batch_ns, range(1, max(batch_ns) + 1))
        lanes, by_deadline = used(result).get("lanes", 1), self.base.batching == "deadline"
        bound_ns = int(self.bound_ns)
        found = highest_rate(service_ns, bound_ns, lanes, by_deadline=by_deadline, sigma=_SIGMA, queries=5_000)
        return found or 0.5e9 / service_ns[0]

    def figure(self, world: World) -> float | None:
        """A world's figure, at the speed of our clock: a rate, or a latency in ns; None where a run has none.

        Server's rate is searched for the first time; then there is one run, near it.
        """
        if not self.finds_rate:
            result, _ = self._run(world.config(self.base, self.stages))
            return self._note(world, result)
        as_it_is = self._searches[World()]
        search = self._searches.setdefault(world, Search(as_it_is.power))
        rate = search.next_rate if search.asked else self._first_rate(world)
        search.asked.append(self._ask(world, rate))
        while not search.is_settled:
            search.asked.append(self._ask(world, search.next_rate))
        return search.at_bound(search.asked[-1])

    def _first_rate(self, world: World) -> float:
        if world == World():
            return self._start
        return self._searches[World()].rate * world.amdahl(self.results[-1].cost_ns)

    def _ask(self, world: World, rate: float) -> Asked:
        at_rate = self.base.model_copy(update={"qps": rate})
        result, detail = self._run(world.config(at_rate, self.stages))
        self._note(world, result)
        late, queries = detail.number("result_overlatency_query_count"), result.queries
        if late is None or not queries:
            return Asked(rate, 1, 1)  # stopped as hopeless
        return Asked(rate, int(late), queries)

    def _note(self, world: World, result: Result) -> float | None:
        if world == World():
            self.results.append(result)
        if result.scenario == "Offline":
            rate = result.samples_per_second
            return None if rate is None else rate * world.stretch
        latency = result.latency_ns.get(PERCENTILES[result.scenario])
        return None if latency is None else latency / world.stretch

    def _run(self, config: RunConfig) -> tuple[Result, Detail]:
        """Make a run. Raises ``SutError`` for one that fails, and ``KeyboardInterrupt``."""
        self.runs += 1
        ran = run_experiment([config], self._console, "sut whatif", rest=self._rest)
        result, code = ran.results[0], ran.code
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        if code not in (ExitCode.OK, ExitCode.INVALID):
            raise error_of(code, result.first_error or "; ".join(result.invalid_reasons) or "the run failed")
        self._first = self._first or result
        check_same_model([self._first, result])
        folder = run_folder(ran.home, config.scenario, config.mode, result.audit)
        try:
            return result, read_detail(folder)
        except ValueError:
            return result, Detail({}, ())
