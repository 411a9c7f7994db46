"""MLPerf's audits of finished runs: run again as TEST01 and TEST04 ask for, and verified."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sut.config import HOW_KEPT, NOT_HASHED, SCENARIOS, RunConfig, make_config
from sut.errors import ExitCode, InputError, one_line, worst, writing
from sut.files import write_text
from sut.mlperf import official
from sut.mlperf.accuracy import SCORE_FILE, read_accuracy_log
from sut.mlperf.audit import audit_configs, remove_stale
from sut.mlperf.finding import Finding
from sut.mlperf.logs import ACCURACY, DETAIL, read_detail
from sut.mlperf.metrics import METRICS
from sut.mlperf.official import Benchmark
from sut.mlperf.userconf import read_conf
from sut.mlperf.verify_audit import AuditRule, Verified, verify_test01, verify_test04
from sut.pipeline.assembly import Assembly, assemble
from sut.results.collected import read_result
from sut.results.schema import FILE, Result
from sut.run.energy.metering import AtRest
from sut.run.folders import result_home
from sut.run.reporter import Reporter
from sut.run.runner import run_experiment
from sut.tasks.base import Score
from sut.tasks.registry import find_task

TESTS = tuple(official.AUDITS)
_NEEDS = {"TEST01": ("performance", "accuracy"), "TEST04": ("performance",)}
"""The finished runs that an audit is held against."""
_MAY_DIFFER = NOT_HASHED | {"time_s"}
"""Between two runs of one configuration; an accuracy run has no time."""


@dataclass(frozen=True, slots=True)
class Audited:
    """One audit of one scenario. ``verified`` is None where its run failed or was interrupted.

    ``sampled``: how many of the answers that TEST01 logged were right, of each picture one.
    """

    scenario: str
    test: str
    code: ExitCode
    verified: Verified | None = None
    sampled: Score | None = None

    def as_json(self) -> dict[str, Any]:
        """The row as ``--json`` prints it."""
        found = self.verified
        return {
            "scenario": self.scenario,
            "test": self.test,
            "passed": self.code == ExitCode.OK,
            "metric": METRICS[self.scenario][0],
            "reference": found and found.reference,
            "audit": found and found.score,
            "ratio": found and found.ratio,
            "answers": found and found.answers and asdict(found.answers),
            "accuracy": self.sampled and asdict(self.sampled),
            "findings": [asdict(each) for each in found.findings] if found else [],
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """All audits that were verified, in their order, and the worst exit code."""

    rows: tuple[Audited, ...]
    code: ExitCode


def audit(
    folder: Path,
    console: Reporter,
    command: str,
    *,
    tests: Sequence[str] | None = None,
    scenarios: Sequence[str] | None = None,
    verify_only: bool = False,
    rehearse: bool = False,
    overwrite: bool = False,
    keeps: bool = False,
    rest: AtRest | None = None,
) -> Outcome:
    """Audit the finished runs in ``folder``, that of a configuration or of one of its scenarios.

    Without ``tests`` all that the model's benchmark has, without ``scenarios`` all that have a VALID performance run.
    ``verify_only`` judges audits that were run before; ``rehearse`` fails none for its score; ``keeps`` leaves audits
    that are finished, official or ``rehearse``d, as they are. Raises ``InputError`` for an audit that the benchmark has
    not, where runs are missing or are of several models, and where their configuration would not lie in ``folder``
    today.
    """
    home, wanted = _place(folder.resolve(), scenarios)
    for path in remove_stale(home):
        console.note(f"{path}: removed; a sut audit that was killed had left this audit.config")
    benchmark = _benchmark(home)
    tests = benchmark.audits if tests is None else tests
    if others := [test for test in tests if test not in benchmark.audits]:
        raise InputError(f"MLPerf's {benchmark.name} has no {others[0]}; leave it out: {', '.join(benchmark.audits)}")
    runs = _finished(home, wanted, tests, verify_only, console)
    configs = {scenario: _config(home, of["performance"], overwrite) for scenario, of in runs.items()}
    parts = assemble(next(iter(configs.values())), console.note)
    codes: list[ExitCode] = []
    jobs = [(scenario, test) for scenario in runs for test in tests]
    if not verify_only:
        _check_place(home, configs, parts)
        _check_logs(home, runs)
        _warn_of_rates(configs, parts, console)
        with audit_configs(home, tests, benchmark) as paths:
            audits = [configs[scenario].model_copy(update={"audit_conf": paths[test]}) for scenario, test in jobs]
            model = next(iter(runs.values()))["performance"].model_sha256
            codes = run_experiment(audits, console, command, model, keeps, rehearse, rest=rest).codes
    rows = [
        _verify(home / scenario, test, parts, runs[scenario], rehearse, code)
        for (scenario, test), code in zip(jobs, codes or [ExitCode.OK] * len(jobs), strict=False)
    ]
    ended = [code for code in codes if code != ExitCode.INVALID]  # why a run does not count is a finding
    return Outcome(tuple(rows), worst([*ended, *(row.code for row in rows)]))


def _benchmark(home: Path) -> Benchmark:
    """That of the runs, by the first result that can be read; what is wrong with another is told of it."""
    for scenario in SCENARIOS:
        with suppress(ValueError):
            result = read_result(home / scenario / "performance" / FILE)
            return official.benchmark_of(result.model, result.loadgen_model)
    return official.BENCHMARKS[official.MODEL]


def _check_logs(home: Path, runs: Mapping[str, Mapping[str, Result]]) -> None:
    """Raise ``InputError`` where what the audits are to be held against cannot be read, before they are run."""
    for folder in (home / scenario / mode for scenario, of in runs.items() for mode in of):
        try:
            if not read_detail(folder).complete:
                raise ValueError(f"{folder / DETAIL}: it is cut off")
            if folder.name == "accuracy":
                read_accuracy_log(folder / ACCURACY)
        except ValueError as error:
            raise InputError(f"{one_line(error)}; make that run again") from error


def _place(folder: Path, scenarios: Sequence[str] | None) -> tuple[Path, Sequence[str] | None]:
    """The folder of the configuration, and the scenarios that are asked for, None for all there are."""
    home = folder.parent if folder.name in SCENARIOS else folder
    if home != folder:
        if scenarios and tuple(scenarios) != (folder.name,):
            raise InputError(f"{folder} is of {folder.name}, --scenario names {','.join(scenarios)}; leave it out")
        scenarios = (folder.name,)
    if not home.is_dir():
        raise InputError(f"{home}: no folder; name OUTPUT/MODEL/CONFIGURATION, where sut run has left its results")
    return home, scenarios


def _finished(
    home: Path, wanted: Sequence[str] | None, tests: Sequence[str], verify_only: bool, console: Reporter
) -> dict[str, dict[str, Result]]:
    """The results of the runs that the audits are held against, by scenario and mode.

    Raises ``InputError`` that names all that is missing, and how it is made.
    """
    modes = list(dict.fromkeys(mode for test in tests for mode in _NEEDS[test]))
    found: dict[str, dict[str, Result]] = {}
    missing: list[str] = []
    for scenario in wanted or _there(home, console):
        runs, before = found.setdefault(scenario, {}), len(missing)
        for mode in modes:
            try:
                runs[mode] = _sound(home / scenario / mode)
            except ValueError as error:
                missing.append(f"{scenario}/{mode}: {one_line(error)}")
        if verify_only:
            absent = [test for test in tests if not (home / scenario / test / FILE).exists()]
            missing += [f"{scenario}/{test}: no finished run; leave --verify-only out" for test in absent]
        if len(missing) == before:
            missing += _different(scenario, runs)
    if missing:
        raise InputError(f"{home}: {'; '.join(missing)}{_remedy(home, found)}")
    if not found:
        raise InputError(f"{home}: no VALID performance run in it; name the folder that sut run has told")
    return found


def _there(home: Path, console: Reporter) -> Iterator[str]:
    """The scenarios with a performance run that counts; why another's does not is told."""
    for scenario in SCENARIOS:
        folder = home / scenario / "performance"
        if (folder / FILE).exists():
            try:
                _sound(folder)
            except ValueError as error:
                console.note(f"{scenario} is left out: {one_line(error)}")
            else:
                yield scenario


def _sound(folder: Path) -> Result:
    """The result of a run that counts. Raises ``ValueError`` with the reason where it is none."""
    if not (folder / FILE).exists():
        raise ValueError("no finished run")
    result = read_result(folder / FILE)
    if result.audit is not None:
        raise ValueError("the run obeyed an audit.config itself")
    if result.valid is False:
        raise ValueError(f"the run does not count: {'; '.join(result.invalid_reasons)}")
    return result


def _remedy(home: Path, found: Mapping[str, Mapping[str, Result]]) -> str:
    """How accuracy runs that are missing are made out of the performance runs beside them."""
    lacking = [scenario for scenario, runs in found.items() if "performance" in runs and "accuracy" not in runs]
    if not lacking:
        return ""
    words = ["--from", str(home / lacking[0] / "performance" / FILE), "--accuracy", "--output", str(home.parent.parent)]
    return f"; an accuracy run is made by ./run_local.sh run {shlex.join(words)}"


def _different(scenario: str, runs: Mapping[str, Result]) -> Iterator[str]:
    """What tells runs that are to be of one model and configuration apart."""
    first = runs["performance"]
    for mode, result in runs.items():
        told = {"model_sha256": (result.model_sha256, first.model_sha256)}
        told |= {name: (result.config.get(name), first.config[name]) for name in first.config.keys() - _MAY_DIFFER}
        for name, (got, expected) in sorted(told.items()):
            if got != expected:
                yield f"{scenario}/{mode}: {name} is {got}, in the performance run {expected}"


def _config(home: Path, performance: Result, overwrite: bool) -> RunConfig:
    """The performance run's configuration, with results where that one's lie. Raises ``InputError``."""
    kept = {"output": home.parent.parent, "overwrite": overwrite}
    asked = {name: value for name, value in performance.config.items() if name not in HOW_KEPT - {"mode"}}
    try:
        return make_config({**asked, **kept})
    except InputError as error:
        file = home / performance.scenario / performance.mode / FILE
        raise InputError(f"{file}: its config cannot be run by this version: {one_line(error)}") from error


def _check_place(home: Path, configs: Mapping[str, RunConfig], parts: Assembly) -> None:
    """Raise ``InputError`` where the runs' configuration has another folder today: it would be another run."""
    for scenario, config in configs.items():
        if (today := result_home(config, parts.spec)) != home:
            raise InputError(
                f"{home}: {scenario}'s performance run would lie in {today} now: its folder was moved, or the recipe "
                "or this version is another; make the runs anew"
            )


def _warn_of_rates(configs: Mapping[str, RunConfig], parts: Assembly, console: Reporter) -> None:
    """Server's score is the rate that it is asked, which every run calibrates where nothing fixes it."""
    config = configs.get("Server")
    if config is None or config.qps is not None:
        return
    if config.user_conf is None or not read_conf(config.user_conf).sets(
        parts.spec.loadgen_model, "Server", "target_qps"
    ):
        console.note("Server's rate is not fixed, so that each run calibrates one: scores may differ by that; --qps")


def _verify(
    folder: Path, test: str, parts: Assembly, runs: Mapping[str, Result], rehearse: bool, code: ExitCode
) -> Audited:
    """Verify one audit and write its files beside its logs."""
    scenario, place = folder.name, folder / test
    benchmark = official.benchmark_of(parts.spec.name, parts.spec.loadgen_model)
    if code not in (ExitCode.OK, ExitCode.INVALID):
        return Audited(scenario, test, code)
    sampled = None
    try:
        found = _unlike(read_result(place / FILE), runs["performance"], f"{test}/{FILE}")
        if test == "TEST01":
            verified = verify_test01(folder / "performance", folder / "accuracy", place, benchmark)
            sampled = _score(place, parts) if verified.answers else None
        else:
            verified = verify_test04(folder / "performance", place)
    except ValueError as error:
        raise InputError(f"{place}: {one_line(error)}") from error
    verified = replace(verified, findings=(*found, *verified.findings))
    texts = verified.files() | ({SCORE_FILE: sampled.text + "\n"} if sampled else {})
    with writing(place):
        for name, text in texts.items():
            write_text(place / name, text)
    code = ExitCode.OK if verified.passed(rehearse) else ExitCode.INVALID
    return Audited(scenario, test, code, verified, sampled)


def _unlike(audit: Result, performance: Result, file: str) -> Iterator[Finding]:
    """What result.json knows beyond the logs: that the run counts, and of which model it is."""
    if audit.valid is not True:
        yield Finding(AuditRule.VALID, file, "valid", "; ".join(audit.invalid_reasons) or str(audit.valid), "true")
    if audit.model_sha256 != performance.model_sha256:
        expected = f"{performance.model_sha256}, as the performance run"
        yield Finding(AuditRule.RUN, file, "model_sha256", str(audit.model_sha256), expected)


def _score(place: Path, parts: Assembly) -> Score | None:
    """How many of the logged answers are right, of each picture one; None where they cannot be scored."""
    truth = parts.dataset.truth
    if truth is None:
        return None
    with suppress(ValueError):  # what is wrong with them is a finding
        return find_task(parts.spec.task).score(read_accuracy_log(place / ACCURACY).answers, truth, whole=False)
    return None
