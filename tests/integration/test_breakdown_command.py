"""``sut breakdown``: planted stages are found at zero load and loaded, a planted bottleneck is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.children import Finished, run_python

SIZES = {"small": (60, 70), "large": (3000, 2000)}


def breakdown(tmp_path: Path, *words: str, preprocess: str = "simulated", **planted: float) -> Finished:
    """The command over a folder of two pictures, on planted devices."""
    folder = tmp_path / "two"
    folder.mkdir()
    for name, (width, height) in SIZES.items():
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((height, width, 3), 128, np.uint8))
    where = {name: "backend" if name in ("a_ms", "b_ms") else "preprocess" for name in planted}
    options = [word for name, ms in planted.items() for word in ("--set", f"{where[name]}_options.{name}={ms}")]
    own = ("--backend", "simulated", "--preprocess", preprocess, "--pictures", str(folder), "--output", "out")
    return run_python("-m", "sut", "breakdown", *own, *options, *words, cwd=tmp_path, COLUMNS="80")


def kept(tmp_path: Path) -> dict[str, Any]:
    [path] = tmp_path.glob("out/*/*/study.json")
    assert "<svg" in path.with_name("report.html").read_text() or not json.loads(path.read_text())["rows"]
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_each_load_is_a_row_and_the_table_fits(tmp_path: Path) -> None:
    child = breakdown(tmp_path, "--time", "0.2", "--rounds", "1", a_ms=3, b_ms=0)

    assert child.code == 0, child.err
    assert max(map(len, child.out.splitlines()[:-2])) <= 80
    assert child.out.startswith("two pictures, ms:")
    told = kept(tmp_path)
    loads = [row["load"] for row in told["rows"]]
    assert loads == ["back to back", "batch 1", "full", "zero load", "at 20 %", "loaded"]
    for row in told["rows"]:
        cut = row["at"]["mean"]
        assert cut["latency_ns"] == pytest.approx(sum(cut["stages_ns"].values()))
        assert cut["stages_ns"]["infer"] >= 3e6 and row["trouble"] is None
    assert (told["schema"], told["command"], told["left_out"], told["failed"]) == (1, "breakdown", [], {})
    assert told["overtaking"] == [] and told["zero_load"][0]["against_baseline"] is None


@pytest.mark.timed
@pytest.mark.slow
def test_planted_stages_are_found_at_zero_load_and_in_a_full_batch(tmp_path: Path) -> None:
    planted = {"decode_ms": 100, "resize_ms": 50, "normalize_ms": 50, "a_ms": 100, "b_ms": 0}
    child = breakdown(tmp_path, "--time", "2", "--rounds", "1", "--max-batchsize", "2", "--json", **planted)

    assert child.code == 0, child.err
    told = json.loads(child.out)
    rows = {row["load"]: row for row in told["rows"]}
    stages = {"decode": 100, "resize": 50, "normalize": 50, "infer": 100}
    for load, batch in (("back to back", 1), ("zero load", 1), ("full", 2)):
        found = rows[load]["at"]["p50"]["stages_ns"]
        for name, ms in stages.items():
            assert found[name] / 1e6 == pytest.approx(ms * (1 if name == "infer" else batch), rel=0.05), (load, name)
    assert rows["zero load"]["at"]["p50"]["tax"] == pytest.approx(2 / 3, rel=0.05)
    assert rows["zero load"]["residual_ok"] and rows["back to back"]["residual_ok"]
    assert rows["zero load"]["rate"] == pytest.approx(0.2 / 0.3, rel=0.05)
    # Four are outstanding, two in a batch: each waits for the batch before its own.
    assert rows["full"]["at"]["p50"]["stages_ns"]["queue"] / 1e6 == pytest.approx(500, rel=0.05)


@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize(("decode_ms", "a_ms", "limits"), [(200, 100, "preprocessing"), (100, 200, "inference")])
def test_a_planted_bottleneck_is_named(tmp_path: Path, decode_ms: float, a_ms: float, limits: str) -> None:
    planted = {"decode_ms": decode_ms, "resize_ms": 0, "normalize_ms": 0, "a_ms": a_ms, "b_ms": 0}
    child = breakdown(tmp_path, "--bottleneck", "--max-batchsize", "1", "--rounds", "4", **planted)

    assert child.code == 0, child.err
    [row] = kept(tmp_path)["bottleneck"]
    assert row["limits"] == limits and f"{limits} limits" in child.out.replace("\n", " ")
    assert row["samples_per_second"]["preprocess"] == pytest.approx(1000 / decode_ms, rel=0.05)
    assert row["samples_per_second"]["infer"] == pytest.approx(1000 / a_ms, rel=0.05)
    assert row["of_bound"]["ratio"] == pytest.approx(1, rel=0.05)
    assert row["both_at_once"] == pytest.approx(2, rel=0.05)  # planted devices take no core from each other
    assert row["outlier"] == "refuted"
    assert row["bytes_per_sample"]["tensor"] == 4 * 3 * 224 * 224


@pytest.mark.timed
@pytest.mark.slow
def test_where_workers_preprocess_the_slower_side_is_the_bound(tmp_path: Path) -> None:
    planted = {"decode_ms": 100, "resize_ms": 0, "normalize_ms": 0, "a_ms": 100, "b_ms": 0}
    words = ("--bottleneck", "--max-batchsize", "1", "--rounds", "4", "--time", "2", "--preprocess-workers", "1")
    child = breakdown(tmp_path, *words, **planted)

    assert child.code == 0, child.err
    [row] = kept(tmp_path)["bottleneck"]
    assert row["overlapped"] and row["bound_per_second"] == pytest.approx(10, rel=0.05)
    assert row["samples_per_second"]["end_to_end"] == pytest.approx(10, rel=0.05)
    assert row["samples_per_second"]["in_turn"] == pytest.approx(5, rel=0.05)


def test_what_does_not_run_is_told_once_and_is_the_exit_code(tmp_path: Path) -> None:
    child = breakdown(tmp_path, preprocess="opencb")

    assert child.code == 1
    assert "unknown preprocessor 'opencb'; did you mean opencv?" in child.error
