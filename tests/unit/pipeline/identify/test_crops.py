"""Boxes to crops: how many of a frame, and which pixels."""

from __future__ import annotations

import numpy as np
import pytest

from sut.config import make_config
from sut.errors import InputError
from sut.pipeline.identify.crops import FanOut, answers, boxes_of, cut

FRAME = np.arange(40 * 60 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 60, 3)


def box(top: float, left: float, bottom: float, right: float, index: int = 0) -> list[float]:
    return [index, top / 40, left / 60, bottom / 40, right / 60, 0.5, 7]


def rows(*boxes: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(boxes, "<f4").reshape(-1, 7)


def test_a_crop_is_all_that_its_box_touches() -> None:
    whole, inner, between = cut(FRAME, rows(box(0, 0, 40, 60), box(10, 20, 30, 50), box(10.4, 20.4, 29.6, 49.6)))

    assert np.array_equal(whole, FRAME)
    assert np.array_equal(inner, FRAME[10:30, 20:50])
    assert np.array_equal(between, inner)
    assert inner.flags.c_contiguous and not np.shares_memory(inner, FRAME)


@pytest.mark.parametrize("side", [1, 3, 97, 1079, 4032])
def test_edges_on_pixels_stay_there_though_shares_are_rounded(side: int) -> None:
    frame = np.zeros((side, side, 3), np.uint8)
    for begin in {0, side // 3, side - 1}:
        for end in {begin + 1, side}:
            share = np.float32(begin / side), np.float32(end / side)
            [crop] = cut(frame, np.array([[0, share[0], share[0], share[1], share[1], 1, 1]], "<f4"))
            assert crop.shape == (end - begin, end - begin, 3), (begin, end)


@pytest.mark.parametrize("empty", [box(5, 5, 5, 5), box(40, 60, 40, 60), box(0, 0, 0, 0)])
def test_a_box_without_an_area_still_has_a_pixel(empty: list[float]) -> None:
    [crop] = cut(FRAME, rows(empty))

    assert crop.shape == (1, 1, 3)


def test_a_frame_without_boxes_has_no_crops() -> None:
    found = boxes_of(3, b"", None)

    assert cut(FRAME, found) == []
    assert answers([found], np.empty(0, np.float32)) == [b""]


def test_with_a_fan_out_the_boxes_come_again() -> None:
    found = rows(box(0, 0, 10, 10, 3), box(10, 10, 20, 20, 3)).tobytes()

    assert np.array_equal(boxes_of(3, found, FanOut(5, 5))[:, 1], np.float32([0, 0.25, 0, 0.25, 0]))
    assert len(boxes_of(3, found, FanOut(1, 1))) == 1
    assert len(boxes_of(3, found, FanOut(0, 0))) == 0


@pytest.mark.parametrize("answer", [b"", None])
@pytest.mark.parametrize("count", [1, 2, 5, 24])
def test_with_a_fan_out_and_no_box_the_frame_is_cut_into_parts(count: int, answer: bytes | None) -> None:
    found = boxes_of(3, answer, FanOut(count, count))
    crops = cut(FRAME, found)

    assert len(crops) == count
    assert set(found[:, 0]) == {3}
    assert sum(crop.shape[0] * crop.shape[1] for crop in crops) <= 40 * 60 + 4 * (40 + 60) * count
    assert crops[0][0, 0].tolist() == FRAME[0, 0].tolist()


def test_numbers_of_crops_are_spread_evenly_and_the_same_each_time() -> None:
    fan_out = FanOut.of("1..25")
    counts = np.bincount([fan_out.crops(index) for index in range(25_000)], minlength=26)

    assert counts[0] == 0 and len(counts) == 26
    assert counts[1:].min() >= 990 and counts[1:].max() <= 1010
    assert [fan_out.crops(index) for index in range(25)] == [fan_out.crops(index) for index in range(25)]
    assert {FanOut.of("4").crops(index) for index in range(100)} == {4}


@pytest.mark.parametrize("text", ["-1", "1..", "..3", "1...3", "3..1", "x", "1.5", "1,2", "", "10001", "true"])
def test_what_is_no_fan_out_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="fan_out: expected"):
        make_config({"fan_out": True if text == "true" else text})


@pytest.mark.parametrize(("given", "kept"), [(5, "5"), ("1..25", "1..25"), ("0", "0"), (10_000, "10000"), (None, None)])
def test_a_fan_out_may_be_a_number_of_yaml(given: object, kept: str | None) -> None:
    assert make_config({"fan_out": given}).fan_out == kept


def test_an_answer_has_the_labels_of_its_own_boxes() -> None:
    first, second, third = rows(box(0, 0, 1, 1), box(1, 1, 2, 2)), rows(), rows(box(2, 2, 3, 3, 2))
    found = answers([first, second, third], np.float32([10, 11, 12]))

    assert [len(each) // 28 for each in found] == [2, 0, 1]
    assert np.frombuffer(found[0], "<f4").reshape(-1, 7)[:, 6].tolist() == [10, 11]
    assert np.frombuffer(found[2], "<f4").tolist() == [*third[0][:6].tolist(), 12]
