"""``sut boundary``: three runs, the price of each step, the Amdahl line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sut.commands.boundary import Shares, shares
from tests.integration.children import run_python


def test_each_boundary_is_run_and_priced(tmp_path: Path) -> None:
    child = run_python("-m", "sut", "boundary", "--time", "0.5", "--json", "--output", "out", cwd=tmp_path)

    assert child.code == 0, child.err
    report = json.loads(child.out)
    assert (report["schema"], report["command"]) == (1, "boundary")
    tensor, pixels, jpeg = report["rows"]
    assert [row["boundary"] for row in report["rows"]] == ["tensor", "pixels", "jpeg"]
    assert tensor["step_mean_ns"] is None
    assert jpeg["step_mean_ns"] == jpeg["latency_ns"]["mean"] - pixels["latency_ns"]["mean"]
    assert "decode" in jpeg["stages_ns"] and "decode" not in pixels["stages_ns"] and "resize" not in tensor["stages_ns"]
    assert jpeg["preprocessing_ns"] > pixels["preprocessing_ns"] > 0


def test_the_table_ends_with_the_amdahl_line(tmp_path: Path) -> None:
    child = run_python("-m", "sut", "boundary", "--time", "0.3", "--output", "out", cwd=tmp_path, COLUMNS="80")

    assert child.code == 0, child.err
    assert max(map(len, child.out.splitlines())) <= 80
    assert "if inference were free, +" in child.out.replace("\n", " ")


@pytest.mark.parametrize(
    "arguments", [["--scenario", "all"], ["--accuracy"], ["--scenario", "Server", "--find-peak-performance"]]
)
def test_it_takes_one_scenario_in_performance_mode(tmp_path: Path, arguments: list[str]) -> None:
    child = run_python("-m", "sut", "boundary", *arguments, cwd=tmp_path)

    assert child.code == 1
    assert "sut boundary runs one scenario in performance mode" in child.err


@pytest.mark.parametrize(
    ("cost", "without_inference", "without_preprocessing"),
    [
        ({"decode": 3, "resize": 1, "infer": 2}, 0.5, 2.0),
        ({"preprocess": 4, "infer": 2, "postprocess": 9}, 0.5, 2.0),
        ({"infer": 2}, float("inf"), 0.0),
        ({"decode": 2}, 0.0, float("inf")),
    ],
)
def test_amdahl(cost: dict[str, int], without_inference: float, without_preprocessing: float) -> None:
    split = shares(cost)

    assert split.gain_without_inference == without_inference
    assert split.gain_without_preprocessing == without_preprocessing
    assert split == Shares(split.preprocessing_ns, split.inference_ns)
