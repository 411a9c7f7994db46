"""Judges a LoadGen log that anybody has made, by itself and by the names of the folders that it lies in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plugins.files import SMALL_BYTES, read_file
from sut.errors import one_line
from sut.mlperf import official
from sut.mlperf.accuracy import accuracy_log_bytes, is_truncated, parse_accuracy_log
from sut.mlperf.check_log import check_log
from sut.mlperf.doubts import doubts
from sut.mlperf.finding import Finding, Rule, Severity
from sut.mlperf.logs import ACCURACY, DETAIL, KNOWN_SEEDS, SUMMARY, Detail, read_detail, read_summary
from sut.mlperf.metrics import METRICS
from sut.mlperf.rules import explain_invalid
from sut.mlperf.summary import detail_of_summary
from sut.text import shortened

_LEVELS = 4
"""From a run's folder to its scenario's: ``Offline/TEST01/performance/run_1``."""
_SCENARIO = re.compile(rf"(?:.*[-_ .])?({'|'.join(METRICS)})", re.IGNORECASE)
_ROLES = {name.casefold(): name for name in ("performance", "accuracy")}
_SAMPLED = list(dict.fromkeys(each.sampled for each in official.BENCHMARKS.values()))
"""How many answers TEST01 asks LoadGen to log, of one benchmark or another."""
_AUDITS = {name.casefold(): name for name in official.AUDITS}
_CPU_MS = 82
"""A picture by YOLO on the one CPU of an official log. Classifiers take less."""
_VISION = ("resnet", "mobilenet", "efficientnet", "yolo")
_SYSTEMS = 7
"""Levels, at the most, from a run to its division: ``results/SYSTEM/MODEL/Offline/TEST01/performance/run_1``."""


class JudgeRule(Rule):
    """What a finding about somebody's log is about, beyond what the log says of itself."""

    VERDICT = "LoadGen's verdict is not VALID", Severity.INVALID
    SCENARIO = "the folder is another scenario's", Severity.INVALID
    INFERRED = "inferred from another scenario, which is legal on the edge", Severity.DOUBT
    ROLE = "the folder is for another mode", Severity.INVALID
    AUDIT = "an audit's settings in a run that is no audit", Severity.INVALID
    AUDITED = "an audit's settings: no result of its own", Severity.DOUBT
    NO_AUDIT = "not run with the audit's settings", Severity.INVALID
    FEWER = "accuracy over fewer samples than the data set has", Severity.INVALID
    ANSWERS = "the accuracy log cannot be read", Severity.INVALID
    TWICE = "a sample has two different answers", Severity.INVALID
    SLOW = "an accelerator no faster than a CPU: was it one?", Severity.DOUBT
    TIMED = "timing taken in accuracy mode, in which LoadGen times nothing"


@dataclass(frozen=True, slots=True)
class Place:
    """What the names of a log's folders say that it is: the scenario; ``performance``, ``accuracy`` or an audit."""

    scenario: str | None
    role: str | None


def place_of(folder: Path) -> Place:
    """By the nearest folder that has the name of one, or ends with a scenario's.

    >>> place_of(Path("results/box/resnet50/Offline/TEST01/performance/run_1"))
    Place(scenario='Offline', role='TEST01')
    """
    names = [name.casefold() for name in reversed(folder.parts[-_LEVELS:])]
    scenarios = {name.casefold(): name for name in METRICS}
    found = [scenarios[match[1]] for name in names if (match := _SCENARIO.fullmatch(name))]
    roles = [known[name] for known in (_AUDITS, _ROLES) for name in names if name in known]
    return Place(next(iter(found), None), next(iter(roles), None))


def judge_log(
    folder: Path, seeds: Sequence[Mapping[str, int]] = KNOWN_SEEDS, called: Path | None = None
) -> list[Finding]:
    """What is wrong or odd with the logs in a folder. Findings name files as they are called in it.

    ``called``: the folder's path as far as its names count; all of it, unless told. A summary without its detail log is
    judged as far as it goes. Raises ``ValueError`` where there is no log that can be read.
    """
    place = place_of(called or folder.absolute())
    if not (folder / DETAIL).exists() and (folder / SUMMARY).exists():
        return _of_summary(folder, place, seeds)
    detail = read_detail(folder)
    if not detail.values:
        raise ValueError(f"{folder / DETAIL}: no entry of LoadGen's in it")
    if not (folder / SUMMARY).exists():
        return [*check_log(detail, seeds=seeds), *_judged(folder, detail, place)]
    return [*check_log(detail, read_summary(folder), seeds=seeds), *_judged(folder, detail, place)]


def _of_summary(folder: Path, place: Place, seeds: Sequence[Mapping[str, int]]) -> list[Finding]:
    """In the summary's own words, and with its figures as they stand there."""
    detail, words = detail_of_summary(folder)
    fields = read_summary(folder)
    found: list[Finding] = []
    for each in (*check_log(detail, seeds=seeds), *_judged(folder, detail, place)):
        field = words.get(each.field, each.field)
        is_figure = each.got == str(detail.values.get(each.field))
        found.append(
            replace(each, file=SUMMARY, field=field, got=fields.get(field, each.got) if is_figure else each.got)
        )
    return found


def _judged(folder: Path, detail: Detail, place: Place) -> Iterator[Finding]:
    if not detail.complete:
        return
    yield from _verdict(detail)
    yield from _scenario(detail, place)
    yield from _role(detail, place)
    if detail.values.get("effective_test_mode") == "AccuracyOnly" or place.role == "accuracy":
        yield from _answers(folder, detail)
    yield from _slow(folder, detail)
    yield from doubts(detail)


def _verdict(detail: Detail) -> Iterator[Finding]:
    """INVALID, with LoadGen's reasons in words; and figures that it does not have in accuracy mode."""
    mode, scenario = detail.values.get("effective_test_mode"), str(detail.values.get("effective_scenario"))
    if mode == "AccuracyOnly":
        for key in detail.values:
            if "latency_ns" in key and key.startswith("result_"):
                yield Finding(JudgeRule.TIMED, DETAIL, key, str(detail.values[key]), "nothing")
    elif not detail.valid:
        reasons = "; ".join(explain_invalid(scenario, detail, None))
        got = f"{detail.values.get('result_validity', 'nothing')}: {reasons}"
        yield Finding(JudgeRule.VERDICT, DETAIL, "result_validity", got, "VALID")


def _scenario(detail: Detail, place: Place) -> Iterator[Finding]:
    got = str(detail.values.get("effective_scenario"))
    if place.scenario is None or place.scenario == got:
        return
    rule = JudgeRule.INFERRED if got in official.INFERRED.get(place.scenario, ()) else JudgeRule.SCENARIO
    yield Finding(rule, DETAIL, "effective_scenario", got, f"{place.scenario}, as the folder is called")


def _role(detail: Detail, place: Place) -> Iterator[Finding]:
    """What mode a folder is for, and whose settings. An audit's are seen by what it has LoadGen log, or issue."""
    values, role = detail.values, place.role
    mode = values.get("effective_test_mode")
    wanted = {"accuracy": "AccuracyOnly", None: mode}.get(role, "PerformanceOnly")
    if mode != wanted:
        yield Finding(JudgeRule.ROLE, DETAIL, "effective_test_mode", str(mode), f"{wanted}, in the folder {role}")
    if role is not None and role in official.AUDITS:
        for name, value in official.AUDITS[role].items():
            key = f"effective_{name}"
            # Which benchmark it is, a log does not tell.
            legal = _SAMPLED if name == official.SAMPLED else [value]
            if name != "mode" and key in values and values[key] not in legal:
                told = " or ".join(map(str, legal))
                yield Finding(JudgeRule.NO_AUDIT, DETAIL, key, str(values[key]), f"{told}, for {role}")
        return
    if mode != "PerformanceOnly":
        return
    marks = {
        "effective_accuracy_log_sampling_target": "TEST01",
        "effective_accuracy_log_probability": "TEST01",
        "effective_performance_issue_same": "TEST04",
    }
    for key, test in marks.items():
        if values.get(key):
            rule = JudgeRule.AUDITED if role is None else JudgeRule.AUDIT
            expected = f"nothing of {test}" + (f" in the folder {role}" if role else "")
            yield Finding(rule, DETAIL, key, str(values[key]), expected)


def _answers(folder: Path, detail: Detail) -> Iterator[Finding]:
    """Each sample of the data set has an answer, and one answer."""
    path = folder / ACCURACY
    if not path.exists():
        return
    try:
        raw = accuracy_log_bytes(path)
        if is_truncated(raw):
            return
        log = parse_accuracy_log(raw, path)
    except ValueError as error:
        yield Finding(JudgeRule.ANSWERS, ACCURACY, "content", one_line(error), "a whole accuracy log")
        return
    total, got = detail.number("qsl_reported_total_count"), len(log.answers)
    if total is not None and got < total:
        expected = f"{total:.0f} (qsl_reported_total_count)"
        yield Finding(JudgeRule.FEWER, ACCURACY, "qsl_idx", f"{got} samples", expected)
    if log.contradicted:
        index = min(log.contradicted)
        words = f"{log.contradicted[index].hex()[:40]} too, in {len(log.contradicted)} samples"
        yield Finding(JudgeRule.TWICE, ACCURACY, f"qsl_idx {index}", words, log.answers[index].hex()[:40])


def _slow(folder: Path, detail: Detail) -> Iterator[Finding]:
    """A system that says it has an accelerator, and takes as long for a picture as a CPU does. The log cannot tell what
    ran: only in a submission's tree does something beside it say what the system has.
    """
    parts = folder.absolute().parts[-_SYSTEMS:]
    mean = detail.number("result_mean_latency_ns")
    single = detail.values.get("effective_scenario") == "SingleStream"
    if not single or mean is None or mean < _CPU_MS * 1e6 or not any(part.startswith(_VISION) for part in parts):
        return
    for parent in folder.absolute().parents[:_SYSTEMS]:
        for path in (parent / "systems" / f"{part}.json" for part in parts):
            accelerators = _accelerators(path)
            if accelerators is not None:
                expected = f"less than a CPU's {_CPU_MS} ms, with {accelerators} (systems/{path.name})"
                yield Finding(JudgeRule.SLOW, DETAIL, "result_mean_latency_ns", f"{mean / 1e6:.4g} ms", expected)
                return


def _accelerators(path: Path) -> str | None:
    """How many and which a system's description has, None where none."""
    try:
        system = json.loads(read_file(path, SMALL_BYTES))
        count, name = int(system["accelerators_per_node"]), str(system.get("accelerator_model_name"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # whether it is sound is not this judge's to say
    return f"{count} x {shortened(name)}" if count > 0 else None
