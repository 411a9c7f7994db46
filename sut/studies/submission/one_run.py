"""What keeps one run from being a submission's: its verdict, MLPerf's rules, its logs, its score, its audit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import cast, get_args

from plugins.files import LARGE_BYTES, SMALL_BYTES, read_file
from sut.config import make_config
from sut.datasets.base import DataSet
from sut.datasets.registry import open_dataset
from sut.errors import InputError, SetupError, one_line, reason_of
from sut.mlperf import official
from sut.mlperf.accuracy import SCORE_FILE, is_truncated, read_accuracy_log, score_line
from sut.mlperf.check_log import LogRule
from sut.mlperf.finding import Finding as LogFinding
from sut.mlperf.finding import Severity
from sut.mlperf.judge_log import judge_log
from sut.mlperf.logs import ACCURACY, DETAIL, OFFICIAL_SEEDS, SUMMARY, read_detail
from sut.mlperf.rules import broken_rules
from sut.mlperf.short import AUDIT, QUOTA, rule_name
from sut.mlperf.verify_audit import AuditRule, Verified, verify_test01, verify_test04
from sut.models.identity import Known
from sut.models.preparation import Prepared
from sut.models.registry import MODELS
from sut.process.clock import is_step
from sut.results.schema import FILE, Accuracy, Result
from sut.studies.proof.finding import told
from sut.studies.proof.result import judge
from sut.studies.submission import fault
from sut.studies.submission.fault import Fault
from sut.studies.submission.runs import ROLES, Run, benchmark_of, role_of
from sut.tasks.registry import find_task
from sut.text import printable

_HASH = re.compile(r"^hash=([0-9a-f]{64})$", re.MULTILINE)
_SHOWN = 5
"""Answers of an audit that differ, at the most."""


def run_faults(run: Run, division: str) -> Iterator[Fault]:
    """What is wrong with a run by itself, its logs apart."""
    is_closed = division != "open"
    yield from _verdict(run)
    left_out = _left_out(run)
    yield from _rules(run, left_out, is_closed)
    yield from _name(run, division)
    if is_step(run.result.clock_change_ns):
        changed = f"{(run.result.clock_change_ns or 0) / 1e6:,.4g} ms"
        yield Fault.of(run.name, "clock_change_ns", f"a clock that was set by {changed}", "one that nobody sets")
    if run.result.mode == "accuracy" and run.result.valid is not False:
        yield from _score(run, left_out, is_closed)


def _verdict(run: Run) -> Iterator[Fault]:
    result = run.result
    reasons = printable("; ".join(result.invalid_reasons))
    if result.failed:
        got = f"{result.failed_samples} ({reasons})" if result.failed_samples else printable(str(result.first_error))
        yield Fault.of(run.name, "failed_samples" if result.failed_samples else "first_error", got, "a run without any")
    elif result.valid is False:
        yield Fault.of(run.name, "valid", f"false ({reasons})", "a VALID run")


def _rules(run: Run, left_out: Sequence[str], is_closed: bool) -> Iterator[Fault]:
    """Each rule that it breaks, those that its result has left out among them: somebody has edited that."""
    result = run.result
    passed = {QUOTA, *(() if is_closed else fault.OPEN)} | ({AUDIT} if result.audit else set())
    passed |= fault.UNFINISHED if result.valid is False else set()
    for rule in (*result.rules_broken, *left_out):
        if (name := rule_name(rule)) not in passed:
            hint = " (which result.json leaves out)" if rule in left_out else ""
            yield Fault(f"{run.name}, rules_broken: {printable(rule)}{hint}", name)


def _name(run: Run, division: str) -> Iterator[Fault]:
    """That LoadGen's log is of a system behind a network where the division is that, and of none where it is closed."""
    try:
        name = str(read_detail(run.folder).values.get("sut_name"))
    except ValueError:
        return  # which is told of its logs
    if division == "network" and official.NETWORK_SUT not in name:
        wanted = f"a name with '{official.NETWORK_SUT}' in it: run it against a server, by --backend kserve"
        yield Fault.of(f"{run.name}/{DETAIL}", "sut_name", told(name), wanted)
    elif division == "closed" and official.NETWORK_SUT in name:
        yield Fault.of(
            f"{run.name}/{DETAIL}", "sut_name", told(name), "a system without a network; or division network"
        )


def _left_out(run: Run) -> list[str]:
    """Rules that are broken by config, data set and log, and that the result does not tell.

    Of a data set that is not there any more it is not told whether it was the right one.
    """
    result, dataset = run.result, dataset_of(run.result)
    try:
        config, detail = make_config(result.config), read_detail(run.folder)
    except (InputError, ValueError):  # which is told of its config or its logs
        return []
    if not detail.complete:
        return []
    names = {rule_name(rule) for rule in result.rules_broken} - {None}
    if dataset is None:
        dataset = DataSet("unknown", Path(), ("",) * benchmark_of(result).pictures, None)
        names.add("another list")
    path = Path(next(iter(result.loaded_sha256), result.model))
    weights = cast(Known, result.weights) if result.weights in get_args(Known) else "unknown"
    model = None if result.weights is None else Prepared(path, path, path, sha256=result.model_sha256, weights=weights)
    like = MODELS.get(result.model, MODELS[official.MODEL])
    spec = replace(like, name=result.model, loadgen_model=result.loadgen_model)
    broken = broken_rules(config, spec, model, dataset, detail, result.audit, result.attested)
    return [rule for rule in broken if rule not in result.rules_broken and rule_name(rule) not in names]


def _score(run: Run, left_out: Sequence[str], is_closed: bool) -> Iterator[Fault]:
    """An accuracy run's score: that it is there, of all pictures, reaches the target, and is what the log says."""
    accuracy, benchmark = run.result.accuracy, benchmark_of(run.result)
    if accuracy is None:
        yield Fault.of(run.name, "accuracy", "nothing", "a score")
        return
    told_of = (*run.result.rules_broken, *left_out)
    known = {"few pictures", "more pictures"} & {*map(rule_name, told_of)}
    if accuracy.count != benchmark.pictures and not known:
        yield Fault.of(run.name, "accuracy.count", str(accuracy.count), str(benchmark.pictures), "few pictures")
    if is_closed and accuracy.value < benchmark.target:
        least = f"{100 * benchmark.target:.4f} % or more"
        yield Fault.of(run.name, "accuracy.value", f"{100 * accuracy.value:.3f} %", least, fault.ACCURACY)
    yield from _scored_again(run, accuracy)


def _scored_again(run: Run, accuracy: Accuracy) -> Iterator[Fault]:
    """``accuracy.txt`` and the log against each other, and against what the run said of them."""
    where = f"{run.name}/{SCORE_FILE}"
    right = score_line(accuracy.name, accuracy.value, accuracy.count)
    try:
        text = read_file(run.folder / SCORE_FILE, SMALL_BYTES).decode(errors="replace")
        if text.split("\n", 1)[0] != right:
            yield Fault.of(where, "accuracy", told(text.split("\n", 1)[0]), right)
        raw = read_file(run.folder / ACCURACY, LARGE_BYTES)
    except OSError as error:
        yield Fault.of(f"{run.name}/{Path(error.filename or SCORE_FILE).name}", "content", reason_of(error), "a file")
        return
    if (kept := _HASH.search(text)) and kept[1] != (digest := hashlib.sha256(raw).hexdigest()):
        yield Fault.of(where, "hash", kept[1], f"{digest}, of {ACCURACY} as it lies there: it was altered or cut")
    elif is_truncated(raw):
        yield Fault.of(f"{run.name}/{ACCURACY}", "content", "a log that was truncated", "the whole one, for its hash")
    else:
        yield from _answers(run, accuracy)


def _answers(run: Run, accuracy: Accuracy) -> Iterator[Fault]:
    """What a log that can be read, and is whole, scores."""
    dataset = dataset_of(run.result)
    truth = None if dataset is None else dataset.truth
    try:
        answers = read_accuracy_log(run.folder / ACCURACY).answers
        again = None if truth is None else find_task(benchmark_of(run.result).task).score(answers, truth)
    except ValueError:
        return  # which is told of its logs
    except ModuleNotFoundError as error:
        raise SetupError(one_line(error)) from error
    if again is not None and (again.value, again.count) != (accuracy.value, accuracy.count):
        right = f"{again.value:.6g} of {again.count} ({ACCURACY})"
        yield Fault.of(f"{run.name}/{FILE}", "accuracy.value", f"{accuracy.value:.6g} of {accuracy.count}", right)
    elif again is None and len(answers) != accuracy.count:
        yield Fault.of(f"{run.name}/{FILE}", "accuracy.count", f"{accuracy.count}", f"{len(answers)} ({ACCURACY})")


def dataset_of(result: Result) -> DataSet | None:
    """A run's data set by its list, without its pictures; None where that is not to be had any more."""
    try:
        config = make_config(result.config)
    except InputError:
        return None
    layout = find_task(benchmark_of(result).task).layout
    return _opened(config.dataset, config.dataset_path, config.dataset_list, config.count, layout)


@cache
def _opened(
    name: str | None, path: Path | None, list_file: Path | None, count: int | None, layout: str
) -> DataSet | None:
    """Once in this process: a dozen runs are of one data set, of 50,000 lines."""
    try:
        return open_dataset(name, path, list_file, count, pictures=False, layout=layout)
    except (InputError, SetupError):
        return None


def log_faults(run: Run) -> list[Fault]:
    """What is wrong with LoadGen's logs, and where result.json and they disagree; each field once.

    Of a run that is not VALID anyway only what cannot be believed, and of a log that was cut off only that.
    """
    try:
        for name in (DETAIL, SUMMARY):
            read_file(run.folder / name, LARGE_BYTES)
        judged = _judged(run)
    except OSError as error:
        return [Fault.of(f"{run.name}/{name}", "content", reason_of(error), "LoadGen's log")]
    except ValueError as error:
        got = one_line(error).replace(f"{run.folder}/", "")
        return [Fault.of(f"{run.name}/{DETAIL}", "content", got, "LoadGen's log")]
    found = {
        (each.file, each.field): Fault.of(
            f"{run.name}/{each.file}", each.field, told(each.got), f"{told(each.expected)} ({each.rule})"
        )
        for each in judged
        if each.severity is not Severity.DOUBT and (run.result.valid is not False or each.contradicts)
    }
    if any(each.rule is LogRule.END for each in judged):
        return [] if run.result.valid is False else list(found.values())
    for other in judge(run.folder, run.name, [])[1]:
        file = other.file.removeprefix(f"{run.name}/")
        scored = file == SCORE_FILE or (file == ACCURACY and run.result.mode == "accuracy")
        if not scored and not other.field.startswith(("accuracy.", "rules_broken")):  # which are told elsewhere here
            found.setdefault((file, other.field), Fault(str(other)))
    return list(found.values())


def log_doubts(run: Run) -> list[str]:
    """What is odd about LoadGen's logs, and may count all the same."""
    try:
        doubts = [each for each in _judged(run) if each.severity is Severity.DOUBT]
    except ValueError:
        return []
    return [f"{run.name}: {each}" for each in doubts]


def _judged(run: Run) -> list[LogFinding]:
    result = run.result
    return judge_log(run.folder, [OFFICIAL_SEEDS], Path(result.scenario, role_of(result) or ""))


def audit_faults(run: Run, runs: Mapping[str, Run]) -> Iterator[Fault]:
    """What is wrong with an audit, verified again; ``runs`` are those of its scenario by role.

    It is not verified where its other runs are missing, or logs cannot be read: that is told of those.
    """
    if role_of(run.result) == "TEST01":
        yield from _sampled(run)
    if not set(ROLES[:2]) <= runs.keys():
        return
    performance, accuracy = (runs[role].folder for role in ROLES[:2])
    try:
        if not all(read_detail(folder).complete for folder in (performance, accuracy, run.folder)):
            return
        if role_of(run.result) == "TEST01":
            verified = verify_test01(performance, accuracy, run.folder, benchmark_of(run.result))
        else:
            verified = verify_test04(performance, run.folder)
    except ValueError:
        return
    found = [each for each in verified.findings if each.rule not in (AuditRule.VALID, AuditRule.RUN)]
    found.sort(key=lambda each: each.rule is AuditRule.ANSWER)  # of which there may be thousands
    for each in found[:_SHOWN]:
        relaxed = fault.SCORE if replace(verified, findings=(each,)).passed(rehearsal=True) else None
        where = f"{run.name}/{each.file.removeprefix(f'{run.folder.name}/')}"
        yield Fault.of(where, each.field, told(each.got), f"{told(each.expected)} ({each.rule})", relaxed)
    if len(found) > _SHOWN:
        yield Fault(f"{run.name}: and {len(found) - _SHOWN:,} more of its answers")
    yield from _verify_files(run, verified)


def _sampled(run: Run) -> Iterator[Fault]:
    """That the answers which TEST01 logged, and their score, can be read: a submission has both."""
    try:
        read_accuracy_log(run.folder / ACCURACY)
    except ValueError as error:
        got = one_line(error).replace(f"{run.folder}/", "")
        yield Fault.of(f"{run.name}/{ACCURACY}", "content", got, "the answers that LoadGen logged: run the audit again")
    try:
        read_file(run.folder / SCORE_FILE, SMALL_BYTES)
    except OSError as error:
        remedy = f"what ./run_local.sh audit {run.folder.parent.parent} --verify-only writes"
        yield Fault.of(f"{run.name}/{SCORE_FILE}", "content", reason_of(error), remedy)


def _verify_files(run: Run, verified: Verified) -> Iterator[Fault]:
    """That what lies beside the logs says what came of it now: it may be missing, or of another run."""
    remedy = f"what ./run_local.sh audit {run.folder.parent.parent} --verify-only writes"
    for name, right in verified.files().items():
        try:
            got = read_file(run.folder / name, SMALL_BYTES).decode(errors="replace")
        except OSError as error:
            yield Fault.of(f"{run.name}/{name}", "content", reason_of(error), remedy)
            continue
        lines = zip_longest(got.splitlines(), right.splitlines())
        if other := next((pair for pair in lines if pair[0] != pair[1]), None):
            field = (other[1] or other[0] or "").partition(" = ")[0]
            yield Fault.of(f"{run.name}/{name}", field, told(other[0]), f"{told(other[1])}: {remedy}")
