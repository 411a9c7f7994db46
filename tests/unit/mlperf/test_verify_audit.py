"""TEST01 and TEST04 by logs of runs that never were."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sut.mlperf import official
from sut.mlperf.logs import ACCURACY, DETAIL
from sut.mlperf.metrics import METRICS
from sut.mlperf.verify_audit import AuditRule, Verified, entries_expected, verify_test01, verify_test04
from tests.unit.loadgen_logs import entry, performance, write

QUERIES = 100
SET = {f"effective_{key}": 0 for test in official.AUDITS.values() for key in test if key != "mode"}
DRAWN = {"effective_target_qps": 1000, "effective_min_sample_count": QUERIES}
Answer = tuple[int, bytes]


def float32(value: float) -> bytes:
    return struct.pack("<f", value)


RIGHT = [(index, float32(2 * index)) for index in range(QUERIES)]


def put(
    folder: Path, scenario: str = "SingleStream", test: str | None = None, scale: float = 1.0, **other: Any
) -> Path:
    """The log of a run, as an audit or as none, whose latencies are ``scale`` times those of the others."""
    folder.mkdir()
    latency = [int(scale * (1_000_000 + 1_000 * number)) for number in range(QUERIES)]
    settings = official.AUDITS[test] if test else {}
    audit = {f"effective_{key}": value for key, value in settings.items() if key != "mode"}
    write(folder, {**performance(scenario, latency), **SET, **DRAWN, **audit, **other})
    return folder


def log(folder: Path, answers: Sequence[Answer]) -> None:
    entries = [{"seq_id": at, "qsl_idx": index, "data": data.hex()} for at, (index, data) in enumerate(answers)]
    (folder / ACCURACY).write_text(json.dumps(entries))


def run_test01(
    root: Path,
    answers: Sequence[Answer] = RIGHT,
    right: Sequence[Answer] = RIGHT,
    scale: float = 1.0,
    model: str = "resnet50",
    **other: Any,
) -> Verified:
    """TEST01 of runs that are sound but for what is given; ``other`` is of the audit's log."""
    reference = put(root / "performance")
    accuracy = put(root / "accuracy", effective_test_mode="AccuracyOnly")
    audit = put(root / "TEST01", test="TEST01", scale=scale, **other)
    log(accuracy, right)
    log(audit, answers)
    return verify_test01(reference, accuracy, audit, official.BENCHMARKS[model])


def run_test04(root: Path, scenario: str = "SingleStream", scale: float = 1.0, **other: Any) -> Verified:
    return verify_test04(put(root / "performance", scenario), put(root / "TEST04", scenario, "TEST04", scale, **other))


def found(verified: Verified) -> list[tuple[object, str, str]]:
    return [(each.rule, each.file, each.field) for each in verified.findings]


def test_sound_runs_pass_and_leave_the_files_of_a_submission(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    first, fourth = run_test01(tmp_path / "a", right=[*RIGHT, RIGHT[7]]), run_test04(tmp_path / "b", scale=5.0)

    assert found(first) == found(fourth) == []
    assert first.files() == {
        "verify_accuracy.txt": "num_acc_log_entries = 101\nnum_acc_log_duplicate_keys = 1\n"
        "num_acc_log_data_mismatch = 0\nnum_perf_log_entries = 100\nnum_perf_log_qsl_idx_match = 100\n"
        "num_perf_log_data_mismatch = 0\nnum_missing_qsl_idxs = 0\nTEST PASS\n",
        "verify_performance.txt": "Reference score = 1097000.0\nTest score = 1097000.0\nTEST PASS\n",
    }
    assert fourth.files() == {
        "verify_performance.txt": "Reference score = 1097000.0\nTest score = 5485000.0\nTEST PASS\n"
    }


def boxes(count: int, score: float = 0.5, sample: int = 7, left: float = 0.2) -> bytes:
    """So many detections of a sample, side by side."""
    places = (left + 0.1 * number for number in range(count))
    return b"".join(struct.pack("<7f", sample, 0.1, x, 0.3, x + 0.1, score, 1) for x in places)


BOXES = [(index, boxes(index % 3, sample=index)) for index in range(QUERIES)]
YOLO: dict[str, Any] = {"right": BOXES, "model": "yolo-99", "effective_accuracy_log_sampling_target": 64}


def test_of_a_detector_answers_are_boxes_or_none(tmp_path: Path) -> None:
    rounded = (7, boxes(1, 0.50001, left=0.20001))
    verified = run_test01(tmp_path, [*BOXES[:7], rounded, *BOXES[8:64]], **YOLO)

    assert found(verified) == []
    assert verified.answers is not None and verified.answers.known == 64


@pytest.mark.parametrize(
    ("wrong", "rule", "got", "expected"),
    [
        (boxes(1, 0.75), AuditRule.ANSWER, "is gone: one there scores 0.75", "the boxes of the accuracy run"),
        (boxes(1, left=0.3), AuditRule.ANSWER, "that scores 0.50 is gone", "the boxes of the accuracy run"),
        (boxes(2), AuditRule.ANSWER, "that scores 0.50 is new", "the boxes of the accuracy run"),
        (boxes(1, sample=8), AuditRule.ANSWER, "boxes of sample 8", "the sample's own index, 7"),
        (b"", AuditRule.ANSWER, "that scores 0.50 is gone", "the boxes of the accuracy run"),
        (boxes(1)[:-1], AuditRule.EMPTY, "27 bytes", "28 for each box"),
        (float32(7), AuditRule.EMPTY, "4 bytes", "28 for each box"),
    ],
)
def test_a_box_that_differs_fails_test01_however_like_it_begins(
    tmp_path: Path, wrong: bytes, rule: AuditRule, got: str, expected: str
) -> None:
    [finding] = run_test01(tmp_path, [*BOXES[:7], (7, wrong), *BOXES[8:64]], **YOLO).findings

    assert (finding.rule, finding.field) == (rule, "sample 7")
    assert finding.got.endswith(got) and finding.expected.endswith(expected)


def test_a_detectors_test01_logs_as_many_answers_as_mlperf_asks_of_it(tmp_path: Path) -> None:
    verified = run_test01(tmp_path, BOXES, right=BOXES, model="yolo-99")

    [finding] = verified.findings
    assert finding.field == "effective_accuracy_log_sampling_target"
    assert (finding.got, finding.expected) == ("4096", "64, as TEST01 sets it")


@pytest.mark.parametrize(
    ("wrong", "rule", "got", "expected"),
    [
        (float32(15), AuditRule.ANSWER, "15", "14, as the accuracy run"),
        (float32(14.000001), AuditRule.ANSWER, "14.000001", "14, as the accuracy run"),
        (struct.pack("<i", 14), AuditRule.ANSWER, "1.96181785e-44", "14, as the accuracy run"),
        (b"", AuditRule.EMPTY, "0 bytes", "4"),
        (float32(14) + b"\0", AuditRule.EMPTY, "5 bytes", "4"),
    ],
)
def test_one_wrong_answer_fails_test01_by_its_sample(
    tmp_path: Path, wrong: bytes, rule: AuditRule, got: str, expected: str
) -> None:
    verified = run_test01(tmp_path, [*RIGHT[:7], (7, wrong), *RIGHT[8:]])

    [finding] = verified.findings
    assert (finding.rule, finding.field, finding.got, finding.expected) == (rule, "sample 7", got, expected)
    assert not verified.passed(rehearsal=True)
    files = verified.files()
    assert files["verify_accuracy.txt"].endswith(
        "num_perf_log_data_mismatch = 1\nnum_missing_qsl_idxs = 0\nTEST FAIL\n"
    )
    assert files["verify_performance.txt"].endswith("TEST PASS\n")


def test_answers_that_are_equal_as_numbers_only_are_not_equal(tmp_path: Path) -> None:
    verified = run_test01(tmp_path, [(0, float32(-0.0)), *RIGHT[1:]])

    assert found(verified) == [(AuditRule.ANSWER, f"TEST01/{ACCURACY}", "sample 0")]


def test_a_sample_that_was_right_once_and_wrong_once_is_wrong(tmp_path: Path) -> None:
    verified = run_test01(tmp_path, [*RIGHT[:99], (7, float32(3))])

    assert [each.field for each in verified.findings] == ["sample 7"]


def test_a_sample_that_the_accuracy_run_has_not_answered_fails_test01(tmp_path: Path) -> None:
    verified = run_test01(tmp_path, right=RIGHT[:-1])

    assert found(verified) == [(AuditRule.MISSING, f"TEST01/{ACCURACY}", "sample 99")]
    assert "num_missing_qsl_idxs = 1\nTEST FAIL\n" in verified.files()["verify_accuracy.txt"]


@pytest.mark.parametrize("answers", [RIGHT[:-1], [*RIGHT, RIGHT[0]], []])
def test_fewer_answers_than_loadgen_draws_fail_test01_and_so_do_more(tmp_path: Path, answers: list[Answer]) -> None:
    verified = run_test01(tmp_path, answers)

    assert found(verified) == [(AuditRule.COUNT, f"TEST01/{ACCURACY}", "entries")]
    assert verified.findings[0].expected.startswith("100 to 100")


@pytest.mark.parametrize(
    ("scenario", "qps", "seconds", "least", "per_query", "queries", "logged"),
    [
        ("SingleStream", 1000, 1, 64, 1, 1702, 1702),
        ("SingleStream", 1000, 10, 64, 1, 17090, 6992),
        ("MultiStream", 500, 3, 5296, 8, 3001, 8198),
        ("Server", 500, 3, 459, 1, 1574, 1574),
        ("Offline", 20000, 1, 22000, 22000, 1, 4165),
    ],
)
def test_as_many_answers_are_expected_as_loadgen_logs(
    tmp_path: Path, scenario: str, qps: int, seconds: int, least: int, per_query: int, queries: int, logged: int
) -> None:
    """Figures of runs of LoadGen 6.0.17 with a system that does nothing."""
    detail = write(
        tmp_path,
        {
            "effective_scenario": scenario,
            "effective_target_qps": qps,
            "effective_min_duration_ms": 1000 * seconds,
            "effective_min_sample_count": least,
            "effective_samples_per_query": per_query,
            "effective_accuracy_log_sampling_target": 4096,
            "result_query_count": queries,
        },
    )

    low, high = entries_expected(detail)

    assert low <= logged <= high <= queries * per_query
    assert low == high == logged or (low > 0.9 * logged and high < 1.1 * logged)


def test_a_log_without_an_answer_is_not_enough_however_few_loadgen_draws(tmp_path: Path) -> None:
    verified = run_test01(tmp_path, [], effective_target_qps=10**9, effective_min_duration_ms=600_000)

    assert [each.rule for each in verified.findings] == [AuditRule.COUNT]


@pytest.mark.parametrize(
    ("answers", "right", "rule"),
    [
        (RIGHT[:-1], RIGHT, AuditRule.COUNT),
        ([(0, float32(1)), *RIGHT[1:]], RIGHT, AuditRule.ANSWER),
        ([(0, b""), *RIGHT[1:]], [(0, b""), *RIGHT[1:]], AuditRule.EMPTY),
        (RIGHT, RIGHT[:-1], AuditRule.MISSING),
    ],
)
def test_a_rehearsal_relaxes_neither_bytes_nor_counts(
    tmp_path: Path, answers: list[Answer], right: list[Answer], rule: AuditRule
) -> None:
    verified = run_test01(tmp_path, answers, right)

    assert [each.rule for each in verified.findings] == [rule]
    assert not verified.passed(rehearsal=True)


def test_an_audits_logs_are_no_other_audits_and_no_plain_runs_are_either(tmp_path: Path) -> None:
    plain, first, fourth = (put(tmp_path / str(test), test=test) for test in (None, "TEST01", "TEST04"))
    accuracy = put(tmp_path / "accuracy", effective_test_mode="AccuracyOnly")
    log(accuracy, RIGHT)
    sampling, same = "effective_accuracy_log_sampling_target", "effective_performance_issue_same"

    def fields(verified: Verified) -> set[tuple[object, str]]:
        assert not verified.passed(rehearsal=True)
        assert all(text.endswith("TEST FAIL\n") for text in verified.files().values())
        return {(each.rule, f"{each.file.partition('/')[0]} {each.field}") for each in verified.findings}

    assert {(AuditRule.RUN, f"TEST01 {sampling}"), (AuditRule.RUN, f"TEST01 {same}")} <= fields(
        verify_test04(plain, first)
    )
    assert {(AuditRule.RUN, f"TEST04 {sampling}"), (AuditRule.RUN, f"TEST04 {same}")} <= fields(
        verify_test01(plain, accuracy, fourth)
    )
    assert (AuditRule.RUN, f"None {sampling}") in fields(verify_test01(plain, accuracy, plain))
    assert (AuditRule.RUN, f"None {same}") in fields(verify_test04(plain, plain))
    assert (AuditRule.RUN, f"TEST04 {same}") in fields(verify_test04(fourth, fourth))
    assert (AuditRule.RUN, "accuracy effective_test_mode") in fields(verify_test04(plain, accuracy))
    assert (AuditRule.RUN, "None effective_test_mode") in fields(verify_test01(plain, plain, first))


@pytest.mark.parametrize(
    "setting", [f"effective_{key}" for test in official.AUDITS.values() for key in test if key != "mode"]
)
def test_each_setting_of_an_audit_must_be_the_official_one(tmp_path: Path, setting: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    both = run_test01(tmp_path / "a", **{setting: 5}), run_test04(tmp_path / "b", **{setting: 5})

    assert [{each.field for each in verified.findings} for verified in both] == [{setting}, {setting}]


@pytest.mark.parametrize(
    ("scenario", "test", "scale", "passes"),
    [
        ("SingleStream", "TEST01", 1.099, True),
        ("SingleStream", "TEST01", 1.101, False),
        ("SingleStream", "TEST01", 0.901, True),
        ("SingleStream", "TEST01", 0.899, False),
        ("Offline", "TEST01", 1 / 1.099, True),
        ("Offline", "TEST01", 1 / 1.101, False),
        ("Offline", "TEST01", 1 / 0.899, False),
        ("MultiStream", "TEST01", 1.199, True),  # 1.1 ms
        ("MultiStream", "TEST01", 1.201, False),
        ("SingleStream", "TEST04", 10.0, True),
        ("SingleStream", "TEST04", 1 / 1.099, True),
        ("SingleStream", "TEST04", 1 / 1.101, False),
        ("MultiStream", "TEST04", 1 / 1.101, False),
        ("Offline", "TEST04", 10.0, True),
        ("Offline", "TEST04", 1 / 1.099, True),
        ("Offline", "TEST04", 1 / 1.101, False),
    ],
)
def test_a_score_decides_but_in_a_rehearsal(
    tmp_path: Path, scenario: str, test: str, scale: float, passes: bool
) -> None:
    changes: dict[str, Any] = {"effective_min_sample_count": QUERIES * (8 if scenario == "MultiStream" else 1)}
    reference = put(tmp_path / "performance", scenario, **changes)
    audit = put(tmp_path / test, scenario, test, scale, **changes)
    if test == "TEST04":
        verified = verify_test04(reference, audit)
    else:
        accuracy = put(tmp_path / "accuracy", scenario, effective_test_mode="AccuracyOnly")
        log(accuracy, RIGHT)
        log(audit, RIGHT * (8 if scenario == "MultiStream" else 1))
        verified = verify_test01(reference, accuracy, audit)

    assert verified.passed() is passes
    assert verified.passed(rehearsal=True)
    assert verified.files()["verify_performance.txt"].endswith(f"TEST {'PASS' if passes else 'FAIL'}\n")
    assert {each.rule for each in verified.findings} == (set() if passes else {AuditRule.SCORE})


def test_short_latencies_may_differ_by_a_fifth_in_test01(tmp_path: Path) -> None:
    changes = {"early_stopping_latency_ss": 200_000}
    reference = put(tmp_path / "performance", **changes)
    accuracy = put(tmp_path / "accuracy", effective_test_mode="AccuracyOnly")
    log(accuracy, RIGHT)
    for name, score, passes in (("a", 239_000, True), ("b", 241_000, False), ("c", 161_000, True)):
        audit = put(tmp_path / name, test="TEST01", early_stopping_latency_ss=score)
        log(audit, RIGHT)
        assert verify_test01(reference, accuracy, audit).passed() is passes


@pytest.mark.parametrize(("scenario", "short_ns"), [("SingleStream", 200_000), ("MultiStream", 1_600_000)])
def test_longer_latencies_may_differ_by_a_tenth(tmp_path: Path, scenario: str, short_ns: int) -> None:
    key = METRICS[scenario][1]
    accuracy = put(tmp_path / "accuracy", scenario, effective_test_mode="AccuracyOnly")
    log(accuracy, RIGHT)
    for latency_ns, passes in ((short_ns, True), (short_ns + 1, False)):
        reference = put(tmp_path / f"of{latency_ns}", scenario, **{key: latency_ns})
        audit = put(tmp_path / f"audit{latency_ns}", scenario, "TEST01", **{key: int(1.15 * latency_ns)})
        log(audit, RIGHT)
        scores = [each for each in verify_test01(reference, accuracy, audit).findings if each.rule is AuditRule.SCORE]
        assert (not scores) is passes


@pytest.mark.parametrize(
    ("changes", "rule", "field"),
    [
        ({"result_validity": "INVALID"}, AuditRule.VALID, "result_validity"),
        ({"early_stopping_latency_ss": None}, AuditRule.SCORE, "early_stopping_latency_ss"),
    ],
)
def test_a_run_that_does_not_count_passes_no_audit(
    tmp_path: Path, changes: dict[str, Any], rule: AuditRule, field: str
) -> None:
    verified = run_test04(tmp_path, **changes)

    assert found(verified) == [(rule, "TEST04/mlperf_log_detail.txt", field)]


def test_an_audit_of_a_run_that_does_not_count_is_failed(tmp_path: Path) -> None:
    reference, audit = put(tmp_path / "performance", result_validity="INVALID"), put(tmp_path / "TEST04", test="TEST04")

    assert found(verify_test04(reference, audit)) == [
        (AuditRule.VALID, "performance/mlperf_log_detail.txt", "result_validity")
    ]


def test_a_run_with_errors_of_loadgens_passes_no_audit(tmp_path: Path) -> None:
    reference, audit = put(tmp_path / "performance"), put(tmp_path / "TEST04", test="TEST04")
    with (audit / DETAIL).open("a") as file:
        file.write(entry("error_runtime", "Ending early: too soon", is_error=True))

    [finding] = verify_test04(reference, audit).findings

    assert (finding.rule, finding.field, finding.got) == (AuditRule.VALID, "error_runtime", "Ending early: too soon")


def test_runs_of_different_scenarios_are_not_compared(tmp_path: Path) -> None:
    verified = verify_test04(put(tmp_path / "performance"), put(tmp_path / "TEST04", "Offline", "TEST04"))

    assert (AuditRule.SCENARIO, "TEST04/mlperf_log_detail.txt", "effective_scenario") in found(verified)


def test_servers_bound_is_the_performance_runs(tmp_path: Path) -> None:
    verified = run_test04(tmp_path, "Server", effective_target_latency_ns=2_000_000)

    assert [each.rule for each in verified.findings] == [AuditRule.BOUND]
    assert not verified.passed()


@pytest.mark.parametrize("text", ["", "[", "{}", '[{"qsl_idx": 1}]'])
def test_an_answers_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    reference, audit = put(tmp_path / "performance"), put(tmp_path / "TEST01", test="TEST01")
    accuracy = put(tmp_path / "accuracy", effective_test_mode="AccuracyOnly")
    log(accuracy, RIGHT)
    (audit / ACCURACY).write_text(text)

    with pytest.raises(ValueError, match=f"TEST01/{ACCURACY}"):
        verify_test01(reference, accuracy, audit)
