"""The planted detector: what it answers to a tensor, and to drawn pictures behind a preprocessor."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from preprocess.base import Recipe, unmarked
from preprocess.opencv import OpenCV
from sut.datasets.rectangles import COLOURS, Drawn, pictures
from sut.models.sources.planted import SIZE, write_yolo
from sut.tasks.detection.categories import COCO80

Array = NDArray[Any]
LETTERBOX = Recipe(name="letterbox", size=SIZE, fit="letterbox", interpolation="linear", std=(255.0, 255.0, 255.0))
STRETCH = Recipe(name="stretch", size=SIZE, fit="stretch", interpolation="linear", std=(255.0, 255.0, 255.0))


class Buffer:
    """A place for one picture."""

    n, place = 1, "host"

    def __init__(self, recipe: Recipe) -> None:
        self.row = np.empty((1, *recipe.sample_shape), np.float32)
        self.buffers = {"images": self.row}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    path = tmp_path_factory.mktemp("planted") / "planted.onnx"
    write_yolo(path)
    return onnxruntime.InferenceSession(path)


def found(session: onnxruntime.InferenceSession, tensor: Array) -> list[tuple[Array, Array]]:
    """Corners x1, y1, x2, y2 in pixels of the input and classes, at the anchors of each picture that have any."""
    answers = []
    for rows in session.run(None, {"images": tensor})[0]:
        rows = rows[:, rows[4:].any(axis=0)].T
        assert (np.sort(rows[:, 4:])[:, -2:] == (0, 1)).all()  # one class each, and for certain
        half = rows[:, 2:4] / 2
        answers.append((np.hstack([rows[:, :2] - half, rows[:, :2] + half]), rows[:, 4:].argmax(axis=1)))
    return answers


def test_rectangles_in_a_tensor_are_found_to_the_pixel_in_each_row_of_a_batch(
    session: onnxruntime.InferenceSession,
) -> None:
    tensor = np.full((3, 3, SIZE, SIZE), 0.5, np.float32)
    planted = {0: (13, (1, 40, 333, 64)), 2: (90, (592, 0, 640, 640))}
    for row, (category, (x1, y1, x2, y2)) in planted.items():
        tensor[row, :, y1:y2, x1:x2] = np.array(COLOURS[category])[:, None, None] / 255

    answers = found(session, tensor)

    assert len(answers[1][0]) == 0
    for row, (category, corners) in planted.items():
        boxes, classes = answers[row]
        assert len(boxes) and (boxes == corners).all()
        assert {COCO80[index] for index in classes} == {category}


@pytest.mark.parametrize("recipe", [LETTERBOX, STRETCH], ids=lambda recipe: recipe.name)
def test_every_rectangle_of_drawn_pictures_is_found_within_a_pixel(
    session: onnxruntime.InferenceSession, recipe: Recipe
) -> None:
    preprocessor = OpenCV(recipe)
    for _, drawn, data in pictures(16):
        buffer = Buffer(recipe)
        [geometry] = preprocessor.run([data], buffer, unmarked)
        [(boxes, classes)] = found(session, buffer.row)
        scale, offset = np.array([geometry.scale_x, geometry.scale_y] * 2), [geometry.left, geometry.top] * 2
        nearest = matched(drawn, boxes / scale + offset)
        assert set(nearest) == set(range(len(drawn.boxes)))
        true = corners(drawn)[nearest]
        assert (np.abs((true - offset) * scale - boxes) <= 1).all()
        assert overlap(true, boxes / scale + offset).min() > 0.95
        assert [COCO80[index] for index in classes] == [drawn.categories[which] for which in nearest]


def corners(drawn: Drawn) -> Array:
    return np.hstack([drawn.boxes[:, :2], drawn.boxes[:, :2] + drawn.boxes[:, 2:]])


def matched(drawn: Drawn, boxes: Array) -> Array:
    """The rectangle that each box is nearest to."""
    return np.asarray(np.abs(corners(drawn) - boxes[:, None]).sum(axis=2).argmin(axis=1))


def overlap(one: Array, other: Array) -> Array:
    """Intersection over union, row by row."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    both = np.prod(np.maximum(sides, 0), axis=1)
    return np.asarray(both / (np.prod(one[:, 2:] - one[:, :2], 1) + np.prod(other[:, 2:] - other[:, :2], 1) - both))
