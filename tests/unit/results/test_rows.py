"""Results side by side: what differs, what is the same, in which order, and each as one flat row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sut.config import make_config
from sut.results.collected import Collected, Found
from sut.results.rows import Row, differing, flat_rows, machines, rows_of
from sut.results.schema import Accuracy, Agreement, Metric, Result
from tests.unit.results.test_results import a_result


def rows(*results: Result) -> list[Row]:
    found = tuple(Found(Path(f"r{number}/result.json"), result) for number, result in enumerate(results))
    shown, skipped = rows_of(Collected(found, ()))
    assert skipped == []
    return shown


def of(config: dict[str, Any] | None = None, **changes: Any) -> Result:
    settings = make_config({"backend": "null", "scenario": "Server", **(config or {})})
    return a_result(config=settings.model_dump(mode="json"), **changes)


def test_what_differs_is_told_apart_from_what_is_the_same() -> None:
    differ, same = differing(rows(of({"time_s": 5, "lanes": 1}), of({"time_s": 5, "lanes": 2}, precision="int8")))

    assert differ == {"precision": ["fp32", "int8"], "lanes": ["1", "2"]}
    assert {"model", "weights", "backend", "device", "preprocess", "boundary", "scenario", "mode", "time_s"} <= set(
        same
    )
    assert same["time_s"] == "5"
    assert "fold" not in same  # as nobody asked for otherwise


@pytest.mark.parametrize("setting", ["output", "overwrite", "debug", "watchdog_s", "cache", "cache_dir"])
def test_how_a_run_is_kept_makes_no_difference(setting: str) -> None:
    value = {"output": "other", "cache_dir": "other", "watchdog_s": 9.0}.get(setting, True)

    differ, _ = differing(rows(of(), of({setting: value})))

    assert differ == {}


def test_a_setting_is_what_the_plan_used_where_nothing_was_asked() -> None:
    asked = of({"threads": None, "max_batchsize": 4, "backend_options": {"hint": "latency"}})
    chosen = asked.model_copy(update={"plan": {"lanes": 2, "threads": 1, "hint": "throughput", "notes": []}})

    [row] = rows(chosen)

    assert (row.settings["lanes"], row.settings["threads"], row.settings["max_batchsize"]) == (2, 1, 4)
    assert row.settings["backend_options.hint"] == "throughput"


def test_a_run_that_failed_is_told_from_one_that_is_invalid() -> None:
    failed, invalid = of(valid=False, first_error="the disk is on fire"), of(valid=False)

    assert [row.failed for row in (*rows(failed), *rows(invalid))] == [True, False]


def test_an_entry_of_the_options_of_one_backend_differs_by_its_own_name() -> None:
    differ, _ = differing(rows(of({"backend_options": {"streams": 1}}), of({"backend_options": {"streams": 4}}), of()))

    assert differ == {"backend_options.streams": ["1", "4", ""]}


def test_a_setting_that_an_older_result_does_not_know_makes_no_difference() -> None:
    older = of().model_copy(update={"config": {"backend": "null"}})

    differ, same = differing(rows(of(), older))

    assert differ == {}
    assert "batching" not in same


def test_a_version_and_a_hash_are_columns_only_where_the_name_is_not_enough() -> None:
    two = [of(model="a", model_sha256="aa", backend_version="1"), of(model="b", model_sha256="bb", backend_version="2")]

    differ, _ = differing(rows(*two))
    again, _ = differing(rows(*two, of(model="b", model_sha256="cc", backend_version="2")))

    assert list(differ) == ["model", "backend_version"]
    assert list(again) == ["model", "model_sha256", "backend_version"]


def test_rows_are_by_model_boundary_and_scenario_the_best_figure_first() -> None:
    def rate(value: float | None, **changes: Any) -> Result:
        metric = Metric(name="completed_samples_per_second", value=value, higher_is_better=True)
        return a_result(metric=metric, **changes)

    def latency(value: float) -> Result:
        metric = Metric(name="early_stopping_p90_latency_ns", value=value, higher_is_better=False)
        return a_result(metric=metric, scenario="SingleStream")

    score = Accuracy(name="top1", value=0.5, count=2)
    accuracy = a_result(mode="accuracy", valid=None, metric=None, accuracy=score)
    shuffled = [rate(None), accuracy, rate(3.0), latency(9.0), rate(5.0), latency(8.0), rate(1.0, model="alexnet")]

    ordered = [(row.facts["model"], (row.facts["metric"] or {}).get("value")) for row in rows(*shuffled)]

    assert ordered[0] == ("alexnet", 1.0)
    assert [figure for _, figure in ordered[1:]] == [8.0, 9.0, 5.0, 3.0, None, None]
    assert rows(*shuffled)[-1].facts["mode"] == "accuracy"


def test_a_flat_row_has_all_names_of_result_json_with_dots_and_no_column_twice() -> None:
    agreement = Agreement(value=0.9, low=0.8, high=1.0, count=10, source="s", words="w")
    names, flat = flat_rows(rows(of(notes=["one", "two"]), of(agreement=agreement, metric=None)))

    assert names[:3] == ["path", "source", "schema"]
    assert {"metric.value", "latency_ns.p99", "agreement.value", "config.max_batchsize", "started"} <= set(names)
    assert not {"metric", "latency_ns", "agreement", "config"} & set(names)
    assert [row.get("metric.value") for row in flat] == [12.5, None]
    assert flat[0]["notes"] == "one; two"


def test_machines_are_told_apart_by_what_both_results_tell() -> None:
    one, two, three = ({"cpu": "EPYC", "cores": cores} for cores in (2, 1, 4))

    assert machines(rows(of(system=one), of(system=one), of(system={}))) == []
    assert machines(rows(of(system=one), of(system=two), of(system=one))) == ["usable cores: 2 and 1"]
    assert len(machines(rows(of(system=one), of(system=two), of(system=three)))) == 2
