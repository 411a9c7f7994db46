"""YOLO11's network: as large as published, the same on each backend, and with something to find in each photo."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

import backends.registry
from backends.base import ModelFile, TensorSpec
from plugins.files import sha256_of
from preprocess.base import Recipe
from preprocess.oracle import oracle
from sut.errors import InputError
from sut.models import registry
from sut.models.onnx_graph import OnnxGraph
from sut.models.precision.convert import convert
from sut.models.size import size_of
from sut.models.sources import yolo11
from tests.children import CHECKOUT
from tests.unit.small_models import quiet, unheard

PHOTOS = sorted((CHECKOUT / "sut" / "datasets" / "demo_photos").glob("*.jpg"))
SMALL = 320
NANO = (0.5, 0.25)
"""Depth and width of YOLO11-N."""


def make(path: Path, size: int = SMALL, scale: tuple[float, float] = NANO) -> Path:
    yolo11.build_yolo11(path, *scale, size, yolo11.CLASSES, yolo11.SEED)
    return path


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("yolo11") / "nano.onnx")


def photos(size: int) -> np.ndarray:
    """The demo photos in letterboxes: float32 [n, 3, size, size]."""
    recipe = Recipe(name="t", size=size, fit="letterbox", interpolation="linear", std=(255.0, 255.0, 255.0))
    return np.stack([oracle(np.asarray(cv2.imread(str(path))), recipe)[0] for path in PHOTOS])


def answers(
    path: Path, given: np.ndarray, backend: str = "onnxruntime", rows: int = 4, precision: str = "fp32"
) -> np.ndarray:
    """What a backend makes of pictures, ``rows`` at a time at most."""
    found = []
    loaded = backends.registry.load(backend).load(ModelFile(path, precision, given.shape[1:]), "cpu", 1, 2)
    with loaded as model, model.runner() as runner:
        for start in range(0, len(given), rows):
            part = given[start : start + rows]
            slot = runner.slot(len(part))
            slot.buffers["images"][: len(part)] = part
            found.append(np.array(runner.infer(slot)["output0"]))
    return np.concatenate(found)


@pytest.mark.parametrize(
    ("scale", "millions", "billions"),
    [
        pytest.param(NANO, 2.616, 6.5, id="n"),
        pytest.param((0.5, 0.5), 9.44, 21.5, id="s"),
        pytest.param(yolo11.LARGE, 25.34, 86.9, id="l", marks=pytest.mark.slow),
    ],
)
def test_it_is_as_large_as_published(
    scale: tuple[float, float], millions: float, billions: float, tmp_path: Path
) -> None:
    found = size_of(onnx.load(make(tmp_path / "model.onnx", yolo11.SIZE, scale)), (3, yolo11.SIZE, yolo11.SIZE))

    assert found.flops is not None
    assert found.parameters / 1e6 == pytest.approx(millions, rel=0.02)
    assert found.flops / 1e9 == pytest.approx(billions, rel=0.02)


def test_its_ends_are_those_of_a_plain_export(nano: Path) -> None:
    model = onnx.load(nano)
    onnx.checker.check_model(model, full_check=True)

    shown = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }

    assert shown == {"images": ["batch", 3, 320, 320], "output0": ["batch", 84, 2100]}


def test_boxes_are_distances_from_the_middle_of_a_cell_column_by_column(tmp_path: Path) -> None:
    """At 64 pixels: 8 x 8 cells of 8 pixels, 4 x 4 of 16 and 2 x 2 of 32, row by row."""
    graph, classes, size = OnnxGraph("head"), 2, 64
    heads, expected = [], []
    for stride in yolo11.STRIDES:
        side = size // stride
        sides = np.random.default_rng(stride).integers(0, yolo11.BINS, (4, side, side))  # left, top, right, bottom
        bins = np.zeros((1, 4, yolo11.BINS, side, side), np.float32)
        np.put_along_axis(bins, sides[np.newaxis, :, np.newaxis], 100, axis=2)
        named = np.zeros((1, classes, side, side), np.float32)
        bins = bins.reshape(1, -1, side, side)
        heads.append((graph.weight(f"box{stride}", bins), graph.weight(f"class{stride}", named)))
        for row, column in np.ndindex(side, side):
            left, top, right, bottom = sides[:, row, column]
            corners = column + 0.5 - left, row + 0.5 - top, column + 0.5 + right, row + 0.5 + bottom
            expected.append([stride * each for each in corners])
    yolo11._decode(graph, heads, size, classes)
    graph.save(tmp_path / "head.onnx", [], [TensorSpec("output0", "float32", (1, 4 + classes, len(expected)))])

    [[found]] = onnxruntime.InferenceSession(tmp_path / "head.onnx").run(None, {})

    corners = np.concatenate([found[:2] - found[2:4] / 2, found[:2] + found[2:4] / 2])
    np.testing.assert_allclose(corners.T, expected, atol=1e-3)
    assert (found[4:] == 0.5).all()


def test_it_is_the_same_file_each_time(nano: Path, tmp_path: Path) -> None:
    assert sha256_of(make(tmp_path / "again.onnx")) == sha256_of(nano)


@pytest.mark.parametrize("backend", ["openvino", "pytorch"])
def test_the_backends_agree(nano: Path, backend: str) -> None:
    given = photos(SMALL)[:3]

    expected, got = answers(nano, given), answers(nano, given, backend)

    np.testing.assert_allclose(got[:, :4], expected[:, :4], atol=0.05)  # pixels
    np.testing.assert_allclose(got[:, 4:], expected[:, 4:], atol=1e-4)


def test_an_answer_is_the_same_alone_and_among_others(nano: Path) -> None:
    given = photos(SMALL)[:3]

    np.testing.assert_allclose(answers(nano, given, rows=1), answers(nano, given), atol=1e-2)


@pytest.mark.parametrize(
    ("scale", "size"),
    [
        pytest.param(NANO, SMALL, id="n"),
        pytest.param(yolo11.LARGE, yolo11.SIZE, id="l", marks=pytest.mark.slow),
    ],
)
def test_some_anchors_of_each_photo_pass_and_photos_differ(
    scale: tuple[float, float], size: int, tmp_path: Path
) -> None:
    found = answers(make(tmp_path / "model.onnx", size, scale), photos(size), rows=1)

    boxes, scores = found[:, :4], found[:, 4:]
    passed = scores.max(1) > 0.001
    assert np.isfinite(found).all() and scores.min() >= 0 and scores.max() <= 1
    assert (boxes[:, 2:] > 0).all(), "a width or height is not above 0"
    share = passed.mean(1)
    assert share.min() > 0.01 and share.max() < 0.12, share
    shared = [(one & other).sum() / (one | other).sum() for one, other in combinations(passed, 2)]
    assert max(shared) < 0.8


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
def test_float16_holds_all_of_it(nano: Path, cache: Path, backend: str) -> None:
    given = photos(SMALL)[:2]
    half = convert(nano, "fp16", None, quiet, unheard)

    expected, got = answers(nano, given), answers(half, given, backend, precision="fp16")

    np.testing.assert_allclose(got[:, :4], expected[:, :4], atol=8)  # pixels
    np.testing.assert_allclose(got[:, 4:], expected[:, 4:], atol=2e-3)


def test_the_trained_file_is_looked_for_in_model_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))

    with pytest.raises(InputError, match=r"yolo11l\.onnx does not exist; .*--weights random"):
        registry.find("yolo11").build("trained", quiet)

    (tmp_path / "yolo11l.onnx").touch()
    assert registry.find("yolo11").build("trained", quiet) == tmp_path / "yolo11l.onnx"
