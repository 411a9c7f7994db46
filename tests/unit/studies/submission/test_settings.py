"""user.conf and measurements.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sut.mlperf import official
from sut.mlperf.loadgen import asked, settings_for
from sut.mlperf.logs import read_detail
from sut.mlperf.userconf import read_conf
from sut.studies.submission.settings import measurements, user_conf
from tests.unit.loadgen_logs import entry, write_detail
from tests.unit.studies.submission.finished_runs import given, write_result, write_run

SCENARIOS = (*official.EDGE, "Server")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_loadgen_reads_back_what_it_was_given(scenario: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, scenario, "performance").folder
    conf = tmp_path / "user.conf"

    conf.write_text(user_conf(scenario, read_detail(folder), folder))
    read_conf(conf)  # strictly: nothing in it is ignored
    again = settings_for(official.MODEL, scenario, "performance", [conf])

    assert asked(again, 5, 5) == asked(given(scenario), 5, 5)
    # Without the file LoadGen has other settings.
    assert asked(settings_for(official.MODEL, scenario, "performance", []), 5, 5) != asked(again, 5, 5)


def conf_of(folder: Path, scenario: str, **requested: Any) -> str:
    entries = {"min_duration_ms": 600_000, "min_query_count": 100} | requested
    detail = write_detail(folder, *(entry(f"requested_{name}", value) for name, value in entries.items()))
    return user_conf(scenario, detail, folder)


def test_whole_numbers_stay_so(tmp_path: Path) -> None:
    """Of ``1e+11`` LoadGen would read 1."""
    text = conf_of(tmp_path, "Offline", min_query_count=10**11, offline_expected_qps=6e6)

    assert "resnet50.Offline.min_query_count = 100000000000\n" in text
    assert "resnet50.Offline.target_qps = 6000000\n" in text


def test_a_bound_of_a_fraction_is_rounded_up_and_said(tmp_path: Path) -> None:
    text = conf_of(tmp_path, "Server", server_target_qps=50, server_target_latency_ns=43_700_000)

    assert "# The bound was 43.7 ms;" in text and "resnet50.Server.target_latency = 44\n" in text


@pytest.mark.parametrize("value", [None, 0, -1, "many", float("nan"), float("inf"), 10**400, [1]])
def test_a_log_that_does_not_say_is_refused_by_file_and_key(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mlperf_log_detail\.txt: requested_offline_expected_qps is "):
        conf_of(tmp_path, "Offline", offline_expected_qps=value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("fp32", "resnet50_v1.onnx", "fp32", "none")),
        ({"config": {"fold": True}, "recipe": {"dtype": "uint8"}},
         ("uint8", "resnet50_v1.onnx", "fp32", "normalisation and layout folded into the graph")),
        ({"precision": "bf16"}, ("fp32", "resnet50_v1.onnx", "bf16", "cast from fp32 to bf16")),
        ({"precision": "int8", "notes": ["calibrated on 500 pictures in the list a.txt"]},
         ("fp32", "resnet50_v1.onnx", "int8",
          "quantised after training by NNCF, calibrated on 500 pictures in the list a.txt")),
        ({"precision": "int8", "weights": "unknown", "config": {"model": "/my/net.onnx"}},
         ("fp32", "net.onnx", "int8", "none here: the file came quantised")),
        ({"config": {"model": "./cats.v2"}, "loaded_sha256": {"model.onnx": "ab" * 32}},
         ("fp32", "model.onnx", "fp32", "none")),
        ({"config": {"model": "./cats.v2"}, "loaded_sha256": {"folded.onnx": "cd" * 32}},
         ("fp32", "cats.v2", "fp32", "none")),
        ({"model": "efficientnet-lite0", "config": {"model": "efficientnet-lite0"},
          "loaded_sha256": {"model.xml": "cd", "lite0.onnx": "ab" * 32}}, ("fp32", "lite0.onnx", "fp32", "none")),
    ],
)  # fmt: skip
def test_measurements_are_what_became_of_the_weights(changes: dict[str, Any], expected: tuple[str, ...]) -> None:
    found = measurements(write_result("Offline", "performance", **changes))

    names = ("input_data_types", "starting_weights_filename", "weight_data_types", "weight_transformations")
    assert tuple(found[name] for name in names) == expected
    assert set(found) == {*names, "retraining"} and all(found.values())
