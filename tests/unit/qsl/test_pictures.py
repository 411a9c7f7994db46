"""What is said of the pictures that were loaded: equal ones, dark ones, and how large one may be."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocess.parts.decode import MOST_BYTES
from sut.datasets.base import DataSet
from sut.datasets.sums import Sums, sum_of
from sut.qsl import pictures
from sut.qsl.pictures import Seen, most_bytes
from tests.unit.coco_sets import jpeg


def seen(count: int) -> Seen:
    return Seen(DataSet("folder", Path("/nowhere"), tuple(f"{number}.png" for number in range(count)), None))


@pytest.mark.parametrize(
    ("count", "equal", "said"),
    [
        (1, 0, []),
        (100, 1, []),
        (99, 1, ["1 of 99 pictures that were loaded are equal to others (1.01 %)"]),
        (200, 3, ["3 of 200 pictures that were loaded are equal to others (1.5 %)"]),
        (1024, 1023, ["1,023 of 1,024 pictures that were loaded are equal to others (99.9 %)"]),
    ],
)
def test_more_than_one_in_a_hundred_equal_pictures_are_said(count: int, equal: int, said: list[str]) -> None:
    known = seen(count)
    for index in range(count):
        known.read(index, b"%d" % max(equal, index))

    assert known.equal() == known.notes() == said


def test_a_picture_that_is_loaded_again_is_no_second_one() -> None:
    known = seen(2)
    for index in (0, 1, 0, 1):
        known.read(index, b"%d" % index)

    assert known.equal() == []


def test_pictures_with_sums_are_known_by_them() -> None:
    by_name = {"a": sum_of(b"a"), "b": sum_of(b"b")}
    known = Seen(DataSet("imagenet", Path(), ("a", "b"), None, Sums(Path("sums"), by_name)))
    known.read(0, b"a")
    known.read(1, b"a")

    assert known.equal() == []


def test_dark_pictures_are_counted_and_one_is_named() -> None:
    known = seen(9)
    bits = {8: 4095, 7: 4095, 2: 4096}
    for index, value in bits.items():
        known.read(index, cv2.imencode(".png", np.full((4, 4 + index), value, np.uint16))[1].tobytes())

    assert known.equal() == []
    assert known.notes() == [
        "2 pictures of 16 bits use 12 or fewer, such as 7.png: OpenCV keeps the upper 8, so they are nearly black"
    ]


@pytest.mark.parametrize(
    ("free", "threads", "expected"),
    [
        (None, 64, MOST_BYTES),
        (8_000_000_000, 4, MOST_BYTES),
        (8_000_000_000, 5, 800_000_000),
        (0, 1, 0),
    ],
)
def test_the_memory_that_is_free_is_shared_by_the_threads(
    monkeypatch: pytest.MonkeyPatch, free: int | None, threads: int, expected: int
) -> None:
    monkeypatch.setattr(pictures, "free_memory", lambda root: free)

    assert most_bytes(threads) == expected


def test_sizes_are_compared_as_pictures_are_shown() -> None:
    """An annotation of 30 x 50 is right for a picture that is coded as 50 x 30 and turned by EXIF."""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)
    coded = jpeg(50, 30)
    turned = coded[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + coded[2:]
    png = cv2.imencode(".png", np.zeros((50, 30, 3), np.uint8))[1].tobytes()
    shown = [coded, turned, png]
    names = tuple(f"{number}.jpg" for number in range(len(shown)))
    known = Seen(DataSet("coco", Path(), names, None, sizes=((50, 30), (30, 50), (30, 50))))
    for index, data in enumerate(shown):
        known.read(index, data)
    assert known.notes() == []

    known = Seen(DataSet("coco", Path(), names, None, sizes=((50, 30), (50, 30), (31, 50))))
    for index, data in enumerate(shown):
        known.read(index, data)
    [note] = known.notes()
    assert note.startswith(
        "2 pictures have another size than their annotations say, such as 1.jpg, which is 30 x 50 and not 50 x 30"
    )
