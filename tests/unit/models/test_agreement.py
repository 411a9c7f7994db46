"""LabelAgreement of labels: the interval, the words, what counts as equal, and what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sut.datasets.base import DataSet
from sut.errors import InputError, RunError
from sut.models.precision import agreement as module
from sut.models.precision.agreement import Side, measure
from sut.tasks.agreement import LabelAgreement, LabelTally, wilson
from tests.unit.small_models import RECIPE, pictures, scores, unheard, write_classifier


def one_hot(labels: list[int]) -> np.ndarray:
    return np.eye(5, dtype=np.float32)[labels]


def compare(reference: np.ndarray, reduced: np.ndarray, source: str = "") -> LabelAgreement:
    comparison = LabelTally()
    comparison.add(reference, reduced)
    return comparison.agreement(source)


# The interval, against the ends that scipy.stats.binomtest(k, n).proportion_ci(method="wilson") gives.
@pytest.mark.parametrize(
    ("good", "count", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
        (1, 1, 0.20655, 1.0),
        (5, 10, 0.23659, 0.76341),
        (985, 1000, 0.97540, 0.99089),
        (1900, 2000, 0.93956, 0.95872),
        (2000, 2000, 0.99808, 1.0),
    ],
)
def test_wilson_interval(good: int, count: int, low: float, high: float) -> None:
    assert wilson(good, count) == pytest.approx((low, high), abs=1e-5)


def test_wilson_covers_the_share_that_was_drawn_from() -> None:
    draw = np.random.default_rng(1)
    share, count = 0.97, 400
    ends = [wilson(int(good), count) for good in draw.binomial(count, share, 2000)]

    covered = np.mean([low <= share <= high for low, high in ends])

    assert 0.93 < covered < 0.97


@pytest.mark.parametrize(
    ("good", "count", "kept"),
    [(300, 300, False), (400, 400, True), (1985, 2000, False), (1992, 2000, True), (0, 5, False)],
)
def test_accuracy_is_kept_only_where_the_lower_end_says_so(good: int, count: int, kept: bool) -> None:
    agreement = LabelAgreement(good / count, *wilson(good, count), count, "crops")

    assert agreement.kept is kept is (agreement.low > 0.99)
    assert agreement.words.startswith("accuracy kept: ") is kept


def test_the_words() -> None:
    assert LabelAgreement(0.985, *wilson(591, 600), 600, "600 crops of 5 pictures").words == (
        "98.5 % same labels (95 % interval 97.2 to 99.2 %) on 600 crops of 5 pictures"
    )
    assert LabelAgreement(1999 / 2000, *wilson(1999, 2000), 2000, "c", ties=3, not_finite=1).words == (
        "accuracy kept: 99.9 % same labels (95 % interval 99.7 to 99.9 %) on c, 1 without a finite score, 3 with a tie"
    )


def test_equal_labels_are_counted() -> None:
    got = compare(one_hot([0, 1, 2, 3]), one_hot([0, 1, 2, 4]), "four")

    assert (got.value, got.count, got.source, got.ties, got.not_finite) == (0.75, 4, "four", 0, 0)
    assert got.low < 0.75 < got.high


def test_a_tie_is_the_first_of_the_best_and_counted() -> None:
    reduced = one_hot([0, 1, 2, 3])
    reduced[0, 4] = 1  # still 0
    reduced[1, 0] = 1  # now 0, not 1

    got = compare(one_hot([0, 1, 2, 3]), reduced, "")

    assert (got.value, got.ties) == (0.75, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_finite_score_is_never_the_same(bad: float) -> None:
    reduced = one_hot([0, 1, 2, 3])
    reduced[0, 0] = bad

    got = compare(one_hot([0, 1, 2, 3]), reduced, "")

    assert (got.value, got.not_finite, got.ties) == (0.75, 1, 0)
    with pytest.raises(RunError, match="the FP32 model has no finite best score for 1 of 4 samples"):
        compare(reduced, one_hot([0, 1, 2, 3]), "")


def test_a_class_ruled_out_is_no_failure() -> None:
    reduced = one_hot([0, 1])
    reduced[:, 4] = -np.inf

    assert compare(one_hot([0, 1]), reduced, "").value == 1.0


@pytest.mark.parametrize("labels", [np.array([0, 1, 4]), np.array([[0], [1], [4]], np.int32)])
def test_a_model_may_answer_with_labels(labels: np.ndarray) -> None:
    assert compare(one_hot([0, 1, 2]), labels, "").value == pytest.approx(2 / 3)


@pytest.mark.parametrize("answers", [one_hot([0]), np.zeros((2, 3, 4), np.float32), np.zeros((2, 0), np.float32)])
def test_answers_that_do_not_fit_are_refused(answers: np.ndarray) -> None:
    with pytest.raises(RunError, match="expected"):
        compare(one_hot([0, 1]), answers, "")


# Scores


def test_the_largest_difference_of_any_score_is_told() -> None:
    reference = np.array([[4.0, 1.0, -3.0], [0.0, 2.0, 1.0]], np.float32)
    reduced = np.array([[4.5, 1.0, -3.0], [0.0, 2.0, -0.25]], np.float32)

    got = compare(reference, reduced, "two")

    assert (got.value, got.score_difference, got.scores) == (1.0, 1.25, "logits")
    assert got.words.endswith(" on two; largest difference in logits 1.2")


def test_equal_scores_differ_by_nothing() -> None:
    got = compare(2 * one_hot([0, 1]), 2 * one_hot([0, 1]), "two")

    assert (got.score_difference, got.scores) == (0.0, "logits")
    assert got.words.endswith(" on two; largest difference in logits 0")


def softmax(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return found


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_that_add_up_to_one_are_a_softmax(dtype: type[np.floating[Any]]) -> None:
    logits = np.random.default_rng(2).normal(size=(30, 1000))
    reference = softmax(logits).astype(dtype)

    got = compare(reference, softmax(logits + 0.1 * one_hot([0] * 30).repeat(200, axis=1)).astype(dtype), "some")

    assert got.scores == "softmax" and got.score_difference is not None
    assert 0 < got.score_difference < 0.01
    assert f"; largest difference in softmax {got.score_difference:.2g}" in got.words
    assert compare(logits.astype(dtype), reference).scores == "logits"
    negative = np.array([[1.5, -0.5]], dtype)
    assert compare(negative, negative).scores == "logits", "they add up to one, but are no shares"


def test_a_difference_is_not_rounded_as_the_scores_are() -> None:
    reference, reduced = np.array([[2048.0, 0.0]], np.float16), np.array([[-1.0, 0.0]], np.float16)

    assert compare(reference, reduced).score_difference == 2049.0


@pytest.mark.parametrize("batches", [([0, 1], [2, 3]), ([2, 3], [0, 1])])
def test_batches_are_counted_together(batches: tuple[list[int], ...]) -> None:
    reference = 3 * one_hot([0, 1, 2, 3])
    reduced = reference.copy()
    reduced[0, 4] = 5  # another label, by 5
    reduced[3, 0] = 3  # a tie, and another label
    comparison = LabelTally()

    for rows in batches:
        comparison.add(reference[rows], reduced[rows])

    assert comparison.agreement("four") == compare(reference, reduced, "four")
    assert comparison.agreement("four") == LabelAgreement(
        0.5, *wilson(2, 4), 4, "four", ties=1, score_difference=5.0, scores="logits"
    )


def test_a_softmax_is_one_in_every_batch() -> None:
    comparison = LabelTally()
    for reference in (one_hot([0]), 2 * one_hot([0]), one_hot([0])):
        comparison.add(reference, reference)

    assert comparison.agreement("").scores == "logits"


def test_only_finite_scores_have_a_difference() -> None:
    reference, reduced = 2 * one_hot([0, 1]), 2 * one_hot([0, 1])
    reference[:, 4] = reduced[:, 4] = -np.inf  # ruled out by both
    reduced[0, 3] = np.nan
    reduced[1, 2] = 0.5

    got = compare(reference, reduced, "")

    assert (got.score_difference, got.not_finite) == (0.5, 1)
    assert json.loads(json.dumps(got.score_difference)) == 0.5


@pytest.mark.parametrize(
    "reduced",
    [np.array([0, 1]), np.eye(6, dtype=np.float32)[[0, 1]], np.full((2, 5), np.nan, np.float32)],
    ids=["labels", "other classes", "nothing finite"],
)
def test_where_there_are_no_two_scores_there_is_no_difference(reduced: np.ndarray) -> None:
    got = compare(one_hot([0, 1]), reduced, "")

    assert (got.score_difference, got.scores) == (None, None)
    assert "difference" not in got.words


# Measuring


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    for number, picture in enumerate(pictures(4)):
        (tmp_path / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return DataSet("folder", tmp_path, tuple(f"{number}.png" for number in range(4)), None)


class Model:
    """The small classifier; ``noise`` on its scores stands for lost precision. Remembers what it was given."""

    def __init__(self, path: Path, noise: float = 0.0) -> None:
        self.path = write_classifier(path)
        self.given: list[np.ndarray] = []
        self._noise = noise
        self._draw = np.random.default_rng(5)

    def __call__(self, samples: np.ndarray, geometries: Any = ()) -> np.ndarray:
        self.given.append(samples.copy())
        found = scores(self.path, samples)
        return found + self._noise * self._draw.normal(size=found.shape).astype(np.float32)

    def side(self, **changes: Any) -> Side:
        return replace(Side(self.path, RECIPE, "some", "1.0", "fp32", self), **changes)


def test_both_models_get_the_same_crops(dataset: DataSet, tmp_path: Path) -> None:
    reference, reduced = Model(tmp_path / "a.onnx"), Model(tmp_path / "b.onnx")
    told: list[tuple[int, int]] = []

    got = measure(reference.side(), reduced.side(precision="int8"), dataset, lambda *now: told.append(now), crops=90)

    assert (got.value, got.count, got.source) == (1.0, 90, "90 crops of 4 pictures")
    given = np.concatenate(reference.given)
    np.testing.assert_array_equal(given, np.concatenate(reduced.given))
    assert given.shape == (90, *RECIPE.sample_shape)
    assert len({sample.tobytes() for sample in given}) > 40
    assert len(set(scores(reference.path, given).argmax(1).tolist())) > 3, "a model that tells pictures apart"
    assert told[-1] == (90, 90) and [done for done, _ in told] == sorted(done for done, _ in told)


def test_lost_precision_shows(dataset: DataSet, tmp_path: Path) -> None:
    reference, reduced = Model(tmp_path / "a.onnx"), Model(tmp_path / "b.onnx", noise=100.0)

    got = measure(reference.side(), reduced.side(precision="int8"), dataset, unheard, crops=200)

    assert isinstance(got, LabelAgreement) and got.value < 0.5 and not got.kept


def test_each_model_is_prepared_for_by_its_own_recipe(dataset: DataSet, tmp_path: Path) -> None:
    plain = replace(RECIPE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), layout="NHWC", dtype="uint8")
    reference, reduced = Model(tmp_path / "a.onnx"), Model(tmp_path / "b.onnx")

    def from_pixels(samples: np.ndarray, geometries: Any) -> np.ndarray:
        assert samples.dtype == np.uint8
        values = (samples.astype(np.float32) - np.float32(RECIPE.mean)) / np.float32(RECIPE.std)
        return reduced(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))

    got = measure(reference.side(), reduced.side(recipe=plain, scores=from_pixels), dataset, unheard, crops=40)

    assert got.value == 1.0


def test_the_answer_is_kept_for_what_it_depends_on(dataset: DataSet, tmp_path: Path) -> None:
    reference, reduced = Model(tmp_path / "a.onnx"), Model(tmp_path / "b.onnx")

    def runs(**changes: Any) -> int:
        before = len(reduced.given)
        side = reduced.side(**{name: changes[name] for name in changes if name not in ("crops", "seed")})
        rest = {name: changes[name] for name in changes if name in ("crops", "seed")}
        measure(reference.side(), side, dataset, unheard, **({"crops": 20} | rest))
        return len(reduced.given) - before

    assert runs() > 0
    assert runs() == 0, "kept"
    changes: tuple[dict[str, Any], ...] = (
        *({"version": "1.1"}, {"backend": "other"}, {"precision": "bf16"}, {"outputs": ("scores",)}),
        *({"crops": 40}, {"seed": 7}),
    )
    for change in changes:
        assert runs(**change) > 0, change
    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes())
    assert runs() > 0, "another picture"
    write_classifier(reduced.path, weight_name="other")
    assert runs() > 0, "another model"
    assert runs() == 0


def test_an_answer_of_an_earlier_comparison_is_not_taken(
    dataset: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, reduced = Model(tmp_path / "a.onnx"), Model(tmp_path / "b.onnx", noise=0.1)
    sides = (reference.side(), reduced.side(precision="int8"))
    with monkeypatch.context() as earlier:
        earlier.setattr(module, "COMPARISON", 1)
        measure(*sides, dataset, unheard, crops=20)

    got = measure(*sides, dataset, unheard, crops=20)

    assert got.score_difference is not None and 0.1 < got.score_difference < 1
    assert got.scores == "logits"
    assert got == measure(*sides, dataset, unheard, crops=20), "kept as it was found"
    assert len(list((tmp_path / "cache").glob("*/*.json"))) == 2


def test_a_damaged_answer_is_measured_again(dataset: DataSet, tmp_path: Path) -> None:
    reference, reduced = Model(tmp_path / "a.onnx"), Model(tmp_path / "b.onnx")
    first = measure(reference.side(), reduced.side(), dataset, unheard, crops=20)
    [kept] = (tmp_path / "cache").glob("*/*.json")
    said: list[str] = []
    assert json.loads(kept.read_text())["count"] == 20

    for text in ("", "{", kept.read_text().replace('"count": 20', '"count": 90')):
        kept.write_text(text)
        assert measure(reference.side(), reduced.side(), dataset, unheard, crops=20, say=said.append) == first

    assert said == [f"making {kept.name} again: {kept.parent} is not as it was made"] * 3


def test_a_failing_model_leaves_no_answer(dataset: DataSet, tmp_path: Path) -> None:
    reference, reduced = Model(tmp_path / "a.onnx"), Model(tmp_path / "b.onnx")

    def fail(samples: np.ndarray, geometries: Any) -> np.ndarray:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        measure(reference.side(), reduced.side(scores=fail), dataset, unheard, crops=20)

    assert list((tmp_path / "cache").iterdir()) == []


def test_more_pictures_than_crops_are_spread_over(dataset: DataSet, tmp_path: Path) -> None:
    model = Model(tmp_path / "a.onnx")

    got = measure(model.side(), model.side(precision="int8"), dataset, unheard, crops=2)

    assert (got.count, got.source) == (2, "2 crops of 2 pictures")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("gone.png", r"gone\.png, which is to compare on: No such file"),
        ("bad.png", r"bad\.png, which is to compare on: can"),
    ],
)
def test_a_picture_that_does_not_do_is_named(dataset: DataSet, tmp_path: Path, file: str, said: str) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    model = Model(tmp_path / "a.onnx")

    with pytest.raises(InputError, match=said):
        measure(model.side(), model.side(), replace(dataset, files=("0.png", file)), unheard, crops=20)


def test_nothing_to_compare_on_is_told(dataset: DataSet, tmp_path: Path) -> None:
    model = Model(tmp_path / "a.onnx")

    with pytest.raises(InputError, match="0 crops of 4 pictures to compare on, expected one or more of both"):
        measure(model.side(), model.side(), dataset, unheard, crops=0)
    with pytest.raises(InputError, match="of 0 pictures"):
        measure(model.side(), model.side(), replace(dataset, files=()), unheard, crops=20)
