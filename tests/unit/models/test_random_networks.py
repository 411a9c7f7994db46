"""Networks of our own with random weights: valid, the same each time, and with other answers for other pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from backends.base import TensorSpec
from plugins.files import sha256_of
from preprocess.oracle import oracle
from sut.errors import InputError
from sut.models import registry
from sut.models.files import check_onnx
from sut.models.onnx_graph import OnnxGraph
from sut.models.own import check_fit
from sut.models.sources import resnet, tinyvit
from sut.models.sources.random_network import Draws, Layer, normalised, random_conv
from sut.models.sources.transformer import Transformer
from sut.tasks.registry import find_task
from tests.children import CHECKOUT
from tests.unit.small_models import quiet

PHOTOS = sorted((CHECKOUT / "sut" / "datasets" / "demo_photos").glob("*.jpg"))
NETWORKS = ("mobilenet-v2", "resnet-18", "resnet-101", "tinyvit", "vit-b", "lraspp", "dpt")
QUICK = ("mobilenet-v2",)
each_network = pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in NETWORKS]
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds a network into a folder of this module's own, once."""
    folder = tmp_path_factory.mktemp("cache")

    def build(name: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SUT_CACHE_DIR", str(folder))
            return registry.find(name).build("random", quiet)

    return build


def run(path: Path, given: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": given[at : at + 4]})[0] for at in range(0, len(given), 4)])


@each_network
def test_photos_have_answers_of_their_own(name: str, built: Callable[[str], Path]) -> None:
    spec = registry.find(name)
    pictures = np.stack([oracle(np.asarray(cv2.imread(str(path))), spec.recipe)[0] for path in PHOTOS])

    scores = run(built(name), pictures)

    task = find_task(spec.task).of(spec, check_onnx(built(name)).outputs)
    rows = range(len(PHOTOS))
    answers = task.decode({check_onnx(built(name)).outputs[0].name: scores}, rows, [], len(PHOTOS))
    assert np.isfinite(scores).all()
    assert len({np.asarray(each).tobytes() for each in answers}) >= 5
    # Neither is one pixel of the maps like the other, nor has one class all the probability.
    spread = scores.std(axis=0).mean()
    assert spread > 0.1 * np.abs(scores).mean()


@each_network
def test_it_is_valid_fits_its_recipe_and_is_the_same_file_each_time(
    name: str, built: Callable[[str], Path], cache: Path
) -> None:
    spec, path = registry.find(name), built(name)

    onnx.checker.check_model(onnx.load(path), full_check=True)
    check_fit(spec, check_onnx(path))
    again = spec.build("random", quiet)
    assert again.parent.parent == cache
    assert sha256_of(again) == sha256_of(path)


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_weights_have_to_be_brought(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))

    with pytest.raises(InputError, match=rf"{name}\.onnx does not exist; give --model FILE .* --weights random$"):
        registry.find(name).build("trained", quiet)


def test_a_convolution_computes_what_its_file_does(tmp_path: Path) -> None:
    graph, draws = OnnxGraph("conv"), Draws(1)
    values = normalised(draws.pictures(2, 32, (4, 8)))

    made = random_conv(graph, draws, "conv", Layer("images", values), 6, kernel=3, stride=2, dilation=2)

    size = made.values.shape[1]
    graph.save(
        tmp_path / "conv.onnx",
        [TensorSpec("images", "float32", (None, 3, 32, 32))],
        [TensorSpec("conv", "float32", (None, 6, size, size))],
    )
    found = run(tmp_path / "conv.onnx", values.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found, made.values.transpose(0, 3, 1, 2), atol=1 / 16)  # rounded on the way
    assert (size, abs(found.mean((0, 2, 3))).max() < 1e-2, found.std() == pytest.approx(1, abs=1e-2)) == (
        16,
        True,
        True,
    )


def test_attention_within_windows_computes_what_its_file_does(tmp_path: Path) -> None:
    network = tinyvit._Network()
    values = np.random.default_rng(1).integers(-64, 64, (2, 14, 14, 8)).astype(np.float32) / 32

    made = network._block("block", Layer("images", values), heads=2, window=7)

    shape = (None, 8, 14, 14)
    network._graph.save(
        tmp_path / "m.onnx", [TensorSpec("images", "float32", shape)], [TensorSpec(made.name, "float32", shape)]
    )
    found = run(tmp_path / "m.onnx", values.transpose(0, 3, 1, 2))
    # Values are rounded to 1/32 on the way here, not there.
    np.testing.assert_allclose(found, made.values.transpose(0, 3, 1, 2), atol=0.25)
    assert np.abs(found - made.values.transpose(0, 3, 1, 2)).mean() < 0.03


@pytest.mark.parametrize("behind", [None, "gelu", "relu"])
def test_a_layer_keeps_mean_0_and_variance_1(behind: str | None, tmp_path: Path) -> None:
    graph = OnnxGraph("layer")
    layers, wide = Transformer(graph, Draws(3)), 512
    source = {None: "images", "gelu": layers.gelu("images"), "relu": graph.node("Relu", ["images"], "relu")}[behind]

    layers.linear("layer", source, wide, wide, behind=behind)  # type: ignore[arg-type]

    ends = [TensorSpec(name, "float32", (None, wide)) for name in ("images", "layer")]
    graph.save(tmp_path / "layer.onnx", ends[:1], ends[1:])
    found = run(tmp_path / "layer.onnx", np.random.default_rng(1).standard_normal((1000, wide)).astype(np.float32))
    assert abs(found.mean()) < 0.02
    assert abs(found.mean(axis=0)).max() < 0.2  # of a class, over all pictures
    assert found.std() == pytest.approx(1, rel=0.05)


def test_resnet_18_has_basic_blocks_and_101_those_of_three() -> None:
    assert {depth: sum(each) * (2 if depth < 50 else 3) + 2 for depth, each in resnet._BLOCKS.items()} == {
        18: 18,
        50: 50,
        101: 101,
    }
