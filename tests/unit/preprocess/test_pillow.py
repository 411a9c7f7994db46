"""Pillow's filters, to the bit, against Pillow itself: the oracle, ``fused`` and ``opencv``, with Numba and without."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kernels.placement import SUPPORTS
from preprocess import opencv, oracle
from preprocess.base import Preprocessor, Recipe
from preprocess.fused import Fused
from preprocess.opencv import BY_NUMPY, OpenCV
from preprocess.parts import pillow, pillow_kernels
from tests.children import run_python
from tests.core import needs

FILTERS = dict(
    zip(SUPPORTS, (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS), strict=True)
)
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
VIT = Recipe(name="vit", size=57, fit="resize-crop", interpolation="pillow-bicubic", short_side=64, **IMAGENET)


def picture(seed: int, width: int, height: int) -> np.ndarray:
    """Noise, or black and white, which overshoots most. BGR."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return levels if seed % 2 else np.uint8(255) * (levels > 127)


def by_hand(recipe: Recipe, bgr: np.ndarray) -> np.ndarray:
    """The recipe in Pillow's calls."""
    image = Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1]))
    size, resampling = recipe.size, FILTERS[recipe.interpolation]
    width, height = image.size
    if recipe.fit in ("resize-crop", "stretch"):
        side = recipe.short_side or (size if recipe.fit == "stretch" else int(100 * size / recipe.crop_percent))
        to = (side, int(side * height / width)) if height > width else (int(side * width / height), side)
        to = (side, side) if recipe.fit == "stretch" else to
        left, top = ((each - size) / 2 for each in to)
        left, top = (round(left), round(top)) if recipe.crop_offset == "round" else (int(left), int(top))
        image = image.resize(to, resampling).crop((left, top, left + size, top + size))
    elif recipe.fit == "crop-resize":
        side = max(1, int(size / (size + recipe.crop_padding) * min(width, height)))
        left, top = (width - side + 1) // 2, (height - side + 1) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), resampling)
    else:
        scale = min(size / width, size / height)
        shown = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), resampling)
        image = Image.new("RGB", (size, size), (recipe.pad_level,) * 3)
        image.paste(shown, ((size - shown.width) // 2, (size - shown.height) // 2))
    levels = np.asarray(image)[:, :, :: 1 if recipe.colour_order == "RGB" else -1]
    sample = (levels.astype(np.float32) - np.float32(recipe.mean)) / np.float32(recipe.std)
    return (sample.transpose(2, 0, 1) if recipe.layout == "NCHW" else sample).astype(recipe.dtype)


def drawn_recipe(random: np.random.Generator, dtypes: tuple[str, ...] = ("float32",)) -> Recipe:
    size = int(random.choice([1, 7, 57, 136]))
    dtype = str(random.choice(dtypes))
    return Recipe(
        name="drawn",
        size=size,
        fit=random.choice(["resize-crop", "crop-resize", "stretch", "letterbox"]),
        interpolation=random.choice(list(FILTERS)),
        short_side=random.choice([None, size + int(random.integers(20))]),
        crop_offset=random.choice(["floor", "round"]),
        colour_order=random.choice(["RGB", "BGR"]),
        layout=random.choice(["NCHW", "NHWC"]),
        dtype=dtype,
        **({} if dtype == "uint8" else IMAGENET),
    )


def run(preprocessor: Preprocessor, pixels: np.ndarray) -> np.ndarray:
    recipe = preprocessor.recipe
    buffer = np.full((1, *recipe.sample_shape), 77, recipe.dtype)
    preprocessor.run_pixels([pixels], SimpleNamespace(n=1, buffers={"input": buffer}, place="host"), lambda stage: None)
    return buffer[0]


def assert_all_are_pillow(recipe: Recipe, pixels: np.ndarray) -> None:
    expected = by_hand(recipe, pixels)
    told = f"{recipe}, {pixels.shape[1]} x {pixels.shape[0]}"
    np.testing.assert_array_equal(oracle.oracle(pixels, recipe)[0], expected, err_msg=f"oracle, {told}")
    np.testing.assert_array_equal(run(Fused(recipe), pixels), expected, err_msg=f"fused, {told}")
    np.testing.assert_array_equal(run(OpenCV(recipe), pixels), expected, err_msg=f"opencv, {told}")


def drawn_sides(random: np.random.Generator) -> tuple[int, int]:
    return int(random.integers(1, random.choice([13, 500]))), int(random.integers(1, random.choice([13, 500])))


def test_two_hundred_drawn_recipes_and_sizes_are_pillow_to_the_bit() -> None:
    random = np.random.default_rng(13)
    for number in range(200):
        assert_all_are_pillow(drawn_recipe(random), picture(number, *drawn_sides(random)))


@pytest.mark.slow
@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize("fit", ["resize-crop", "crop-resize", "stretch", "letterbox"])
def test_two_hundred_sizes_for_each_filter_and_fit(filter_: str, fit: str) -> None:
    random = np.random.default_rng(len(filter_) * len(fit))
    for number in range(200):
        recipe = dataclasses.replace(
            drawn_recipe(random, ("float32", "float16", "uint8")), fit=fit, interpolation=filter_
        )
        width, height = (int(side) for side in random.integers(1, 500, 2))
        assert_all_are_pillow(recipe, picture(number, width, height))


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize(
    ("width", "height"),
    [
        (1, 1),
        (1, 300),
        (300, 1),
        (20, 15),  # grows
        (64, 64),  # the size that it becomes: no pass
        (64, 90),  # the width that it becomes: one pass
        (96, 64),
        (63, 65),
        (128, 128),
        (5, 2000),  # rows first
        (700, 500),
    ],
)
def test_edges(filter_: str, width: int, height: int) -> None:
    for fit in ("resize-crop", "crop-resize", "stretch", "letterbox"):
        recipe = dataclasses.replace(VIT, interpolation=filter_, fit=fit)
        for seed in (1, 2):
            assert_all_are_pillow(recipe, picture(seed, width, height))
    assert_all_are_pillow(
        dataclasses.replace(VIT, interpolation=filter_, fit="stretch", size=64), picture(1, width, height)
    )


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize(("width", "height"), [(20_000, 1), (1, 20_000)])
def test_a_line_of_pixels(filter_: str, width: int, height: int) -> None:
    for fit, size, side in (("resize-crop", 4, 5), ("stretch", 57, None)):
        recipe = dataclasses.replace(VIT, interpolation=filter_, fit=fit, size=size, short_side=side)
        assert_all_are_pillow(recipe, picture(3, width, height))


def test_where_the_height_shrinks_by_twice_as_much_as_the_width_columns_are_first() -> None:
    assert_all_are_pillow(dataclasses.replace(VIT, fit="stretch", size=10, short_side=None), picture(2, 15, 20))


def wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "rows_first", lambda *sides: False)


def wrong_sharpness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "BICUBIC_A", -0.75)


def wrong_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "PRECISION_BITS", 11)


def not_stretched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "SUPPORTS", {name: support / 2 for name, support in SUPPORTS.items()})


@pytest.mark.parametrize("plant", [wrong_order, wrong_sharpness, wrong_precision, not_stretched])
def test_a_mistake_of_the_oracle_is_noticed(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, pixels = dataclasses.replace(VIT, fit="stretch"), picture(1, 100, 400)
    assert_all_are_pillow(recipe, pixels)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="oracle, "):
        assert_all_are_pillow(recipe, pixels)


@pytest.mark.parametrize("filter_", FILTERS)
def test_a_kernel_whose_weights_are_one_unit_off_is_noticed(filter_: str) -> None:
    recipe, pixels = dataclasses.replace(VIT, interpolation=filter_), picture(1, 500, 400)
    preprocessor = Fused(recipe)
    np.testing.assert_array_equal(run(preprocessor, pixels), by_hand(recipe, pixels))

    def heavier(*arguments: object) -> tuple[np.ndarray, ...]:
        first, count, weights = pillow_kernels.filter_window(*arguments)
        weights[:, 0] += 40  # of 4,194,304
        return first, count, weights

    preprocessor._filtered._window = heavier
    assert (run(preprocessor, pixels) != by_hand(recipe, pixels)).any()


def test_what_is_around_a_picture_in_memory_is_not_looked_at() -> None:
    pixels = picture(1, 300, 200)
    for view in (pixels[20:90, 30:250], pixels[::2, ::3], pixels[:, :, ::-1]):
        assert_all_are_pillow(VIT, view)


WITHOUT_NUMBA = """
import sys
from types import SimpleNamespace
sys.modules["numba"] = None
import numpy as np
from preprocess.base import Recipe
from preprocess.opencv import OpenCV

recipe = Recipe(name="vit", size=57, fit="resize-crop", interpolation="pillow-bicubic", dtype="uint8", layout="NHWC")
target = SimpleNamespace(buffers={"input": np.empty((1, 57, 57, 3), np.uint8)})
preprocessor = OpenCV(recipe)
preprocessor.run_pixels([np.load("picture.npy")], target, lambda stage: None)
np.save("row.npy", target.buffers["input"][0])
print(*preprocessor.counts().values())
"""


def test_opencv_does_without_numba_and_says_so(tmp_path: Path) -> None:
    pixels = picture(1, 300, 200)
    np.save(tmp_path / "picture.npy", pixels)

    done = run_python("-c", WITHOUT_NUMBA, cwd=tmp_path)

    assert (done.code, done.out.strip(), done.err) == (0, "1", "")
    recipe = dataclasses.replace(VIT, short_side=None, dtype="uint8", layout="NHWC", mean=(0,) * 3, std=(1,) * 3)
    np.testing.assert_array_equal(np.load(tmp_path / "row.npy"), by_hand(recipe, pixels))


def test_with_numba_nothing_is_said() -> None:
    preprocessor = OpenCV(VIT)
    run(preprocessor, picture(1, 90, 80))
    assert preprocessor.counts() == {BY_NUMPY: 0}
    assert opencv.is_installed("numba")


@needs("DALI")
def test_dali_decodes_and_the_rest_is_pillow_to_the_bit() -> None:
    from preprocess.dali import Dali

    recipe, pixels = dataclasses.replace(VIT, interpolation="pillow-lanczos"), picture(1, 300, 200)
    with Dali(recipe) as preprocessor:
        np.testing.assert_array_equal(run(preprocessor, pixels), by_hand(recipe, pixels))


@needs("DALI")
@pytest.mark.parametrize(("filter_", "level"), [("pillow-bilinear", 1), ("pillow-bicubic", 6), ("pillow-lanczos", 12)])
def test_dalis_own_filters_are_near(filter_: str, level: int) -> None:
    from preprocess.dali import DaliResize

    recipe = dataclasses.replace(VIT, interpolation=filter_, size=224, short_side=256)
    photo = Path(oracle.__file__).parents[1] / "sut/datasets/demo_photos"
    for path in sorted(photo.glob("*.jpg")):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]
        with DaliResize(recipe) as preprocessor:
            off = np.abs(run(preprocessor, np.ascontiguousarray(pixels)) - by_hand(recipe, pixels))
        assert (off * np.reshape(recipe.std, (3, 1, 1))).max() <= level + 0.01
        assert (off * np.reshape(recipe.std, (3, 1, 1))).mean() < 0.3
