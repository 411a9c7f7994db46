"""The runs of a rehearsal: all that MLPerf asks for, each for some seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sut.config import RunConfig
from sut.errors import ExitCode, worst
from sut.mlperf import official
from sut.mlperf.official import Benchmark
from sut.pipeline.identify.settings import check_one_model
from sut.run.energy.metering import AtRest
from sut.run.planning import OVERHEAD_S
from sut.run.reporter import Reporter
from sut.run.runner import run_experiment
from sut.studies.audits import Audited, audit
from sut.studies.submission.about import About
from sut.studies.submission.runs import benchmark_asked, roles_of, scenarios_of
from sut.text import duration

TIME_S = 10.0
"""Of each run: MultiStream's p99 of a shorter one moves by 20 %, and audits compare it."""
_COMMAND = "sut submit --rehearse"
_ONCE_MORE = "not all is VALID, as may be with short runs on a busy machine: those that are not are run once more"


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """Where the runs lie, what the audits came to, and the worst exit code: OK where all is there."""

    home: Path
    audits: Sequence[Audited]
    code: ExitCode


def about_rehearsal(division: str) -> About:
    """What is told of a system that nobody has described."""
    return About.model_validate({"submitter": "Rehearsal", "division": division, "system": "this_machine"})


def scenarios_to_run(about: About, benchmark: Benchmark) -> tuple[str, ...]:
    """Those that are not inferred; in the open division all of the edge's where none is named."""
    return tuple(each for each in scenarios_of(about, benchmark) or official.EDGE if each not in about.inferred)


def run_rehearsal(configs: Sequence[RunConfig], about: About, console: Reporter) -> Rehearsed:
    """Run each scenario's performance and accuracy, and in the closed division the audits, where that was not done.

    ``configs`` differ in the scenario only. Where the exit code is not OK, some are missing, and the same call goes on
    behind those that are there. Raises ``InputError`` for two models.
    """
    check_one_model(configs[0], "MLPerf's benchmarks have")
    time_s = configs[0].time_s or TIME_S
    timed = [config.model_copy(update={"mode": "performance", "time_s": time_s}) for config in configs]
    scored = [config.model_copy(update={"mode": "accuracy"}) for config in timed]
    roles = roles_of(about, benchmark_asked(configs[0]))
    count = len(roles) * len(configs)
    least_s = count * OVERHEAD_S + (count - len(configs)) * time_s
    console.note(f"a rehearsal of {count} LoadGen runs: {duration(least_s)}, longer where a model is slow")
    rest = AtRest()
    ran = run_experiment([*timed, *scored], console, _COMMAND, keeps=True, unofficial=True, rest=rest)
    if ran.code == ExitCode.INVALID:
        console.note(_ONCE_MORE)
        again = [config.model_copy(update={"overwrite": False}) for config in (*timed, *scored)]
        ran = run_experiment(again, console, _COMMAND, keeps=True, unofficial=True, rest=rest)
    if ran.code != ExitCode.OK or not about.is_closed:
        return Rehearsed(ran.home, (), ran.code)
    scenarios = [config.scenario for config in configs]
    audit_all = partial(audit, ran.home, console, _COMMAND, scenarios=scenarios, rehearse=True, keeps=True, rest=rest)
    audited = audit_all(overwrite=configs[0].overwrite)
    if audited.code == ExitCode.INVALID:
        console.note(_ONCE_MORE)
        audited = audit_all()
    return Rehearsed(ran.home, audited.rows, worst([ran.code, audited.code]))
