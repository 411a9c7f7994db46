"""Runs scenarios one after another: prepare, supervise, write the result, go on."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sut.config import RunConfig
from sut.errors import ExitCode, InputError, RunError, one_line, worst
from sut.mlperf.audit import Audit, read_audit, remove_stale
from sut.mlperf.reference_results import REFERENCE_FILE
from sut.mlperf.userconf import read_conf
from sut.models.content import check_model
from sut.models.files import check_names
from sut.models.own import check_fit
from sut.pipeline.assembly import Assembly
from sut.process.signals import Noted, noted
from sut.results.energy import POWER_LOG
from sut.results.schema import FILE, PAGE, Agreement, Result, dump_json, reference_results
from sut.results.trace import check_writable, trace_file
from sut.run.closed import make
from sut.run.compared import compared_with_fp32, why_not_compared
from sut.run.energy.metering import AtRest, Idle, Metering
from sut.run.energy.power_log import check_power_log
from sut.run.folders import fresh, locked, reserve, result_home, run_folder, write_files
from sut.run.gpu_watch import Watch
from sut.run.kept import staying
from sut.run.outcome import lost_result, make_result
from sut.run.planning import forecast
from sut.run.reporter import Reporter
from sut.run.supervisor import Outcome, supervise
from sut.run.tried import keep_run

if TYPE_CHECKING:
    from sut.results.page.tables import Decision

_NO_MORE = frozenset({ExitCode.INTERRUPTED, ExitCode.USAGE, ExitCode.SETUP})
"""After one of these the rest is not run: the user has had enough, or it would end the same way."""


@dataclass(slots=True)
class Ran:
    """Results of some runs, in the order in which they ran, with what each means for the exit code."""

    results: list[Result] = field(default_factory=list)
    codes: list[ExitCode] = field(default_factory=list)
    home: Path = Path()

    def add(self, result: Result, code: ExitCode) -> None:
        """One more run."""
        self.results.append(result)
        self.codes.append(code)

    @property
    def code(self) -> ExitCode:
        """The worst of the exit codes."""
        return worst(self.codes)

    @property
    def stopped(self) -> bool:
        """Whether a run ended in a way that makes the following ones pointless."""
        return bool(_NO_MORE & set(self.codes))


def run_all(configs: Sequence[RunConfig], console: Reporter, command: str, model_sha256: str | None = None) -> ExitCode:
    """Run each config (they differ in scenario and mode only), show a table. Returns the worst exit code.

    ``model_sha256`` is that of a run that is repeated: that the model is another now is a note.
    """
    ran = run_experiment(configs, console, command, model_sha256, keeps=True)
    if not {ExitCode.USAGE, ExitCode.SETUP} & set(ran.codes):
        console.summary(ran.results, ran.home)
        shown = [result for result in ran.results if result.mode != "find_peak"]
        leave_page(
            ran.home,
            {run_folder(ran.home, each.scenario, each.mode, each.audit) / FILE: each for each in shown},
            console,
        )
    refused = any(note.startswith(POWER_LOG) for result in ran.results for note in result.notes)
    return worst([ran.code, ExitCode.USAGE]) if refused else ran.code


def _with_traces(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Each run with a trace of its own, if any. Raises ``InputError`` for a file that cannot be written."""
    found = []
    for config in configs:
        path = config.trace and trace_file(config.trace, config.scenario, config.mode, len(configs) > 1)
        if path is not None:
            check_writable(path)
        found.append(config.model_copy(update={"trace": path}))
    return found


def leave_page(
    folder: Path, results: Mapping[Path, Result], console: Reporter, read: Callable[[], Sequence[Decision]] = tuple
) -> None:
    """Write the page of results by their files, and of what ``read`` reads; without one the runs are what they are."""
    page = folder / PAGE
    if not any(result.samples for result in results.values()):
        return
    try:
        from sut.results.collected import Found
        from sut.results.page.page import write_page

        write_page(page, [Found(path, result) for path, result in results.items()], read())
    except Exception as error:  # whatever it is: the runs are done, and count
        console.note(f"{page}: no page was written: {one_line(error)}")
    else:
        console.page(page)


def run_each(configs: Sequence[RunConfig], console: Reporter, command: str, rest: AtRest) -> Ran:
    """Run configs that differ in anything but the model, each an experiment of its own.

    Raises ``RunError`` where the model changed between two of them.
    """
    ran = Ran()
    for config in configs:
        one = run_experiment([config], console, command, rest=rest)
        ran.results += one.results
        ran.codes += one.codes
        if one.stopped:
            break
        check_same_model(ran.results)
    return ran


def check_same_model(results: Sequence[Result]) -> None:
    """Raise ``RunError`` where results that are to be compared are not of one model, or one version of it."""
    seconds = [each.identified.model_sha256 for each in results if each.identified and each.identified.model_sha256]
    for which, of_runs in (("model", [each.model_sha256 for each in results]), ("second model", seconds)):
        found = list(dict.fromkeys(of_runs))
        if len(found) > 1:
            raise RunError(
                f"the {which} changed during the runs: it has SHA-256 {found[1]}, expected {found[0]}; "
                "run all of it again"
            )


def run_experiment(
    configs: Sequence[RunConfig],
    console: Reporter,
    command: str,
    model_sha256: str | None = None,
    keeps: bool = False,
    unofficial: bool = False,
    rest: AtRest | None = None,
) -> Ran:
    """Run each config; they differ in scenario and mode only, and share a directory.

    One that ``keeps`` runs by ``--rules`` that are finished leaves them as they are, and ``unofficial`` ones
    where these will do. A command of more than one experiment gives them one ``rest``. Raises ``InputError`` or
    ``SetupError`` before anything was run.
    """
    configs = _with_traces(configs)
    first = configs[0]
    audits = _check_files(configs, console)
    parts = _checked_parts(configs, audits, console)
    home = result_home(first, parts.spec)
    folders = [
        run_folder(home, config.scenario, config.mode, audit) for config, audit in zip(configs, audits, strict=True)
    ]
    stay = staying(configs, audits, folders, parts, console.note, unofficial) if keeps else {}
    left = [config for at, config in enumerate(configs) if at not in stay]
    if length := forecast(left, parts.spec.loadgen_model):
        console.note(length)
    idle = _idle(left, parts, rest or AtRest(), console)
    agreement = _agreement(parts, console) if left else None
    parts = _with_notes(parts, model_sha256)
    ran = Ran(home=home)
    with locked(home), noted() as ending:
        for path in remove_stale(home):
            console.note(f"{path}: removed; a sut audit that was killed had left this audit.config")
        console.header(parts, home)
        for at, config in enumerate(configs):
            if at in stay:
                if config.trace is not None:
                    console.note(f"trace: {config.trace} was not written: the run was kept")
                ran.add(stay[at], ExitCode.OK)
                continue
            directory = fresh(folders[at], first.overwrite)
            these = replace(parts, config=config)
            result, code = _run_one(these, agreement, idle, directory, console, command, ending)
            ran.add(result, code)
            if ending.came and code != ExitCode.INTERRUPTED:  # it came too late for this run
                console.error("interrupted")
                ran.codes.append(ExitCode.INTERRUPTED)
            if ran.stopped:
                break
    return ran


def _checked_parts(configs: Sequence[RunConfig], audits: Sequence[Audit | None], console: Reporter) -> Assembly:
    """The parts of the runs, of which data set, model and tensors do. Raises ``InputError`` or ``SetupError``."""
    first = configs[0]
    with console.working("preparing the model") as progress:
        parts = make(configs, audits, console, progress)
    if parts.dataset.truth is None and any(config.mode == "accuracy" for config in configs):
        raise InputError(
            f"data set {parts.dataset.name} ({parts.dataset.root}) has no labels and no boxes, so there is no "
            "accuracy; leave out --accuracy or use a data set with a val_map.txt, or with annotations"
        )
    if store := parts.tensor_store():
        store.close()  # it is there and can be used; the runs open it again
    if parts.model is not None:
        info = check_model(parts.model.onnx).only(first.outputs)
        check_names("--inputs", first.inputs or (), info.inputs)
        check_fit(parts.spec, info)
    return parts


def _check_files(configs: Sequence[RunConfig], console: Reporter) -> list[Audit | None]:
    """The audit that each run is. Raises ``InputError`` for files that LoadGen or this system could not read."""
    first = configs[0]
    if first.user_conf is not None:
        read_conf(first.user_conf)
    if first.power_log is not None:
        check_power_log(first.power_log)
    if first.mlperf_conf is not None:
        read_conf(first.mlperf_conf, "rules")
    audits = [audit_of(config) for config in configs]
    if first.audit_conf is None and Path("audit.config").exists():
        console.note("audit.config in the current directory is not obeyed; --audit_conf names one that shall be")
    return audits


def _idle(configs: Sequence[RunConfig], parts: Assembly, rest: AtRest, console: Reporter) -> Idle:
    """What the machine draws at rest, before this process makes it warm; nothing where no run is told its energy."""
    if all(config.mode != "performance" for config in configs):
        return Idle({})
    return rest.idle(parts.gpus, configs[0].power_log, console.note)


def _with_notes(parts: Assembly, model_sha256: str | None) -> Assembly:
    """The parts with what is said of their model, if any: ``model_sha256`` is that of a run that is repeated."""
    if parts.model is None:
        return parts
    notes = [why_not_compared(parts), _another_model(parts.model.sha256, model_sha256)]
    told = tuple(note for note in notes if note)
    return replace(parts, model=replace(parts.model, notes=(*parts.model.notes, *told)))


def _another_model(now: str | None, then: str | None) -> str | None:
    if then is None or now == then:
        return None
    return f"the run that is repeated had another model: it has SHA-256 {now}, that one had {then}"


def _agreement(parts: Assembly, console: Reporter) -> Agreement | None:
    with console.working("comparing labels") as progress:
        found = compared_with_fp32(parts, console.note, progress)
    return None if found is None else Agreement.model_validate(found, from_attributes=True)


def audit_of(config: RunConfig) -> Audit | None:
    """The audit that a run is. Raises what ``read_audit`` does."""
    return read_audit(config.audit_conf, config.scenario, config.mode) if config.audit_conf else None


def _run_one(
    parts: Assembly,
    agreement: Agreement | None,
    idle: Idle,
    directory: Path,
    console: Reporter,
    command: str,
    ending: Noted,
) -> tuple[Result, ExitCode]:
    """One run, whose result is written whatever happens in it, or in here."""
    config, begin = parts.config, time.monotonic()
    outcome = Outcome(time.time())
    try:
        reserve(directory)
        watch = Watch(parts.gpus, lambda: outcome.phase == "run")
        with console.watching(config) as observer, watch, _metering(parts, idle) as outcome.metering:
            supervise(config, parts.model, directory, observer, outcome, ending)
        outcome.gpus, noticed = watch.found()
        outcome.notes += noticed
        result = _judged(parts, agreement, directory, outcome, ending)
        reference = dump_json(reference_results(result, command, time.monotonic() - begin))
        texts = {FILE: result.to_json(), REFERENCE_FILE: reference}
    except BaseException as error:  # signals are noted: whatever this is, it is a fault
        outcome.code = ExitCode.FAILED
        outcome.traceback = traceback.format_exc()
        result = lost_result(parts, outcome, error)
        texts = {FILE: result.to_json()}
    write_files(texts, directory, config)
    if outcome.plan is not None:
        keep_run(outcome.plan.settled.key, result)
    code = _code(result, outcome)
    console.result(result, directory, code, outcome.traceback if config.debug else None)
    return result, code


def _metering(parts: Assembly, idle: Idle) -> AbstractContextManager[Metering | None]:
    """What reads the meters of a performance run."""
    config = parts.config
    return Metering(idle, parts.gpus, config.power_log) if config.mode == "performance" else nullcontext()


def _judged(parts: Assembly, agreement: Agreement | None, directory: Path, outcome: Outcome, ending: Noted) -> Result:
    if not outcome.interrupted:
        try:
            with ending.raising():
                return make_result(parts, agreement, outcome, directory)
        except KeyboardInterrupt:
            outcome.interrupted = True
            outcome.phase = "scoring"
    return make_result(parts, agreement, outcome, directory)  # not scored, so this is short


def _code(result: Result, outcome: Outcome) -> ExitCode:
    if outcome.interrupted:
        return ExitCode.INTERRUPTED
    if outcome.code != ExitCode.OK:
        return outcome.code
    if result.failed:
        return ExitCode.FAILED
    missed = result.accuracy is not None and result.accuracy.met is False
    return ExitCode.INVALID if result.invalid_reasons or missed else ExitCode.OK
