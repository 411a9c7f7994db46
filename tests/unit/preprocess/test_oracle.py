"""The oracle against OpenCV itself: photos, noise, and sizes that shrink, grow, halve and divide."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.base import Recipe
from preprocess.oracle import check_recipe, fit, oracle, resize, resize_fit

PHOTOS = [
    cv2.imread(str(path)) for path in sorted((Path(__file__).parents[3] / "sut/datasets/demo_photos").glob("*.jpg"))
]
METHODS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}

methods = st.sampled_from(sorted(METHODS))
sides = st.one_of(st.integers(1, 12), st.integers(1, 600))
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=150, deadline=None)


def picture(seed: int, width: int, height: int) -> np.ndarray:
    """Noise for an even seed, a part of a photo (tiled if need be) for an odd one."""
    random = np.random.default_rng(seed)
    if seed % 2 == 0:
        return random.integers(0, 256, (height, width, 3), np.uint8)
    photo = PHOTOS[random.integers(len(PHOTOS))]
    tiles = (-(-height // photo.shape[0]), -(-width // photo.shape[1]), 1)
    return np.ascontiguousarray(np.tile(photo, tiles)[:height, :width])


def assert_same_as_opencv(got: np.ndarray, pixels: np.ndarray, width: int, height: int, method: str) -> None:
    expected = cv2.resize(pixels, (width, height), interpolation=METHODS[method])
    difference = np.abs(got.astype(int) - expected)
    # OpenCV's cubic is Intel's where its library is linked in and OpenCV's own 11-bit one elsewhere.
    assert difference.max() <= (1 if method == "cubic" else 0)


@quick
@given(seeds, sides, sides, sides, sides, methods)
def test_any_size_to_any_size(seed: int, width: int, height: int, to_width: int, to_height: int, method: str) -> None:
    pixels = picture(seed, width, height)
    assert_same_as_opencv(resize(pixels, to_width, to_height, method), pixels, to_width, to_height, method)


@quick
@given(seeds, st.integers(1, 150), st.integers(1, 150), st.integers(1, 4), st.integers(1, 4), methods)
def test_integer_ratios(seed: int, width: int, height: int, ratio_x: int, ratio_y: int, method: str) -> None:
    pixels = picture(seed, width * ratio_x, height * ratio_y)
    assert_same_as_opencv(resize(pixels, width, height, method), pixels, width, height, method)


@quick
@given(seeds, st.integers(2, 300), st.integers(2, 300), st.booleans(), methods)
def test_one_axis_grows_and_the_other_shrinks(seed: int, width: int, height: int, wider: bool, method: str) -> None:
    to_width, to_height = (width * 3 // 2, height // 2) if wider else (width // 2, height * 3 // 2)
    pixels = picture(seed, width, height)
    assert_same_as_opencv(resize(pixels, to_width, to_height, method), pixels, to_width, to_height, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(256, 256), (300, 200), (128, 341), (1, 1), (49, 7)])
def test_exact_halves_and_ratios_that_are_integers_only_on_paper(method: str, size: tuple[int, int]) -> None:
    # 1 / (1 / 49) is not 49 in double precision, which decides the path OpenCV takes.
    for ratio in (2, 49) if max(size) < 50 else (2,):
        pixels = picture(ratio, size[0] * ratio, size[1] * ratio)
        assert_same_as_opencv(resize(pixels, *size, method), pixels, *size, method)


@pytest.mark.parametrize("method", METHODS)
def test_a_shift_of_half_a_pixel_is_noticed(method: str) -> None:
    pixels = PHOTOS[0]
    shift = np.float32([[1, 0, 0.5], [0, 1, 0]])
    shifted = cv2.warpAffine(pixels, shift, pixels.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    with pytest.raises(AssertionError):
        assert_same_as_opencv(resize(shifted, 341, 256, method), pixels, 341, 256, method)


@quick
@given(seeds, sides, sides, methods)
def test_only_what_the_crop_keeps_is_the_full_resize_cropped(seed: int, width: int, height: int, method: str) -> None:
    recipe = Recipe(name="small", size=20, fit="resize-crop", interpolation=method)
    pixels = picture(seed, width, height)
    where = fit(recipe, width, height)
    full = resize(pixels, where.resized_width, where.resized_height, method)
    np.testing.assert_array_equal(resize_fit(pixels, where, method), where.crop(full))


@given(
    st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 300), st.sampled_from(["resize-crop", "crop-resize"])
)
def test_a_fit_stays_inside_the_picture(width: int, height: int, size: int, kind: str) -> None:
    where = fit(Recipe(name="any", size=size, fit=kind, interpolation="area"), width, height)
    assert 0 <= where.box_left <= width - where.box_width
    assert 0 <= where.box_top <= height - where.box_height
    assert 0 <= where.crop_left <= where.resized_width - size
    assert 0 <= where.crop_top <= where.resized_height - size


def letterbox(size: int, align: str = "centre") -> Recipe:
    return Recipe(name="box", size=size, fit="letterbox", interpolation="linear", align=align)


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.integers(1, 300),
    st.sampled_from(["stretch", "letterbox"]),
    st.sampled_from(["centre", "top-left"]),
)
def test_what_crops_nothing_shows_the_whole_picture(width: int, height: int, size: int, kind: str, align: str) -> None:
    where = fit(Recipe(name="any", size=size, fit=kind, interpolation="linear", align=align), width, height)
    assert (where.box_left, where.box_top, where.box_width, where.box_height) == (0, 0, width, height)
    shown = (where.columns.stop - where.columns.start, where.rows.stop - where.rows.start)
    assert shown == (where.resized_width, where.resized_height)
    assert max(shown) == size
    if kind == "letterbox":
        assert min(shown) == max(1, round(size * min(width, height) / max(width, height)))
    else:
        assert shown == (size, size)
        assert not where.is_padded


@pytest.mark.parametrize(
    ("width", "height", "align", "columns", "rows"),
    [
        (400, 300, "centre", (0, 64), (8, 56)),
        (300, 400, "centre", (8, 56), (0, 64)),
        (400, 300, "top-left", (0, 64), (0, 48)),
        (300, 400, "top-left", (0, 48), (0, 64)),
        (64, 47, "centre", (0, 64), (8, 55)),  # of the odd rest the larger half is behind
        (16, 5, "centre", (0, 64), (22, 42)),  # grows
        (1, 1, "centre", (0, 64), (0, 64)),
        (9000, 1, "centre", (0, 64), (31, 32)),  # a side of less than half a pixel is one
        (1, 9000, "top-left", (0, 1), (0, 64)),
    ],
)
def test_where_a_letterbox_has_its_picture(
    width: int, height: int, align: str, columns: tuple[int, int], rows: tuple[int, int]
) -> None:
    where = fit(letterbox(64, align), width, height)
    assert (where.columns, where.rows) == (slice(*columns), slice(*rows))
    assert where.is_padded is ((columns, rows) != ((0, 64), (0, 64)))

    pixels = np.full((height, width, 3), 200, np.uint8)
    _, kept = oracle(pixels, letterbox(64, align))
    assert (kept[where.rows, where.columns] == 200).all()
    assert (kept == 200).sum() == 3 * (columns[1] - columns[0]) * (rows[1] - rows[0])
    assert set(np.unique(kept)) <= {114, 200}


@quick
@given(seeds, sides, sides, methods, st.sampled_from(["centre", "top-left"]), st.sampled_from(["stretch", "letterbox"]))
def test_a_letterbox_is_opencvs_resize_within_a_border(
    seed: int, width: int, height: int, method: str, align: str, kind: str
) -> None:
    recipe = Recipe(name="box", size=41, fit=kind, interpolation=method, align=align, pad_level=7)
    pixels = picture(seed, width, height)
    where = fit(recipe, width, height)
    expected = cv2.resize(pixels, (where.resized_width, where.resized_height), interpolation=METHODS[method])
    left, top = where.columns.start, where.rows.start
    around = (top, 41 - where.rows.stop, left, 41 - where.columns.stop)
    expected = cv2.copyMakeBorder(expected, *around, cv2.BORDER_CONSTANT, value=(7, 7, 7))
    difference = np.abs(resize_fit(pixels, where, method, 7).astype(int) - expected)
    assert difference.max() <= (1 if method == "cubic" else 0)


def test_geometry_of_a_letterbox_begins_before_the_picture() -> None:
    geometry = fit(letterbox(640), 512, 384).geometry
    assert (geometry.scale_x, geometry.scale_y) == (1.25, 1.25)
    assert (geometry.left, geometry.top) == (0, -64)  # 80 of the 640 rows are padding
    assert fit(letterbox(640, "top-left"), 512, 384).geometry.top == 0


def test_geometry_maps_the_input_back_to_the_picture() -> None:
    recipe = Recipe(name="resnet50", size=224, fit="resize-crop", interpolation="area")
    geometry = fit(recipe, 512, 384).geometry
    assert (geometry.width, geometry.height) == (512, 384)
    # 512 x 384 becomes 341 x 256; the crop starts 58 and 16 pixels into that.
    assert geometry.left == pytest.approx(58 * 512 / 341)
    assert geometry.top == pytest.approx(16 * 1.5)
    assert 112 / geometry.scale_x + geometry.left == pytest.approx(256, abs=1)
    assert 112 / geometry.scale_y + geometry.top == pytest.approx(192)


def test_geometry_of_a_crop_before_the_resize() -> None:
    recipe = Recipe(name="lite0", size=224, fit="crop-resize", interpolation="cubic")
    geometry = fit(recipe, 400, 300).geometry
    assert (geometry.left, geometry.top) == (69, 19)
    assert geometry.scale_x == geometry.scale_y == pytest.approx(224 / 262)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sample_is_the_formula_on_the_pixels(layout: str, dtype: str) -> None:
    mean, std = (1.0, 20.0, 300.0), (2.0, 3.0, 4.0)
    recipe = Recipe(
        name="odd", size=24, fit="crop-resize", interpolation="linear", mean=mean, std=std, layout=layout, dtype=dtype
    )

    sample, kept = oracle(PHOTOS[1], recipe)

    assert sample.shape == recipe.sample_shape
    assert sample.dtype == dtype
    assert kept.shape == (24, 24, 3)
    for channel in range(3):
        plane = sample[channel] if layout == "NCHW" else sample[:, :, channel]
        expected = (kept[:, :, channel] - mean[channel]) / std[channel]
        np.testing.assert_allclose(plane, expected, rtol=1e-3 if dtype == "float16" else 1e-6)


def test_colour_order() -> None:
    blue = np.zeros((5, 7, 3), np.uint8)
    blue[:, :, 0] = 200
    for order, channel in (("BGR", 0), ("RGB", 2)):
        recipe = Recipe(name="blue", size=4, fit="crop-resize", interpolation="area", colour_order=order)
        sample, kept = oracle(blue, recipe)
        assert kept[..., channel].min() == sample[channel].min() == 200
        assert kept.sum() == 200 * 16


@pytest.mark.parametrize(
    ("width", "height", "changes", "resized", "corner"),
    [
        (640, 427, {"short_side": 248}, (371, 248), (73, 12)),
        (640, 427, {"short_side": 248, "crop_offset": "round"}, (371, 248), (74, 12)),  # 73.5 to the even one
        (427, 640, {"short_side": 224, "crop_offset": "round"}, (224, 335), (0, 56)),  # 55.5 to the even one
        (500, 375, {"short_side": 225, "crop_offset": "round"}, (300, 225), (38, 0)),  # 0.5 to the even one
        (500, 375, {"short_side": 225}, (300, 225), (38, 0)),
        (300, 300, {"short_side": 1000, "crop_percent": 50.0}, (1000, 1000), (388, 388)),
        (640, 427, {"fit": "stretch", "short_side": 235}, (235, 235), (5, 5)),
        (427, 640, {"fit": "stretch", "short_side": 235, "crop_offset": "round"}, (235, 235), (6, 6)),
        (640, 427, {"fit": "stretch", "crop_percent": 50.0}, (224, 224), (0, 0)),
    ],
)
def test_the_short_side_that_is_told_and_where_the_crop_begins(
    width: int, height: int, changes: dict, resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    recipe = Recipe(**{"name": "told", "size": 224, "fit": "resize-crop", "interpolation": "pillow-bicubic", **changes})

    where = fit(recipe, width, height)

    assert (where.resized_width, where.resized_height) == resized
    assert (where.crop_left, where.crop_top) == corner


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size is 0, expected at least 1"),
        ({"crop_percent": 0.0}, "crop_percent is 0.0, expected over 0"),
        ({"crop_percent": 101.0}, "crop_percent is 101.0, expected over 0, at most 100"),
        ({"short_side": 223}, "short_side is 223, less than size 224, expected at least that"),
        ({"short_side": 0}, "short_side is 0, less than size 224"),
        ({"fit": "stretch", "short_side": 223}, "short_side is 223, less than size 224"),
        ({"crop_padding": -1}, "crop_padding is -1"),
        ({"fit": "letterbox", "pad_level": -1}, "pad_level is -1, expected a level from 0 to 255"),
        ({"fit": "letterbox", "pad_level": 256}, "pad_level is 256"),
        ({"std": (1.0, 0.0, 1.0)}, "std is .* expected no zero"),
        ({"dtype": "uint8", "mean": (127.0, 127.0, 127.0)}, "dtype uint8 with mean .* expected mean 0 and std 1"),
        ({"dtype": "uint8", "std": (2.0, 2.0, 2.0)}, "dtype uint8"),
    ],
)
def test_recipes_that_contradict_themselves(changes: dict, message: str) -> None:
    settings = {"name": "wrong", "size": 224, "fit": "resize-crop", "interpolation": "area", **changes}
    with pytest.raises(ValueError, match=f"recipe wrong: {message}"):
        check_recipe(Recipe(**settings))
    with pytest.raises(ValueError, match="recipe wrong"):
        oracle(PHOTOS[0], Recipe(**settings))
