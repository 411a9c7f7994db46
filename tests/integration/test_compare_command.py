"""``sut compare``: real runs on planted devices and a small model; what does not run; interrupted on the way."""

from __future__ import annotations

import html
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.children import Finished, python_started, run_python
from tests.unit.small_models import write_classifier

DEVICE = ("--backend", "simulated", "--boundary", "tensor", "--time", "0.2", "--set", "backend_options.b_ms=0.5")


def compare(*arguments: str, cwd: Path, **environment: str) -> Finished:
    command = ("-m", "sut", "compare", *arguments, "--output", "out")
    return run_python(*command, cwd=cwd, timeout_s=600, SUT_CACHE_DIR=str(cwd / "cache"), **environment)


def left(cwd: Path) -> dict[str, Any]:
    [path] = cwd.glob("out/compare-*/compare.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_the_planted_device_is_found_and_what_does_not_run_is_a_row(tmp_path: Path) -> None:
    matrix = ("--precision", "fp32,int8", "--vary", "backend_options.a_ms=60,2")

    child = compare(*DEVICE, *matrix, "--budget", "120s", "--price-per-hour", "1", "--json", cwd=tmp_path)

    assert child.code == 0, child.err
    assert "\nready 1 of 4: fp32, a_ms=60\n" in child.err and "\ndoes not run: int8, a_ms=2: backend sim" in child.err
    told = json.loads(child.out)
    assert told == left(tmp_path)
    [page] = tmp_path.glob("out/compare-*/report.html")
    assert told["sentence"] in html.unescape(page.read_text())
    assert (told["schema"], told["command"], told["baseline"]) == (1, "compare", "fp32, a_ms=60")
    assert told["sentence"].startswith("use fp32, a_ms=2: ")
    slow, fast, *others = told["rows"]
    assert (slow["verdict"], fast["verdict"]) == ("far behind", "best")
    assert fast["ratio"]["verdict"] == "better" and fast["ratio"]["low"] > 1
    assert fast["settings"] == {"precision": "fp32", "backend_options.a_ms": 2}
    # Eight samples take 6 ms, with nothing in between.
    assert 0 < fast["bare"]["samples_per_second"] < 1334
    result = json.loads((tmp_path / "out").glob("compare-*").__next__().joinpath(fast["result"]).read_text())
    assert result["config"]["backend_options"] == {"a_ms": 2, "b_ms": 0.5}
    assert [row["cell"] for row in others] == ["int8, a_ms=60", "int8, a_ms=2"]
    assert {row["reason"] for row in others} == {"backend simulated cannot be asked for int8; it has fp32"}


@pytest.mark.slow
def test_interrupted_it_leaves_what_was_measured(tmp_path: Path) -> None:
    device = (*DEVICE, "--vary", "backend_options.a_ms=2,3,4,5")
    arguments = ("-m", "sut", "compare", *device, "--yes", "--output", "out")
    said = []
    with python_started(*arguments, cwd=tmp_path, SUT_CACHE_DIR=str(tmp_path / "cache")) as running:
        assert running.process.stderr is not None
        for line in running.process.stderr:
            said.append(line)
            if line.startswith("look 2 of 4"):
                running.signal(signal.SIGINT)
                break
        done = running.finish()

    assert done.code == 130, "".join(said) + done.err
    assert "what was measured until then is in out/compare-" in done.err and "error: interrupted" in done.err
    assert [row["cell"] for row in left(tmp_path)["rows"]] == ["a_ms=2", "a_ms=3"]
    assert "a_ms=3" in done.out


def test_too_slow_a_model_is_told_before_it_is_run(tmp_path: Path) -> None:
    child = compare(*DEVICE, "--vary", "backend_options.a_ms=300,400", "--budget", "5s", "--yes", cwd=tmp_path)

    assert child.code == 1
    assert "error: one picture takes 0.3" in child.err and "longer than the budget; --budget " in child.err
    assert not list(tmp_path.rglob("result.json"))


def test_thousands_of_cells_are_refused_with_how_long_they_take(tmp_path: Path) -> None:
    sizes = ",".join(map(str, range(1, 2001)))

    child = compare(*DEVICE, "--vary", f"max_batchsize={sizes}", cwd=tmp_path)

    assert child.code == 1
    assert "error: 2,000 cells: one look at each takes about 4.7 h, the budget is 5 min; name fewer values" in child.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_it_fails_where_it_has_become_slower(tmp_path: Path) -> None:
    device = (*DEVICE, "--no-bare", "--set", "backend_options.a_ms=2")
    first = compare(*device, "--vary", "lanes=1", "--baseline", "old.json", cwd=tmp_path)
    assert first.code == 1 and "error: --baseline old.json: no such file" in first.err
    row = {
        "cell": "a",
        "settings": {"lanes": 1},
        **{"backend": "simulated", "precision": "fp32", "preprocess": "opencv"},
        **{"boundary": "tensor", "scenario": "Offline", "model": "efficientnet-lite0"},
        "figures": dict.fromkeys(range(30), 100_000.0),
    }
    (tmp_path / "other.json").write_text(json.dumps({"schema": 1, "command": "compare", "rows": [row]}))
    other = compare(*device, "--precision", "fp32", "--backend", "null", "--baseline", "other.json", cwd=tmp_path)
    assert other.code == 1 and "it has none of these cells; it has efficientnet-lite0, simulated, fp32" in other.err
    old = {"schema": 1, "command": "compare", "rows": [row], "system": {"cores": 4096}}
    (tmp_path / "old.json").write_text(json.dumps(old))

    child = compare(*device, "--vary", "lanes=1", "--baseline", "old.json", "--fail-if-slower", "3%", cwd=tmp_path)

    assert child.code == 4, child.err
    said = " ".join(child.out.split())
    assert "slower by more than 3 %" in said and "the baseline is of another machine: usable cores: 4096 and " in said


@pytest.mark.slow
def test_a_strangers_model_without_a_word_about_it_gets_a_decision(tmp_path: Path) -> None:
    write_classifier(tmp_path / "stranger.onnx")

    child = compare(
        "--model", "stranger.onnx", "--precision", "fp32", "--time", "0.3", "--budget", "30s", "--yes", cwd=tmp_path
    )

    assert child.code == 0, child.err
    assert "stranger.onnx: nobody says how its pictures are prepared; for their speed the recipe pytorch" in child.err
    told = left(tmp_path)
    assert {row["backend"] for row in told["rows"] if "backend" in row} == {"onnxruntime", "openvino", "pytorch"}
    assert {row["boundary"] for row in told["rows"] if "boundary" in row} == {"jpeg"}
    assert told["sentence"].startswith(("use ", "stay with ", "the budget ended "))
    assert any(row["cell"] == "cuda" and row["reason"] for row in told["rows"])
