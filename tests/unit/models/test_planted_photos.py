"""The planted detector of photos: every one of a frame through JPEG, letterbox and suppression, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from backends.base import TensorSpec
from preprocess.base import Recipe, unmarked
from preprocess.opencv import OpenCV
from preprocess.parts.decode import decode
from sut.datasets.albums import BACKGROUND
from sut.datasets.registry import open_dataset
from sut.models.base import ModelSpec
from sut.models.registry import MODELS
from sut.models.sources.planted import SIZE, write_photos
from sut.tasks.detection.likeness import boxes_of, overlaps
from sut.tasks.detection.task import Detection
from sut.tasks.identification import Identification
from tests.identities import pack

Array = NDArray[Any]
SPEC = MODELS["planted-photos"]
IDENTIFIER = MODELS["efficientnet-lite0"]
ALBUMS = open_dataset("albums", None, None, None)


class Asked:
    """A model that is asked for one encoded picture at a time."""

    n, place = 1, "host"

    def __init__(self, path: str, recipe: Recipe) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # two that spin take turns on a busy machine
        self._session = onnxruntime.InferenceSession(path, options)
        self._name = self._session.get_inputs()[0].name
        self._preprocessor = OpenCV(recipe)
        self.buffers = {self._name: np.empty((1, *recipe.sample_shape), np.float32)}

    def __call__(self, data: bytes) -> tuple[Any, Array]:
        """The picture's geometry and the first output."""
        [geometry] = self._preprocessor.run([data], self, unmarked)
        return geometry, self._session.run(None, self.buffers)[0]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("planted") / "photos.onnx"
    write_photos(made)
    return str(made)


def task_of(spec: ModelSpec = SPEC) -> Detection:
    return Detection.of(spec, [TensorSpec("output0", "float32", (None, 5, 1600))])


def answered(path: str, samples: range) -> dict[int, bytes]:
    asked, task, answers = Asked(path, SPEC.recipe), task_of(), {}
    for sample in samples:
        geometry, output = asked(ALBUMS.read(sample))
        [answers[sample]] = task.decode({"output0": output}, [sample], [geometry], 1)
    return answers


@pytest.fixture(scope="module")
def found(path: str) -> dict[int, bytes]:
    """What detection answers to every frame."""
    return answered(path, range(ALBUMS.count))


def true_rows(sample: int) -> Array:
    """The true boxes as a right answer has them."""
    (width, height), boxes = ALBUMS.truth.sizes[sample], ALBUMS.truth.boxes[sample]
    shares = [
        (top / height, left / width, (top + high) / height, (left + wide) / width) for left, top, wide, high in boxes
    ]
    return boxes_of(pack(sample, shares, np.ones(len(boxes)), ALBUMS.truth.labels[sample]))


def test_each_photo_of_each_frame_is_found_once_and_nothing_else(found: dict[int, bytes]) -> None:
    for sample, answer in found.items():
        rows, true = boxes_of(answer), true_rows(sample)
        assert len(rows) == len(true)
        shares = np.array([overlaps(box, rows) for box in true]).reshape(len(true), len(rows))
        assert (shares.max(axis=1, initial=0) >= (0.9 if len(true) else 0)).all()
        assert ((shares >= 0.9).sum(axis=0) == 1).all()
        places = rows[shares.argmax(axis=1)] if len(true) else rows
        pixels = np.abs(places[:, 1:5] - true[:, 1:5]) * np.tile(ALBUMS.truth.sizes[sample][::-1], 2)
        assert (pixels * SIZE <= 1.01 * max(ALBUMS.truth.sizes[sample])).all()  # a pixel of the input
    assert [sample for sample, answer in found.items() if not answer] == [
        sample for sample, labels in enumerate(ALBUMS.truth.labels) if not labels
    ]


def test_what_reaches_the_inputs_edge_is_padding_and_what_does_not_is_a_photo_in_each_row_of_a_batch(path: str) -> None:
    tensor = np.empty((3, 3, SIZE, SIZE), np.float32)
    tensor[:] = np.array(BACKGROUND, np.float32)[:, None, None] / 255
    tensor[0, :, 100:200, 40:333] = 0.5
    tensor[1, :, :200] = tensor[1, :, 500:] = tensor[2, :, :, 600:] = 114 / 255
    tensor[2, :, 64:128, 64:128] = 0

    output = onnxruntime.InferenceSession(path).run(None, {"images": tensor})[0]

    for row, box in zip(output, ([186.5, 150, 293, 100], None, [96, 96, 64, 64]), strict=True):
        places = row[:4, row[4] > 0].T
        assert set(row[4].tolist()) <= {0, 1}
        assert len(places) if box else not len(places)
        assert (places == box).all() or not box


def test_without_suppression_of_what_overlaps_by_half_a_photo_is_answered_more_than_once(path: str) -> None:
    options = {**SPEC.task_options, "iou_threshold": 1.0}
    geometry, output = Asked(path, SPEC.recipe)(ALBUMS.read(0))

    [answer] = task_of(replace(SPEC, task_options=options)).decode({"output0": output}, [0], [geometry], 1)

    assert len(boxes_of(answer)) > len(ALBUMS.truth.labels[0])


def cropped(frame: Array, rows: Array) -> list[bytes]:
    """What lies in the boxes of a frame's pixels, as files that lose nothing."""
    sides = np.tile(frame.shape[:2], 2)
    places = [np.rint(row[1:5] * sides).astype(int) for row in rows]
    return [cv2.imencode(".png", frame[top:end, left:right])[1].tobytes() for top, left, end, right in places]


@pytest.mark.slow
def test_crops_at_the_boxes_found_have_the_labels_of_those_at_the_true_ones_which_are_right(
    found: dict[int, bytes],
) -> None:
    asked = Asked(str(IDENTIFIER.build("trained", lambda text: None)), IDENTIFIER.recipe)
    answers: dict[str, dict[int, bytes]] = {"found": {}, "true": {}}
    for sample, answer in found.items():
        frame = decode(ALBUMS.read(sample))
        for which, rows in (("found", boxes_of(answer)), ("true", true_rows(sample))):
            labels = [int(asked(crop)[1][0].argmax()) + IDENTIFIER.label_offset for crop in cropped(frame, rows)]
            answers[which][sample] = pack(sample, rows[:, 1:5], rows[:, 5], labels)

    at_the_true = Identification.score(answers["true"], ALBUMS.truth)
    as_at_the_true = replace(ALBUMS.truth, labels=labels_of(answers["true"]))
    assert at_the_true.count == 302
    assert at_the_true.value >= 0.98  # 300 of 302
    assert Identification.score(answers["found"], as_at_the_true).value >= 0.98
    assert Identification.score(answers["found"], ALBUMS.truth).value >= 0.98


def labels_of(answers: dict[int, bytes]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(boxes_of(answer)[:, 6].astype(int).tolist()) for answer in answers.values())
