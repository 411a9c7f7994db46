"""Which pictures calibrate: never silently those that are scored, and always the same ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from preprocess.opencv import OpenCV
from sut.datasets.base import DataSet
from sut.errors import InputError
from sut.models.precision import calibration
from sut.models.precision.calibration import calibrate_on, preprocessed, random_crops
from sut.qsl.library import Rows
from tests.unit.small_models import RECIPE, SIZE, pictures

PLAIN = replace(RECIPE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""A plain picture's samples are its colour."""


def data_set(root: Path, count: int, name: str = "{:05}.png") -> DataSet:
    """Picture i is plain: its red is i modulo 256, its green i // 256."""
    files = tuple(name.format(number + 1) for number in range(count))
    for number, file in enumerate(files):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (0, number // 256, number % 256)
        path.write_bytes(cv2.imencode(".png", np.full((20, 20, 3), colour, np.uint8))[1].tobytes())
    return DataSet("folder", root, files, None)


def first(dataset: DataSet, count: int) -> DataSet:
    return replace(dataset, files=dataset.files[:count])


def shown(tensors: np.ndarray) -> list[int]:
    """The numbers of the plain pictures in the samples."""
    return [int(red + 256 * green) for red, green in zip(tensors[:, 0, 0, 0], tensors[:, 1, 0, 0], strict=True)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(calibration, "SAMPLES", 30)
    return 30


def test_pictures_that_are_not_scored_come_first(tmp_path: Path, few: int) -> None:
    whole = data_set(tmp_path, 80)

    got = calibrate_on(first(whole, 20), whole, PLAIN)

    numbers = shown(got.tensors)
    assert len(set(numbers)) == few and min(numbers) >= 20
    assert max(numbers) > 60, "drawn from all of them"
    assert (got.source, got.notes) == ("30 pictures that are not scored", ())
    assert got.tensors.shape == (few, 3, SIZE, SIZE) and got.tensors.dtype == np.float32


def test_fewer_of_them_give_crops(tmp_path: Path, few: int) -> None:
    whole = data_set(tmp_path, 32)

    got = calibrate_on(first(whole, 20), whole, PLAIN)

    assert set(shown(got.tensors)) == set(range(20, 32)) and len(got.tensors) == few
    assert (got.source, got.notes) == ("30 crops of 12 pictures that are not scored", ())


@pytest.mark.parametrize("unseen", [0, calibration.LEAST_UNSEEN - 1])
def test_where_next_to_none_are_left_the_note_says_so(tmp_path: Path, few: int, unseen: int) -> None:
    whole = data_set(tmp_path, 11)

    got = calibrate_on(first(whole, 11 - unseen), whole, PLAIN)

    assert set(shown(got.tensors)) == set(range(11)) and len(got.tensors) == few
    assert got.source == "30 crops of 11 scored pictures"
    assert got.notes == ("calibrated on crops of the pictures that are scored; agreement is optimistic",)


def test_too_few_pictures_are_noted(tmp_path: Path, few: int) -> None:
    whole = data_set(tmp_path, 3)

    got = calibrate_on(whole, whole, PLAIN)

    assert got.notes[1] == "calibrated on crops of only 3 pictures, expected 10 or more"


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_a_recipe_that_keeps_the_whole_picture_gets_whole_pictures(tmp_path: Path, few: int, fit: Any) -> None:
    recipe = replace(PLAIN, fit=fit)
    whole = data_set(tmp_path, 32)

    unseen = calibrate_on(first(whole, 20), whole, recipe)
    scored = calibrate_on(first(whole, 3), first(whole, 3), recipe)

    assert (shown(unseen.tensors), unseen.source) == ([*range(20, 32)], "12 pictures that are not scored")
    assert (shown(scored.tensors), scored.source) == ([0, 1, 2], "3 scored pictures")
    assert scored.notes == (
        "calibrated on the pictures that are scored; agreement is optimistic",
        "calibrated on only 3 pictures, expected 10 or more",
    )


def test_no_pictures_are_an_error(tmp_path: Path) -> None:
    nothing = DataSet("folder", tmp_path, (), None)

    with pytest.raises(InputError, match="has no pictures to calibrate with"):
        calibrate_on(nothing, nothing, PLAIN)


def test_the_same_arguments_give_the_same_samples(tmp_path: Path, few: int) -> None:
    whole = data_set(tmp_path, 80)

    one, again = (calibrate_on(first(whole, 20), whole, PLAIN) for _ in range(2))
    other = calibrate_on(first(whole, 21), whole, PLAIN)

    assert one.digest == again.digest != other.digest
    np.testing.assert_array_equal(one.tensors, again.tensors)


def test_samples_are_those_of_the_preprocessor_opencv(tmp_path: Path) -> None:
    for number, picture in enumerate(pictures(6)):
        (tmp_path / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    names = tuple(f"{number}.png" for number in range(6))
    (tmp_path / "list.txt").write_text("\n".join(names))

    got = calibrate_on((whole := DataSet("folder", tmp_path, names, None)), whole, RECIPE, tmp_path / "list.txt")

    expected = np.empty((6, *RECIPE.sample_shape), np.float32)
    with OpenCV(RECIPE) as preprocessor:
        preprocessor.run([(tmp_path / name).read_bytes() for name in names], Rows.of(expected), lambda stage: None)
    np.testing.assert_array_equal(got.tensors, expected)


@pytest.mark.parametrize(
    "lines",
    [
        "00003.png\n00001.png\n",
        "00003.png 65\n00001.png 970\n",
        "3\n1\n",
        "\ufeff00003.png\r\n\r\n./00001.png\r\n00003.png\r\n",
    ],
)
def test_a_list_names_pictures_or_counts_them_from_one(tmp_path: Path, lines: str) -> None:
    whole = data_set(tmp_path, 12)
    (tmp_path / "list.txt").write_text(lines, newline="")

    got = calibrate_on(whole, whole, PLAIN, tmp_path / "list.txt")

    assert shown(got.tensors) == [2, 0]
    assert got.source == "2 pictures in the list list.txt"
    assert got.notes == ("calibrated on only 2 pictures, expected 10 or more",)


def test_a_list_without_folders_finds_pictures_in_them(tmp_path: Path) -> None:
    whole = data_set(tmp_path, 12, "class/{:05}.png")
    (tmp_path / "list.txt").write_text("00007.png\n")

    assert shown(calibrate_on(whole, whole, PLAIN, tmp_path / "list.txt").tensors) == [6]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothere.png\n", r"list\.txt line 1: 'nothere\.png' is no picture of the data set"),
        ("1\n0\n", r"list\.txt line 2: '0' is no picture .* or its number there, from 1"),
        ("13\n", r"line 1: '13' is no picture .*\(12 pictures\)"),
        (" \n", r"list\.txt is empty, expected a picture per line"),
        (None, r"there is no calibration list .*list\.txt"),
    ],
)
def test_a_list_that_does_not_do_is_told_with_its_line(tmp_path: Path, text: str | None, said: str) -> None:
    whole = data_set(tmp_path, 12)
    if text is not None:
        (tmp_path / "list.txt").write_text(text)

    with pytest.raises(InputError, match=said):
        calibrate_on(whole, whole, PLAIN, tmp_path / "list.txt")


def test_a_name_that_is_there_twice_must_be_whole(tmp_path: Path) -> None:
    one, two = data_set(tmp_path / "a", 3, "{}.png"), data_set(tmp_path / "b", 3, "{}.png")
    files = tuple(f"a/{file}" for file in one.files) + tuple(f"b/{file}" for file in two.files)
    whole = DataSet("folder", tmp_path, files, None)
    (tmp_path / "list.txt").write_text("2.png\n")

    with pytest.raises(InputError, match=r"'2\.png' is no picture"):
        calibrate_on(whole, whole, PLAIN, tmp_path / "list.txt")


def test_the_closed_rules_take_the_official_list_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MLCOMMONS_LISTS", ({1: 10, 250: 259, 500: 509},))
    whole = data_set(tmp_path, 510, "ILSVRC2012_val_{:08}.JPEG")
    official = tmp_path / "cal_image_list_option_1.txt"
    official.write_text("\n".join(whole.files[9:509]))
    (tmp_path / "short.txt").write_text("\n".join(whole.files[:300]))
    (tmp_path / "other.txt").write_text("\n".join(whole.files[8:508]))
    (tmp_path / "repeats.txt").write_text("\n".join([*whole.files[9:11], whole.files[9], *whole.files[12:509]]))
    (tmp_path / "numbers.txt").write_text("\n".join(map(str, range(1, 501))))

    got = calibrate_on(whole, whole, PLAIN, official, closed=True)

    assert shown(got.tensors) == list(range(9, 509))
    assert (got.source, got.notes) == ("500 pictures in the list cal_image_list_option_1.txt", ())
    for other in ("short.txt", "other.txt", "repeats.txt", "numbers.txt"):
        with pytest.raises(InputError, match=r"is not MLCommons' calibration list .*take no other"):
            calibrate_on(whole, whole, PLAIN, tmp_path / other, closed=True)
    with pytest.raises(InputError, match=r"give its list with --calibration-list FILE"):
        calibrate_on(first(whole, 100), whole, PLAIN, closed=True)


def test_a_list_may_lie_among_its_pictures(tmp_path: Path) -> None:
    whole = data_set(tmp_path / "val", 3)
    beside = data_set(tmp_path / "train", 9, "{:012}.jpg")
    calibration_list = tmp_path / "train/list.txt"
    calibration_list.write_text("\n".join(beside.files[4:8]))

    assert shown(calibrate_on(whole, whole, PLAIN, calibration_list).tensors) == [4, 5, 6, 7]
    calibration_list.write_text(f"{beside.files[4]}\nother.jpg\n")
    with pytest.raises(
        InputError, match=r"list\.txt line 2: 'other\.jpg' is no picture of the data set the list's own"
    ):
        calibrate_on(whole, whole, PLAIN, calibration_list)


@pytest.mark.parametrize("known", calibration.MLCOMMONS_LISTS)
def test_the_official_lists_are_known_by_every_line_kept_of_them(known: Mapping[int, int]) -> None:
    others = iter(sorted(set(range(1, 50_001)) - set(known.values())))
    numbers = [known[line] if line in known else next(others) for line in range(1, calibration.MAX_LISTED + 1)]

    def is_known(numbers: Sequence[int]) -> bool:
        return calibration._is_mlcommons([f"ILSVRC2012_val_{number:08}.JPEG" for number in numbers])

    assert is_known(numbers)
    assert not is_known(numbers[:-1])
    for line in known:
        assert not is_known([*numbers[: line - 1], next(others), *numbers[line:]])


def test_a_damaged_or_missing_picture_is_named(tmp_path: Path) -> None:
    whole = data_set(tmp_path, 12)
    (tmp_path / "list.txt").write_text("00002.png\n00003.png\n")
    (tmp_path / "00003.png").write_bytes(b"no picture")

    with pytest.raises(InputError, match=r"00003\.png, which is to calibrate the model \(.*list\.txt line 2\): cannot"):
        calibrate_on(whole, whole, PLAIN, tmp_path / "list.txt")

    (tmp_path / "00003.png").unlink()
    with pytest.raises(InputError, match=r"00003\.png, which is to calibrate the model: No such file or directory"):
        calibrate_on(whole, whole, PLAIN)


def test_samples_stay_within_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data_set(tmp_path, 12)
    (tmp_path / "list.txt").write_text(os.linesep.join(whole.files))
    monkeypatch.setattr(calibration, "MAX_BYTES", 11 * 3 * SIZE * SIZE * 4 + 1)

    listed = calibrate_on(whole, whole, PLAIN, tmp_path / "list.txt")

    assert shown(listed.tensors) == list(range(11))
    assert listed.notes == ("calibrated on the first 11 of 12 pictures in list.txt",)
    assert len(calibrate_on(whole, whole, PLAIN).tensors) == 11


def test_crops_are_shared_among_the_pictures_and_differ() -> None:
    photos = [np.arange(40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8) + np.uint8(number) for number in range(3)]

    crops = list(random_crops(iter(photos), 3, 100, seed=1))

    assert len(crops) == 100
    assert {crop.shape[0] for crop in crops} <= set(range(20, 41))
    assert all(crop.shape[0] == crop.shape[1] and crop.size for crop in crops)
    assert len({crop.tobytes() for crop in crops}) > 90
    again = list(random_crops(iter(photos), 3, 100, seed=1))
    assert [crop.tobytes() for crop in crops] == [crop.tobytes() for crop in again]
    assert [crop.tobytes() for crop in random_crops(iter(photos), 3, 100, seed=2)] != [c.tobytes() for c in crops]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (2, 3, 3)])
def test_the_smallest_pictures_can_be_cropped(shape: tuple[int, int, int]) -> None:
    crops = list(random_crops(iter([np.zeros(shape, np.uint8)]), 1, 20, seed=1))

    assert len(crops) == 20 and all(crop.size for crop in crops)
    assert preprocessed(crops, 20, RECIPE).shape == (20, 3, SIZE, SIZE)
