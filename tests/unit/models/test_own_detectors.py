"""Any detector as ONNX: what its outputs say, what is taken from the file, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from backends.base import TensorSpec
from sut.config import make_config
from sut.errors import InputError
from sut.mlperf.loadgen import settings_for
from sut.mlperf.official import BENCHMARKS
from sut.models import registry
from sut.models.files import check_onnx
from sut.models.identity import weights_of
from sut.models.onnx_graph import OnnxGraph
from sut.models.own import check_fit
from sut.pipeline.assembly import assemble
from tests.unit.coco_sets import LIST, SIZES, write_coco
from tests.unit.small_models import quiet

Axes = tuple[int | None, ...]
YOLO = TensorSpec("output0", "float32", (None, 84, 8400))
BOXES = (
    TensorSpec("boxes", "float32", (None, 4)),
    TensorSpec("labels", "int64", (None,)),
    TensorSpec("scores", "float32", (None,)),
)
SCORES = TensorSpec("scores", "float32", (None, 1000))


def write(
    path: Path, *outputs: TensorSpec, size: int | None = 640, dtype: str = "float32", layout: str = "NCHW"
) -> Path:
    """A file that only says what goes in and comes out."""
    graph = OnnxGraph("ends")
    for output in outputs:
        graph.node("Identity", ["images"], output.name)
    axes = (3, size, size) if layout == "NCHW" else (size, size, 3)
    graph.save(path, [TensorSpec("images", dtype, (None, *axes))], outputs)
    return path


@pytest.mark.parametrize(
    ("outputs", "kind", "recipe", "size", "classes"),
    [
        ([YOLO], "output0 (yolo)", "yolo", 640, 80),
        ([replace(YOLO, shape=(1, 14, 2100))], "output0 (yolo)", "yolo", 320, 10),
        ([replace(YOLO, shape=(1, 300, 6))], "output0 (nms)", "yolo", 640, 80),
        ([replace(YOLO, shape=(None, 25200, 85))], "output0 (objectness)", "yolo", 640, 80),
        (BOXES, "boxes, scores, labels (boxes)", "retinanet", 800, 264),
    ],
)
def test_outputs_of_a_detector_choose_a_recipe_and_it_is_said(
    tmp_path: Path, outputs: Sequence[TensorSpec], kind: str, recipe: str, size: int, classes: int
) -> None:
    lines: list[str] = []
    path = write(tmp_path / "mine.onnx", *outputs, size=size)

    spec = registry.for_file(path, None, None, lines.append)

    assert (spec.name, spec.task, spec.classes, spec.loadgen_model) == ("mine", "detection", classes, "yolo")
    assert spec.recipe == replace(registry.RECIPES[recipe], size=size)
    [line] = lines
    assert (
        f"mine.onnx as mine: input images float32 NCHW, {size} pixels; detection by {kind}, {classes} classes" in line
    )
    fit = "letterbox, linear, RGB" if recipe == "yolo" else "stretch, linear, RGB"
    assert f"recipe {recipe}: {fit}, mean (0.0, 0.0, 0.0), std (255.0, 255.0, 255.0)" in line
    assert f"guessed from the outputs {outputs[0].name} float32" in line


def test_a_classifier_is_not_guessed(tmp_path: Path) -> None:
    said = r"mine\.onnx names no known model, and its outputs \(.*\) are not plainly a detector.s; say which it is"
    with pytest.raises(InputError, match=said):
        registry.for_file(write(tmp_path / "mine.onnx", SCORES, size=224), None)


@pytest.mark.parametrize("name", ["yolo11", "yolo-95", "yolo-99", "YOLO_99"])
def test_an_export_of_a_known_detector_has_its_own_size_layout_and_dtype(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "mine.onnx", replace(YOLO, shape=(4, 84, 2100)), size=320, dtype="float16", layout="NHWC")

    spec = registry.for_file(path, name)

    known = registry.find(name)
    recipe = replace(known.recipe, size=320, dtype="float16", layout="NHWC")
    assert replace(spec, build=known.build) == replace(known, recipe=recipe)
    assert spec.build("trained", quiet) == path


def test_an_export_that_leaves_its_size_open_is_run_at_the_usual_one(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.onnx", replace(YOLO, shape=(None, 84, None)), size=None)

    assert registry.for_file(path, "yolo-99").recipe == registry.RECIPES["yolo"]


def test_a_known_detector_with_its_recipe_is_that_model_and_with_another_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.onnx", replace(YOLO, shape=(None, 84, 2100)), size=320)
    own = tmp_path / "mine.yaml"
    own.write_text("fit: letterbox\ninterpolation: area\nstd: [255, 255, 255]\n")

    named = registry.for_file(path, "yolo-99", "yolo")
    assert named == replace(registry.for_file(path, "yolo-99"), build=named.build)
    other = registry.for_file(path, "yolo-99", str(own))
    assert (other.name, other.task, other.exports_differ) == ("yolo-99-mine", "detection", False)


def test_a_file_in_model_dir_decides_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    write(tmp_path / "yolo11l.onnx", replace(YOLO, shape=(1, 84, 2100)), size=320, dtype="float16")

    recipe = assemble(make_config({"model": "yolo-99"})).spec.recipe

    assert (recipe.size, recipe.dtype) == (320, "float16")


@pytest.mark.parametrize("file", ["retinanet.onnx", "resnext50_32x4d_fpn.onnx"])
def test_retinanet_is_brought_under_either_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"retinanet has no trained weights here: .*retinanet\.onnx does not exist"):
        registry.find("retinanet").build("trained", quiet)
    with pytest.raises(InputError, match="retinanet has no random weights"):
        registry.find("retinanet").build("random", quiet)

    path = write(tmp_path / file, *BOXES, size=800)

    assert registry.find("retinanet").build("trained", quiet) == path
    spec = assemble(make_config({"model": "retinanet"})).spec
    assert (spec.recipe.fit, spec.recipe.size, spec.loadgen_model) == ("stretch", 800, "retinanet")
    check_fit(spec, check_onnx(path))


@pytest.mark.parametrize(
    ("outputs", "size", "recipe", "fragment"),
    [
        (
            [YOLO],
            640,
            "pytorch",
            "which look like those of detection, but the recipe pytorch is for classification; use ",
        ),
        ([YOLO], 640, "resnet50", "use one of its own (--recipe yolo), or a recipe file with task: detection"),
        (BOXES, 800, "pytorch", "use one of its own (--recipe retinanet), or"),
        ([SCORES], 224, "yolo", "which look like those of classification, but the recipe yolo is for detection; use "),
        ([SCORES], 224, "retinanet", "(--recipe efficientnet-lite0, efficientnet-lite1, efficientnet-lite2, resnet50"),
        ([YOLO], 640, "mine.yaml", "which look like those of detection, but the recipe mine is for classification"),
        ([YOLO, replace(YOLO, name="output1")], 640, "yolo", "several detectors, output0 (yolo) and output1 (yolo)"),
        ([replace(YOLO, shape=(1, 3, 80))], 640, "yolo", "no output fits detection"),
    ],
)
def test_a_recipe_of_another_task_is_refused_with_one_that_fits(
    tmp_path: Path, outputs: Sequence[TensorSpec], size: int, recipe: str, fragment: str
) -> None:
    (tmp_path / "mine.yaml").write_text("fit: resize-crop\ninterpolation: linear\n")
    path = write(tmp_path / "mine.onnx", *outputs, size=size)

    with pytest.raises(InputError) as refused:
        registry.for_file(path, None, str(tmp_path / recipe) if recipe.endswith(".yaml") else recipe)

    message = str(refused.value)
    assert message.startswith(f"model {path} has the outputs {outputs[0].name} float32")
    assert fragment in message
    assert "\n" not in message


def test_a_recipe_file_names_a_task_and_what_it_may_set(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.onnx", replace(YOLO, shape=(None, 85, 8400)))
    text = "fit: letterbox\ninterpolation: linear\nstd: [255, 255, 255]\ntask: detection\n"
    recipe = tmp_path / "mine.yaml"

    recipe.write_text(f"{text}task_options:\n  outputs: objectness\n  iou_threshold: 0.5\nclasses: 80\n")
    spec = registry.for_file(path, None, str(recipe))
    assert (spec.classes, spec.task_options) == (80, {"outputs": "objectness", "iou_threshold": 0.5})

    for wrong, fragment in (
        ("task_options: {iou: 0.5}", "'iou'"),
        ("task_options: {iou_threshold: 7}", "iou_threshold"),
        ("task_options: [1]", "task_options: Input should be a valid dictionary, got [1]"),
    ):
        recipe.write_text(f"{text}{wrong}\n")
        with pytest.raises(InputError) as refused:
            registry.for_file(path, None, str(recipe))
        assert str(recipe) in str(refused.value) and fragment in str(refused.value)

    recipe.write_text(text.replace("detection", "telepathy"))
    with pytest.raises(InputError, match="unknown task 'telepathy'"):
        registry.for_file(path, None, str(recipe))


def test_who_vouches_for_an_export_vouches_for_its_size(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.onnx", replace(YOLO, shape=(None, 84, 2100)), size=320)

    found = weights_of(registry.for_file(path, "yolo-99"), path, {path: "aa"}, "aa", "trained", {"aa": "yolo-99"})

    assert found[0] == "trained"


@pytest.mark.parametrize(
    ("list_name", "dataset"), [(LIST, "coco"), ("annotations/openimages-mlperf.json", "openimages")]
)
def test_a_folder_alone_is_a_data_set_with_annotations(tmp_path: Path, list_name: str, dataset: str) -> None:
    root = str(write_coco(tmp_path, list_name=list_name, folder="."))

    for model in ("yolo-99", "retinanet"):
        parts = assemble(make_config({"model": model, "backend": "null", "dataset_path": root}))
        assert (parts.dataset.name, parts.dataset.count) == (dataset, len(SIZES))
    with pytest.raises(InputError, match=r"there is no list .*val_map\.txt"):
        assemble(make_config({"model": "resnet50", "backend": "null", "dataset_path": root}))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_as_many_samples_are_held_as_mlperf_has_it(tmp_path: Path, name: str) -> None:
    for number in range(70):
        encoded = cv2.imencode(".jpg", np.full((8, 8, 3), 100, np.uint8))[1]
        (tmp_path / f"{number:02}.jpg").write_bytes(encoded.tobytes())
    settings = {"model": name, "backend": "null", "dataset": "folder", "dataset_path": str(tmp_path)}
    parts = assemble(make_config(settings))

    library = parts.library(parts.load_backend(), None, lambda done: None)

    samples = BENCHMARKS[name].performance_samples
    assert library.performance_count == min(70, samples)
    settings_of_loadgen = settings_for(parts.spec.loadgen_model, "Offline", "performance", [])
    assert settings_of_loadgen.performance_sample_count_override == samples
