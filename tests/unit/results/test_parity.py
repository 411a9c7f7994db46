"""Parity: the figures by hand, normalisation undone exactly, and what a preprocessor that errs is told to be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.base import Geometry, Mark, Preprocessor, Recipe, Target
from preprocess.opencv import OpenCV
from preprocess.parts.decode import decode
from preprocess.registry import load
from sut.results.parity import compare, crops, levels, measure, measure_quickly, noise, photos, sizes
from sut.results.schema import Parity
from sut.results.wording import parity_lines
from tests.core import needs
from tests.unit.preprocess.test_opencv import LITE0, MOBILENET, RESNET50

YOLO = Recipe(name="yolo", size=160, fit="letterbox", interpolation="linear", std=(255.0,) * 3)
RETINANET = dataclasses.replace(YOLO, name="retinanet", fit="stretch", align="top-left", dtype="float16", layout="NHWC")
RECIPES = [RESNET50, MOBILENET, LITE0, YOLO, RETINANET, dataclasses.replace(YOLO, name="top-left", align="top-left")]


class HalfAPixelOff(OpenCV):
    """Shifts each picture by half a pixel to the right, as a resize that forgets about pixel centres does."""

    name = "half-a-pixel-off"

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        pictures = [decode(data) for data in encoded]
        shifted = [cv2.blur(picture, (2, 1), anchor=(1, 0)) for picture in pictures]
        return self.run_pixels(shifted, target, mark)


class BlackPadding(OpenCV):
    """Pads with another level than the recipe says."""

    level = 0

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(dataclasses.replace(recipe, pad_level=self.level))


class PaddingOffByOne(BlackPadding):
    level = 113


class Nan(OpenCV):
    name = "nan"

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        found = super().run(encoded, target, mark)
        next(iter(target.buffers.values()))[0, 0, 0, 0] = np.nan
        return found


class Swapped(OpenCV):
    """Red for blue."""

    name = "swapped"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(dataclasses.replace(recipe, colour_order="BGR" if recipe.colour_order == "RGB" else "RGB"))


def pixels(*values: int) -> np.ndarray:
    """One picture one pixel high, its pixels grey but for the first channel."""
    picture = np.full((1, 1, len(values), 3), 100, np.int32)
    picture[..., 0] = values
    return picture


def test_the_figures_by_hand() -> None:
    found = compare(pixels(10, 10, 12, 0), pixels(10, 11, 10, 5))

    assert found == Parity(
        max_levels=5,
        mean_levels=(0 + 1 + 2 + 5) / 12,
        share_over_1=2 / 4,
        psnr_db=10 * math.log10(255**2 / ((0 + 1 + 4 + 25) / 12)),
        pictures=1,
        values=12,
    )
    assert not found.within_1_level
    assert found.line() == "max 5 levels, mean 0.67, 50 % of pixels over 1, 44.2 dB"


def test_what_is_equal_has_no_psnr() -> None:
    found = compare(pixels(0, 255), pixels(0, 255))

    assert (found.max_levels, found.mean_levels, found.share_over_1, found.psnr_db) == (0, 0, 0, None)
    assert found.within_1_level
    assert found.line() == "equal to the oracle in all pixels of 1 pictures"


def test_one_level_is_within_and_two_are_not() -> None:
    assert compare(pixels(0, 255), pixels(1, 254)).within_1_level
    assert not compare(pixels(0, 255), pixels(0, 253)).within_1_level


def test_padding_flatters_nothing_and_must_be_exact() -> None:
    covered = np.array([[[True, True, False, False]]])
    expected = pixels(10, 10, 100, 100)

    exact = compare(pixels(10, 13, 100, 100), expected, covered)
    assert (exact.mean_levels, exact.share_over_1, exact.values, exact.padding_levels) == (3 / 6, 1 / 2, 6, 0)
    assert exact.psnr_db == pytest.approx(10 * math.log10(255**2 / (9 / 6)))
    assert exact.line().endswith(" dB, padding exact")

    off = compare(pixels(10, 10, 100, 101), expected, covered)
    assert (off.max_levels, off.mean_levels, off.psnr_db, off.padding_levels) == (1, 0, None, 1)
    assert not off.within_1_level
    assert off.line() == "max 1 level, mean 0, 0 % of pixels over 1, equal but for padding, padding off by 1"


@pytest.mark.parametrize(("kind", "off"), [(OpenCV, 0), (PaddingOffByOne, 1), (BlackPadding, 114)])
def test_padding_of_another_level_is_found(kind: type[Preprocessor], off: int) -> None:
    found = measure_quickly(kind, YOLO)

    assert (found.padding_levels, found.max_levels, found.mean_levels) == (off, off, 0)
    assert found.within_1_level is (off == 0)
    assert found.values is not None
    assert 0.5 < found.values / (found.pictures * 3 * 160**2) < 0.9


def test_what_pads_nothing_says_so() -> None:
    assert measure_quickly(OpenCV, RETINANET).padding_levels is None


NORMALISED = st.floats(-200, 300, width=32)


@given(
    means=st.tuples(NORMALISED, NORMALISED, NORMALISED),
    stds=st.tuples(*[st.floats(0.125, 256, width=32)] * 3),
    dtype=st.sampled_from(["float32", "float16"]),
    layout=st.sampled_from(["NCHW", "NHWC"]),
)
def test_normalisation_is_undone_exactly(
    means: tuple[float, float, float], stds: tuple[float, float, float], dtype: str, layout: str
) -> None:
    # Half precision holds 256 values apart only where the mean is within them.
    if dtype == "float16":
        means = tuple(min(max(mean, 0.0), 255.0) for mean in means)
    recipe = Recipe(
        name="any", size=16, fit="resize-crop", interpolation="linear", mean=means, std=stds, dtype=dtype, layout=layout
    )
    expected = np.random.default_rng(0).permuted(np.arange(768) % 256).reshape(1, 16, 16, 3)
    samples = (expected.astype(np.float32) - np.float32(means)) / np.float32(stds)
    if layout == "NCHW":
        samples = samples.transpose(0, 3, 1, 2)

    np.testing.assert_array_equal(levels(samples.astype(dtype), recipe), expected)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("name", ["opencv", "fused", pytest.param("dali", marks=needs("dali"))])
def test_what_is_exact_is_measured_so(name: str, recipe: Recipe) -> None:
    found = measure(load(name), recipe, [*photos(), *noise(1), *sizes(12)])

    assert found.within_1_level
    assert found.padding_levels == (0 if recipe.fit == "letterbox" else None)
    assert found.pictures == 24
    assert found.max_levels == 0 or recipe.interpolation == "cubic" or (name, recipe.interpolation) == ("fused", "area")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("kind", [HalfAPixelOff, Swapped])
def test_what_errs_is_far_off(kind: type[Preprocessor], recipe: Recipe) -> None:
    found = measure_quickly(kind, recipe)

    assert found.max_levels > 20
    assert found.share_over_1 > 0.2
    assert found.psnr_db is not None
    assert found.psnr_db < 35


@needs("dali")
def test_dalis_own_resize_is_told_apart() -> None:
    dali_resize = load("dali-resize")

    assert not measure_quickly(dali_resize, RESNET50).within_1_level
    for linear in (MOBILENET, YOLO, RETINANET):
        assert measure_quickly(dali_resize, linear).within_1_level


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        measure_quickly(Nan, RESNET50)


@pytest.mark.parametrize("make", [lambda: noise(2), lambda: sizes(6), crops])
def test_the_pictures_are_the_same_every_time(make) -> None:
    assert make() == make()


def test_sizes_are_smaller_and_larger_than_the_models_input_also_in_one_picture() -> None:
    shapes = [decode(data).shape[:2] for data in sizes(22)]

    assert all(8 <= side <= 800 for shape in shapes for side in shape)
    assert sum(min(shape) < 224 and max(shape) > 256 for shape in shapes) >= 11
    assert any(height < 224 < width for height, width in shapes)
    assert any(width < 224 < height for height, width in shapes)
    assert any(max(shape) < 224 for shape in shapes)
    assert any(min(shape) > 256 for shape in shapes)


def test_noise_stays_white() -> None:
    grey = cv2.cvtColor(decode(noise(1)[0]), cv2.COLOR_BGR2GRAY).astype(float)

    assert abs(np.corrcoef(grey[:, :-1].ravel(), grey[:, 1:].ravel())[0, 1]) < 0.05


def test_parity_stands_below_the_table_where_preprocessing_is_timed() -> None:
    class Ran:
        preprocess = "dali"
        parity = compare(pixels(1), pixels(2))

        def __init__(self, boundary: str) -> None:
            self.boundary = boundary

    assert parity_lines([Ran("jpeg"), Ran("jpeg")]) == [f"parity of dali: {Ran.parity.line()}"]
    assert parity_lines([Ran("tensor")]) == []
