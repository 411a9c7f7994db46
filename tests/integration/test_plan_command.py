"""``sut plan`` as a user starts it: the table, the files, and what cannot be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.children import Finished, run_python

DEVICE = ("--set", "backend_options.a_ms=5", "--set", "backend_options.b_ms=5", "--backend", "simulated")


def plan(*arguments: str, cwd: Path) -> Finished:
    return run_python("-m", "sut", "plan", *arguments, *DEVICE, "--output", "out", cwd=cwd)


def left(cwd: Path, name: str) -> Path:
    [path] = cwd.glob(f"out/*/plan-*/{name}")
    return path


def test_a_plan_is_told_and_kept(tmp_path: Path) -> None:
    arguments = ("--rate", "4", "--p99", "0.5s", "--boundary", "jpeg", "--preprocess", "simulated", "--time", "2")

    child = plan(*arguments, "--lanes", "1", "--max-batchsize", "2", "--json", cwd=tmp_path)

    assert child.code == 0, child.err
    told: dict[str, Any] = json.loads(child.out)
    assert (told["schema"], told["command"]) == (1, "plan")
    kept = json.loads(left(tmp_path, "study.json").read_text())
    assert kept.pop("system") and told == kept
    assert {row["lanes"] for row in told["rows"]} == {1} and told["plan"]["verdict"] == "yes"
    for row in told["rows"]:
        if not row["preprocess_workers"]:
            assert row["batch_ns"]["all_lanes"] >= (5 + 6.75 * row["max_batchsize"]) * 1e6
    page = left(tmp_path, "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "4 queries/s with p99 &lt;= 500 ms: yes" in page
    settings = yaml.safe_load(left(tmp_path, "plan.yaml").read_text())
    assert (settings["scenario"], settings["qps"], settings["max_latency_s"]) == ("Server", 4.0, 0.5)


def test_what_cannot_be_had_is_said_in_80_columns(tmp_path: Path) -> None:
    child = plan("--rate", "1e6", "--p99", "100", "--time", "0.5", "--max-batchsize", "4", cwd=tmp_path)

    assert child.code == 4, child.err
    assert max(len(line) for line in child.out.splitlines() if "out/" not in line) <= 80
    assert "no, not here" in child.out and "by arithmetic, not measured" in " ".join(child.out.split())


@pytest.mark.slow
def test_a_bound_that_one_picture_is_over_is_said(tmp_path: Path) -> None:
    child = plan("--rate", "1", "--p99", "5ms", "--time", "0.1", "--lanes", "1", cwd=tmp_path)

    assert child.code == 4, child.err
    assert "no rate is held with p99 <= 5 ms: one picture alone takes" in " ".join(child.out.split())
    assert not list(tmp_path.glob("out/*/plan-*/plan.yaml"))
