"""Frames of photos: what lies on them and where, that the background is nobody's colour, and what the files are."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from preprocess.parts.decode import decode
from sut.datasets.albums import (
    BACKGROUND,
    FRAMES,
    GAP,
    LONGEST,
    MOST_PHOTOS,
    SMALLEST,
    UNSURE,
    frames,
    shown_photos,
)
from sut.datasets.demo import open_demo
from sut.datasets.registry import open_dataset
from sut.errors import InputError
from sut.models.registry import MODELS
from sut.tasks.classification import Classification
from sut.tasks.detection.task import Detection
from sut.tasks.identification import Identification, IdentityTruth

DRAWN = [drawn for _, drawn in frames()]
LETTERBOX = 640


def test_photos_are_as_many_and_as_large_as_they_must_be_and_lie_apart() -> None:
    counts = {len(drawn.boxes) for drawn in DRAWN}
    assert len(DRAWN) == FRAMES == len(counts)  # as many photos as on no other frame
    assert {0, 1, MOST_PHOTOS} <= counts
    for drawn in DRAWN:
        height, width, _ = drawn.pixels.shape
        boxes = np.array(drawn.boxes).reshape(-1, 4)
        ends = boxes[:, :2] + boxes[:, 2:]
        assert max(height, width) <= LONGEST
        assert (boxes[:, 2:] >= SMALLEST).all() and (boxes[:, 2:] * LETTERBOX >= 64 * max(height, width)).all()
        assert (boxes[:, :2] >= GAP // 2).all() and (ends + GAP // 2 <= (width, height)).all()
        for one, other in combinations(range(len(ends)), 2):
            assert np.maximum(boxes[one, :2] - ends[other], boxes[other, :2] - ends[one]).max() >= GAP


def test_every_photo_is_shown_before_any_is_twice_but_for_those_left_out() -> None:
    shown = set(open_demo().truth.tolist()) - UNSURE
    assert len(shown) == 10
    for drawn in DRAWN:
        assert len(drawn.labels) == len(drawn.boxes)
        counts = Counter(drawn.labels)
        assert set(counts) <= shown
        assert not counts or max(counts.values()) - min(counts[label] for label in shown) <= 1
    assert {label for drawn in DRAWN for label in drawn.labels} == shown


def test_no_pixel_of_a_photo_is_near_the_background_and_all_others_have_it() -> None:
    for photo in shown_photos():
        assert np.abs(photo.pixels[:, :, ::-1].astype(int) - BACKGROUND).max(axis=2).min() >= 99
    for drawn in DRAWN:
        rest = drawn.pixels.astype(int)
        for left, top, width, height in drawn.boxes:
            inside = rest[top : top + height, left : left + width]
            assert np.abs(inside - BACKGROUND).max(axis=2).min() >= 99
            inside[:] = BACKGROUND
        assert (rest == BACKGROUND).all()


def test_the_files_are_the_frames_and_what_jpeg_leaves_on_the_background_is_little() -> None:
    dataset = open_dataset("albums", None, None, None)
    truth = dataset.truth

    assert isinstance(truth, IdentityTruth)
    assert dataset.count == FRAMES
    for number, drawn in enumerate(DRAWN):
        seen = decode(dataset.read(number))[:, :, ::-1].astype(int)
        assert seen.shape == drawn.pixels.shape
        assert (truth.boxes[number], truth.labels[number]) == (drawn.boxes, drawn.labels)
        assert truth.sizes[number] == drawn.pixels.shape[1::-1]
        noise = np.abs(seen - drawn.pixels)
        assert noise.mean() < 2
        assert noise[(drawn.pixels == BACKGROUND).all(axis=2)].max(initial=0) <= 25


def test_the_first_frames_are_those_of_all_and_there_are_no_more() -> None:
    few, all_of_them = (open_dataset("albums", None, None, count) for count in (3, None))

    assert (few.count, few.files) == (3, all_of_them.files[:3])
    assert few.truth == IdentityTruth(*(part[:3] for part in parts(all_of_them.truth)))
    with pytest.raises(InputError, match="the data set albums has 24 entries; use --count 24 or less"):
        open_dataset("albums", None, None, FRAMES + 1)


def parts(truth: IdentityTruth) -> tuple[tuple[object, ...], ...]:
    return truth.sizes, truth.boxes, truth.labels


def test_identities_are_scored_against_albums_and_neither_boxes_nor_labels_alone() -> None:
    dataset = open_dataset("albums", None, None, 2)
    spec = MODELS["planted-photos"]

    Identification.check_truth(spec, dataset.truth, dataset.files)
    with pytest.raises(ValueError, match="it has no boxes to score against, but another task's truth") as refused:
        Detection.check_truth(spec, dataset.truth, dataset.files)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="it has no labels to score against, but another task's truth"):
        Classification.check_truth(MODELS["efficientnet-lite0"], dataset.truth, dataset.files)
