"""DALI's decode is OpenCV's to the bit or is not used; any batch size; a bad picture is named, and the next works."""

from __future__ import annotations

import dataclasses
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import simplejpeg

from plugins.driver import Installed
from plugins.errors import DeviceNotFound
from preprocess import registry
from preprocess.base import BadPicture, Preprocessor, Recipe
from preprocess.opencv import OpenCV
from preprocess.oracle import oracle
from preprocess.parts.decode import decode
from preprocess.parts.self_test import DecoderNotUsable
from tests.core import module_needs

module_needs("dali")

from preprocess.dali import BY_OPENCV, Dali, DaliResize  # noqa: E402

PHOTOS = sorted((Path(__file__).parents[3] / "sut/datasets/demo_photos").glob("*.jpg"))
FILES = [path.read_bytes() for path in PHOTOS]

RESNET50 = Recipe(
    name="resnet50", size=224, fit="resize-crop", interpolation="area", mean=(123.68, 116.78, 103.94), layout="NCHW"
)
LITE0 = Recipe(
    name="lite0",
    size=224,
    fit="crop-resize",
    interpolation="cubic",
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
)
LINEAR = dataclasses.replace(RESNET50, name="linear", interpolation="linear")
PIXELS = dataclasses.replace(LINEAR, name="pixels", mean=(0.0, 0.0, 0.0), dtype="uint8", layout="NHWC")

YOLO = dataclasses.replace(LINEAR, name="yolo", fit="letterbox", mean=(0.0,) * 3, std=(255.0,) * 3)

PHOTO = decode(FILES[0])
GREY = cv2.cvtColor(PHOTO, cv2.COLOR_BGR2GRAY)


def run(working: Preprocessor, encoded: list[bytes]) -> np.ndarray:
    recipe = working.recipe
    buffer = np.full((len(encoded), *recipe.sample_shape), 77, recipe.dtype)
    target = SimpleNamespace(n=len(encoded), buffers={"input": buffer}, place="host")
    marks: list[str] = []
    geometries = working.run(encoded, target, marks.append)
    assert tuple(marks) == working.stages
    assert len(geometries) == len(encoded)
    return buffer


def by_opencv(recipe: Recipe, encoded: list[bytes]) -> np.ndarray:
    with OpenCV(recipe) as working:
        return run(working, encoded)


def jpeg(pixels: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(".jpg", pixels, settings)[1].tobytes()


def rotated(data: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF segment of one entry, the orientation."""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


SUBSAMPLINGS = {"444": 0x111111, "440": 0x121111, "422": 0x211111, "420": 0x221111, "411": 0x411111}
JPEGS = {
    **{f"EXIF {orientation}": rotated(FILES[0], orientation) for orientation in range(10)},
    **{
        f"{name} {width}x{height}": jpeg(PHOTO[:height, :width], cv2.IMWRITE_JPEG_SAMPLING_FACTOR, code)
        for name, code in SUBSAMPLINGS.items()
        for width, height in ((301, 199), (17, 33), (2, 3), (1, 1))
    },
    "grey": jpeg(GREY),
    "progressive": jpeg(PHOTO, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restart markers": jpeg(PHOTO, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "quality 5": jpeg(PHOTO, cv2.IMWRITE_JPEG_QUALITY, 5),
    "quality 100": jpeg(PHOTO, cv2.IMWRITE_JPEG_QUALITY, 100),
    "fill bytes": FILES[0][:2] + b"\xff\xff" + FILES[0][2:],
}
OTHERS = {
    "CMYK": simplejpeg.encode_jpeg(np.ascontiguousarray(np.dstack([PHOTO, GREY])), colorspace="CMYK"),
    "PNG": cv2.imencode(".png", PHOTO)[1].tobytes(),
    "PNG of 16 bits": cv2.imencode(".png", PHOTO.astype(np.uint16) * 201)[1].tobytes(),
    "PNG with alpha": cv2.imencode(".png", np.dstack([PHOTO, GREY]))[1].tobytes(),
    "WebP": cv2.imencode(".webp", PHOTO)[1].tobytes(),
    "BMP": cv2.imencode(".bmp", PHOTO)[1].tobytes(),
    "GIF": cv2.imencode(".gif", PHOTO)[1].tobytes(),
}


@pytest.mark.parametrize("recipe", [RESNET50, LITE0, PIXELS], ids=lambda recipe: recipe.name)
def test_demo_photos_are_opencvs_to_the_bit(recipe: Recipe) -> None:
    with Dali(recipe) as working:
        np.testing.assert_array_equal(run(working, FILES), by_opencv(recipe, FILES))
        assert working.counts()[BY_OPENCV] == 0


@pytest.mark.parametrize("colour_order", ["RGB", "BGR"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_every_colour_order_and_layout_is_opencvs(colour_order: str, layout: str) -> None:
    recipe = dataclasses.replace(RESNET50, colour_order=colour_order, layout=layout)
    with Dali(recipe) as working:
        np.testing.assert_array_equal(run(working, FILES[:2]), by_opencv(recipe, FILES[:2]))


def test_every_kind_of_jpeg_is_decoded_by_dali_as_opencv_does() -> None:
    encoded = list(JPEGS.values())
    with Dali(PIXELS) as working:
        got = run(working, encoded)
        assert working.counts()[BY_OPENCV] == 0
    for name, row, expected in zip(JPEGS, got, by_opencv(PIXELS, encoded), strict=True):
        np.testing.assert_array_equal(row, expected, err_msg=name)


def test_what_dali_decodes_otherwise_or_not_at_all_is_decoded_by_opencv_and_counted() -> None:
    encoded = [FILES[1], *OTHERS.values(), FILES[2]]
    with Dali(PIXELS) as working:
        got = run(working, encoded)
        assert working.counts()[BY_OPENCV] == len(OTHERS)
    np.testing.assert_array_equal(got, by_opencv(PIXELS, encoded))


@pytest.mark.parametrize("kind", [Dali, DaliResize])
def test_any_batch_size_after_any_other(kind: type[Preprocessor]) -> None:
    with kind(LITE0) as working:
        alone = np.concatenate([run(working, [data]) for data in FILES])
    with kind(LITE0) as working:
        for size in (1, 3, 8, 2, 11):
            np.testing.assert_array_equal(run(working, FILES[:size]), alone[:size])


@pytest.mark.parametrize("kind", [OpenCV, Dali, DaliResize])
@pytest.mark.parametrize(
    "bad",
    [FILES[1][:5000], FILES[1][:-2], FILES[1][:200], b"not a photo", b"\xff\xd8\xff", b"\0", b""],
    ids=["half", "no end", "header", "text", "marker", "a zero", "nothing"],
)
@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_bad_picture_is_named_and_the_next_batch_works(kind: type[Preprocessor], bad: bytes, position: int) -> None:
    batch = [*FILES[:position], bad, *FILES[position:4]]
    with kind(LITE0) as working:
        expected = run(working, FILES[:5])
        with pytest.raises(BadPicture, match="cannot decode") as caught:
            run(working, batch)
        assert caught.value.position == position
        np.testing.assert_array_equal(run(working, FILES[:5]), expected)


def test_what_dali_refuses_opencv_may_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    # Taken for a JPEG that DALI decodes, a GIF makes it give up the pipeline; the good ones are decoded singly.
    monkeypatch.setattr("preprocess.dali._is_plain_jpeg", lambda data: True)
    encoded = [FILES[1], OTHERS["GIF"], FILES[2]]
    with Dali(PIXELS) as working:
        got = run(working, encoded)
        assert working.counts()[BY_OPENCV] == 1
    np.testing.assert_array_equal(got, by_opencv(PIXELS, encoded))


def test_a_picture_that_dali_refuses_alone_is_opencvs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.dali._is_plain_jpeg", lambda data: True)
    with Dali(PIXELS) as working:
        np.testing.assert_array_equal(run(working, [OTHERS["GIF"]]), by_opencv(PIXELS, [OTHERS["GIF"]]))
        assert working.counts()[BY_OPENCV] == 1


@pytest.mark.parametrize("kind", [Dali, DaliResize])
def test_a_dali_that_decodes_nothing_is_refused_when_it_is_opened(
    kind: type[Preprocessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def graph() -> None:
        raise RuntimeError("nothing\nworks")

    monkeypatch.setattr("preprocess.dali.decode_graph", graph)
    with pytest.raises(DecoderNotUsable, match=r"DALI [0-9.]+ does not decode a plain JPEG here: nothing works;"):
        kind(LITE0)


@pytest.mark.parametrize("kind", [Dali, DaliResize])
@pytest.mark.parametrize("count", [1, 3])
def test_a_dali_that_breaks_later_is_not_believed(
    kind: type[Dali] | type[DaliResize], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kind(LITE0) as working:
        run(working, FILES[:3])

        def broken(encoded: list[bytes]) -> None:
            raise RuntimeError("out of everything")

        monkeypatch.setattr(working._decoder, "_run", broken)
        with pytest.raises(DecoderNotUsable, match="out of everything"):
            run(working, FILES[:count])
        assert working.counts()[BY_OPENCV] == 0


def test_several_bad_pictures_the_first_is_named() -> None:
    with Dali(LITE0) as working, pytest.raises(BadPicture) as caught:
        run(working, [FILES[0], b"text", FILES[1][:5000], FILES[2]])
    assert caught.value.position == 1


@pytest.mark.parametrize(
    ("recipe", "mean", "largest"),
    [(RESNET50, 0.9, 50), (LINEAR, 0.15, 1), (LITE0, 0.6, 20)],
    ids=["area", "linear", "cubic"],
)
def test_dalis_own_resize_is_near_and_no_nearer_than_said(recipe: Recipe, mean: float, largest: int) -> None:
    with DaliResize(recipe) as working:
        got = run(working, FILES)
    expected = np.stack([oracle(decode(data), recipe)[0] for data in FILES])
    difference = np.abs(got - expected) * recipe.std[0]
    assert difference.mean() < mean
    assert difference.max() < largest + 0.01


@pytest.mark.parametrize("kind", [Dali, DaliResize])
@pytest.mark.parametrize("recipe", [RESNET50, LITE0, PIXELS], ids=lambda recipe: recipe.name)
def test_pixels_give_what_files_give(kind: type[Preprocessor], recipe: Recipe) -> None:
    buffer = np.empty((3, *recipe.sample_shape), recipe.dtype)
    target = SimpleNamespace(n=3, buffers={"input": buffer}, place="host")
    marks: list[str] = []
    with kind(recipe) as working:
        working.run_pixels([decode(data) for data in FILES[:3]], target, marks.append)
        np.testing.assert_array_equal(buffer, run(working, FILES[:3]))
    assert tuple(marks) == kind.pixel_stages()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (90, 700)])
@pytest.mark.parametrize("kind", [Dali, DaliResize])
def test_extreme_shapes(kind: type[Preprocessor], size: tuple[int, int]) -> None:
    encoded = [jpeg(np.full((*size, 3), 90, np.uint8))]
    with kind(RESNET50) as working:
        np.testing.assert_allclose(run(working, encoded), by_opencv(RESNET50, encoded), atol=1.001)


@pytest.mark.parametrize("align", ["centre", "top-left"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("kind", [Dali, DaliResize])
def test_letterboxes_and_stretches(kind: type[Preprocessor], dtype: str, layout: str, align: str) -> None:
    std = (1.0, 1.0, 1.0) if dtype == "uint8" else YOLO.std
    around = 114 if align == "centre" else 7
    box = dataclasses.replace(YOLO, dtype=dtype, layout=layout, align=align, std=std, pad_level=around)
    odd = [jpeg(cv2.resize(PHOTO, size)) for size in ((1, 1), (300, 1), (3, 900), (61, 224), (224, 223))]
    for recipe in (box, dataclasses.replace(box, fit="stretch", colour_order="BGR")):
        with kind(recipe) as working:
            off = np.abs(run(working, [*FILES[:3], *odd]) * std[0] - by_opencv(recipe, [*FILES[:3], *odd]) * std[0])
        assert off.max() <= (0 if kind is Dali else 1.1)


@pytest.mark.parametrize("kind", [Dali, DaliResize])
def test_a_buffer_that_does_not_fit_is_refused(kind: type[Preprocessor]) -> None:
    target = SimpleNamespace(n=1, buffers={"x": np.empty((1, 3, 96, 96), np.float32)}, place="host")
    with kind(LITE0) as working, pytest.raises(ValueError, match="input x is float32"):
        working.run(FILES[:1], target, lambda stage: None)


@pytest.mark.parametrize(
    ("driver", "distribution"),
    [(None, "nvidia-dali-cuda130"), (12, "nvidia-dali-cuda120"), (13, "nvidia-dali-cuda130")],
)
def test_dali_that_is_not_installed_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, driver: int | None, distribution: str
) -> None:
    def installed() -> Installed:
        if driver is None:
            raise DeviceNotFound("no NVIDIA driver")
        return Installed(driver, 0, 1)

    monkeypatch.setattr(registry, "installed_driver", installed)
    for name in [name for name in sys.modules if name.split(".")[0] == "nvidia" or name == "preprocess.dali"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ModuleNotFoundError, match=rf"dali-resize needs .*: pip install {distribution}$"):
        registry.load("dali-resize")
