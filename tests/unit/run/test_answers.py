"""What is looked at before the clock: the same twice, alone as in a batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import openvino
import pytest

from backends.base import ModelFile, Runner, Slot
from backends.onnxruntime import OnnxRuntime
from sut.config import make_config
from sut.errors import RunError
from sut.models.preparation import Prepared
from sut.pipeline.assembly import assemble
from sut.pipeline.system import SUT
from sut.process.affinity import Affinity, ranges
from sut.results.schema import Answers
from sut.run import answers
from sut.run.answers import Examined, check, spread
from sut.tasks.likeness import LabelLook
from tests.unit.odd_models import BACKGROUND, RECIPE, SIZE, write_odd

CORES = frozenset({min(os.sched_getaffinity(0))}), frozenset(os.sched_getaffinity(0))
FIRST, SECOND = (f"on cpu cores {ranges(each)}" for each in CORES)
SAME = Answers(checked=4, largest_batch=8, batch_dependent_share=0.0, near_ties=0)


def of(*scores: float) -> LabelLook:
    return LabelLook(float(np.argmax(scores)), np.array(scores))


def looked_at(tmp_path: Path, kind: str, recipe: str = RECIPE, **config: Any) -> Examined:
    """What ``check`` finds of an odd model on the demo photos."""
    (tmp_path / "recipe.yaml").write_text(recipe)
    model = write_odd(tmp_path / "odd.onnx", kind)
    told = {"model": str(model), "recipe": str(tmp_path / "recipe.yaml"), "threads": 1, "max_batchsize": 8, **config}
    with SUT(make_config(told)) as sut:
        samples = range(told.get("count", 11))
        sut.library.load(samples)
        return check(sut, samples, 8, lambda: None)


@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
@pytest.mark.parametrize("kind", ["sound", "labels"])
def test_of_a_sound_model_there_is_nothing_to_tell(tmp_path: Path, kind: str, scenario: str) -> None:
    assert looked_at(tmp_path, kind, scenario=scenario) == Examined(SAME)


@pytest.mark.parametrize("kind", ["softmax over batch", "training norm"])
@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_labels_that_depend_on_the_batch_are_told_and_break_a_rule(tmp_path: Path, kind: str, scenario: str) -> None:
    found = looked_at(tmp_path, kind, scenario=scenario)

    assert found.answers is not None
    assert found.answers.batch_dependent_share is not None
    assert found.answers.batch_dependent_share > 0.5
    [rule] = found.broken
    assert rule in found.notes
    assert rule.startswith(f"answers depend on the batch: {4 * found.answers.batch_dependent_share:g} of 4 labels")
    assert found.depends


@pytest.mark.parametrize("size", [16, 32, 64])
def test_rows_that_answer_for_others_are_found_anywhere_in_the_batch(tmp_path: Path, size: int) -> None:
    found = looked_at(tmp_path, "first eight rows", max_batchsize=size)

    [rule] = found.broken
    assert rule.startswith("answers depend on the batch: ")


@pytest.mark.parametrize(
    ("loaded", "alone", "size", "rows"),
    [
        (11, 4, 8, [0, 4, 1, 5, 6, 2, 7, 3]),
        (99, 4, 12, [0, 4, 1, 5, 2, 6, 7, 3, 8, 0, 9, 1]),
        (11, 4, 3, [0, 1, 2]),
        (11, 1, 4, [0, 1, 2, 0]),
        (3, 3, 4, [0, 0, 1, 2]),
    ],
)
def test_samples_are_spread_from_the_first_row_to_the_last(loaded: int, alone: int, size: int, rows: list[int]) -> None:
    assert spread(range(loaded), alone, size) == rows


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_batch_norm_in_training_mode_is_told_whether_or_not_the_runtime_remembers(
    tmp_path: Path, backend: str
) -> None:
    model = onnx.load(write_odd(tmp_path / "sound.onnx", "sound"))
    values = {"gain": 1, "shift": 0, "mean": 0, "variance": 1}
    constants = [onnx.numpy_helper.from_array(np.full(3, value, np.float32), name) for name, value in values.items()]
    model.graph.initializer.extend(constants)
    outputs = ["norm", "new mean", "new variance"]
    norm = onnx.helper.make_node("BatchNormalization", ["images", *values], outputs, training_mode=1)
    model.graph.node[0].input[0] = "norm"
    model.graph.node.insert(0, norm)
    onnx.save(model, tmp_path / "norm.onnx")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    told = {"model": str(tmp_path / "norm.onnx"), "recipe": str(tmp_path / "recipe.yaml"), "backend": backend}

    with SUT(make_config(told)) as sut:
        sut.library.load(range(8))
        found = check(sut, range(8), 8, lambda: None)

    assert found.answers is not None and found.answers.batch_dependent_share
    assert any(rule.startswith("answers depend on the batch: ") for rule in found.broken)
    assert {*found.broken} <= {*found.notes}


def test_scores_that_depend_on_the_batch_are_told_where_the_labels_agree(tmp_path: Path) -> None:
    found = looked_at(tmp_path, "scaled by batch")

    assert (found.answers, found.broken, found.depends) == (SAME, [], True)
    [note] = found.notes
    assert note.startswith("scores depend on the batch, though the labels agree: they differ by up to ")


def test_a_model_that_draws_lots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^bee\.jpg: the model answers the same picture differently when asked twice: "):
        looked_at(tmp_path, "noise")


@pytest.mark.parametrize("recipe", [RECIPE, BACKGROUND])
def test_scores_behind_an_argmax_must_be_finite(tmp_path: Path, recipe: str) -> None:
    with pytest.raises(RunError, match=r"^bee\.jpg: the scores behind labels are not finite \(NaN or inf in spoilt"):
        looked_at(tmp_path, "nan behind argmax", recipe)


@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_the_scores_of_all_the_first_batch_must_be_finite(tmp_path: Path, scenario: str) -> None:
    def looked_behind(max_batchsize: int) -> Examined:
        told = {"dataset": "folder", "dataset_path": folder, "max_batchsize": max_batchsize}
        return looked_at(tmp_path, "nan for white", scenario=scenario, **told)

    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(11):
        shade = np.full((SIZE, SIZE, 3), 250 if number == 10 else 20 * number, np.uint8)
        cv2.imwrite(str(folder / f"{number:02}.png"), shade)

    with pytest.raises(RunError, match=r"^10\.png: the scores behind labels are not finite"):
        looked_behind(11)
    assert not any("behind" in note for note in looked_behind(10).notes)


def test_labels_that_nothing_is_seen_behind_break_a_rule(tmp_path: Path) -> None:
    found = looked_at(tmp_path, "no argmax")

    unseen = "the scores behind labels were not looked at: no ArgMax or TopK is found that computes it"
    assert found.broken == [unseen]
    assert found.notes == [unseen, "all 8 samples looked at before the run got the label 0"]


def test_more_rows_than_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="output 'labels' returned 2 rows for a batch of 1"):
        looked_at(tmp_path, "twice the rows")


@pytest.mark.parametrize(("count", "told"), [(1, []), (2, ["all 2 samples looked at before the run got the label 5"])])
def test_one_label_for_all_is_told_where_there_are_several(tmp_path: Path, count: int, told: list[str]) -> None:
    assert looked_at(tmp_path, "constant", count=count).notes == told


def test_in_accuracy_mode_the_log_tells_of_all_answers(tmp_path: Path) -> None:
    assert looked_at(tmp_path, "constant", mode="accuracy").notes == []


def test_a_backend_that_takes_one_picture_has_nothing_to_compare_with(tmp_path: Path) -> None:
    assert looked_at(tmp_path, "softmax over batch", max_batchsize=1).answers == Answers(
        checked=4, largest_batch=None, batch_dependent_share=None, near_ties=0
    )


def test_a_batch_that_the_run_never_asks_for_may_fail(tmp_path: Path) -> None:
    found = looked_at(tmp_path, "only alone", scenario="SingleStream")

    assert (found.answers, found.broken) == (
        Answers(checked=4, largest_batch=None, batch_dependent_share=None, near_ties=0),
        [],
    )
    [note] = found.notes
    assert note.startswith(
        "answers were not compared with those in a batch of 8, which fails: bee.jpg (in a batch of 8)"
    )
    with pytest.raises(RunError, match=r"^bee\.jpg \(in a batch of 8\): "):
        looked_at(tmp_path, "only alone", scenario="Offline")


def test_a_slow_model_is_looked_at_as_briefly_as_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BUDGET_S", 0.0)

    alone = looked_at(tmp_path, "softmax over batch", scenario="SingleStream")
    in_any_case = looked_at(tmp_path, "softmax over batch", scenario="Offline")

    assert (alone.answers, in_any_case.answers) == (
        Answers(checked=1, largest_batch=None, batch_dependent_share=None, near_ties=0),
        Answers(checked=1, largest_batch=8, batch_dependent_share=1.0, near_ties=0),
    )
    [note] = alone.notes
    assert note.startswith("answers were not compared with those in a batch: one picture takes ")


def test_of_a_converted_model_the_scores_of_its_source_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def found(kind: str) -> Examined:
        source = write_odd(tmp_path / f"{kind}.onnx", kind)
        converted = source.with_suffix(".xml")
        openvino.save_model(openvino.Core().read_model(source), converted, compress_to_fp16=False)
        told = {"backend": "openvino", "model": str(source), "recipe": str(tmp_path / "recipe.yaml")}
        parts = assemble(make_config(told))
        model = Prepared(converted, source, source, "int8-openvino")
        with SUT(parts.config, assembly=replace(parts, model=model)) as sut:
            sut.library.load(range(8))
            return check(sut, range(8), 8, lambda: None)

    assert found("labels").notes == [
        "the scores behind labels were looked at in fp32, in the ONNX file that was converted"
    ]
    with pytest.raises(RunError, match="the scores behind labels are not finite"):
        found("nan behind argmax")


def test_few_pictures_fill_the_batch_again(tmp_path: Path) -> None:
    assert looked_at(tmp_path, "sound", count=3).answers == SAME.model_copy(update={"checked": 3})


class Spoilt(Runner):
    """Another runner, whose answers are spoilt."""

    def __init__(self, runner: Runner, spoil: Callable[[int, Any], Any]) -> None:
        self._runner, self._spoil = runner, spoil

    def slot(self, n: int) -> Slot:
        return self._runner.slot(n)

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        return {name: self._spoil(slot.n, values) for name, values in self._runner.infer(slot).items()}


def looked_at_on_two(
    tmp_path: Path, kind: str, spoil: Callable[[int, Any], Any], scenario: str = "Offline"
) -> Examined:
    """What ``check`` finds where the second of two units spoils what it answers."""

    class SecondSpoilt(OnnxRuntime):
        units, is_second = 0, False

        @classmethod
        def load(
            cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}
        ) -> SecondSpoilt:
            made = super().load(model, device, lanes, threads, options)
            cls.units += 1
            made.is_second = cls.units == 2
            return made

        def runner(self, place: str = "host") -> Runner:
            made = super().runner(place)
            return Spoilt(made, spoil) if self.is_second else made

    (tmp_path / "recipe.yaml").write_text(RECIPE)
    model = write_odd(tmp_path / "odd.onnx", kind)
    told = {"model": str(model), "recipe": str(tmp_path / "recipe.yaml"), "max_batchsize": 8, "lanes": 4, "threads": 1}
    config = make_config({**told, "scenario": scenario})
    parts = replace(assemble(config), backend=SecondSpoilt, affinity=Affinity(lanes=CORES))
    with SUT(config, assembly=parts) as sut:
        sut.library.load(range(11))
        found = check(sut, range(11), 8, lambda: None)
    assert SecondSpoilt.units == 2 + (kind == "labels"), "what is behind labels is looked at on one"
    return found


def refusing_batches(n: int, values: Any) -> Any:
    if n > 1:
        raise RuntimeError("out of memory")
    return values


@pytest.mark.parametrize("kind", ["sound", "labels", "scaled by batch"])
def test_units_that_answer_alike_are_as_one(tmp_path: Path, kind: str) -> None:
    assert looked_at_on_two(tmp_path, kind, lambda n, values: values) == looked_at(tmp_path, kind, scenario="Offline")


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("sound", lambda n, values: -values),
        ("labels", lambda n, values: values + 1),
        ("sound", lambda n, values: -values if n > 1 else values),
        ("sound", lambda n, values: 0.8 * values),
    ],
    ids=["scores", "labels", "in a batch only", "scores of the same labels"],
)
def test_a_unit_that_answers_differently_is_named(tmp_path: Path, kind: str, spoil: Callable[[int, Any], Any]) -> None:
    said = f"the model answers the same picture differently {FIRST} and {SECOND}: "

    with pytest.raises(RunError, match=rf"^\w+\.jpg: {said}"):
        looked_at_on_two(tmp_path, kind, spoil)


def test_a_batch_that_the_run_never_asks_for_may_fail_on_a_unit(tmp_path: Path) -> None:
    found = looked_at_on_two(tmp_path, "sound", refusing_batches, "SingleStream")

    [note] = found.notes
    assert (found.answers, found.broken) == (SAME, [])
    assert f"bee.jpg (in a batch of 8, {SECOND}): RuntimeError: out of memory" in note
    with pytest.raises(RunError, match=rf"^bee\.jpg \(in a batch of 8, {SECOND}\): RuntimeError"):
        looked_at_on_two(tmp_path, "sound", refusing_batches)


@pytest.mark.parametrize(
    ("one", "other", "tie"),
    [
        (of(1, 1.001, 0), of(1.001, 1, 0), True),
        (of(1, 1.0011, 0), of(1.001, 1, 0), False),
        (of(1, 1.001, 0), of(1.0011, 1, 0), False),
        # Alone all scores are equal, in the batch they are not: no rounding.
        (of(1, 1, 1), of(0.2, 0.3, 0.1), False),
        # A softmax's probabilities are near each other where they are small; their logarithms are not.
        (of(0.5000, 0.5004, 0), of(0.5004, 0.5000, 0), True),
        (of(0.5000, 0.5006, 0), of(0.5006, 0.5000, 0), False),
        (of(*[1e-3] * 998, 1e-3, 1.001e-3), of(*[1e-3] * 998, 1.001e-3, 1e-3), True),
        (of(*[1e-3] * 998, 1e-3, 1.002e-3), of(*[1e-3] * 998, 1.002e-3, 1e-3), False),
        (LabelLook(1), LabelLook(2), False),
    ],
)
def test_a_near_tie_is_one_in_both_answers(one: LabelLook, other: LabelLook, tie: bool) -> None:
    assert one.near_tie(other) is tie
    assert other.near_tie(one) is tie


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        (of(0, 2, 10), of(0, 3, 10), 0.1),
        (of(0, 1), of(0, 4), 0.75),
        (of(0, 1e-3), of(0, 0), 0.0),  # no more than rounding, whatever the range
        (of(1, 1), of(1, 1), 0.0),
        (of(-np.inf, 0, 1), of(-np.inf, 0.5, 1), 0.5),
        (LabelLook(1), LabelLook(2), 0.0),
    ],
)
def test_how_far_scores_are_apart(one: LabelLook, other: LabelLook, share: float) -> None:
    assert one.apart(other) == pytest.approx(share)


def test_the_same_work_gives_the_same_answer_but_for_rounding() -> None:
    assert of(0, 1).unlike(of(0, 1)) is None
    assert of(0, 20, 20.0005).unlike(of(0, 20.0005, 20)) is None
    assert of(0, 1).unlike(of(1, 0)) == "label 1, then 0"
    assert of(0, 1).unlike(of(0, 1.1)) == "scores that differ by 9.1 % of their range"
