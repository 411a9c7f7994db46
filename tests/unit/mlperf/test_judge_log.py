"""Judging anybody's logs: the marks of official ones that were odd, each in a small log of its own, and their names."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from sut.mlperf import official
from sut.mlperf.doubts import Doubt
from sut.mlperf.finding import Finding, Rule, Severity
from sut.mlperf.judge_log import JudgeRule, judge_log, place_of
from sut.mlperf.judge_logs import SeveralRule, judge_logs
from sut.mlperf.laws import Law
from sut.mlperf.logs import ACCURACY, DETAIL, SUMMARY
from tests.unit.loadgen_logs import performance, write
from tests.unit.mlperf.drawn_logs import draw

MS = 1_000_000


def steady(least_ns: int, spread_ns: int, count: int = 1000) -> list[int]:
    return [least_ns + spread_ns * number // count for number in range(count)]


def folder_of(root: Path, *names: str) -> Path:
    folder = root.joinpath("logs", *names)
    folder.mkdir(parents=True)
    return folder


def judged(folder: Path, entries: dict[str, Any]) -> list[tuple[Rule, str]]:
    write(folder, entries)
    return [(each.rule, each.field) for each in judge_log(folder)]


def accuracy(scenario: str = "Offline", **changes: Any) -> dict[str, Any]:
    settings = {key: value for key, value in performance(scenario, [MS, MS]).items() if key.startswith("effective_")}
    ran = {"effective_test_mode": "AccuracyOnly", "qsl_reported_total_count": 3, "power_end": "x"}
    return settings | ran | changes


@pytest.mark.parametrize(
    ("scenario", "latency_ns", "field"),
    [
        # A wait of 10 ms for a batch, under work of half a millisecond.
        ("SingleStream", steady(10_317_000, 270_000), "result_min_latency_ns"),
        ("MultiStream", steady(10_380_000, 250_000), "result_min_query_latency_ns"),
        # Work that takes a little over a round time, or is steady, but not both.
        ("SingleStream", steady(10_317_000, 900_000), None),
        ("SingleStream", steady(1_171_000, 70_000), None),
        ("SingleStream", steady(7_300_000, 70_000), None),
        # Nothing waits for its turn there, and a batch may be full.
        ("Server", steady(10_317_000, 270_000), None),
    ],
)
def test_a_floor_over_a_round_time_with_no_spread_is_a_doubt(
    tmp_path: Path, scenario: str, latency_ns: list[int], field: str | None
) -> None:
    found = judged(tmp_path, performance(scenario, latency_ns))

    assert found == ([(Doubt.FLOOR, field)] if field else [])


@pytest.mark.parametrize(
    ("told", "samples_of_rule", "found"),
    [
        # 1,980,000 samples for a rate of 3000 that was 153: three and a half hours for ten minutes.
        (3000.0, 1, [(Doubt.LONG, "effective_target_qps")]),
        # The system is slow, and the rule wants that many.
        (150.0, 1, []),
        (3000.0, 2000, []),
    ],
)
def test_a_run_is_long_by_a_wrong_forecast_only(
    tmp_path: Path, told: float, samples_of_rule: int, found: list[tuple[Rule, str]]
) -> None:
    entries = performance("Offline", [13 * MS * number // 2 for number in range(1, 2001)])
    told_for = {"effective_target_qps": told, "effective_min_duration_ms": 600}

    assert judged(tmp_path, entries | told_for | {"requested_min_query_count": samples_of_rule}) == found


def test_a_single_stream_that_went_on_after_all_was_met_is_a_doubt(tmp_path: Path) -> None:
    entries = performance("SingleStream", steady(MS, MS)) | {"result_mean_latency_ns": 1_499_500}
    few = {"effective_min_query_count": 64, "effective_min_duration_ms": 100}

    assert judged(tmp_path, entries | few) == [(Doubt.LONG, "result_query_count")]
    assert judged(tmp_path, entries | few | {"effective_min_query_count": 1000}) == []


@pytest.mark.parametrize(
    ("scenario", "setting"),
    [
        ("Offline", {"effective_max_duration_ms": 660_000}),
        ("Server", {"effective_performance_issue_same_index": 3}),
        ("Server", {"effective_accuracy_log_rng_seed": 7}),
        ("Server", {"requested_server_target_qps": 5.0, "effective_server_target_qps": 6.0}),
    ],
)
def test_an_option_without_effect_is_named(tmp_path: Path, scenario: str, setting: dict[str, Any]) -> None:
    [(rule, field)] = judged(tmp_path, performance(scenario, steady(MS, MS)) | setting)

    assert (rule, field) == (Doubt.OPTION, next(iter(setting)))


def test_what_has_an_effect_is_not(tmp_path: Path) -> None:
    entries = performance("SingleStream", steady(MS, MS))

    assert judged(tmp_path, entries | {"effective_max_duration_ms": 660_000, "requested_min_query_count": 7}) == []


def test_an_invalid_run_is_one_with_its_reason(tmp_path: Path) -> None:
    entries = performance("Offline", steady(MS, MS)) | {"result_validity": "INVALID", "result_min_duration_met": False}
    write(tmp_path, entries | {"effective_min_duration_ms": 10, "effective_target_qps": 5.0})

    [finding] = judge_log(tmp_path)

    assert (finding.rule, finding.severity) == (JudgeRule.VERDICT, Severity.INVALID)
    assert finding.got.startswith("INVALID: the samples were done before 0.01 s were over")


TEST01 = {f"effective_{key}": value for key, value in official.AUDITS["TEST01"].items() if key != "mode"}
TEST04 = {
    f"effective_{key}": bool(value) if key != "performance_issue_same_index" else value
    for key, value in official.AUDITS["TEST04"].items()
    if key != "mode"
}


@pytest.mark.parametrize(
    ("names", "settings", "found"),
    [
        (("Offline", "TEST01", "performance", "run_1"), TEST01, []),
        (("Offline", "TEST01", "performance"), TEST01 | {"effective_accuracy_log_sampling_target": 64}, []),
        (("Offline", "TEST01"), TEST01 | {"effective_accuracy_log_sampling_target": 65}, [JudgeRule.NO_AUDIT]),
        (("Offline", "TEST04", "performance", "run_1"), TEST04, []),
        (("Offline", "performance", "run_1"), TEST01, [JudgeRule.AUDIT]),
        (("Offline", "performance", "run_1"), TEST04, [JudgeRule.AUDIT]),
        (("Offline", "performance"), {"effective_accuracy_log_probability": 0.1}, [JudgeRule.AUDIT]),
        (("somewhere",), TEST04, [JudgeRule.AUDITED]),
        (("Offline", "TEST04"), TEST01, [JudgeRule.NO_AUDIT] * 2),
    ],
)
def test_an_audits_settings_belong_in_its_folder(
    tmp_path: Path, names: tuple[str, ...], settings: dict[str, Any], found: list[Rule]
) -> None:
    idle = dict.fromkeys(("effective_performance_issue_same", "effective_performance_issue_unique"), False)
    entries = performance("Offline", steady(MS, MS)) | idle | {"effective_performance_issue_same_index": 0} | settings

    rules = [rule for rule, _ in judged(folder_of(tmp_path, *names), entries)]

    assert rules == found


def test_a_folder_of_an_audit_has_its_settings(tmp_path: Path) -> None:
    plain = {key: 0 for key in TEST01}

    found = judged(folder_of(tmp_path, "Offline", "TEST01"), performance("Offline", steady(MS, MS)) | plain)

    assert found == [(JudgeRule.NO_AUDIT, key) for key in TEST01]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("SingleStream", []),
        ("box-singlestream", []),
        ("box-multistream", [JudgeRule.INFERRED]),
        ("Offline", [JudgeRule.INFERRED]),
        ("Server", [JudgeRule.SCENARIO]),
        ("streams", []),
    ],
)
def test_another_scenarios_log_is_inferred_or_misplaced(tmp_path: Path, name: str, found: list[Rule]) -> None:
    folder = folder_of(tmp_path, name, "performance", "run_1")

    assert [rule for rule, _ in judged(folder, performance("SingleStream", steady(MS, MS)))] == found


def test_a_folder_is_called_by_the_nearest_name() -> None:
    place = place_of(Path("server/results/box-offline/SingleStream/TEST04/performance/run_1"))

    assert (place.scenario, place.role) == ("SingleStream", "TEST04")
    assert place_of(Path("a/b")).scenario is None


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({0: "00", 1: "01", 2: "02"}, []),
        ({0: "00", 2: "02"}, [(JudgeRule.FEWER, "qsl_idx")]),
        (None, []),
    ],
)
def test_accuracy_is_over_the_whole_data_set(
    tmp_path: Path, answers: dict[int, str] | None, found: list[tuple[Rule, str]]
) -> None:
    if answers is not None:
        log = [{"seq_id": n, "qsl_idx": index, "data": data} for n, (index, data) in enumerate(answers.items())]
        (tmp_path / ACCURACY).write_text(json.dumps(log))

    assert judged(tmp_path, accuracy()) == found


def test_a_sample_has_one_answer_and_a_truncated_log_is_no_less(tmp_path: Path) -> None:
    twice = [{"seq_id": n, "qsl_idx": n % 3, "data": f"0{n // 3}"} for n in range(6)]
    (tmp_path / ACCURACY).write_text(json.dumps(twice))
    assert judged(tmp_path, accuracy()) == [(JudgeRule.TWICE, "qsl_idx 0")]

    (tmp_path / ACCURACY).write_text('[\n{ "seq_id\n\n...\n\n"00" }\n]\n')
    assert judged(tmp_path, accuracy()) == []

    (tmp_path / ACCURACY).write_text('[\n{ "seq_id')
    assert judged(tmp_path, accuracy()) == [(JudgeRule.ANSWERS, "content")]


def test_accuracy_mode_has_no_figures_and_its_folder_no_other_mode(tmp_path: Path) -> None:
    timed = accuracy(**{"result_mean_latency_ns": MS})
    assert judged(tmp_path, timed) == [(JudgeRule.TIMED, "result_mean_latency_ns")]

    folder = folder_of(tmp_path, "performance")
    assert judged(folder, accuracy()) == [(JudgeRule.ROLE, "effective_test_mode")]
    folder = folder_of(tmp_path, "accuracy")
    sampled = performance("Offline", steady(MS, MS)) | TEST01
    (folder / ACCURACY).write_text('[{"qsl_idx": 0, "data": "00"}]')
    entries = sampled | {"qsl_reported_total_count": 3}
    assert [rule for rule, _ in judged(folder, entries)] == [JudgeRule.ROLE, JudgeRule.AUDIT, JudgeRule.FEWER]


def test_an_accelerator_as_slow_as_a_cpu_is_a_doubt_where_a_tree_says_that_there_is_one(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "results", "box", "yolo", "SingleStream", "performance", "run_1")
    systems = folder_of(tmp_path, "systems")
    entries = performance("SingleStream", steady(550 * MS, 90 * MS)) | {"result_mean_latency_ns": 594_955_000}

    assert judged(folder, entries) == []
    (systems / "box.json").write_text('{"accelerators_per_node": "1", "accelerator_model_name": "NPU"}')
    assert judged(folder, entries) == [(JudgeRule.SLOW, "result_mean_latency_ns")]
    for nothing in ('{"accelerators_per_node": "0"}', '{"accelerators_per_node": []}', "[", ""):
        (systems / "box.json").write_text(nothing)
        assert judged(folder, entries) == []


def test_a_summary_alone_is_judged_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text(SUMMARY_TEXT)
    assert judge_log(tmp_path) == []

    found = []
    for old, new in (("QPS w/ loadgen overhead         : 91.53", "QPS w/ loadgen overhead : 242.61"),
                     ("Mean latency (ns)               : 10900058", "Mean latency (ns) : 10317060"),
                     ("50.00 percentile latency (ns)   : 10530912", "50.00 percentile latency (ns) : 11561389"),
                     ("schedule_rng_seed : 3936089224930324775", "schedule_rng_seed : 1"),
                     ("Early stopping satisfied: Yes", "Early stopping satisfied: NO")):  # fmt: skip
        assert old in SUMMARY_TEXT
        (tmp_path / SUMMARY).write_text(SUMMARY_TEXT.replace(old, new))
        found.append({(each.file, each.field) for each in judge_log(tmp_path)})
    words = ("QPS w/ loadgen overhead", "Mean latency (ns)", "90.00 percentile latency (ns)", "schedule_rng_seed")
    for each, field in zip(found, (*words, "Early stopping satisfied"), strict=True):
        assert (SUMMARY, field) in each


SUMMARY_TEXT = """\
SUT name : box
Scenario : SingleStream
Mode     : PerformanceOnly
90.0th percentile latency (ns) : 11261389
Result is : VALID
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
Early Stopping Result:
 * Processed at least 64 queries (56719).
 * Would discard 5504 highest latency queries.
 * Early stopping 90.0th percentile estimate: 11261798
 * Early stopping 99.0th percentile estimate: 11587295

QPS w/ loadgen overhead         : 91.53
QPS w/o loadgen overhead        : 91.74

Min latency (ns)                : 10317060
Max latency (ns)                : 13160790
Mean latency (ns)               : 10900058
50.00 percentile latency (ns)   : 10530912
90.00 percentile latency (ns)   : 11261389
95.00 percentile latency (ns)   : 11370251
97.00 percentile latency (ns)   : 11475991
99.00 percentile latency (ns)   : 11586415
99.90 percentile latency (ns)   : 11602869

samples_per_query : 1
min_duration (ms): 600000
max_duration (ms): 0
min_query_count : 100
qsl_rng_seed : 2465351861681999779
sample_index_rng_seed : 14276810075590677512
schedule_rng_seed : 3936089224930324775

No warnings encountered during test.

No errors encountered during test.
"""


def put(folder: Path, entries: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    write(folder, entries)
    return folder


def several(*folders: Path) -> list[Finding]:
    return [each for each in judge_logs(folders).findings if each.rule is SeveralRule.SAME]


def test_one_log_for_three_scenarios_is_named_as_inferred(tmp_path: Path) -> None:
    for name in ("odd-SingleStream", "odd-multistream", "odd-offline"):
        put(tmp_path / name, performance("SingleStream", steady(MS, MS)))

    judged = judge_logs([tmp_path])

    assert judged.logs == 3 and judged.sound
    assert [(each.rule, Path(each.file).parent.name) for each in judged.findings] == [
        (JudgeRule.INFERRED, "odd-multistream"),
        (JudgeRule.INFERRED, "odd-offline"),
    ]


def test_an_audit_of_an_inferred_scenario_is_that_of_the_one_it_is_inferred_from(tmp_path: Path) -> None:
    run = performance("SingleStream", steady(MS, MS)) | TEST01
    for name in ("SingleStream", "MultiStream", "Server"):
        put(tmp_path / name / "TEST01" / "performance" / "run_1", run)

    found = [(each.rule, Path(each.file).parts[-5]) for each in judge_logs([tmp_path]).findings]

    assert found == [
        (JudgeRule.INFERRED, "MultiStream"),
        (JudgeRule.SCENARIO, "Server"),
        (SeveralRule.SAME, "Server"),
    ]


@pytest.mark.parametrize("name", ["SingleStream/TEST01", "Server/performance", "SingleStream/performance/run_2"])
def test_one_log_under_other_names_is_no_result(tmp_path: Path, name: str) -> None:
    one = put(tmp_path / "SingleStream" / "performance" / "run_1", performance("SingleStream", steady(MS, MS)))
    shutil.copytree(one, tmp_path / name)

    [finding] = several(tmp_path)

    assert (finding.field, finding.severity) == ("content", Severity.INVALID)
    # A folder that is named twice is one.
    assert several(one, one) == several(one, one / DETAIL) == []


def test_files_are_named_as_they_were_given_and_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    good = put(tmp_path / "good", performance("Offline", steady(MS, MS)))
    bad = put(tmp_path / "bad", performance("Offline", steady(MS, MS)) | {"result_samples_per_second": 1.0})
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / DETAIL).write_bytes(b"\xff\xfe nothing\n")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / DETAIL)
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "results.json").write_text('{"TestScenario.Offline": {"qps": "many"}}')
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "results.json").write_text("{")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "results.json").write_text("[1]")

    judged = judge_logs([tmp_path])

    assert judged.logs == 6
    assert [(each.file, each.field) for each in judged.findings] == [(str(bad / DETAIL), "result_samples_per_second")]
    assert len(judged.unread) == 4
    assert all("\n" not in each for each in judged.unread)
    assert judge_logs([good]).sound
    [missing] = judge_logs([tmp_path / "nowhere"]).unread
    [empty] = judge_logs([tmp_path / "others"]).unread
    assert "nowhere" in missing and "others" in empty


def test_a_log_without_an_end_says_no_more(tmp_path: Path) -> None:
    entries = performance("Offline", steady(MS, MS)) | {"num_errors": None, "result_validity": None}

    [(rule, _)] = judged(tmp_path, entries)

    assert rule.severity is Severity.IMPOSSIBLE


def test_a_drawn_log_as_a_summary_alone_is_not_accused(tmp_path: Path) -> None:
    rng = random.Random(3)
    for number in range(40):
        drawn = draw(rng)
        drawn.write(tmp_path / str(number))
        (tmp_path / str(number) / DETAIL).unlink()
        with (tmp_path / str(number) / SUMMARY).open("a") as file:
            file.write("No errors encountered during test.\n")
        assert not [each for each in judge_log(tmp_path / str(number)) if each.rule in list(Law)]


def test_whatever_a_field_holds_nothing_falls_over(tmp_path: Path) -> None:
    rng = random.Random(5)
    for number in range(5):
        entries = draw(rng).entries
        keys = rng.sample(sorted(entries), 8)
        for at, key in enumerate(("effective_scenario", "effective_test_mode", "result_validity", *keys)):
            for value in (None, "x", [], {}, 10**400, -1.5, float("nan"), True):
                folder = tmp_path / f"{number}-{at}"
                folder.mkdir(exist_ok=True)
                write(folder, entries | {key: value})
                judge_log(folder)
