"""Drawn pictures: what is in them, and that a reader of JPEGs and EXIF sees just that."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from preprocess.parts.decode import decode
from sut.datasets import rectangles
from sut.datasets.rectangles import COLOURS, GAP, LONGEST, MOST_BOXES, SMALLEST, draw, encoded, pictures

DRAWN = [drawn for _, drawn, _ in pictures()]


def test_rectangles_are_as_many_and_as_large_as_they_must_be_and_lie_apart() -> None:
    assert {len(drawn.boxes) for drawn in DRAWN} == set(range(1, MOST_BOXES + 1))
    for drawn in DRAWN:
        height, width, _ = drawn.pixels.shape
        ends = drawn.boxes[:, :2] + drawn.boxes[:, 2:]
        assert max(height, width) <= LONGEST
        assert drawn.boxes[:, 2:].min() >= SMALLEST
        assert drawn.boxes.min() >= 0 and (ends <= (width, height)).all()
        for one, other in combinations(range(len(ends)), 2):
            apart = np.maximum(drawn.boxes[one, :2] - ends[other], drawn.boxes[other, :2] - ends[one])
            assert apart.max() >= GAP


def test_a_picture_has_two_or_more_of_each_category_it_has_and_the_pictures_have_all() -> None:
    for drawn in DRAWN:
        assert len(drawn.boxes) == 1 or min(Counter(drawn.categories).values()) >= 2
    assert {category for drawn in DRAWN for category in drawn.categories} == set(COLOURS)


def test_a_rectangle_has_its_colour_and_the_rest_is_grey_but_not_a_letterboxs() -> None:
    for drawn in DRAWN:
        rest = drawn.pixels.copy()
        for (left, top, width, height), category in zip(drawn.boxes, drawn.categories, strict=True):
            inside = rest[top : top + height, left : left + width]
            assert (inside == COLOURS[category]).all()
            inside[:] = 0
        [grey] = {level for level in np.unique(rest).tolist() if level}
        assert 120 <= grey <= 140 and grey != 114


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_shows_the_picture(orientation: int) -> None:
    drawn = draw(orientation, 5).pixels

    seen = decode(encoded(drawn, orientation))[:, :, ::-1].astype(int)

    assert seen.shape == drawn.shape
    assert np.abs(seen - drawn).mean() < 1  # what JPEG loses lies at the edges


def test_the_files_are_the_annotations_pictures_in_all_turns(tmp_path: Path) -> None:
    rectangles.write(tmp_path / "rectangles.json")

    told = json.loads((tmp_path / "rectangles.json").read_text())
    assert [each["file_name"] for each in told["images"]] == sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert len(told["images"]) == rectangles.PICTURES
    sizes = {decode((tmp_path / each["file_name"]).read_bytes()).shape[1::-1] for each in told["images"]}
    assert sizes == {(each["width"], each["height"]) for each in told["images"]}
    boxes: dict[int, list[tuple[int, ...]]] = {image["id"]: [] for image in told["images"]}
    for each in told["annotations"]:
        boxes[each["image_id"]].append((*each["bbox"], each["category_id"]))
    for drawn, found in zip(DRAWN, boxes.values(), strict=True):
        assert found == [(*box, kind) for box, kind in zip(drawn.boxes.tolist(), drawn.categories, strict=True)]
