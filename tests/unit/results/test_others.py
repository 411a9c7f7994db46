"""Results of other programs: what is read from the reference harness's results.json and from LoadGen's logs alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sut.mlperf.logs import DETAIL
from sut.results.collected import collect
from sut.results.others import read_other
from sut.results.rows import rows_of
from tests.unit.loadgen_logs import END, entry, performance, write, write_detail
from tests.unit.results.test_results import a_result

MS = 1_000_000


def whole(entry: dict[str, Any] | None = None, **changes: Any) -> str:
    """What the reference harness leaves: its ``add_results`` and the options as argparse shows them."""
    told = {
        "took": 10.0, "mean": 0.002, "qps": 400.0, "count": 4000, "good_items": 0, "total_items": 4000,
        "percentiles": {"50.0": 0.001, "80.0": 0.002, "90.0": 0.003, "95.0": 0.004, "99.0": 0.005, "99.9": 0.006},
    }  # fmt: skip
    content = {
        "runtime": "onnxruntime", "version": "1.31.1", "time": 1_790_000_000,
        "cmdline": "Namespace(dataset='imagenet', model='resnet50_v1.onnx', model_name='resnet50', threads=2)",
        "TestScenario.Offline": told | (entry or {}),
    }  # fmt: skip
    return json.dumps(content | changes)


def reference(folder: Path, **changes: Any) -> None:
    (folder / "results.json").write_text(whole(changes))


@pytest.mark.parametrize(
    ("scenario", "metric", "samples"),
    [
        ("SingleStream", ("early_stopping_p90_latency_ns", 2 * MS, False), 3),
        ("MultiStream", ("early_stopping_p99_query_latency_ns", 3 * MS, False), 24),
        ("Offline", ("samples_per_second", 1000.0, True), 3),
    ],
)
def test_a_log_alone_has_its_figures(
    tmp_path: Path, scenario: str, metric: tuple[str, float, bool], samples: int
) -> None:
    write(tmp_path, performance(scenario, [MS, 2 * MS, 3 * MS]))

    found = read_other(tmp_path)

    assert (found["source"], found["scenario"], found["mode"], found["valid"]) == (
        "LoadGen",
        scenario,
        "performance",
        True,
    )
    assert tuple(found["metric"].values()) == metric
    assert found["samples"] == samples
    assert (found["latency_ns"]["p50"], found["latency_ns"]["max"]) == (2 * MS, 3 * MS)
    assert "model" not in found
    assert found["started"] == "2026-11-28T05:30:00", "LoadGen's Z is not true"


def test_a_log_that_was_cut_is_not_valid_and_says_why(tmp_path: Path) -> None:
    entries = performance("Offline", [MS, MS]) | {"num_errors": None, "result_validity": None}
    write(tmp_path, entries)

    found = read_other(tmp_path)

    assert (found["valid"], found["invalid_reasons"]) == (False, ["LoadGen's log has no end"])


def test_an_accuracy_log_is_done_and_errors_are_notes(tmp_path: Path) -> None:
    write_detail(
        tmp_path,
        entry("effective_scenario", "Offline"),
        entry("effective_test_mode", "AccuracyOnly"),
        entry("generated_query_count", 2),
        entry("generated_samples_per_query", 5),
        entry("error_runtime", "it fell over", is_error=True),
        END,
    )

    found = read_other(tmp_path)

    assert (found["mode"], found["valid"], found["samples"]) == ("accuracy", None, 10)
    assert found["notes"] == ["error_runtime: it fell over"]


def test_the_reference_harness_tells_what_it_has_in_our_units(tmp_path: Path) -> None:
    reference(tmp_path)

    found = read_other(tmp_path)

    assert (found["source"], found["model"], found["backend"]) == ("reference", "resnet50", "onnxruntime")
    assert (found["scenario"], found["mode"], found["samples_per_second"]) == ("Offline", "performance", 400.0)
    assert (found["latency_ns"]["p50"], found["latency_ns"]["p99_9"]) == (MS, 6 * MS)
    assert (found["accuracy"], found["started"]) == (None, "2026-09-21T14:13:20+00:00")
    assert "metric" not in found and "valid" not in found


def test_its_accuracy_is_a_fraction_and_no_query_is_no_latency(tmp_path: Path) -> None:
    reference(tmp_path, good_items=3, total_items=4, accuracy=75.0, mean=float("nan"))

    found = read_other(tmp_path)

    assert found["accuracy"] == {"name": "top1", "value": 0.75, "count": 4}
    assert (found["mode"], found["latency_ns"]["mean"]) == ("accuracy", None)


def test_where_both_are_there_the_log_has_the_figures(tmp_path: Path) -> None:
    reference(tmp_path)
    write(tmp_path, performance("Offline", [MS, 2 * MS, 3 * MS]))

    found = read_other(tmp_path)

    assert (found["source"], found["model"]) == ("reference", "resnet50")
    assert (found["metric"]["value"], found["latency_ns"]["p50"], found["valid"]) == (1000.0, 2 * MS, True)


BROKEN = {
    "half a results.json": ("results.json", '{"runtime": "onnxruntime", "TestScen'),
    "another results.json": ("results.json", '[{"name": "a"}]'),
    "no scenario": ("results.json", '{"runtime": "x"}'),
    "no percentiles": ("results.json", '{"TestScenario.Offline": {"count": 3}}'),
    "words for numbers": ("results.json", '{"TestScenario.Offline": {"count": "many", "percentiles": {}}}'),
    "nothing of a scenario": ("results.json", '{"TestScenario.Offline": null}'),
    "a number beyond bounds": (
        "results.json",
        '{"TestScenario.Offline": {"count": 1, "mean": 1e999, "percentiles": {}}}',
    ),
    "a word for a rate": ("results.json", whole(entry={"qps": "fast"})),
    "a list for a rate": ("results.json", whole(entry={"qps": [1]})),
    "true for a time": ("results.json", whole(entry={"took": True})),
    "no finite rate": ("results.json", whole(entry={"qps": float("inf")})),
    "a rate of too many digits": ("results.json", whole(entry={"qps": 10**400})),
    "a number for a model": ("results.json", whole(args={"model": 5})),
    "a list for a runtime": ("results.json", whole(runtime=["a"])),
    "a number for a version": ("results.json", whole(version=1.5)),
    "an empty log": (DETAIL, ""),
    "an entry without a key": (DETAIL, ":::MLLOG {}\n"),
    "an entry that is a list": (DETAIL, ":::MLLOG []\n"),
    "an unknown scenario": (DETAIL, entry("effective_scenario", "Sorcerer")),
}


@pytest.mark.parametrize(("name", "text"), BROKEN.values(), ids=BROKEN)
def test_what_is_neither_is_skipped_and_the_rest_is_shown(tmp_path: Path, name: str, text: str) -> None:
    for folder in ("broken", "sound"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken" / name).write_text(text)
    (tmp_path / "sound" / "result.json").write_text(a_result().to_json())

    rows, skipped = rows_of(collect([tmp_path]))

    assert [row.source for row in rows] == ["result.json"]
    assert [each.path for each in skipped] == [tmp_path / "broken"]
    assert skipped[0].reason.isprintable()


def test_what_others_do_not_tell_is_null_under_the_same_names(tmp_path: Path) -> None:
    reference(tmp_path)

    [row], _ = rows_of(collect([tmp_path]))

    assert row.path == tmp_path / "results.json"
    assert set(row.facts) == set(a_result().model_dump(by_alias=True))
    assert (row.facts["precision"], row.facts["metric"], row.facts["valid"]) == (None, None, None)
