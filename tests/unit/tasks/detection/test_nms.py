"""Suppression against a slow oracle, to the bit: random boxes, ties, boxes without area, both orders of the axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sut.tasks.detection import nms
from sut.tasks.detection.kinds import Found

Box = tuple[list[float], float, int]
"""Corners, score and class."""


def oracle(anchors: NDArray[np.float32], objectness: bool, least: float, iou: float, agnostic: bool) -> list[Box]:
    """The boxes that stay of one picture's anchors (anchors, width), in plain loops over float32."""
    first = 4 + objectness
    scores = anchors[:, first:].max(axis=1)
    if objectness:
        scores = scores * anchors[:, 4]
    classes = anchors[:, first:].argmax(axis=1)
    order = sorted(np.flatnonzero(scores > np.float32(least)).tolist(), key=lambda at: -float(scores[at]))
    kept: list[int] = []
    half = anchors[:, 2:4] * np.float32(0.5)
    corners = np.concatenate([anchors[:, :2] - half, anchors[:, :2] + half], axis=1)
    for at in order[: nms.MOST_CANDIDATES]:
        rivals = [other for other in kept if agnostic or classes[other] == classes[at]]
        if not any(overlap(corners[other], corners[at]) > np.float32(iou) for other in rivals):
            kept.append(at)
    return [(corners[at].tolist(), float(scores[at]), int(classes[at])) for at in kept[: nms.MOST_BOXES]]


def overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> np.float32:
    """Intersection over union in float32; 0 / 0 is NaN."""
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), np.float32(0))
    both = sides[0] * sides[1]
    with np.errstate(invalid="ignore"):
        return np.float32(both / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both))


def by_picture(found: Found) -> Iterator[list[Box]]:
    """What was found, as the oracle has it."""
    boxes = zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True)
    for count in found.counts:
        yield [next(boxes) for _ in range(count)]
    assert next(boxes, None) is None


def best(
    anchors: NDArray[np.float32],
    objectness: bool = False,
    least: float = 0.001,
    iou: float = 0.7,
    agnostic: bool = False,
    transposed: bool = True,
) -> list[list[Box]]:
    """``best_boxes`` of pictures' anchors (n, anchors, width), laid out either way."""
    laid_out = np.ascontiguousarray(anchors.transpose(0, 2, 1)) if transposed else anchors
    return list(by_picture(nms.best_boxes(laid_out, anchors.shape[2], objectness, least, iou, agnostic)))


def drawn(
    random: np.random.Generator, n: int, anchors: int, classes: int, objectness: bool, coarse: bool
) -> NDArray[np.float32]:
    """Anchors; coarse ones have few places, sizes (0 among them) and scores, so that many are tied."""
    found = random.random((n, anchors, 4 + objectness + classes), np.float32)
    if coarse:
        found = np.floor(found * 4) / 4
    found[..., :4] *= 8
    return found.astype(np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 3),
    anchors=st.integers(10, 60),
    classes=st.integers(1, 4),
    objectness=st.booleans(),
    coarse=st.booleans(),
    agnostic=st.booleans(),
    transposed=st.booleans(),
    least=st.sampled_from([0.0, 0.001, 0.25, 0.5]),
    iou=st.sampled_from([0.0, 1 / 3, 0.5, 0.7, 1.0]),
)
def test_the_boxes_that_stay_are_the_oracles(
    seed: int,
    n: int,
    anchors: int,
    classes: int,
    objectness: bool,
    coarse: bool,
    agnostic: bool,
    transposed: bool,
    least: float,
    iou: float,
) -> None:
    predictions = drawn(np.random.default_rng(seed), n, anchors, classes, objectness, coarse)

    found = best(predictions, objectness, least, iou, agnostic, transposed)

    assert found == [oracle(each, objectness, least, iou, agnostic) for each in predictions]


@pytest.mark.parametrize("transposed", [True, False])
def test_many_anchors_of_many_classes(transposed: bool) -> None:
    random = np.random.default_rng(3)
    predictions = drawn(random, 2, 1500, 80, False, coarse=False)  # more than one block of them
    predictions[..., 4:] **= 40
    predictions[1, 1200:, 4:] = 0

    found = best(predictions, least=0.5, transposed=transposed)

    assert found == [oracle(each, False, 0.5, 0.7, False) for each in predictions]
    assert [len(each) for each in found] == [300, 300]


def anchor(x: float, y: float, width: float, height: float, *scores: float) -> list[float]:
    return [x, y, width, height, *scores]


def kept(*anchors: list[float], iou: float = 0.7, agnostic: bool = False) -> list[tuple[float, int]]:
    """Score and class of what stays of one picture's anchors."""
    [found] = best(np.array([anchors], np.float32), iou=iou, agnostic=agnostic, transposed=False)
    return [(round(score, 3), name) for _, score, name in found]


def test_a_worse_box_goes_within_its_class_only() -> None:
    pair = anchor(5, 5, 4, 4, 0.9, 0.1), anchor(5, 5, 4, 4.1, 0.2, 0.8)

    assert kept(*pair) == [(0.9, 0), (0.8, 1)]
    assert kept(*pair, agnostic=True) == [(0.9, 0)]


def test_of_equal_scores_the_first_anchor_stays_and_the_first_class_is_taken() -> None:
    assert kept(anchor(5, 5, 4, 4, 0.5, 0.5), anchor(5, 5, 4, 4, 0.5, 0.5), anchor(5, 5, 4, 4, 0.4, 0.5)) == [
        (0.5, 0),
        (0.5, 1),
    ]


def test_an_overlap_that_equals_the_threshold_stays() -> None:
    pair = anchor(2, 2, 4, 4, 0.9), anchor(2, 3, 4, 2, 0.8)  # 8 of 16

    assert kept(*pair, iou=0.5) == [(0.9, 0), (0.8, 0)]
    assert kept(*pair, iou=0.499) == [(0.9, 0)]


def test_boxes_without_area_cover_nothing_and_are_not_covered_by_each_other() -> None:
    points = [anchor(5, 5, 0, 0, 0.9), anchor(5, 5, 0, 0, 0.8), anchor(5, 5, 4, 0, 0.7), anchor(5, 5, 4, 4, 0.6)]

    assert kept(*points, iou=0) == [(0.9, 0), (0.8, 0), (0.7, 0), (0.6, 0)]


def test_a_score_must_be_more_than_the_threshold() -> None:
    assert kept(anchor(5, 5, 1, 1, np.float32(0.001)), anchor(9, 9, 1, 1, 0.00101)) == [(0.001, 0)]
    assert [len(each) for each in best(np.zeros((1, 3, 5), np.float32), least=0, transposed=False)] == [0]


def test_at_most_300_stay_of_at_most_30000_that_enter() -> None:
    assert (nms.MOST_CANDIDATES, nms.MOST_BOXES) == (30_000, 300)
    count = nms.MOST_CANDIDATES + 10
    predictions = np.zeros((1, count, 5), np.float32)
    predictions[0] = anchor(5, 5, 4, 4, 0.9)
    predictions[0, -10:] = [anchor(100 + 10 * at, 5, 4, 4, 0.5) for at in range(10)]  # apart, and too late
    apart = np.array([[anchor(10 * at, 5, 4, 4, 0.9) for at in range(301)]], np.float32)

    assert [len(each) for each in best(predictions)] == [1]
    assert [len(each) for each in best(predictions[:, 10:])] == [11]
    assert [len(each) for each in best(apart)] == [300]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 3, 4, 5, 7])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_value_that_is_not_finite_is_an_error_wherever_it_stands(value: float, column: int, transposed: bool) -> None:
    for objectness in (False, True):
        predictions = drawn(np.random.default_rng(0), 3, 1100, 3 + (not objectness), objectness, coarse=False)
        predictions[1, 1050, column] = value
        with pytest.raises(ValueError, match=r"not finite \(NaN or inf\) in row 1"):
            best(predictions, objectness, transposed=transposed)


def test_other_threads_go_on_meanwhile() -> None:
    assert nms.kernel().targetoptions["nogil"]  # type: ignore[attr-defined]
