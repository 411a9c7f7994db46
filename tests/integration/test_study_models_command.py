"""``sut study models``, from models' files to the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.children import run_python

PLANTED_MS = {
    "backend_options.a_ms": 0,
    "backend_options.b_ms": 50,
    "preprocess_options.decode_ms": 60,
    "preprocess_options.resize_ms": 50,
    "preprocess_options.normalize_ms": 40,
}


def test_planted_times_are_found_and_left_on_a_page(tmp_path: Path) -> None:
    planted = [word for name, ms in PLANTED_MS.items() for word in ("--set", f"{name}={ms}")]
    how = (
        "--backend simulated --preprocess simulated --lanes 1 --max-batchsize 1 --rounds 1 --time 0.3 --count 4 --json"
    )
    child = run_python(
        *("-m", "sut", "study", "models", "--models", "efficientnet_lite0,mobilenet-v2", "--pictures", "small"),
        *(*how.split(), *planted, "--output", "out"),
        cwd=tmp_path,
    )

    assert child.code in (0, 4), child.err
    told = json.loads(child.out)
    small, large = told["rows"]
    assert (told["command"], told["against"], told["gains"]) == ("study models", "simulated", {})
    assert told["pictures"] == "small"
    assert [small["model"], large["model"]] == ["mobilenet-v2", "efficientnet-lite0"]
    assert small["model_flops"] < large["model_flops"]
    for row in (small, large):
        # Sleeping may take longer than asked, never less: a half would need 100 ms more.
        assert row["infer_ns"] >= 50e6
        assert row["cost_ns"] >= 200e6
        assert 0 < row["inference_share"] < 0.5
    assert told["half"]["simulated"]["verdict"] == "not reached"
    page = (tmp_path / "out" / "study-models" / "report.html").read_text()
    assert "mobilenet-v2" in page and "not reached" in page


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--models", "nobody"], "unknown model 'nobody'"),
        (["--preprocess", "nothing"], "unknown preprocessor 'nothing'"),
        (["--pictures", "small,large"], "takes one set of --pictures"),
        (["--pictures", "nowhere"], "--pictures nowhere: no such folder"),
        (["--budget", "0s"], "--budget takes a time such as 90s, 5m or 1h"),
        (["--model", "resnet50"], "No such option: --model"),
    ],
)
def test_what_it_does_not_take(words: list[str], fragment: str, tmp_path: Path) -> None:
    child = run_python("-m", "sut", "study", "models", *words, cwd=tmp_path)

    assert child.code == 1
    assert fragment in child.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_models_of_all_kinds_run_and_have_their_sizes(tmp_path: Path) -> None:
    names = "tinyvit,resnet-18,lraspp,vit-b,dpt"
    child = run_python(
        *("-m", "sut", "study", "models", "--preprocess", "opencv", "--rounds", "1", "--time", "0.1", "--json"),
        *("--models", names, "--budget", "1h", "--output", "out"),
        cwd=tmp_path,
        timeout_s=1200,
    )

    assert child.code in (0, 4), child.err
    rows = json.loads(child.out)["rows"]
    assert [(row["model"], row["reason"]) for row in rows] == [(name, None) for name in names.split(",")]
    assert [row["model_flops"] for row in rows] == sorted(row["model_flops"] for row in rows)
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("result.json")]
    assert {each["model"]: each["model_flops"] for each in results} == {
        row["model"]: row["model_flops"] for row in rows
    }
