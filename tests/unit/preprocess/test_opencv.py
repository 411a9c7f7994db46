"""The OpenCV preprocessor against the recipes written down in OpenCV calls, to the bit, and its registry."""

import dataclasses
import sys
import tracemalloc
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import registry
from preprocess.base import Preprocessor, Recipe
from preprocess.opencv import MAX_ASPECT, OpenCV
from preprocess.oracle import oracle

PHOTOS = sorted((Path(__file__).parents[3] / "sut/datasets/demo_photos").glob("*.jpg"))

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
MOBILENET = dataclasses.replace(
    RESNET50,
    name="mobilenet",
    interpolation="linear",
    mean=(127.5, 127.5, 127.5),
    std=(127.5, 127.5, 127.5),
    layout="NHWC",
)


def resnet50_by_hand(bgr: np.ndarray) -> np.ndarray:
    picture = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    height, width, _ = picture.shape
    to = (256, int(256 * height / width)) if height > width else (int(256 * width / height), 256)
    picture = cv2.resize(picture, to, interpolation=cv2.INTER_AREA)
    left, top = int((to[0] - 224) / 2), int((to[1] - 224) / 2)
    picture = picture[top : top + 224, left : left + 224].astype(np.float32)
    return (picture - np.array([123.68, 116.78, 103.94], np.float32)).transpose(2, 0, 1)


def lite0_by_hand(bgr: np.ndarray) -> np.ndarray:
    height, width, _ = bgr.shape
    side = max(1, int(224 / 256 * min(height, width)))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    picture = cv2.resize(bgr[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_CUBIC)
    return ((picture[:, :, ::-1].astype(np.float32) - 127) / 128).transpose(2, 0, 1)


YOLO = Recipe(name="yolo", size=640, fit="letterbox", interpolation="linear", std=(255.0,) * 3)
RETINANET = dataclasses.replace(YOLO, name="retinanet", size=800, fit="stretch")


def yolo_by_hand(bgr: np.ndarray) -> np.ndarray:
    height, width, _ = bgr.shape
    scale = min(640 / width, 640 / height)
    to = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (640 - to[0]) // 2, (640 - to[1]) // 2
    picture = cv2.resize(bgr, to, interpolation=cv2.INTER_LINEAR)
    around = (top, 640 - to[1] - top, left, 640 - to[0] - left)
    picture = cv2.copyMakeBorder(picture, *around, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    return picture[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 255


def retinanet_by_hand(bgr: np.ndarray) -> np.ndarray:
    picture = cv2.resize(bgr, (800, 800), interpolation=cv2.INTER_LINEAR)
    return picture[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 255


BY_HAND = {"resnet50": (RESNET50, resnet50_by_hand), "lite0": (LITE0, lite0_by_hand)}
BY_HAND |= {"yolo": (YOLO, yolo_by_hand), "retinanet": (RETINANET, retinanet_by_hand)}


def target(recipe: Recipe, n: int, rows: int | None = None) -> SimpleNamespace:
    """A slot full of a value that no picture gives."""
    buffer = np.full((rows or n, *recipe.sample_shape), 77 if recipe.dtype == "uint8" else -999, recipe.dtype)
    return SimpleNamespace(n=n, buffers={"input": buffer}, place="host")


def run(recipe: Recipe, encoded: list[bytes]) -> np.ndarray:
    slot = target(recipe, len(encoded))
    with OpenCV(recipe) as preprocessor:
        preprocessor.run(encoded, slot, lambda stage: None)
    return slot.buffers["input"]


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width * 10_007 + height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("model", BY_HAND)
def test_demo_photos_are_the_recipe_by_hand(model: str) -> None:
    recipe, by_hand = BY_HAND[model]
    rows = run(recipe, [path.read_bytes() for path in PHOTOS])
    for path, row in zip(PHOTOS, rows, strict=True):
        np.testing.assert_array_equal(row, by_hand(cv2.imread(str(path))), err_msg=path.name)


@pytest.mark.parametrize("model", BY_HAND)
@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 600), height=st.integers(1, 600))
def test_any_size_is_the_recipe_by_hand(model: str, width: int, height: int) -> None:
    recipe, by_hand = BY_HAND[model]
    if recipe.fit != "letterbox" and max(width, height) > MAX_ASPECT * min(width, height):
        width, height = max(width, height), max(width, height)
    pixels = noise(width, height)
    np.testing.assert_array_equal(run(recipe, [png(pixels)])[0], by_hand(pixels))


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (3, 200), (700, 41), (9001, 300)])
def test_long_pictures_are_the_full_resize_within_a_level(size: tuple[int, int]) -> None:
    pixels = noise(*size)
    got = run(RESNET50, [png(pixels)])[0]
    assert np.abs(got - resnet50_by_hand(pixels)).max() <= 1.001


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
@pytest.mark.parametrize("recipe", [RESNET50, LITE0, MOBILENET, YOLO, RETINANET], ids=lambda recipe: recipe.name)
def test_extreme_shapes_cost_no_more_than_they_keep(size: tuple[int, int], recipe: Recipe) -> None:
    pixels = noise(*size)
    encoded = png(pixels)
    expected, _ = oracle(pixels, recipe)
    tracemalloc.start()
    try:
        got = run(recipe, [encoded])[0]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.abs(got - expected).max() <= 1.001 / recipe.std[0]
    assert peak_bytes < 50e6


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colour_order", ["RGB", "BGR"])
@pytest.mark.parametrize("recipe", [RESNET50, LITE0, MOBILENET, YOLO, RETINANET], ids=lambda recipe: recipe.name)
def test_every_layout_order_and_dtype_is_the_oracles(
    recipe: Recipe, colour_order: str, layout: str, dtype: str
) -> None:
    recipe = dataclasses.replace(recipe, colour_order=colour_order, layout=layout, dtype=dtype)
    if dtype == "uint8":
        recipe = dataclasses.replace(recipe, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    encoded = PHOTOS[3].read_bytes()
    expected, _ = oracle(cv2.imread(str(PHOTOS[3])), recipe)

    got = run(recipe, [encoded])[0]

    assert got.dtype == dtype
    level = 1.001 / recipe.std[0] if recipe.interpolation == "cubic" else 0
    assert np.abs(got.astype(np.float64) - expected).max() <= level


@pytest.mark.parametrize("align", ["centre", "top-left"])
@pytest.mark.parametrize("size", [(90, 41), (41, 90), (3, 200)])
def test_what_is_around_a_picture_has_the_recipes_level(size: tuple[int, int], align: str) -> None:
    recipe = dataclasses.replace(YOLO, size=64, align=align, pad_level=7, dtype="uint8", std=(1.0,) * 3)
    black = np.zeros((size[1], size[0], 3), np.uint8)

    got = run(recipe, [png(black)])

    np.testing.assert_array_equal(got[0], oracle(black, recipe)[0])
    assert set(np.unique(got)) == {0, 7}


def test_a_row_does_not_depend_on_its_batch() -> None:
    encoded = [path.read_bytes() for path in PHOTOS]
    together = run(RESNET50, encoded)
    with OpenCV(RESNET50) as preprocessor:
        for batch in (encoded[:1], encoded[:5], encoded[:3], encoded[:1]):
            slot = target(RESNET50, len(batch))
            preprocessor.run(batch, slot, lambda stage: None)
            np.testing.assert_array_equal(slot.buffers["input"], together[: len(batch)])


def test_stages_are_marked_once_in_order_and_rows_beyond_the_batch_are_left_alone() -> None:
    slot = target(RESNET50, 2, rows=4)
    marks: list[str] = []
    with OpenCV(RESNET50) as preprocessor:
        geometries = preprocessor.run([path.read_bytes() for path in PHOTOS[:2]], slot, marks.append)
    assert tuple(marks) == OpenCV.stages == ("decode", "resize", "normalize")
    assert [(geometry.height, geometry.width) for geometry in geometries] == [
        cv2.imread(str(path)).shape[:2] for path in PHOTOS[:2]
    ]
    assert (slot.buffers["input"][2:] == -999).all()


def test_a_picture_that_cannot_be_decoded_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="got text of 12 bytes"):
        run(RESNET50, [PHOTOS[0].read_bytes(), b"not a photo\n"])


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (np.empty((1, 3, 224, 224), np.float32), r"\(1, 3, 224, 224\), expected float32 with at least 2 rows"),
        (np.empty((2, 224, 224, 3), np.float32), r"expected float32 with at least 2 rows of \(3, 224, 224\)"),
        (np.empty((2, 3, 224, 224), np.float16), "input x is float16"),
        (np.empty((2, 3, 224, 448), np.float32)[..., ::2], "input x is strided"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(buffer: np.ndarray, message: str) -> None:
    slot = SimpleNamespace(n=2, buffers={"x": buffer}, place="host")
    with OpenCV(RESNET50) as preprocessor, pytest.raises(ValueError, match=message):
        preprocessor.run([PHOTOS[0].read_bytes()] * 2, slot, lambda stage: None)


def test_recipes_that_contradict_themselves_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="recipe resnet50: dtype uint8 with mean"):
        OpenCV(dataclasses.replace(RESNET50, dtype="uint8"))


def test_opencv_uses_one_thread() -> None:
    assert cv2.getNumThreads() == 1


def test_registry_loads_by_name() -> None:
    assert registry.load("opencv") is OpenCV
    assert "opencv" in registry.names()
    assert OpenCV.version() == cv2.__version__
    assert issubclass(OpenCV, Preprocessor)


def test_registry_names_the_nearest_word_and_all_others() -> None:
    with pytest.raises(ValueError, match=r"unknown preprocessor 'OpenVC'; did you mean opencv\? known: .*opencv"):
        registry.load("OpenVC")


def test_registry_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    for module in ("preprocess.opencv", "preprocess.parts.decode"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ModuleNotFoundError) as failure:
        registry.load("opencv")
    assert str(failure.value) == (
        "the preprocessor opencv needs opencv-python-headless: pip install opencv-python-headless"
    )


def test_registry_finds_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        [
            EntryPoint("theirs", "preprocess.opencv:OpenCV", registry.GROUP),
            EntryPoint("wrong", "preprocess.base:Recipe", registry.GROUP),
        ]
    )
    monkeypatch.setattr("plugins.registry.entry_points", lambda **choice: points.select(**choice))
    assert registry.load("theirs") is OpenCV
    assert {"opencv", "theirs", "wrong"} <= set(registry.names())
    with pytest.raises(ValueError, match=r"expected a class derived from preprocess\.base\.Preprocessor"):
        registry.load("wrong")
