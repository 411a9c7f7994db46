"""Maps: which output is used, what becomes of it, and that nothing is scored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from backends.base import TensorSpec
from sut.models.base import ModelSpec
from sut.models.registry import MODELS
from sut.tasks.base import Task
from sut.tasks.maps import Depth, Segmentation
from sut.tasks.registry import find_task

SCORES = TensorSpec("scores", "float32", (None, 21, None, None))
LABELS = TensorSpec("labels", "int64", (None, 4, 6))
DEPTH = TensorSpec("depth", "float32", (None, 1, 4, 6))
OTHER = TensorSpec("features", "float32", (None, 1000))


def spec_of(task: type[Task]) -> ModelSpec:
    return replace(MODELS["efficientnet-lite0"], task=task.name)


def decoded(task: type[Task], values: NDArray[Any], n: int | None = None, marked: list[str] | None = None) -> Any:
    """The answers from one output that fits, to the first ``n`` of its rows."""
    output = TensorSpec("out", values.dtype.name, (None, *values.shape[1:]))
    rows = len(values)
    mark = (marked if marked is not None else []).append
    return task.of(spec_of(task), [output]).decode({"out": values}, range(rows if n is None else n), [], rows, mark)


@pytest.mark.parametrize(
    ("task", "outputs", "chosen"),
    [
        (Segmentation, [OTHER, SCORES], "scores"),
        (Segmentation, [OTHER, LABELS], "labels"),
        (Segmentation, [DEPTH, LABELS], "labels"),
        (Segmentation, [TensorSpec("any", "float16", (1, None, 8, 8)), DEPTH], "any"),
        (Depth, [SCORES, DEPTH], "depth"),
        (Depth, [LABELS, TensorSpec("plain", "float16", (None, 4, 6))], "plain"),
    ],
)
def test_the_output_that_fits(task: type[Task], outputs: list[TensorSpec], chosen: str) -> None:
    found = find_task(task.name).of(spec_of(task), outputs)

    assert found.output is not None
    assert found.output.name == chosen


@pytest.mark.parametrize(
    ("task", "outputs", "said"),
    [
        (
            Segmentation,
            [OTHER, DEPTH],
            r"no output fits segmentation: got features .*, depth .*; expected float scores",
        ),
        (Segmentation, [TensorSpec("wide", "float32", (None, 257, 8, 8))], "2 to 256 classes"),
        (Segmentation, [SCORES, LABELS], "the outputs scores, labels fit equally well; name the one"),
        (Depth, [SCORES, LABELS], r"expected float maps \[n, height, width\]"),
        (Depth, [], "got none"),
    ],
)
def test_outputs_that_do_not_fit(task: type[Task], outputs: list[TensorSpec], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        task.of(spec_of(task), outputs)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_the_first_of_the_best_classes_is_a_places_label(dtype: Any) -> None:
    scores = np.random.default_rng(5).integers(-9, 9, (3, 7, 5, 6)).astype(dtype)  # few values, so that some tie
    scores[0, 2] = -np.inf

    labels = decoded(Segmentation, scores, 2)

    assert labels.dtype == np.uint8
    assert np.array_equal(labels, scores[:2].astype(np.float64).argmax(axis=1))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_labels_that_the_model_computes_become_bytes(dtype: Any) -> None:
    given = np.random.default_rng(5).integers(0, 256, (2, 4, 6)).astype(dtype)

    labels = decoded(Segmentation, given)

    assert labels.dtype == np.uint8
    assert np.array_equal(labels, given)


@pytest.mark.parametrize("shape", [(2, 4, 6), (2, 1, 4, 6)])
def test_depth_is_float16_of_little_end(shape: tuple[int, ...]) -> None:
    given = np.random.default_rng(5).standard_normal(shape).astype(np.float32)

    depth = decoded(Depth, given)

    assert depth.dtype.str == "<f2"
    assert np.array_equal(depth, given.reshape(2, 4, 6).astype(np.float16))


@pytest.mark.parametrize("values", [np.ones((3, 4, 6), np.uint8), np.ones((3, 4, 6), np.float16)])
def test_answers_are_in_memory_of_their_own_and_contiguous(values: NDArray[Any]) -> None:
    task = Segmentation if values.dtype == np.uint8 else Depth
    turned = np.asfortranarray(values)

    answers = decoded(task, turned)
    before = answers.copy()
    turned[:] = 7

    assert answers.flags.c_contiguous
    assert np.array_equal(answers, before)


@pytest.mark.parametrize("task", [Segmentation, Depth])
def test_computing_ends_before_the_copy(task: type[Task]) -> None:
    marked: list[str] = []

    decoded(task, np.zeros((1, 4, 6), np.int32 if task is Segmentation else np.float32), marked=marked)

    assert marked == ["postprocess"] == list(task.stages[:-1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_no_answer_but_in_rows_of_padding(bad: float) -> None:
    scores, depth = np.zeros((3, 4, 5, 6), np.float32), np.zeros((3, 5, 6), np.float32)
    scores[1, 2, 3, 4] = depth[1, 2, 3] = bad

    for task, values in ((Segmentation, scores), (Depth, depth)):
        assert len(decoded(task, values, 1)) == 1
        with pytest.raises(ValueError, match="not finite"):
            decoded(task, values, 2)


@pytest.mark.parametrize(
    ("task", "values", "said"),
    [
        (Segmentation, np.full((1, 2, 2), 256), "labels beyond 0 to 255"),
        (Segmentation, np.full((1, 2, 2), -1), "labels beyond 0 to 255"),
        (Depth, np.full((1, 2, 2), 65520.0), "not finite in float16"),
        (Depth, np.full((1, 2, 2), -1e9), "not finite in float16"),
    ],
)
def test_values_that_an_answer_does_not_hold(task: type[Task], values: NDArray[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decoded(task, values)


def test_outputs_of_another_shape_than_asked_for() -> None:
    task = Segmentation.of(spec_of(Segmentation), [TensorSpec("out", "float32", (None, None, None, None))])

    for values, rows in ((np.zeros((2, 3, 4, 4)), 3), (np.zeros((2, 257, 4, 4)), 2), (np.zeros((2, 4, 4)), 2)):
        with pytest.raises(ValueError, match=rf"returned float64\[2, .*for a batch of {rows}"):
            task.decode({"out": values}, range(1), [], rows)
    with pytest.raises(ValueError, match="no output 'out'; got other"):
        task.decode({"other": np.zeros(1)}, range(1), [], 1)


def test_an_answers_bytes_are_told() -> None:
    task = Depth.of(spec_of(Depth), [TensorSpec("out", "float32", (None, None, None))])

    assert task.notes() == []
    task.decode({"out": np.zeros((1, 480, 640), np.float32)}, range(1), [], 1)

    assert task.notes() == ["an answer is a map of 480 x 640 in float16: 614,400 bytes"]


@pytest.mark.parametrize("task", [Segmentation, Depth])
def test_nothing_is_scored(task: type[Task]) -> None:
    said = f"{task.name} is measured for speed only"

    with pytest.raises(ValueError, match=said):
        task.check_truth(spec_of(task), np.zeros(1, np.int32), ["a.jpg"])
    with pytest.raises(ValueError, match=said):
        task.score({0: b"\0"}, np.zeros(1, np.int32))
