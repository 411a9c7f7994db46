"""The reference harness's results.json: what it says that cannot be, and that no more is asked of it than it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sut.mlperf.finding import Rule, Severity
from sut.mlperf.reference_results import HarnessRule, judge_reference

SOUND = {
    "took": 10.0, "mean": 0.0025, "qps": 395.0, "count": 3950, "good_items": 0, "total_items": 3950,
    "percentiles": {"50.0": 0.0022, "80.0": 0.003, "90.0": 0.0035, "95.0": 0.004, "99.0": 0.005, "99.9": 0.006},
}  # fmt: skip


def told(folder: Path, scenario: str, entry: dict[str, Any], **more: Any) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps({f"TestScenario.{scenario}": entry, **more}))
    return path


def judged(folder: Path, scenario: str, entry: dict[str, Any], **more: Any) -> list[tuple[Rule, str]]:
    found = judge_reference(told(folder, scenario, entry, **more))
    return [(each.rule, each.field.removeprefix(f"TestScenario.{scenario}.")) for each in found]


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
def test_what_is_sound_has_no_finding_nor_has_any_part_of_it(tmp_path: Path, scenario: str) -> None:
    assert judged(tmp_path, scenario, SOUND) == []
    for name in SOUND:
        assert judged(tmp_path, scenario, {key: value for key, value in SOUND.items() if key != name}) == []
        assert judged(tmp_path, scenario, {name: SOUND[name]}) == []


@pytest.mark.parametrize(
    ("scenario", "figures", "at_once"),
    [
        ("SingleStream", {"qps": 242.61, "mean": 0.2466, "count": 50_000}, "59.83 at once"),
        ("MultiStream", {"qps": 223.48, "mean": 0.2648, "count": 6250}, "59.18 at once"),
    ],
)
def test_a_published_table_of_an_accuracy_run_is_impossible(
    tmp_path: Path, scenario: str, figures: dict[str, float], at_once: str
) -> None:
    scored = {"accuracy": 76.456, "good_items": 38_228, "total_items": 50_000}

    impossible, doubt = judge_reference(told(tmp_path, scenario, figures | scored))

    assert (impossible.rule, impossible.severity) == (HarnessRule.LITTLE, Severity.IMPOSSIBLE)
    assert at_once in impossible.expected and "for 1 query" in impossible.expected
    assert (doubt.rule, doubt.severity) == (HarnessRule.TIMED, Severity.DOUBT)
    [alone] = judge_reference(told(tmp_path, scenario, {"qps": figures["qps"], "mean": figures["mean"]}))
    assert alone.rule is HarnessRule.LITTLE


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"qps": 396.0}, (HarnessRule.RATE, "qps")),
        ({"count": 4020, "qps": 402.0, "mean": 0.0026}, (HarnessRule.LITTLE, "qps")),
        ({"mean": 0.0005}, (HarnessRule.MEAN, "mean")),
        ({"percentiles": SOUND["percentiles"] | {"90.0": 0.002}},  # type: ignore[operator]
         (HarnessRule.ORDER, "percentiles.p90")),
        ({"percentiles": {"99.9": 11.0}}, (HarnessRule.RATE, "percentiles.p99_9")),
        ({"took": -1.0}, (HarnessRule.NUMBER, "took")),
        ({"count": 3950.5}, (HarnessRule.NUMBER, "count")),
        ({"good_items": 3951}, (HarnessRule.SHARE, "good_items")),
        ({"good_items": 1975, "accuracy": 51.0}, (HarnessRule.SHARE, "accuracy")),
        ({"accuracy": 130.0}, (HarnessRule.SHARE, "accuracy")),
    ],
)  # fmt: skip
def test_what_no_run_has_is_found(tmp_path: Path, changes: dict[str, Any], found: tuple[Rule, str]) -> None:
    assert found in judged(tmp_path, "SingleStream", SOUND | changes)


def test_accuracy_over_fewer_pictures_than_imagenet_has_is_invalid(tmp_path: Path) -> None:
    scored = {"accuracy": 50.0, "good_items": 414, "total_items": 828}
    told_by = [
        {"cmdline": "Namespace(dataset='imagenet', count=None, qps=None)"},
        {"args": {"dataset": "imagenet", "count": 828}},
    ]

    for more in told_by:
        assert judged(tmp_path, "Offline", scored, **more) == [(HarnessRule.FEWER, "total_items")]
    assert judged(tmp_path, "Offline", scored, cmdline="Namespace(dataset='coco')") == []
    whole = {"accuracy": 50.0, "good_items": 25_000, "total_items": 50_000}
    assert judged(tmp_path, "Offline", whole, **told_by[0]) == []


def test_options_of_other_scenarios_have_no_effect(tmp_path: Path) -> None:
    cmdline = "Namespace(dataset='coco', qps=100, max_latency=0.1, samples_per_query=8)"

    assert judged(tmp_path, "SingleStream", SOUND, cmdline=cmdline) == [
        (HarnessRule.OPTION, "qps"),
        (HarnessRule.OPTION, "max_latency"),
    ]
    assert judged(tmp_path, "Server", SOUND, cmdline=cmdline) == []
    assert judged(tmp_path, "Offline", SOUND, args={"qps": 5, "max_latency_s": None}) == []


def test_beside_a_result_json_accuracy_runs_are_known_to_be_that(tmp_path: Path) -> None:
    path = told(tmp_path, "Offline", SOUND | {"accuracy": 0.0})

    assert [each.rule for each in judge_reference(path)] == [HarnessRule.TIMED]
    assert judge_reference(path, alone=False) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"TestScenario.Offline": 5}', '{"TestScenario.Offline": {"qps": [1]}}',
     '{"TestScenario.Offline": {"took": 1e999}}', '{"TestScenario.Sorcerer": {}}',
     '{"TestScenario.Offline": {"qps": tr', '{"TestScenario.Offline": {"percentiles": 5}}', "[" * 100_000],
)  # fmt: skip
def test_what_is_none_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)

    with pytest.raises(ValueError):
        judge_reference(tmp_path / "results.json")
