"""Boxes survive: what is planted in a picture is found in the tensor, and mapped back to where it was.

Found is whole pixels of the model's input, so what comes back is right within half of one: within 1 pixel of the
picture where it shrinks by 2 at most, and within half the factor where it shrinks by more. The geometry loses nothing.
"""

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.base import Geometry, Preprocessor, Recipe
from preprocess.opencv import OpenCV
from preprocess.registry import load
from sut.qsl.library import Rows
from sut.results.parity import levels
from tests.core import needs
from tests.unit.preprocess.test_decode import with_orientation

BLUE, RED = (220, 30, 30), (30, 30, 220)
"""BGR. A letterbox's grey is none of them."""
EXACT = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
NOISE = 0.05
"""What JPEG and rounding move an edge by, in pixels."""
FITS = ("resize-crop", "crop-resize", "stretch", "letterbox")
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2),
    6: np.rot90,
    7: lambda upright: np.rot90(upright.transpose(1, 0, 2), 2),
    8: lambda upright: np.rot90(upright, -1),
}
"""What a camera stores for each EXIF orientation, so that the picture is upright once it has been turned."""

Spans = tuple[tuple[int, int], tuple[int, int]]
"""Columns and rows of a rectangle, each from and to in pixels of the upright picture."""


@dataclasses.dataclass(frozen=True)
class Planted:
    """One rectangle in one picture."""

    width: int
    height: int
    spans: Spans
    orientation: int

    def file(self) -> bytes:
        upright = np.full((self.height, self.width, 3), BLUE, np.uint8)
        (left, right), (top, bottom) = self.spans
        upright[top:bottom, left:right] = RED
        stored = np.ascontiguousarray(STORED[self.orientation](upright))
        return with_orientation(cv2.imencode(".jpg", stored, EXACT)[1].tobytes(), self.orientation)


@st.composite
def planted(draw: st.DrawFn) -> Planted:
    """A rectangle about the centre, which every crop keeps, at least three tenths of each side."""
    short = draw(st.integers(40, 500))
    long = draw(st.integers(short, min(900, 4 * short)))
    width, height = draw(st.permutations((short, long)))

    def span(side: int) -> tuple[int, int]:
        return draw(st.integers(0, int(0.35 * side))), draw(st.integers(side - int(0.35 * side), side))

    return Planted(width, height, (span(width), span(height)), draw(st.integers(1, 8)))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    dtype = draw(st.sampled_from(["float32", "float16", "uint8"]))
    fit = draw(st.sampled_from(FITS))
    # Where one axis grows, OpenCV's area method takes the other's pixels at their corners: half a pixel more.
    methods = ["linear", "cubic"] if fit == "stretch" else ["linear", "cubic", "area"]
    return Recipe(
        name="drawn",
        size=draw(st.sampled_from([64, 97, 256])),
        fit=fit,
        interpolation=draw(st.sampled_from(methods)),
        align=draw(st.sampled_from(["centre", "top-left"])),
        layout=draw(st.sampled_from(["NCHW", "NHWC"])),
        dtype=dtype,
        std=(1.0,) * 3 if dtype == "uint8" else (255.0,) * 3,
    )


def through(kind: type[Preprocessor], recipe: Recipe, data: bytes) -> tuple[np.ndarray, Geometry]:
    """Levels, (size, size, 3) in RGB, and what was done to the picture."""
    row = np.empty((1, *recipe.sample_shape), recipe.dtype)
    with kind(recipe) as working:
        [geometry] = working.run([data], Rows.of(row), lambda stage: None)
    return levels(row, recipe)[0], geometry


def assert_found(found: np.ndarray, geometry: Geometry, what: Planted) -> None:
    """The rectangle, seen through the square, is where it was planted."""
    assert (geometry.width, geometry.height) == (what.width, what.height)
    red = found[..., 0] > (RED[2] + BLUE[2]) // 2
    red &= found[..., 2] < (RED[0] + BLUE[0]) // 2
    for axis, side, scale, begin, span in (
        (0, what.width, geometry.scale_x, geometry.left, what.spans[0]),
        (1, what.height, geometry.scale_y, geometry.top, what.spans[1]),
    ):
        inside = np.flatnonzero(red.any(axis))
        low, high = max(0, begin), min(side, begin + len(found) / scale)
        near = max(1, 0.5 / scale + NOISE)
        assert inside[0] / scale + begin == pytest.approx(min(max(span[0], low), high), abs=near)
        assert (inside[-1] + 1) / scale + begin == pytest.approx(min(max(span[1], low), high), abs=near)


@pytest.mark.parametrize(
    "name", ["opencv", "fused", *(pytest.param(name, marks=needs("dali")) for name in ("dali", "dali-resize"))]
)
@settings(max_examples=60, deadline=None)
@given(recipe=recipes(), what=planted())
def test_a_planted_box_comes_back(name: str, recipe: Recipe, what: Planted) -> None:
    assert_found(*through(load(name), recipe, what.file()), what)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", STORED)
def test_every_fit_and_every_turn(fit: str, orientation: int) -> None:
    recipe = Recipe(name="any", size=256, fit=fit, interpolation="linear", std=(255.0,) * 3)
    what = Planted(300, 200, ((75, 210), (60, 130)), orientation)
    assert_found(*through(OpenCV, recipe, what.file()), what)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda right: {"left": -right.left, "top": -right.top},
        lambda right: {"left": 0.0, "top": 0.0},
        lambda right: {"left": right.top, "top": right.left},
        lambda right: {"scale_x": right.scale_x * 1.03},
        lambda right: {"width": right.height, "height": right.width},
    ],
    ids=["the other sign", "padding forgotten", "axes swapped", "a scale that is off", "not turned"],
)
def test_a_geometry_that_is_wrong_is_noticed(wrong) -> None:
    recipe = Recipe(name="yolo", size=256, fit="letterbox", interpolation="linear", std=(255.0,) * 3)
    what = Planted(300, 200, ((75, 210), (60, 130)), 6)
    found, geometry = through(OpenCV, recipe, what.file())
    assert_found(found, geometry, what)
    with pytest.raises(AssertionError):
        assert_found(found, dataclasses.replace(geometry, **wrong(geometry)), what)
