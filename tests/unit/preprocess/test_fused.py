"""The fused preprocessor against the oracle: every recipe, any size, any file, and a test of the comparison itself."""

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import cv2
import llvmlite.binding
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.base import BadPicture, Recipe
from preprocess.fused import Fused
from preprocess.oracle import oracle
from preprocess.parts import compiled, fused_kernels, pillow_kernels
from preprocess.parts.decode import decode
from preprocess.registry import load
from tests.children import run_python

PHOTOS = [
    cv2.imread(str(path)) for path in sorted((Path(__file__).parents[3] / "sut/datasets/demo_photos").glob("*.jpg"))
]
RESNET50 = Recipe(name="resnet50", size=224, fit="resize-crop", interpolation="area", mean=(123.68, 116.78, 103.94))
LITE0 = Recipe(name="lite0", size=224, fit="crop-resize", interpolation="cubic", mean=(127,) * 3, std=(128,) * 3)
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
METHODS = ("area", "linear", "cubic", "pillow-bilinear", "pillow-bicubic", "pillow-lanczos")

quick = settings(max_examples=120, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sides = st.one_of(st.integers(1, 12), st.integers(1, 700))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    dtype = draw(st.sampled_from(["float32", "float16", "uint8"]))
    numbers = draw(st.sampled_from([{}, IMAGENET, {"mean": (127.5,) * 3, "std": (127.5,) * 3}]))
    return Recipe(
        name="drawn",
        size=draw(st.sampled_from([1, 7, 32, 57, 136])),
        fit=draw(st.sampled_from(["resize-crop", "crop-resize", "stretch", "letterbox"])),
        interpolation=draw(st.sampled_from(METHODS)),
        crop_percent=draw(st.sampled_from([87.5, 100.0])),
        crop_padding=draw(st.sampled_from([0, 32])),
        pad_level=draw(st.sampled_from([0, 114, 255])),
        align=draw(st.sampled_from(["centre", "top-left"])),
        colour_order=draw(st.sampled_from(["RGB", "BGR"])),
        layout=draw(st.sampled_from(["NCHW", "NHWC"])),
        dtype=dtype,
        **({} if dtype == "uint8" else numbers),
    )


def picture(seed: int, width: int, height: int) -> np.ndarray:
    """Noise for an even seed, a part of a photo (tiled if need be) for an odd one."""
    random = np.random.default_rng(seed)
    if seed % 2 == 0:
        return random.integers(0, 256, (height, width, 3), np.uint8)
    photo = PHOTOS[random.integers(len(PHOTOS))]
    tiles = (-(-height // photo.shape[0]), -(-width // photo.shape[1]), 1)
    return np.ascontiguousarray(np.tile(photo, tiles)[:height, :width])


def slot(recipe: Recipe, rows: int) -> SimpleNamespace:
    """Rows full of what no picture gives."""
    poison = 77 if recipe.dtype == "uint8" else np.nan
    return SimpleNamespace(n=rows, buffers={"input": np.full((rows, *recipe.sample_shape), poison, recipe.dtype)})


def run_pixels(recipe: Recipe, pictures: list[np.ndarray], preprocessor: Fused | None = None) -> np.ndarray:
    target = slot(recipe, len(pictures))
    (preprocessor or Fused(recipe)).run_pixels(pictures, target, lambda stage: None)
    return target.buffers["input"]


def levels_off(got: np.ndarray, pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Distance from the oracle in levels."""
    std = np.reshape(recipe.std, (3, 1, 1) if recipe.layout == "NCHW" else (1, 1, 3))
    return np.abs(got.astype(np.float64) - oracle(pixels, recipe)[0]) * std


def assert_parity(got: np.ndarray, pixels: np.ndarray, recipe: Recipe) -> None:
    off = levels_off(got, pixels, recipe)
    assert off.max() <= (1.15 if recipe.dtype == "float16" else 1.001)  # one level, and the rounding of the dtype
    assert (off > 0.5).mean() <= 0.03 or off.size < 5000  # ties are where even integer ratios round to either side


@pytest.mark.slow
@quick
@given(recipes(), seeds, sides, sides)
def test_any_recipe_and_any_size(recipe: Recipe, seed: int, width: int, height: int) -> None:
    pixels = picture(seed, width, height)
    assert_parity(run_pixels(recipe, [pixels])[0], pixels, recipe)


@pytest.mark.slow
@quick
@given(recipes(), seeds, st.integers(-2, 2), st.integers(-2, 2), st.integers(1, 5))
def test_sizes_about_the_target_and_its_multiples(recipe: Recipe, seed: int, dx: int, dy: int, ratio: int) -> None:
    # Within a pixel or two of it one axis grows while the other shrinks; multiples are integer ratios, 2 the halving.
    target = int(100 * recipe.size / recipe.crop_percent)
    width, height = max(1, target * ratio + dx), max(1, target * ratio + dy)
    pixels = picture(seed, width, height)
    assert_parity(run_pixels(recipe, [pixels])[0], pixels, recipe)


@pytest.mark.parametrize("method", METHODS)
def test_exact_halves_round_up(method: str) -> None:
    recipe = dataclasses.replace(RESNET50, interpolation=method)
    pixels = picture(2, 682, 512)
    off = levels_off(run_pixels(recipe, [pixels])[0], pixels, recipe)
    assert off.max() == 0 if method != "cubic" else off.max() <= 1


@pytest.mark.parametrize("recipe", [RESNET50, LITE0, dataclasses.replace(RESNET50, interpolation="linear")])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (20_000, 1), (1, 20_000), (3000, 2), (2, 3000), (3564, 2880)])
def test_extreme_sizes(recipe: Recipe, width: int, height: int) -> None:
    pixels = picture(width + height, width, height)
    assert_parity(run_pixels(recipe, [pixels])[0], pixels, recipe)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("align", ["centre", "top-left"])
def test_a_letterbox_is_the_oracle_to_the_bit(layout: str, dtype: str, align: str) -> None:
    numbers = {} if dtype == "uint8" else IMAGENET
    recipe = Recipe(
        name="box",
        size=224,
        fit="letterbox",
        interpolation="linear",
        align=align,
        layout=layout,
        dtype=dtype,
        **numbers,
    )
    sizes = [(512, 384), (301, 396), (1, 1), (2, 1), (1, 900), (5000, 3), (223, 224), (448, 448), (61, 47)]
    pictures = [picture(at, *size) for at, size in enumerate(sizes)]
    for got, pixels in zip(run_pixels(recipe, pictures), pictures, strict=True):
        np.testing.assert_array_equal(got, oracle(pixels, recipe)[0])


@pytest.mark.parametrize("std", [(255.0,) * 3, IMAGENET["std"], (127.5,) * 3, (1.0,) * 3])
def test_two_products_are_the_quotient_or_are_not_used(std: tuple[float, float, float]) -> None:
    preprocessor = Fused(dataclasses.replace(RESNET50, std=std))
    # Without fused multiply-add the second product is rounded by itself, and the tables are right.
    assert preprocessor._is_affine or not llvmlite.binding.get_host_cpu_features().get("fma")
    preprocessor._affine[1] *= np.float32(1 + 1e-6)
    assert not preprocessor._products_are_the_tables()


FENCED = """
import ctypes, mmap
from types import SimpleNamespace
import numpy as np
from preprocess.base import Recipe
from preprocess.fused import Fused

page, libc = mmap.PAGESIZE, ctypes.CDLL(None)
methods = ("linear", "pillow-lanczos")
ways = [Fused(Recipe(name="box", size=48, fit="letterbox", interpolation=method)) for method in methods]
target = SimpleNamespace(buffers={"input": np.empty((1, 3, 48, 48), np.float32)})
for width, height in ((1, 1), (2, 1), (3, 2), (1, 9), (48, 30), (47, 48), (90, 61), (61, 90), (640, 3)):
    count = 3 * width * height
    end = (count // page + 2) * page
    memory = np.frombuffer(mmap.mmap(-1, end + page), np.uint8)
    for fence in (0, end):
        assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data + fence), page, 0) == 0
    for begin in (page, end - count):
        for way in ways:
            way.run_pixels([memory[begin : begin + count].reshape(height, width, 3)], target, lambda stage: None)
"""


@pytest.mark.slow
def test_nothing_is_read_before_a_picture_or_behind_it(tmp_path: Path) -> None:
    done = run_python("-c", FENCED, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")


def test_rows_of_a_batch_are_its_pictures_and_the_rest_is_left_alone() -> None:
    pictures = [PHOTOS[3], picture(4, 60, 70), PHOTOS[0][:, ::-1], picture(6, 30, 400)]
    target = slot(RESNET50, 6)
    with Fused(RESNET50) as preprocessor:
        geometries = preprocessor.run_pixels(pictures, target, lambda stage: None)
    for row, pixels in zip(target.buffers["input"], pictures, strict=False):
        assert_parity(row, pixels, RESNET50)
    assert np.isnan(target.buffers["input"][4:]).all()
    assert [geometry.width for geometry in geometries] == [pixels.shape[1] for pixels in pictures]


def exif(orientation: int, order: str = "big") -> bytes:
    """An EXIF segment with the one tag 0x0112."""
    start = b"MM" if order == "big" else b"II"
    fields = ((42, 2), (8, 4), (1, 2), (0x0112, 2), (3, 2), (1, 4), (orientation, 2), (0, 2), (0, 4))
    body = b"Exif\0\0" + start + b"".join(value.to_bytes(size, order) for value, size in fields)
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def jpeg(pixels: np.ndarray, *parameters: int) -> bytes:
    return cv2.imencode(".jpg", pixels, list(parameters))[1].tobytes()


PLAIN = jpeg(PHOTOS[2])
FILES = {
    "plain": PLAIN,
    "progressive": jpeg(PHOTOS[2], cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "444": jpeg(PHOTOS[2], cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "grey": jpeg(cv2.cvtColor(PHOTOS[2], cv2.COLOR_BGR2GRAY)),
    "upright": PLAIN[:2] + exif(1) + PLAIN[2:],
    "rotated": PLAIN[:2] + exif(6) + PLAIN[2:],
    "mirrored, other byte order": PLAIN[:2] + exif(2, "little") + PLAIN[2:],
    "odd exif": PLAIN[:2] + b"\xff\xe1\0\x10Exif\0\0XX" + bytes(6) + PLAIN[2:],
    "cmyk": simplejpeg.encode_jpeg(np.dstack([PHOTOS[2], PHOTOS[2][:, :, :1]]), colorspace="CMYK"),
    "png": cv2.imencode(".png", PHOTOS[2])[1].tobytes(),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_decoded_as_opencv_does(name: str) -> None:
    marks: list[str] = []
    target = slot(RESNET50, 3)
    with Fused(RESNET50) as preprocessor:
        preprocessor.run([PLAIN, FILES[name], PLAIN], target, marks.append)
    assert marks == list(Fused.stages)
    for row, data in zip(target.buffers["input"], [PLAIN, FILES[name], PLAIN], strict=True):
        assert_parity(row, decode(data), RESNET50)


@pytest.mark.parametrize(
    "data",
    [b"", b"text", PLAIN[:-300], PLAIN[: len(PLAIN) // 3], PLAIN[:200], PLAIN[:9000] + bytes(500) + PLAIN[9500:]],
    ids=["empty", "text", "without its end", "a third", "no data", "with a hole"],
)
def test_damaged_files_are_refused_by_position(data: bytes) -> None:
    with Fused(RESNET50) as preprocessor, pytest.raises(BadPicture) as caught:
        preprocessor.run([PLAIN, data], slot(RESNET50, 2), lambda stage: None)
    assert caught.value.position == 1


def test_a_smaller_batch_after_a_larger_one() -> None:
    files = [jpeg(photo) for photo in PHOTOS]
    with Fused(LITE0) as preprocessor:
        for count in (1, 4, 2):
            target = slot(LITE0, count)
            preprocessor.run(files[:count], target, lambda stage: None)
            for row, data in zip(target.buffers["input"], files, strict=False):
                assert_parity(row, decode(data), LITE0)


@pytest.mark.parametrize(("changes", "message"), [({"dtype": "float16"}, "is float16"), ({"size": 225}, "3, 225, 225")])
def test_a_buffer_that_does_not_fit_is_refused_before_it_is_written(changes: dict, message: str) -> None:
    target = slot(dataclasses.replace(RESNET50, **changes), 1)
    with Fused(RESNET50) as preprocessor, pytest.raises(ValueError, match=message):
        preprocessor.run_pixels([PHOTOS[0]], target, lambda stage: None)
    assert np.isnan(target.buffers["input"]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_kernel_shifted_by_half_a_pixel_fails(method: str, axis: int) -> None:
    recipe = dataclasses.replace(RESNET50, interpolation=method)
    pixels = picture(1, 600, 400)
    preprocessor = Fused(recipe)
    assert_parity(run_pixels(recipe, [pixels], preprocessor)[0], pixels, recipe)

    def shifted(function):
        """The uncompiled function, half a source pixel farther on one of the two axes, which are asked for in turn."""
        calls = itertools.count()

        def call(begin, source, target, skipped, *more):
            half = 0.5 * target / source if next(calls) % 2 == axis else 0
            return function(begin, source, target, skipped + half, *more)

        return call

    functions = {name: shifted(getattr(fused_kernels, name)) for name in ("area_window", "cubic_window", "pairs")}
    preprocessor._kernels = dataclasses.replace(preprocessor._kernels, **functions)
    if preprocessor._filtered:
        preprocessor._filtered._window = shifted(pillow_kernels.filter_window)
    with pytest.raises(AssertionError):
        assert_parity(run_pixels(recipe, [pixels], preprocessor)[0], pixels, recipe)


PAIRS = (*[compiled.types.int64] * 5, compiled.types.boolean)


@pytest.mark.parametrize("damage", ["*.nbc", "*.nbi"])
def test_a_cache_cut_short_is_no_obstacle(damage: str, tmp_path: Path) -> None:
    expected = fused_kernels.pairs(0, 50, 20, 0, 20, True)
    for _ in range(2):
        assert (compiled._compile(fused_kernels.pairs, PAIRS, tmp_path)(0, 50, 20, 0, 20, True) == expected).all()
        [file] = tmp_path.rglob(damage)
        file.write_bytes(file.read_bytes()[:40])


def test_a_cache_folder_that_cannot_be_made_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    found = compiled._compile(fused_kernels.pairs, PAIRS, tmp_path / "file" / "folder")
    assert found(0, 50, 20, 0, 20, True).shape == (4, 20)


def test_it_is_found_by_name() -> None:
    assert load("fused") is Fused
    assert Fused.pixel_stages() == ("preprocess",)
    assert Fused.version()
