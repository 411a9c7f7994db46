"""``sut show`` and ``sut run --from``: real runs, the table again, and one of them again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.children import Finished, results, run_python, run_sut
from tests.unit.small_models import CLASSES, RECIPE_FILE, write_classifier

NULL = ("--backend", "null", "--time", "0.3")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def show(cwd: Path, *words: str) -> Finished:
    return run_python("-m", "sut", "show", *words, cwd=cwd, COLUMNS="80")


@pytest.mark.slow
def test_real_runs_are_shown_again_in_each_form(tmp_path: Path) -> None:
    run_sut(*NULL, "--scenario", "SingleStream,Offline", cwd=tmp_path)
    run_sut(*NULL, "--scenario", "Offline", "--max-batchsize", "4", cwd=tmp_path)
    run_sut(*NULL, "--scenario", "Offline", "--accuracy", cwd=tmp_path)
    written = {path: json.loads(path.read_text()) for path in sorted((tmp_path / "output").rglob("result.json"))}
    assert len(written) == 4

    table, as_json, as_csv = show(tmp_path), show(tmp_path, "output", "--json"), show(tmp_path, "output", "--csv")

    assert (table.code, as_json.code, as_csv.code) == (0, 0, 0), table.err + as_json.err + as_csv.err
    assert table.err == ""  # a result that contradicts itself would be left out, and said
    assert max(map(len, table.out.splitlines())) <= 80
    assert "all: model efficientnet-lite0, backend null" in table.out
    rows = json.loads(as_json.out)["rows"]
    shown = {tmp_path / row["path"]: row for row in rows}
    assert {path: {name: shown[path][name] for name in result} for path, result in written.items()} == written
    assert [row["scenario"] for row in rows] == ["SingleStream", "Offline", "Offline", "Offline"]
    assert [row["mode"] for row in rows] == ["performance"] * 3 + ["accuracy"]
    lines = list(csv.DictReader(io.StringIO(as_csv.out)))
    assert [line["config.max_batchsize"] for line in lines] == ["", "", "4", ""]
    assert [line["plan.max_batchsize"] for line in lines] == [str(row["plan"]["max_batchsize"]) for row in rows]
    assert [float(line["metric.value"]) for line in lines[:3]] == [row["metric"]["value"] for row in rows[:3]]


def test_logs_without_a_result_are_shown_as_what_they_are(tmp_path: Path) -> None:
    run_sut("--backend", "simulated", "--time", "0.3", "--scenario", "Offline", cwd=tmp_path)
    [result] = results(tmp_path).values()
    (result["directory"] / "result.json").unlink()
    both = json.loads(show(tmp_path, "--json").out)["rows"]
    (result["directory"] / "results.json").unlink()

    logs = json.loads(show(tmp_path, "--json").out)["rows"]

    assert [row["source"] for row in (*both, *logs)] == ["reference", "LoadGen"]
    for row in (*both, *logs):
        assert row["metric"] == result["metric"]
        assert row["samples"] == result["samples"]
        assert row["latency_ns"]["p99"] == result["latency_ns"]["p99"]
        assert row["precision"] is None
    assert (both[0]["backend"], logs[0]["backend"]) == ("simulated", None)


@pytest.mark.parametrize("words", [(), ("--json",), ("--csv",), ("elsewhere",)])
def test_where_nothing_is_it_says_so_in_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    child = show(tmp_path, *words)

    assert (child.code, child.out) == (1, "")
    assert child.err.splitlines()[-1].startswith("error: no results in ")


def test_a_run_is_repeated_with_the_settings_of_its_result(tmp_path: Path) -> None:
    first = run_sut(*NULL, "--scenario", "Offline", "--max-batchsize", "4", cwd=tmp_path)
    [result] = results(tmp_path).values()

    again = run_python(
        "-m", "sut", "run", "--from", result["directory"] / "result.json", "--output", "output/new", cwd=tmp_path
    )

    assert {first.code, again.code} <= {0, 4}, again.err
    [path] = (tmp_path / "output" / "new").rglob("result.json")
    repeated = json.loads(path.read_text())
    assert {**repeated["config"], "output": None} == {**result["config"], "output": None}
    assert Path(repeated["config"]["output"]) == Path("output/new")
    assert not any("no effect" in note for note in repeated["notes"])


@pytest.mark.slow
def test_a_model_that_is_another_by_now_is_told(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE_FILE)
    model = write_classifier(tmp_path / "small.onnx")
    run_sut("--model", model, "--recipe", "small.yaml", "--count", "3", "--time", "0.3", cwd=tmp_path)
    [result] = results(tmp_path).values()
    kept = (result["directory"] / "result.json").rename(tmp_path / "kept.json")

    same = run_sut("--from", kept, cwd=tmp_path)
    now = sha256_of(write_classifier(model, bias=np.arange(CLASSES)))
    changed = run_sut("--from", kept, cwd=tmp_path)
    repeated = json.loads((result["directory"] / "result.json").read_text())
    model.unlink()
    gone = run_sut("--from", kept, cwd=tmp_path)

    note = f"the run that is repeated had another model: it has SHA-256 {now}, that one had {result['model_sha256']}"
    assert "the run that is repeated" not in same.err
    assert note in changed.err
    assert note in repeated["notes"]
    assert gone.code == 1
    [line] = gone.err.splitlines()
    assert line.startswith("error: ") and "small.onnx" in line
