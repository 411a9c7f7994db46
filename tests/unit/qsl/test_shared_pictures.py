"""Pictures that other processes read: the same bytes, wherever they lie, and as much memory as is held."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sut.qsl.shared_pictures import PictureReader, SharedPictures, Span


@pytest.fixture
def pictures() -> SharedPictures:
    return SharedPictures()


def test_files_and_pixels_are_read_as_they_were_held(pictures: SharedPictures) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    reader = PictureReader(pictures.descriptor)
    pictures[4] = b"a file"
    pictures[1] = pixels
    pictures[9] = pixels.transpose(1, 0, 2)  # its rows do not follow each other

    assert pictures[4] == reader.read(pictures.spans[4]) == b"a file"
    for index, expected in ((1, pixels), (9, pixels.transpose(1, 0, 2))):
        for found in (pictures[index], reader.read(pictures.spans[index])):
            assert found.shape == expected.shape and np.array_equal(found, expected)
    assert sorted(pictures) == [1, 4, 9]


def test_what_was_read_stays_while_more_is_held(pictures: SharedPictures) -> None:
    reader = PictureReader(pictures.descriptor)
    pictures[0] = np.full((10, 10, 3), 7, np.uint8)
    first = reader.read(pictures.spans[0])

    pictures[1] = np.full((1000, 1000, 3), 8, np.uint8)

    assert (reader.read(pictures.spans[1]) == 8).all()
    assert (first == 7).all()


def test_an_empty_file_is_one_too(pictures: SharedPictures) -> None:
    pictures[0] = b""
    pictures[1] = b"x"

    assert (pictures[0], pictures[1]) == (b"", b"x")


def test_threads_hold_theirs_beside_each_other(pictures: SharedPictures) -> None:
    def hold(index: int) -> None:
        pictures[index] = bytes([index % 256]) * (index + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(500)))

    assert all(pictures[index] == bytes([index % 256]) * (index + 1) for index in range(500))


def test_memory_is_given_back_with_the_last_that_is_held(pictures: SharedPictures) -> None:
    for _ in range(3):
        for index in range(10):
            pictures[index] = bytes(100_000)
        size = os.fstat(pictures.descriptor).st_size
        for index in range(10):
            del pictures[index]
        assert (size // 100_000, os.fstat(pictures.descriptor).st_size) == (10, 0)
    with pytest.raises(KeyError):
        pictures[0]


def test_it_lies_where_it_says(pictures: SharedPictures) -> None:
    pictures[0] = b"abc"
    pictures[1] = b"de"

    assert pictures.spans == {0: Span(0, 3), 1: Span(64, 2)}
