"""Models that answer wrongly without an error, run as a user runs them: none of them passes unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.children import Finished, results, run_sut
from tests.unit.odd_models import BACKGROUND, RECIPE, write_odd


def run_odd(tmp_path: Path, kind: str, *more: str, recipe: str = RECIPE) -> Finished:
    write_odd(tmp_path / "odd.onnx", kind)
    (tmp_path / "recipe.yaml").write_text(recipe)
    return run_sut("--model", "odd.onnx", "--recipe", "recipe.yaml", "--time", "0.2", *more, cwd=tmp_path)


def the_result(tmp_path: Path) -> dict[str, Any]:
    [result] = results(tmp_path).values()
    return result


@pytest.mark.first(1)
@pytest.mark.parametrize(("kind", "backend"), [("softmax over batch", "onnxruntime"), ("training norm", "openvino")])
def test_answers_that_depend_on_the_batch_are_no_failure_but_break_a_rule(
    tmp_path: Path, kind: str, backend: str
) -> None:
    done = run_odd(tmp_path, kind, "--backend", backend)

    assert done.code in (0, 4), done.err  # so short a run may be INVALID
    result = the_result(tmp_path)
    assert (result["scenario"], result["output"], result["first_error"]) == ("SingleStream", "scores", None)
    assert result["answers"]["batch_dependent_share"] > 0.5
    [rule] = [rule for rule in result["rules_broken"] if rule.startswith("answers depend on the batch: ")]
    assert rule in result["notes"]
    assert rule in done.err


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("kind", "recipe", "said"),
    [
        ("nan behind argmax", RECIPE, "bee.jpg: the scores behind labels are not finite (NaN or inf in spoilt)"),
        ("nan behind argmax", BACKGROUND, "bee.jpg: the scores behind labels are not finite (NaN or inf in spoilt)"),
        ("twice the rows", RECIPE, "bee.jpg: ValueError: output 'labels' returned 2 rows for a batch of 1"),
        ("noise", RECIPE, "bee.jpg: the model answers the same picture differently when asked twice"),
    ],
)
def test_what_is_no_answer_fails_the_run(tmp_path: Path, kind: str, recipe: str, said: str) -> None:
    done = run_odd(tmp_path, kind, recipe=recipe)

    assert done.code == 3
    [line] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert f"failed before the run, in warm-up: {said}" in line
    result = the_result(tmp_path)
    assert (result["valid"], result["answers"]) == (False, None)
    assert said in result["first_error"]


def test_of_two_outputs_that_fit_the_one_that_is_named_answers(tmp_path: Path) -> None:
    refused = run_odd(tmp_path, "two scores")

    assert refused.code == 1
    assert "the outputs aux, scores fit equally well; name the one to use with --outputs" in refused.err
    assert not (tmp_path / "output").exists()
    for name in ("aux", "scores"):
        done = run_odd(tmp_path, "two scores", "--outputs", name, "--overwrite")
        assert done.code in (0, 4), done.err
    assert sorted(result["output"] for result in every_result(tmp_path)) == ["aux", "scores"]


def test_what_depends_on_the_batch_may_answer_the_last_querys_padding_otherwise(tmp_path: Path) -> None:
    done = run_odd(tmp_path, "softmax over batch", "--accuracy", "--scenario", "MultiStream")

    assert done.code == 0, done.err
    result = the_result(tmp_path)
    [note] = [note for note in result["notes"] if note.startswith("samples with two different answers, of which ")]
    assert 0 < int(note.rpartition(" ")[2]) <= 5  # 11 pictures make two queries of 8
    assert result["accuracy"]["count"] == 11


def every_result(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (tmp_path / "output").rglob("result.json")]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("mode", "note"),
    [
        ((), "all 8 samples looked at before the run got the label 5"),
        (("--accuracy",), "all 11 answers are the label 5"),
    ],
)
def test_one_label_for_everything_is_told(tmp_path: Path, mode: tuple[str, ...], note: str) -> None:
    done = run_odd(tmp_path, "constant", *mode)

    assert done.code in (0, 4), done.err
    assert note in the_result(tmp_path)["notes"]
    assert note in done.err


def test_a_backend_without_a_model_has_no_output_and_nothing_to_check(tmp_path: Path) -> None:
    done = run_sut("--backend", "null", "--model", "resnet50", "--accuracy", cwd=tmp_path)

    assert done.code == 0, done.err
    result = the_result(tmp_path)
    assert (result["output"], result["answers"]) == (None, None)
