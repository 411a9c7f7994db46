"""Classification: which output is used, what becomes of its rows, and top-1."""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backends.base import TensorSpec
from backends.kserve_tensors import ANSWER
from sut.models.base import ModelSpec
from sut.models.registry import MODELS
from sut.tasks.classification import Classification
from sut.tasks.top1 import top1_score

SCORES = TensorSpec("scores", "float32", (None, 5))
LABELS = TensorSpec("labels", "int64", (None,))


def spec_of(classes: int = 5, label_offset: int = 0) -> ModelSpec:
    """A model with so many classes."""
    return replace(MODELS["efficientnet-lite0"], classes=classes, label_offset=label_offset)


def task(spec: TensorSpec = SCORES, classes: int = 5, label_offset: int = 0) -> Classification:
    """A task over one output."""
    return Classification.of(spec_of(classes, label_offset), [spec])


def answer(label: float) -> bytes:
    """One answer as LoadGen logs it."""
    return struct.pack("<f", label)


@pytest.mark.parametrize(
    ("outputs", "chosen"),
    [
        ([SCORES], "scores"),
        ([LABELS, SCORES], "scores"),
        ([TensorSpec("embedding", "float32", (None, 64)), SCORES], "scores"),
        ([TensorSpec("any", "float32", (None, None)), SCORES], "scores"),
        ([TensorSpec("any", "float32", (None, None)), LABELS], "any"),
        ([TensorSpec("half", "float16", (8, 5))], "half"),
        ([TensorSpec("pooled", "float32", (None, 5, 1, 1))], "pooled"),
        ([TensorSpec("features", "float32", (None, 5, 7, 7)), LABELS], "labels"),
        ([TensorSpec("embedding", "float32", (None, 64)), TensorSpec("column", "int32", (None, 1))], "column"),
        ([TensorSpec("any", "float32", (None, None)), TensorSpec("other", "float32", (None, 6)), LABELS], "any"),
    ],
)
def test_the_output_that_fits(outputs: list[TensorSpec], chosen: str) -> None:
    assert Classification.of(spec_of(), outputs).output.name == chosen


@pytest.mark.parametrize("n", [1, 2])
def test_scores_of_a_pooling_without_a_reshape_are_read(n: int) -> None:
    scores = np.eye(5, dtype=np.float32)[[3, 1, 0]].reshape(3, 5, 1, 1)

    labels = task(TensorSpec("scores", "float32", (None, 5, 1, 1))).decode({"scores": scores}, range(n), [], 3)

    assert labels.tolist() == [3.0, 1.0][:n]


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [TensorSpec("wide", "float32", (None, 6))],
        [TensorSpec("map", "float32", (None, 5, 1, 7))],
        [TensorSpec("boxes", "int64", (None, 4))],
        [TensorSpec("flags", "bool", (None,))],
    ],
)
def test_no_output_fits(outputs: list[TensorSpec]) -> None:
    with pytest.raises(ValueError, match=r"no output fits classification: got .*expected float scores \[n, 5\]"):
        Classification.of(spec_of(), outputs)


@pytest.mark.parametrize(
    "outputs",
    [
        [SCORES, TensorSpec("again", "float16", (None, 5)), LABELS],
        [TensorSpec("any", "float32", (None, None)), TensorSpec("again", "float32", (None, None))],
        [LABELS, TensorSpec("again", "int32", (None, 1))],
    ],
)
def test_several_outputs_that_fit_equally_well_are_not_chosen_from(outputs: list[TensorSpec]) -> None:
    names = f"the outputs {outputs[0].name}, again fit equally well; name the one to use with --outputs"
    with pytest.raises(ValueError, match=names):
        Classification.of(spec_of(), outputs)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_the_best_score_wins(dtype: Any) -> None:
    spec = TensorSpec("scores", np.dtype(dtype).name, (None, 5))
    scores = np.array([[0, 1, 9, 2, 3], [-1, -2, -3, -4, -0.5], [7, 7, 0, 0, 0]], dtype=dtype)

    labels = task(spec).decode({"scores": scores}, range(3), [], 3)

    assert labels.tolist() == [2.0, 4.0, 0.0]
    assert labels.dtype == np.dtype("<f4")
    assert labels.shape == (3,)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_labels_that_the_model_computes(shape: tuple[int, ...], dtype: Any) -> None:
    labels = task(LABELS, label_offset=-1).decode(
        {"labels": np.array([1, 4, 0], dtype).reshape(shape)}, range(2), [], 3
    )

    assert labels.tolist() == [0.0, 3.0]
    assert labels.dtype == np.dtype("<f4")


def test_the_offset_is_added_to_the_best_index_and_background_is_an_answer() -> None:
    found = task(label_offset=-1).decode({"scores": np.eye(5, dtype=np.float32)}, range(5), [], 5)

    assert found.tolist() == [-1, 0, 1, 2, 3]


def test_each_batch_has_an_array_of_its_own() -> None:
    scores, labels = np.eye(5, dtype=np.float32), np.arange(5)

    first, other = (
        task().decode({"scores": scores}, range(5), [], 5),
        task(LABELS).decode({"labels": labels}, range(5), [], 5),
    )
    scores[:], labels[:] = np.eye(5)[::-1], 0

    assert first.tolist() == other.tolist() == [0, 1, 2, 3, 4]
    assert first.flags.c_contiguous
    assert first.tobytes()[4:8] == answer(1)


def test_padding_rows_are_not_looked_at() -> None:
    scores = np.eye(5, dtype=np.float32)
    scores[3:] = np.nan

    assert task().decode({"scores": scores}, range(3), [], 5).tolist() == [0, 1, 2]
    assert task(LABELS).decode({"labels": np.array([1, 2, -7])}, range(2), [], 3).tolist() == [1, 2]


def with_row(value: float, row: int, column: int) -> NDArray[np.float32]:
    """Scores with one value in one place."""
    scores = np.eye(5, dtype=np.float32)
    scores[row, column] = value
    return scores


@pytest.mark.parametrize(
    ("spec", "outputs", "n", "fragment"),
    [
        (SCORES, {"scores": np.zeros((7, 5), np.float32)}, 8, "'scores' returned 7 rows for a batch of 8"),
        (LABELS, {"labels": np.zeros(7, np.int64)}, 8, "'labels' returned 7 rows for a batch of 8"),
        (SCORES, {"scores": np.zeros((16, 5), np.float32)}, 8, "'scores' returned 16 rows for a batch of 8"),
        (LABELS, {"labels": np.zeros(9, np.int64)}, 8, "'labels' returned 9 rows for a batch of 8"),
        (SCORES, {"scores": np.float32(1)}, 1, "returned 0 rows for a batch of 1"),
        (SCORES, {"logits": np.zeros((1, 5)), "x": 0}, 1, "no output 'scores'; got logits, x"),
        (SCORES, {}, 1, "no output 'scores'; got none"),
        (SCORES, {"scores": np.zeros((1, 6), np.float32)}, 1, "has shape (1, 6); expected (n, 5)"),
        (SCORES, {"scores": np.zeros((5, 1, 5), np.float32)}, 5, "has shape (5, 1, 5)"),
        (LABELS, {"labels": np.zeros((4, 2), np.int64)}, 4, "expected integers (n,)"),
        (LABELS, {"labels": np.zeros(4, np.float32)}, 4, "dtype float32; expected integers"),
        (LABELS, {"labels": np.array([0, 4, 5])}, 3, "label 5 in row 2; expected 0 to 4"),
        (LABELS, {"labels": np.array([0, -1, 0])}, 3, "label -1 in row 1"),
        (SCORES, {"scores": with_row(np.nan, 3, 0)}, 5, "(NaN or inf) in row 3"),
        (SCORES, {"scores": with_row(np.inf, 0, 4)}, 5, "(NaN or inf) in row 0"),
        (SCORES, {"scores": np.full((2, 5), -np.inf, np.float32)}, 2, "(NaN or inf) in row 0"),
        (SCORES, {"scores": np.full((1, 5), np.nan, np.float32)}, 1, "(NaN or inf) in row 0"),
        (SCORES, {"scores": np.array([[0, 1, np.inf, 2, 3]], np.float32)}, 1, "(NaN or inf) in row 0"),
        (SCORES, {"scores": with_row(np.nan, 2, 2).astype(np.float16)}, 5, "(NaN or inf) in row 2"),
    ],
)
def test_outputs_that_are_refused(spec: TensorSpec, outputs: dict[str, Any], n: int, fragment: str) -> None:
    with pytest.raises(ValueError) as caught:
        task(spec).decode(outputs, range(n), [], n)

    assert fragment in str(caught.value)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_a_label_that_the_offset_makes_negative_is_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"label 0 in row 2; expected 1 to 4 \(label_offset is -1\)"):
        task(LABELS, label_offset=-1).decode({"labels": np.array([1, 4, 0], dtype)}, range(3), [], 3)


def test_answers_that_a_server_gives_ready_are_handed_on_as_they_are() -> None:
    ready = task(ANSWER, classes=5, label_offset=-1)
    given = np.array([-1, 0, 3, 99], np.float32)

    found = ready.decode({"answer": given}, [0, 1, 2], [], rows=4)

    assert (found.tobytes(), found.dtype, ready.answers_labels) == (given[:3].tobytes(), np.float32, True)
    assert not np.shares_memory(found, given)
    assert Classification.of(spec_of(), [SCORES, ANSWER]).output == ANSWER


@pytest.mark.parametrize("value", [4, -2, 0.5, np.nan, np.inf])
def test_what_is_no_label_is_no_answer_of_a_server(value: float) -> None:
    ready = task(ANSWER, classes=5, label_offset=-1)

    with pytest.raises(ValueError, match=f"has {value:g} in row 1; expected a label, -1 to 3"):
        ready.decode({"answer": np.array([0, value], np.float32)}, [0, 1], [], rows=2)


@pytest.mark.parametrize("rows", [2, 4, 6])
def test_rows_of_the_padding_must_be_there_too(rows: int) -> None:
    with pytest.raises(ValueError, match=f"returned {rows} rows for a batch of 5"):
        task().decode({"scores": np.zeros((rows, 5), np.float32)}, range(2), [], 5)


def test_a_large_batch_costs_no_python_per_sample() -> None:
    labelling, outputs = task(LABELS, classes=1001), {"labels": np.arange(4096) % 1001}

    def decode_once() -> float:
        start = time.perf_counter()
        labelling.decode(outputs, range(4096), [], 4096)
        return time.perf_counter() - start

    # Vectorised it is far below the bound; 100 us would be 25 ns a sample, less than any Python loop takes.
    assert min(decode_once() for _ in range(200)) < 100e-6


def test_top1() -> None:
    answers = {2: answer(7), 0: answer(5), 3: answer(-1), 1: answer(6.5)}

    score = task().score(answers, np.array([5, 6, 7, 8], np.int32))

    assert score == top1_score(2, 4)


@pytest.mark.parametrize(("labels", "always"), [([5, 5, 5], 5.0), ([5, 5, 4], None), ([5], None)])
def test_one_answer_to_several_samples_is_noticed(labels: list[int], always: float | None) -> None:
    answers = {index: answer(label) for index, label in enumerate(labels)}

    assert task().score(answers, np.zeros(len(labels), np.int32)).always == always


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1, max_size=50), st.randoms())
def test_top1_whatever_the_order_of_the_answers(pairs: list[tuple[int, int]], random: Any) -> None:
    order = list(range(len(pairs)))
    random.shuffle(order)
    answers = {index: answer(pairs[index][0]) for index in order}

    score = task().score(answers, np.array([label for _, label in pairs], np.int32))

    assert score.good == sum(got == label for got, label in pairs)
    assert score.count == len(pairs)


@pytest.mark.parametrize(
    ("answers", "fragment"),
    [
        ({0: answer(1), 1: b"\0\0\0"}, "sample 1 has 3 bytes; expected 4"),
        ({0: answer(1), 1: b""}, "sample 1 has 0 bytes"),
        ({0: answer(1), 6: answer(1)}, "sample 6; the data set has 0 to 5"),
        ({-1: answer(1)}, "sample -1"),
        ({0: answer(1), 5: answer(1)}, "4 of 6 samples have no answer: 1, 2, 3, ..."),
        ({index: answer(1) for index in range(5)}, "1 of 6 samples have no answer: 5"),
        ({}, "6 of 6 samples have no answer"),
    ],
)
def test_answers_that_are_refused(answers: dict[int, bytes], fragment: str) -> None:
    with pytest.raises(ValueError) as caught:
        task().score(answers, np.zeros(6, np.int32))

    assert fragment in str(caught.value)


def test_no_labels_no_score() -> None:
    with pytest.raises(ValueError, match="no labels"):
        task().score({}, np.zeros(0, np.int32))


@pytest.mark.parametrize("rows", [1, 2])
def test_a_class_that_is_ruled_out_is_no_failure(rows: int) -> None:
    scores = np.tile(np.array([-np.inf, 0.5, 0.1, -np.inf, 0.4], np.float32), (rows, 1))

    labels = Classification(SCORES, 5, 0).decode({"scores": scores}, range(rows), [], rows)

    assert labels.tolist() == [1.0] * rows
