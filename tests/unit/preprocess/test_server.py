"""The preprocessor that leaves pictures to a server: files and pixels as they are, with the recipe's geometry."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from backends.base import Slot
from preprocess.base import BadPicture, unmarked
from preprocess.opencv import OpenCV
from preprocess.parts.decode import decode
from preprocess.server import Server
from sut.datasets.demo import open_demo
from sut.models.registry import MODELS
from sut.qsl.library import Rows

RECIPE = MODELS["efficientnet-lite0"].recipe


def slot(place: str, n: int = 4) -> Slot:
    return Slot(n, {"pictures": np.empty(n, object)}, place)


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    demo = open_demo()
    return [demo.read(index) for index in range(3)]


def turned(file: bytes) -> bytes:
    """The same photo lying on its side, by its EXIF."""
    entry = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)
    return file[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + file[2:]


def geometries(files: list[bytes]) -> list[Any]:
    rows: NDArray[np.float32] = np.empty((len(files), *RECIPE.sample_shape), np.float32)
    return OpenCV(RECIPE).run(files, Rows.of(rows), unmarked)


def test_files_go_as_they_are_with_the_geometry_of_who_would_have_preprocessed_them(files: list[bytes]) -> None:
    given, target, marks = [*files, turned(files[0])], slot("files"), list[str]()

    found = Server(RECIPE).run(given, target, marks.append)

    assert list(target.buffers["pictures"]) == given
    assert found == geometries(given) and found[0] != found[3]
    assert marks == ["preprocess"]


@pytest.mark.parametrize("are_decoded", [False, True])
def test_pixels_go_as_rgb(files: list[bytes], are_decoded: bool) -> None:
    target, server = slot("pixels"), Server(RECIPE)

    if are_decoded:
        found = server.run_pixels([decode(each) for each in files], target, unmarked)
    else:
        found = server.run(files, target, unmarked)

    assert found == geometries(files)
    for sent, file in zip(target.buffers["pictures"], files, strict=False):
        np.testing.assert_array_equal(sent, cv2.cvtColor(decode(file), cv2.COLOR_BGR2RGB))


@pytest.mark.parametrize("place", ["files", "pixels"])
def test_what_is_no_picture_is_named_by_its_place(files: list[bytes], place: str) -> None:
    with pytest.raises(BadPicture) as raised:
        Server(RECIPE).run([files[0], b"no picture"], slot(place), unmarked)

    assert raised.value.position == 1


def test_pixels_are_not_made_into_files(files: list[bytes]) -> None:
    with pytest.raises(ValueError, match="the server takes files, and there are pixels"):
        Server(RECIPE).run_pixels([decode(files[0])], slot("files"), unmarked)
