"""``sut boundary``: three runs, the price of each step, the Amdahl line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.children import run_python


def test_each_boundary_is_run_and_priced(tmp_path: Path) -> None:
    child = run_python(
        "-m", "sut", "boundary", "--time", "0.5", "--rounds", "1", "--json", "--output", "out", cwd=tmp_path
    )

    assert child.code == 0, child.err
    report = json.loads(child.out)
    assert (report["schema"], report["command"]) == (1, "boundary")
    tensor, pixels, jpeg = report["rows"]
    assert [row["boundary"] for row in report["rows"]] == ["tensor", "pixels", "jpeg"]
    assert tensor["step_mean_ns"] is None
    assert jpeg["step_mean_ns"] == jpeg["latency_ns"]["mean"] - pixels["latency_ns"]["mean"]
    assert (jpeg["step_ns"], jpeg["step_of"]) == (jpeg["step_mean_ns"], "mean_latency")
    stages = jpeg["stages_ns"]
    assert (tensor["price_ns"], jpeg["price_ns"]) == (None, stages["decode"]["mean"])
    assert pixels["price_ns"] == stages["resize"]["mean"] + stages["normalize"]["mean"]
    assert (jpeg["step"]["pairs"], jpeg["step"]["verdict"], jpeg["step_cpu"]["pairs"]) == (1, "open", 1)
    rest_ns = sum(jpeg["cost_ns"].values()) - jpeg["inference_ns"]
    assert jpeg["gain_without_inference"] == pytest.approx(jpeg["inference_ns"] / rest_ns)
    assert "boundary device left out: onnxruntime takes its input from host memory" in child.err
    assert "decode" in jpeg["stages_ns"] and "decode" not in pixels["stages_ns"] and "resize" not in tensor["stages_ns"]
    assert jpeg["preprocessing_ns"] > jpeg["cost_ns"]["decode"] and pixels["preprocessing_ns"] > 0


@pytest.mark.slow
def test_the_table_ends_with_the_amdahl_line(tmp_path: Path) -> None:
    child = run_python(
        "-m", "sut", "boundary", "--time", "0.3", "--rounds", "1", "--output", "out", cwd=tmp_path, COLUMNS="80"
    )

    assert child.code == 0, child.err
    assert max(map(len, child.out.splitlines()[:-1])) <= 80
    assert child.out.startswith("Prices: the ledger of one run from JPEG to label, ms a sample:")
    assert child.err.splitlines()[-1].startswith("round 1: tensor ")
    assert "if inference were free, +" in child.out.replace("\n", " ")


@pytest.mark.slow
def test_workers_count_and_offline_prices_a_sample(tmp_path: Path) -> None:
    command = "boundary --scenario Offline --preprocess-workers 2 --time 0.3 --rounds 1 --json --output out"
    child = run_python("-m", "sut", *command.split(), cwd=tmp_path)

    # INVALID is a machine that changed its speed between calibration and run: rows and prices are there all the same.
    assert child.code in (0, 4), child.err
    tensor, pixels, jpeg = json.loads(child.out)["rows"]
    assert [row["workers"] for row in (tensor, pixels, jpeg)] == [0, 2, 2]
    assert jpeg["step_of"] == "time_per_sample"
    assert jpeg["step_ns"] == pytest.approx(1e9 / jpeg["samples_per_second"] - 1e9 / pixels["samples_per_second"])
    # One side of a staged pipeline always is the slower one: making the other side free gains nothing.
    assert min(jpeg["gain_without_inference"], jpeg["gain_without_preprocessing"]) == 0
