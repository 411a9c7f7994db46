"""Whether an audit was passed: TEST01 and TEST04 by LoadGen's logs, whoever made them.

TEST01 logs some answers of a performance run, which must be those of the accuracy run; TEST04 asks for one sample all
along, which must not make the system faster. Both fail where the logs are of another kind of run than they should be.
Figures as in MLCommons' compliance/TEST01 and TEST04.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sut.mlperf import official
from sut.mlperf.accuracy import accuracy_log_bytes, parse_accuracy_log
from sut.mlperf.finding import Finding, Rule, Severity
from sut.mlperf.logs import ACCURACY, DETAIL, Detail, read_detail
from sut.mlperf.metrics import METRICS
from sut.mlperf.official import Benchmark
from sut.tasks.detection.answers import ANSWER_WIDTH
from sut.tasks.detection.likeness import BoxLook, boxes_of
from sut.text import shortened

_LABEL = np.dtype("<f4")
_BOX_BYTES = ANSWER_WIDTH * _LABEL.itemsize
_FORMS = {"top1": f"{_LABEL.itemsize}", "mAP": f"{_BOX_BYTES} for each box"}
"""How many bytes an answer has, by the metric that scores it. A label is a float32; there may be no box."""
_TOLERANCE = 0.1
_SHORT_TOLERANCE = 0.2
_SHORT_NS = {"SingleStream": 200_000, "MultiStream": 1_600_000}
"""Up to these latencies what disturbs a run weighs more: TEST01 then allows the larger tolerance."""
_DEVIATIONS = 6
"""Of a binomial count from its mean: by chance once in 10^9 runs."""
_NOT_SET = {key: 0 for settings in official.AUDITS.values() for key in settings if key != "mode"}
"""What each audit sets, as any other run has it."""


class AuditRule(Rule):
    """What a finding about an audit is about."""

    RUN = "it is not the kind of run that it should be", Severity.INVALID
    VALID = "the run does not count", Severity.INVALID
    SCENARIO = "the runs are of different scenarios", Severity.INVALID
    COUNT = "LoadGen logs another number of answers", Severity.INVALID
    EMPTY = "an answer is of another form", Severity.INVALID
    MISSING = "the accuracy run has no answer for a sample", Severity.INVALID
    ANSWER = "an answer is not that of the accuracy run", Severity.INVALID
    BOUND = "Server's latency bound is another", Severity.INVALID
    SCORE = "the score is not that of the performance run", Severity.INVALID


_OF_ANSWERS = {AuditRule.COUNT, AuditRule.EMPTY, AuditRule.MISSING, AuditRule.ANSWER}
RELAXED = frozenset({AuditRule.BOUND, AuditRule.SCORE})
"""What a rehearsal, whose runs are short, is not failed for."""


@dataclass(frozen=True, slots=True)
class Answers:
    """How TEST01's answers compare: counts of entries in both logs."""

    accuracy_entries: int
    accuracy_duplicates: int
    accuracy_mismatches: int
    """Of these duplicates, those with another answer than the first, which counts."""
    entries: int
    known: int
    """Of a sample that the accuracy run has answered."""
    mismatches: int

    def text(self) -> str:
        """The lines of verify_accuracy.txt, but for the last."""
        counts = {
            "num_acc_log_entries": self.accuracy_entries,
            "num_acc_log_duplicate_keys": self.accuracy_duplicates,
            "num_acc_log_data_mismatch": self.accuracy_mismatches,
            "num_perf_log_entries": self.entries,
            "num_perf_log_qsl_idx_match": self.known,
            "num_perf_log_data_mismatch": self.mismatches,
            "num_missing_qsl_idxs": self.entries - self.known,
        }
        return "".join(f"{name} = {count}\n" for name, count in counts.items())


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of an audit. Scores are the scenario's figure in LoadGen's unit: ns, or samples per second."""

    test: str
    scenario: str
    reference: float | None
    score: float | None
    answers: Answers | None
    """Of TEST01, where its log is that of one."""
    findings: tuple[Finding, ...]
    """Why it is failed; each sample whose answers differ is one of them."""

    @property
    def ratio(self) -> float | None:
        """The audit's score by the performance run's."""
        return self.score / self.reference if self.score and self.reference else None

    def passed(self, rehearsal: bool = False) -> bool:
        """Whether it is passed, in a ``rehearsal`` whatever its score is."""
        return not [each for each in self.findings if not (rehearsal and each.rule in RELAXED)]

    def files(self) -> dict[str, str]:
        """The verify files that a submission has of this audit, by name."""
        found = {each.rule for each in self.findings}
        scores = f"Reference score = {self.reference}\nTest score = {self.score}\n"
        texts = {"verify_performance.txt": scores + _verdict(not found - _OF_ANSWERS)}
        if self.test == "TEST01":
            answers = self.answers.text() if self.answers else ""
            texts["verify_accuracy.txt"] = answers + _verdict(not found - RELAXED)
        return texts


def verify_test01(
    performance: Path, accuracy: Path, audit: Path, benchmark: Benchmark = official.BENCHMARKS[official.MODEL]
) -> Verified:
    """TEST01 in the folder ``audit``, against the logs of the ``performance`` and of the ``accuracy`` run.

    MLCommons' script looks at the first number of each answer only, of a detection at its sample's index. Here all
    bytes of a label count, and of boxes what ``BoxLook`` looks at: their last bits may depend on the batch.

    Raises ``ValueError`` for logs that cannot be read.
    """
    logs = {folder: read_detail(folder) for folder in (performance, accuracy, audit)}
    tested = logs[audit]
    settings = benchmark.audit("TEST01")
    wrong = [*_kind(accuracy, logs[accuracy], {}, "AccuracyOnly"), *_runs(logs, performance, audit, "TEST01", settings)]
    answers, differing = None, list[Finding]()
    if not any(each.rule is AuditRule.RUN for each in wrong):
        answers, differing = _answers(accuracy, audit, tested, benchmark.metric)
    return _verified("TEST01", logs[performance], tested, [*wrong, *differing], answers, _file(audit, DETAIL))


def verify_test04(performance: Path, audit: Path) -> Verified:
    """TEST04 in the folder ``audit``, against the logs of the ``performance`` run. Raises as ``verify_test01``."""
    logs = {folder: read_detail(folder) for folder in (performance, audit)}
    wrong = _runs(logs, performance, audit, "TEST04", official.AUDITS["TEST04"])
    return _verified("TEST04", logs[performance], logs[audit], [*wrong], None, _file(audit, DETAIL))


def entries_expected(detail: Detail) -> tuple[int, int]:
    """How many answers a performance run with TEST01's settings logs, at least and at most.

    LoadGen draws for each sample whether its answer is logged, with the chance of accuracy_log_sampling_target by the
    samples that it expects: the target rate for min_duration, or the fewest that it may ask where that is more. It asks
    fewer than it expects where the target rate was set too high, as SingleStream and MultiStream have it.
    """
    number = {key: detail.number(f"effective_{key}") or 0.0 for key in _DRAWN_BY}
    per_query = number["samples_per_query"]
    queries = int(number["target_qps"] * number["min_duration_ms"] / 1000)
    offline = detail.values.get("effective_scenario") == "Offline"
    expected = max(queries * (1 if offline else per_query), number["min_sample_count"], 1)
    share = min(1.0, number["accuracy_log_sampling_target"] / expected)
    samples = (detail.number("result_query_count") or 0.0) * per_query
    spread = _DEVIATIONS * math.sqrt(samples * share * (1 - share))
    least, most = max(1.0, samples * share - spread), min(samples, samples * share + spread)
    return math.floor(least), math.ceil(most)


def score_bounds(test: str, scenario: str, reference: float) -> tuple[float, float]:
    """Between what an audit's score must be. TEST01: as good as in the performance run, which is the ``reference``;
    TEST04: not better by how much work is done in a time, however much worse.
    """
    tolerance = _TOLERANCE
    if test == "TEST01" and reference <= _SHORT_NS.get(scenario, 0):
        tolerance = _SHORT_TOLERANCE
    least, most = reference * (1 - tolerance), reference * (1 + tolerance)
    if test == "TEST04":
        return (0.0, most) if METRICS[scenario][2] else (reference / (1 + tolerance), math.inf)
    return least, most


_DRAWN_BY = ("samples_per_query", "target_qps", "min_duration_ms", "min_sample_count", "accuracy_log_sampling_target")


def _verified(
    test: str, performance: Detail, audit: Detail, wrong: Sequence[Finding], answers: Answers | None, file: str
) -> Verified:
    scenario = str(performance.values.get("effective_scenario"))
    if scenario not in METRICS:
        raise ValueError(f"the performance run's log is of the scenario {scenario}; expected {', '.join(METRICS)}")
    reference, score = (detail.number(METRICS[scenario][1]) or None for detail in (performance, audit))
    found = [*wrong, *_score(test, scenario, reference, score, file)]
    return Verified(test, scenario, reference, score, answers, tuple(found))


def _runs(
    logs: dict[Path, Detail], performance: Path, audit: Path, test: str, settings: Mapping[str, int]
) -> Iterator[Finding]:
    """What is wrong with the runs themselves, whatever their figures are; ``settings`` are those of ``test``."""
    yield from _kind(performance, logs[performance], {}, "PerformanceOnly")
    yield from _kind(audit, logs[audit], settings, "PerformanceOnly", test)
    for folder in (performance, audit):
        detail = logs[folder]
        if not detail.valid:
            got = str(detail.values.get("result_validity", "nothing"))
            yield Finding(AuditRule.VALID, _file(folder, DETAIL), "result_validity", got, "VALID")
        for error in detail.errors:
            yield Finding(AuditRule.VALID, _file(folder, DETAIL), *error.partition(": ")[::2], "no error")
    wanted = logs[performance].values.get("effective_scenario")
    for folder, detail in logs.items():
        if (other := detail.values.get("effective_scenario")) != wanted:
            expected, file = f"{wanted}, as the performance run", _file(folder, DETAIL)
            yield Finding(AuditRule.SCENARIO, file, "effective_scenario", str(other), expected)
    bounds = [logs[each].values.get("effective_target_latency_ns") for each in (performance, audit)]
    if wanted == "Server" and bounds[0] != bounds[1]:
        field, (expected, got) = "effective_target_latency_ns", map(str, bounds)
        yield Finding(AuditRule.BOUND, _file(audit, DETAIL), field, got, f"{expected}, as the performance run")


def _kind(
    folder: Path, detail: Detail, settings: Mapping[str, int], mode: str, test: str | None = None
) -> Iterator[Finding]:
    """Settings that are not those of a run in ``mode``, with the ``settings`` of ``test`` and of no other audit."""
    wanted: dict[str, object] = {"test_mode": mode, **_NOT_SET}
    wanted |= {key: value for key, value in settings.items() if key != "mode"}
    for key, value in wanted.items():
        got = detail.values.get(f"effective_{key}")
        if got != value:  # LoadGen's log has true for 1
            said = "nothing" if got is None else str(got)
            of = f", as {test} sets it" if key in settings else ""
            yield Finding(AuditRule.RUN, _file(folder, DETAIL), f"effective_{key}", said, f"{value}{of}")


def _answers(accuracy: Path, audit: Path, detail: Detail, metric: str) -> tuple[Answers, list[Finding]]:
    """Each logged answer against that of the accuracy run, and whether it is of the metric's form."""
    file = _file(audit, ACCURACY)
    truth: dict[int, bytes] = {}
    right = _entries(accuracy)
    others = [data for index, data in right if truth.setdefault(index, data) != data]
    logged = _entries(audit)
    found = list(_counted(len(logged), detail, file))
    mismatches = known = 0
    for index, data in logged:
        known += index in truth
        how = _other_than(truth[index], data, index, metric) if index in truth else None
        mismatches += how is not None
        if not _is_answer(data, metric):
            rule, got, expected = AuditRule.EMPTY, f"{len(data)} bytes", _FORMS[metric]
        elif how is not None:
            rule, (got, expected) = AuditRule.ANSWER, how
        elif index not in truth:
            rule, got, expected = (
                AuditRule.MISSING,
                _shown(data, metric),
                f"an answer in {_file(accuracy, ACCURACY)}, too",
            )
        else:
            continue
        found.append(Finding(rule, file, f"sample {index}", got, expected))
    duplicates = len(right) - len(truth)
    counts = Answers(len(right), duplicates, len(others), len(logged), known, mismatches)
    return counts, list(dict.fromkeys(found))


def _counted(count: int, detail: Detail, file: str) -> Iterator[Finding]:
    least, most = entries_expected(detail)
    if not least <= count <= most:
        yield Finding(AuditRule.COUNT, file, "entries", f"{count}", f"{least} to {most}, by the settings in {DETAIL}")


def _entries(folder: Path) -> list[tuple[int, bytes]]:
    """All answers of an accuracy log, in its order. Raises ``ValueError`` where it is none."""
    raw = accuracy_log_bytes(folder / ACCURACY)
    if b"".join(raw.split()) == b"[]":
        return []
    parse_accuracy_log(raw, folder / ACCURACY)  # which says what is wrong with it
    return [(each["qsl_idx"], bytes.fromhex(each["data"])) for each in json.loads(raw)]


def _is_answer(data: bytes, metric: str) -> bool:
    return len(data) == _LABEL.itemsize if metric == "top1" else len(data) % _BOX_BYTES == 0


def _other_than(right: bytes, data: bytes, index: int, metric: str) -> tuple[str, str] | None:
    """What an answer to a sample is and should be, in words; None where it is that of the accuracy run."""
    if right == data:
        return None
    if metric == "mAP" and _is_answer(right, metric) and _is_answer(data, metric):
        boxes = boxes_of(data)
        if (boxes[:, 0] != index).any():
            return f"boxes of sample {boxes[boxes[:, 0] != index][0, 0]:g}", f"the sample's own index, {index}"
        how = BoxLook(boxes_of(right)).unlike(BoxLook(boxes))
        return None if how is None else (how, "the boxes of the accuracy run")
    return _shown(data, metric), f"{_shown(right, metric)}, as the accuracy run"


def _shown(data: bytes, metric: str) -> str:
    """An answer as a number, or how many boxes it has; of another form the beginning of its bytes."""
    if metric == "mAP" and _is_answer(data, metric):
        return f"{len(data) // _BOX_BYTES} boxes"
    if len(data) == _LABEL.itemsize:
        return f"{np.frombuffer(data, _LABEL)[0]:.9g}"
    return f"0x{shortened(data.hex())} ({len(data)} bytes)" if data else "nothing"


def _score(test: str, scenario: str, reference: float | None, score: float | None, file: str) -> Iterator[Finding]:
    key = METRICS[scenario][1]
    if not reference or not score:
        yield Finding(AuditRule.SCORE, file, key, str(score), f"a figure beside the performance run's {reference}")
        return
    least, most = score_bounds(test, scenario, reference)
    if not least <= score <= most:
        limits = " to ".join(f"{each / reference:.4g}" for each in (least, most) if 0 < each < math.inf)
        words = {(True, False): "at most ", (False, True): "at least "}.get((least == 0.0, most == math.inf), "")
        got, expected = f"{score:.10g}, {score / reference:.4g} x", f"{words}{limits} x the performance run's"
        yield Finding(AuditRule.SCORE, file, key, got, f"{expected} {reference:.10g}")


def _file(folder: Path, name: str) -> str:
    return f"{folder.name}/{name}"


def _verdict(passed: bool) -> str:
    return f"TEST {'PASS' if passed else 'FAIL'}\n"
