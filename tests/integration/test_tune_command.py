"""``sut tune``: real runs on planted devices; killed and interrupted on the way; nothing VALID; the YAML it leaves."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.children import Finished, python_started, run_python
from tests.unit.small_models import RECIPE_FILE, write_classifier

OFFLINE = ("null", "efficientnet-lite0", "cpu", "--scenario", "Offline", "--time", "0.2", "--max-batchsize", "1")


def tune(*arguments: str, cwd: Path, **environment: str) -> Finished:
    return run_python("-m", "sut", "tune", *arguments, "--output", "out", cwd=cwd, timeout_s=600, **environment)


def device(a_ms: float, b_ms: float) -> list[str]:
    return ["--set", f"backend_options.a_ms={a_ms}", "--set", f"backend_options.b_ms={b_ms}"]


def left(cwd: Path, name: str) -> Path:
    [path] = cwd.glob(f"out/*/tune-*/{name}")
    return path


def rows(cwd: Path) -> list[dict[str, Any]]:
    _, *lines = left(cwd, "runs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.timed
@pytest.mark.slow
def test_the_planted_batch_is_found_and_its_yaml_runs(tmp_path: Path) -> None:
    arguments = ["--scenario", "Offline", "--time", "0.4", "--max-batchsize", "1", "--space", "max_batchsize=8"]

    child = tune("simulated", *arguments, *device(5, 1), "--json", cwd=tmp_path)

    assert child.code == 0, child.err
    report = json.loads(child.out)
    assert (report["schema"], report["command"]) == (1, "tune")
    assert report["rows"] == rows(tmp_path)
    pairs = report["outcome"]["gain"]["pairs"]
    assert [row["phase"] for row in report["rows"]] == ["round 1"] * 2 + ["pairs"] * 2 * pairs
    # 8 samples in 13 ms against 1 in 6 ms.
    assert report["outcome"]["chosen"] == {"max_batchsize": 8}
    assert report["outcome"]["is_gain"] is True and report["outcome"]["gain"]["ratio"] > 2
    assert left(tmp_path, "search.svg").read_text().startswith("<svg")
    assert "Settings to take: max_batchsize=8" in left(tmp_path, "report.html").read_text()

    tuned = left(tmp_path, "tuned.yaml")
    assert yaml.safe_load(tuned.read_text()) == {
        "scenario": "Offline",
        "backend": "simulated",
        "backend_options": {"a_ms": 5, "b_ms": 1},
        "max_batchsize": 8,
    }
    again = run_python("-m", "sut", "run", "--config", tuned, "--time", "0.4", "--json", cwd=tmp_path)
    assert again.code == 0, again.err
    [result] = json.loads(again.out)["rows"]
    assert (result["scenario"], result["config"]["max_batchsize"], result["valid"]) == ("Offline", 8, True)


@pytest.mark.timed
@pytest.mark.slow
def test_server_confirms_a_rate_and_says_why_the_next_one_fails(tmp_path: Path) -> None:
    arguments = ["--scenario", "Server", "--time", "0.5", "--max-latency", "0.3", "--space", "lanes=1"]

    child = tune("simulated", *arguments, *device(4, 1), cwd=tmp_path)

    assert child.code == 0, child.err
    tuned = yaml.safe_load(left(tmp_path, "tuned.yaml").read_text())
    rate = tuned["qps"]
    confirmed = [row for row in rows(tmp_path) if row["phase"] == "confirm" and row["qps"] == rate]
    assert [row["valid"] for row in confirmed[-3:]] == [True] * 3
    assert f"highest VALID rate: {rate:g} queries/s, VALID 3 times out of 3" in child.out.replace("\n", " ")
    assert "why not more: at " in child.out
    assert max(map(len, child.out.splitlines()[:-2])) <= 80
    assert tuned["max_latency_s"] == 0.3


@pytest.mark.slow
def test_without_a_valid_rate_the_bound_to_relax_is_named(tmp_path: Path) -> None:
    arguments = ["--scenario", "Server", "--time", "0.5", "--space", "lanes=1"]

    child = tune("simulated", *arguments, *device(30, 1), cwd=tmp_path)

    assert child.code == 4, child.err
    assert "error: no rate is VALID: one picture alone takes 3" in child.err
    assert "longer than the latency bound of 15 ms. Relax the bound (--max-latency 0.06" in child.err
    assert not list(tmp_path.rglob("tuned.yaml"))
    header = json.loads(left(tmp_path, "runs.jsonl").read_text().splitlines()[0])
    assert (header["backend"], header["model"]) == ("simulated none", "efficientnet-lite0")


def test_an_unknown_backend_leaves_nothing_behind(tmp_path: Path) -> None:
    child = tune("onnxruntme", cwd=tmp_path)

    assert child.code == 1
    assert "error: unknown backend 'onnxruntme'; did you mean onnxruntime?" in child.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_reduced_precision_says_what_became_of_the_labels(tmp_path: Path) -> None:
    write_classifier(tmp_path / "small.onnx")
    (tmp_path / "small.yaml").write_text(RECIPE_FILE)
    model = ("--model", "small.onnx", "--recipe", "small.yaml", "--count", "3", "--precision", "int8")
    arguments = (*model, "--scenario", "Offline", "--time", "0.2", "--space", "lanes=2", "--budget", "0")

    child = tune(*arguments, cwd=tmp_path, SUT_CACHE_DIR=str(tmp_path / "cache"))

    assert child.code == 0, child.err
    [row] = rows(tmp_path)
    line = row["agreement_line"]
    assert line.startswith("int8 against fp32: ") and "% same labels" in line
    assert f"no gain: the default is the best of 1 point {line} run it: " in " ".join(child.out.split())
    assert f"# I{line[1:]}" in left(tmp_path, "tuned.yaml").read_text().splitlines()


def test_what_cannot_be_run_at_all_is_told_once(tmp_path: Path) -> None:
    child = tune("simulated", *OFFLINE[1:], "--set", "backend_options.a_ms=-1", "--space", "lanes=2", cwd=tmp_path)

    assert child.code == 1
    assert "simulated option a_ms: got -1, expected milliseconds" in child.err
    assert not list(tmp_path.rglob("runs.jsonl"))


@pytest.mark.slow
def test_killed_and_interrupted_it_goes_on_where_it_was(tmp_path: Path) -> None:
    arguments = [*OFFLINE, "--space", "max_batchsize=64,1024", "--rounds", "1"]
    counts = []
    for which, until in ((signal.SIGKILL, 1), (signal.SIGINT, 2)):
        stopped = _stopped(which, until, arguments, tmp_path)
        assert stopped.code in (130, -signal.SIGKILL)
        assert which == signal.SIGKILL or "runs are kept; the same command without --overwrite goes on" in stopped.err
        counts.append(len(rows(tmp_path)))
    before = rows(tmp_path)

    child = tune(*arguments, cwd=tmp_path)

    assert child.code == 0, child.err
    assert f"{len(before)} runs are there already, it goes on behind them" in child.err
    after = rows(tmp_path)
    assert after[: len(before)] == before
    assert counts[0] <= counts[1] < len(after)
    assert len({row["key"] for row in after}) == len(after)

    again = tune(*arguments, cwd=tmp_path)

    assert (again.code, rows(tmp_path)) == (0, after)
    assert again.out == child.out


def _stopped(which: signal.Signals, until: int, arguments: list[str], cwd: Path) -> Finished:
    """Tune until so many runs are kept, then send a signal."""
    with python_started("-m", "sut", "tune", *arguments, "--output", "out", cwd=cwd) as running:
        running.wait_until(lambda: list(cwd.rglob("runs.jsonl")) and len(rows(cwd)) >= until)
        running.signal(which)
        return running.finish()
