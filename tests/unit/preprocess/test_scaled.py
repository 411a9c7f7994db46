"""The shortcuts of ``fused``: how small a picture may be decoded, where its pixels then lie, and what that changes."""

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.base import BadPicture, Recipe
from preprocess.fused import Fused, Shortcuts
from preprocess.oracle import fit, oracle
from preprocess.parts.decode import decode
from preprocess.parts.scaled import FACTORS, shrunk
from sut.results.parity import enlarged, measure_quickly, photos
from tests.unit.preprocess.test_fused import FILES, LITE0, PLAIN, RESNET50, assert_parity, jpeg, slot

FITS = ("resize-crop", "crop-resize", "stretch", "letterbox")
SIDES = st.one_of(st.integers(1, 40), st.integers(1, 4000))
LARGE = enlarged(1, LITE0)[0]
MEAN_LEVELS = 5.0
"""Less than that DCT scaling moves photos by on average, under cubic too, which leaves out pixels where it shrinks."""


def run(recipe: Recipe, files: list[bytes], **options: bool) -> tuple[np.ndarray, list]:
    target = slot(recipe, len(files))
    with Fused(recipe, **options) as preprocessor:
        geometries = preprocessor.run(files, target, lambda stage: None)
    return target.buffers["input"], geometries


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FITS), st.sampled_from([1, 7, 32, 224]), SIDES, SIDES)
def test_a_box_stays_as_large_as_what_it_is_resized_to_and_is_where_it_was(
    how: str, size: int, width: int, height: int
) -> None:
    where = fit(Recipe(name="drawn", size=size, fit=how, interpolation="area", crop_padding=32), width, height)
    small, geometry = shrunk(where)
    sides = {factor: (-(-width // factor), -(-height // factor)) for factor in (1, *FACTORS)}
    factor = next(each for each, size_then in sides.items() if size_then == (small.width, small.height))
    if factor > 1:
        assert small.box_width >= small.resized_width and small.box_height >= small.resized_height
    assert 0 <= small.box_left <= small.box_left + small.box_width <= small.width
    assert 0 <= small.box_top <= small.box_top + small.box_height <= small.height
    whole = where.geometry
    assert (geometry.width, geometry.height) == (width, height)
    assert (small.rows, small.columns) == (where.rows, where.columns)
    for at in (where.columns.start, where.columns.stop):  # beyond them is padding
        assert at / geometry.scale_x + geometry.left == pytest.approx(at / whole.scale_x + whole.left, abs=factor)
    for at in (where.rows.start, where.rows.stop):
        assert at / geometry.scale_y + geometry.top == pytest.approx(at / whole.scale_y + whole.top, abs=factor)


@pytest.mark.parametrize(("side", "factor"), [(447, 1), (448, 2), (895, 2), (896, 4), (1791, 4), (1792, 8), (9000, 8)])
def test_the_factor_changes_where_the_smaller_picture_would_become_too_small(side: int, factor: int) -> None:
    stretched = Recipe(name="drawn", size=224, fit="stretch", interpolation="area")
    assert shrunk(fit(stretched, side, 9000))[0].width == -(-side // factor)
    cropped = dataclasses.replace(stretched, fit="crop-resize", crop_padding=224)  # of which half the side is kept
    assert shrunk(fit(cropped, 2 * side, 9000))[0].width == -(-2 * side // factor)


@pytest.mark.parametrize("recipe", [LITE0, RESNET50], ids=lambda recipe: recipe.name)
def test_photos_that_are_decoded_smaller_stay_where_they_were(recipe: Recipe) -> None:
    [row], _ = run(recipe, [LARGE], scaled_decode=True)
    exact = oracle(decode(LARGE), recipe)[0]

    def off(down: int, across: int) -> float:
        """Mean levels, if it had moved."""
        moved = np.roll(exact, (down, across), (1, 2))[:, 1:-1, 1:-1] - row[:, 1:-1, 1:-1]
        return float((np.abs(moved) * np.reshape(recipe.std, (3, 1, 1))).mean())

    assert 0 < off(0, 0) < MEAN_LEVELS
    assert off(0, 0) < min(off(0, 1), off(0, -1), off(1, 0), off(-1, 0)) * 2 / 3


@pytest.mark.parametrize("how", FITS)
def test_a_planted_edge_is_mapped_back_to_where_it_was(how: str) -> None:
    width, height, edges = 1501, 1203, (700, 650)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[edges[1] :, edges[0] :] = 255
    recipe = Recipe(name="drawn", size=160, fit=how, interpolation="area", crop_padding=16, pad_level=0)
    [row], [geometry] = run(recipe, [jpeg(picture, cv2.IMWRITE_JPEG_QUALITY, 100)], scaled_decode=True)
    grey = row.mean(axis=0)
    # Below and right of the corner all is white: its area on a line through it tells the edge to a part of a pixel.
    last_row = int((height - 8 - geometry.top) * geometry.scale_y) - 1
    line, column = grey[min(159, last_row)], grey[:, min(159, int((width - 8 - geometry.left) * geometry.scale_x) - 1)]
    starts = [int(np.argmax(each > 64)) for each in (line, column)]
    found_x = (starts[0] + 1 - line[starts[0]] / 255) / geometry.scale_x + geometry.left
    found_y = (starts[1] + 1 - column[starts[1]] / 255) / geometry.scale_y + geometry.top
    assert (found_x, found_y) == pytest.approx(edges, abs=1.5)


def test_without_shortcuts_pixels_are_the_oracles_and_none_is_taken_unasked() -> None:
    assert Shortcuts() == Shortcuts(scaled_decode=False, fast_chroma=False, fast_dct=False)
    [row], _ = run(LITE0, [LARGE])
    assert_parity(row, decode(LARGE), LITE0)


@pytest.mark.parametrize("name", ["rotated", "cmyk", "png"])
def test_what_only_opencv_decodes_is_decoded_whole(name: str) -> None:
    everything = dict.fromkeys(("scaled_decode", "fast_chroma", "fast_dct"), True)
    small = dataclasses.replace(LITE0, size=32)
    rows, geometries = run(small, [LARGE, FILES[name], LARGE], **everything)
    assert_parity(rows[1], decode(FILES[name]), small)
    assert geometries[1] == fit(small, *decode(FILES[name]).shape[1::-1]).geometry
    assert np.array_equal(rows[0], rows[2])


def test_a_damaged_file_is_refused_by_position() -> None:
    with pytest.raises(BadPicture) as caught:
        run(dataclasses.replace(LITE0, size=32), [PLAIN, LARGE[: len(LARGE) // 2]], scaled_decode=True)
    assert caught.value.position == 1


def test_a_picture_decoded_smaller_takes_less_memory() -> None:
    held = []
    for scaled_decode in (False, True):
        preprocessor = Fused(LITE0, scaled_decode=scaled_decode)
        preprocessor.run([LARGE], slot(LITE0, 1), lambda stage: None)
        held.append(len(preprocessor._pixels))
    assert held[0] >= 3.9 * held[1]


@pytest.mark.parametrize("option", ["scaled_decode", "fast_chroma"])
def test_parity_of_a_run_shows_a_shortcut(option: str) -> None:
    found = measure_quickly(lambda recipe: Fused(recipe, **{option: True}), LITE0, with_large=True)
    assert not found.within_1_level
    assert 0 < found.mean_levels < MEAN_LEVELS


def test_chroma_of_pictures_without_subsampling_is_exact() -> None:
    rows, _ = run(LITE0, [FILES["444"]], fast_chroma=True)
    assert_parity(rows[0], decode(FILES["444"]), LITE0)
    subsampled, _ = run(LITE0, photos()[:1], fast_chroma=True)
    with pytest.raises(AssertionError):
        assert_parity(subsampled[0], decode(photos()[0]), LITE0)


def test_the_fast_transform_is_another_one() -> None:
    exact, fast = (run(LITE0, photos()[:1], fast_dct=fast_dct)[0] for fast_dct in (False, True))
    assert 0 < np.abs(exact - fast).mean() * max(LITE0.std) < MEAN_LEVELS


def test_an_option_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="scaled_decode"):
        Fused(LITE0, scaled_decode="perhaps")
