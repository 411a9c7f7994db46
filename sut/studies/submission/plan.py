"""What is still to be typed until a submission is made, in its order, and how long each of it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sut.config import RunConfig, make_config
from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.official import Benchmark
from sut.mlperf.userconf import read_conf
from sut.results.schema import Result
from sut.run.planning import OVERHEAD_S, Room, apply_calibration, make_plan, settings_before
from sut.run.timing import Pace
from sut.studies.submission.about import About
from sut.studies.submission.commands import asked_of, command_of, rehearsal_command, submit_command
from sut.studies.submission.one_run import audit_faults, dataset_of, log_faults, run_faults
from sut.studies.submission.rehearse import TIME_S
from sut.studies.submission.runs import (
    SCENARIOS,
    Run,
    benchmark_asked,
    benchmark_of,
    by_place,
    role_of,
    roles_of,
    scenarios_of,
)

_SETUP = ("model", "backend", "device", "preprocess", "precision", "boundary")
"""Results that have these in common are of one speed."""
_HOME = Path("FOLDER")
"""Where the runs will lie, as they tell when they are done."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to type. ``scenario`` and ``role`` say which run it makes; both None: it makes the submission.

    ``minutes`` is how long it takes, or took, and no less than that where it is only ``at_least``. ``done`` is when it
    was run, None where it is missing; ``why`` says what is missing, or where the minutes are from.
    """

    scenario: str | None
    role: str | None
    command: str
    minutes: float
    at_least: bool
    done: str | None
    why: str


def plan(paths: Sequence[Path], about: About, rehearsal: bool, config: RunConfig | None = None) -> list[Step]:
    """The steps to a submission, those that are done among them.

    What is run is what was run last below ``paths``; where nothing was, it is as ``config`` has it. Raises
    ``InputError`` where there is neither, and for results that cannot be read.
    """
    runs = [Run(each.path.parent, each.result) for found in by_place(paths, about).values() for each in found]
    runs.sort(key=lambda run: run.result.started)
    home = _HOME
    if runs:
        last = runs[-1]
        config, home = make_config(last.result.config), last.folder.parent.parent
        runs = [run for run in runs if _setup(run.result) == _setup(last.result)]
    if config is None:
        where = ", ".join(map(str, paths)) or "no folder"
        raise InputError(
            f"{where}: no result to go on from; expected a folder of runs, or the options of those to make"
        )
    if rehearsal and config.time_s is None:
        config = config.model_copy(update={"time_s": TIME_S})
    asked = asked_of(config, about, rehearsal, home if runs else None)
    if asked.model != config.model:  # whose speed nothing here tells
        runs = []
    planner = _Planner(asked, home, runs, about, rehearsal)
    if all(map(planner.faults, runs)):  # those to come are of other settings, and will lie in a folder of their own
        home = _HOME
        planner = replace(planner, home=home)
    run_before = {run.result.scenario for run in runs} or {config.scenario}
    roles = roles_of(about, planner.benchmark)
    scenarios = scenarios_of(about, planner.benchmark) or [each for each in SCENARIOS if each in run_before]
    needed = [(scenario, role) for scenario in scenarios if scenario not in about.inferred for role in roles]
    steps = [planner.step(*each) for each in needed]
    missing = sum(step.done is None for step in steps)
    why = f"{missing} of {len(steps)} runs are missing" if missing else "all runs are there"
    command = rehearsal_command(planner.config) if rehearsal else submit_command(home)
    return [*steps, Step(None, None, command, 0.0, False, None, why)]


@dataclass(frozen=True, slots=True)
class _Planner:
    """``config`` is what the runs are to be, ``runs`` those of its setup that are there, the oldest first."""

    config: RunConfig
    home: Path
    runs: Sequence[Run]
    about: About
    rehearsal: bool

    @property
    def benchmark(self) -> Benchmark:
        """That of the runs that are there, or of those to come."""
        return benchmark_of(self.runs[-1].result) if self.runs else benchmark_asked(self.config)

    def step(self, scenario: str, role: str) -> Step:
        """The step of one run, which is done where one of those that are there counts."""
        command = command_of(self.config, scenario, role, self.home, self.rehearsal)
        why = "not run yet"
        for run in self.runs:
            if run.name != f"{scenario} {role}":
                continue
            if not (faults := self.faults(run)):
                minutes = (run.result.duration_s or 0.0) / 60
                return Step(scenario, role, command, minutes, False, run.result.started, f"it lies in {run.folder}")
            more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
            why = f"that of {run.result.started} does not count: {faults[0].removeprefix(f'{run.name}, ')}{more}"
        seconds, at_least = self._seconds(scenario, role)
        if at_least and role == "accuracy":
            why += "; how fast it is, no run has told yet"
        return Step(scenario, role, command, (seconds + OVERHEAD_S) / 60, at_least, None, why)

    def faults(self, run: Run) -> list[str]:
        """What keeps a run that is there from counting."""
        found = [*run_faults(run, self.about.division), *log_faults(run)]
        if role_of(run.result) in official.AUDITS:
            others = [each for each in self.runs if each.result.scenario == run.result.scenario]
            found += audit_faults(run, {role_of(each.result) or "": each for each in others})
        return [fault.text for fault in found if not (self.rehearsal and fault.is_relaxed)]

    def _seconds(self, scenario: str, role: str) -> tuple[float, bool]:
        """How long a run takes once it is calibrated, as it would be planned; whether that is only the least."""
        mode = "accuracy" if role == "accuracy" else "performance"
        asked: dict[str, Any] = {"scenario": scenario, "mode": mode}
        files = {name: getattr(self.config, name) for name in ("user_conf", "mlperf_conf")}
        asked |= {name: None for name, path in files.items() if path and not path.is_file()}  # on another machine
        config = self.config.model_copy(update=asked)
        settings, _ = settings_before(config, self.benchmark.conf)
        conf = read_conf(config.user_conf) if config.user_conf else None
        pace = self._pace(scenario)
        if pace is None:
            return (0.0 if mode == "accuracy" else settings.min_duration_ms / 1000), True
        apply_calibration(settings, config, conf, self.benchmark.conf, pace)
        return make_plan(settings, config, pace, self._pictures(), Room(0, None), []).seconds, False

    def _pace(self, scenario: str) -> Pace | None:
        """How fast it goes, by the scenario's last run, else by the fastest of any; None where none tells."""
        best_last = sorted(self.runs, key=lambda run: role_of(run.result) == "performance")
        rates = {run.result.scenario: rate for run in best_last if (rate := run.result.samples_per_second)}
        if not rates:
            return None
        rate = rates.get(scenario) or max(rates.values())
        per_query = official.MULTISTREAM_SAMPLES if scenario == "MultiStream" else 1
        sample_ns = round(1e9 / rate)
        return Pace(0, 0, query_ns=per_query * sample_ns, idle_query_ns=sample_ns, samples_per_second=rate)

    def _pictures(self) -> int:
        if not self.rehearsal or not self.runs:
            return self.benchmark.pictures
        dataset = dataset_of(self.runs[-1].result)
        return self.benchmark.pictures if dataset is None else dataset.count


def _setup(result: Result) -> tuple[object, ...]:
    return tuple(getattr(result, name) for name in _SETUP)
