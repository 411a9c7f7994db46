"""TFLite's files: read without the runtime as the runtime reads them, refused in one line where they are none."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Backend, ModelFile
from backends.litert import LiteRt
from backends.onnxruntime import OnnxRuntime
from backends.openvino import OpenVino
from plugins.files import sha256_of
from sut.config import RunConfig
from sut.datasets.demo import open_demo
from sut.errors import InputError
from sut.models.argmax import expose_scores
from sut.models.content import check_model, digest_of, normalises_in_training, sums_of
from sut.models.identity import weights_of
from sut.models.own import check_fit, own_model
from sut.models.precision.convert import quantising_node
from sut.models.preparation import Prepared, prepare
from sut.models.recipes import find_recipe
from sut.models.registry import MODELS, find_for, for_file
from sut.models.tflite import check_tflite
from tests.unit.small_models import CLASSES, write_classifier
from tests.unit.tflite_models import TfliteGraph, write_tflite

KINDS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "fixed batch": {"batch": 4},
    "softmax": {"softmax": True},
    "labels": {"labels": True},
    "int8": {"int8": True},
    "int8 within": {"int8": True, "floats": True},
    "int8 weights": {"dynamic": True},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tflite")
    return {kind: write_tflite(folder / f"{kind}.tflite", **told) for kind, told in KINDS.items()}


def prepared(path: Path, backend: type[Backend], **settings: Any) -> Prepared:
    spec = for_file(path, None, "pytorch")
    return prepare(RunConfig(**settings), spec, backend, open_demo(), str, lambda done, total: None)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_what_the_runtime_says(files: dict[str, Path], kind: str) -> None:
    found = check_tflite(files[kind])

    with LiteRt.load(ModelFile(files[kind]), "cpu", 1, 1) as backend:
        for told, expected in zip((*found.inputs, *found.outputs), (*backend.inputs, *backend.outputs), strict=True):
            assert (told.name, told.dtype, told.shape) == (expected.name, expected.dtype, expected.shape)
    assert found.inputs[0].shape == (4 if kind == "fixed batch" else None, 16, 16, 3)


def test_tensors_without_a_name_are_called_after_their_places(tmp_path: Path) -> None:
    graph = TfliteGraph()
    graph.tensor("one", "float32", (1, 4))
    graph.tensor("two", "float32", (1, 4))
    graph.node("SOFTMAX", ["one"], "two")
    graph.tensors["one"].name = graph.tensors["two"].name = ""
    path = graph.save(tmp_path / "nameless.tflite", ["one"], ["two"])

    found = check_tflite(path)

    with LiteRt.load(ModelFile(path), "cpu", 1, 1) as backend:
        assert [each.name for each in (*found.inputs, *found.outputs)] == ["input0", "output0"]
        assert [each.name for each in (*backend.inputs, *backend.outputs)] == ["input0", "output0"]


def test_a_file_that_is_cut_off_anywhere_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    data, path = files["as it is"].read_bytes(), tmp_path / "cut.tflite"

    for length in range(8, len(data), 61):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=rf"is cut off or damaged \({length} bytes\), expected a whole TFLite mod"):
            check_model(path)


def test_no_damage_is_more_than_a_line(files: dict[str, Path], tmp_path: Path) -> None:
    draw, path = np.random.default_rng(5), tmp_path / "damaged.tflite"
    refused = 0

    for _ in range(300):
        data = np.frombuffer(files["labels"].read_bytes(), np.uint8).copy()
        data[draw.integers(8, len(data), 3)] = draw.integers(0, 256, 3)
        path.write_bytes(data.tobytes())
        try:
            check_model(path)
            quantising_node(path)
        except InputError:
            refused += 1

    assert 0 < refused < 300


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: b"", r"is empty \(0 bytes\), expected a .tflite file"),
        (lambda data: b"<html>", "is an HTML or XML page, expected a TFLite model"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (
            lambda data: data[:4] + b"TFL2" + data[8:],
            "bytes of something else, expected a TFLite model, which has b'TFL3'",
        ),
        (lambda data: struct.pack("<I", 2**31) + data[4:], "is cut off or damaged"),
    ],
)
def test_what_is_no_tflite_file_is_refused_in_one_line(
    files: dict[str, Path], tmp_path: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(change(files["as it is"].read_bytes()))

    with pytest.raises(InputError, match=said) as refused:
        check_model(path)

    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=r"does not exist, expected a .tflite file"):
        check_model(tmp_path / "none.tflite")


def test_it_is_run_by_tflite_and_left_as_it_is(files: dict[str, Path], tmp_path: Path) -> None:
    path = files["as it is"]
    write_classifier(tmp_path / "small.onnx")

    for backend in (OnnxRuntime, OpenVino):
        with pytest.raises(
            InputError, match=rf"is a TFLite file, which backend {backend.name} cannot read: use --backe"
        ):
            prepared(path, backend)
    with pytest.raises(InputError, match=r"is an ONNX file, which backend tflite cannot read: .* or bring a \.tflite"):
        prepared(tmp_path / "small.onnx", LiteRt)
    with pytest.raises(InputError, match=r"is a TFLite file, and --fold changes \.onnx files: leave it out"):
        prepared(path, LiteRt, fold=True)
    with pytest.raises(
        InputError, match=r"in floats, and --precision int8 changes .*bring a \.tflite that is quantised"
    ):
        prepared(path, LiteRt, precision="int8")
    assert prepared(path, LiteRt) == Prepared(path, path, path)
    assert not normalises_in_training(path)
    assert digest_of(sums_of(path)) == sha256_of(path)


@pytest.mark.parametrize(
    ("kind", "operator"),
    [("as it is", None), ("int8", "CONV_2D"), ("int8 within", "CONV_2D"), ("int8 weights", "CONV_2D")],
)
def test_a_quantised_one_is_known_by_its_operators(files: dict[str, Path], kind: str, operator: str | None) -> None:
    assert quantising_node(files[kind]) == operator
    assert prepared(files[kind], LiteRt, precision="int8" if operator else "fp32").quantised == (operator is not None)


def test_the_scores_that_labels_are_chosen_from_can_be_shown(files: dict[str, Path], tmp_path: Path) -> None:
    shown = tmp_path / "shown.tflite"

    assert expose_scores(files["labels"], "label", shown) == "scores"
    with LiteRt.load(ModelFile(shown), "cpu", 1, 1) as backend:
        assert [(spec.name, spec.shape) for spec in backend.outputs] == [("scores", (None, CLASSES))]
    assert expose_scores(files["as it is"], "scores", tmp_path / "none.tflite") is None
    assert not (tmp_path / "none.tflite").exists()


def test_a_strangers_file_tells_what_it_takes(files: dict[str, Path]) -> None:
    told: list[str] = []

    for_file(files["int8"], None, "pytorch", told.append)

    assert told == [
        "int8.tflite as int8: input images float32 NHWC, 16 pixels; 10 classes, label_offset 0; recipe pytorch"
    ]


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    graph = TfliteGraph()
    for name in ("one", "two", "sum"):
        graph.tensor(name, "float32", (1, 16, 16, 3))
    graph.node("ADD", ["one", "two"], "sum")
    path = graph.save(tmp_path / "two.tflite", ["one", "two"], ["sum"])

    with pytest.raises(InputError, match=r"has 2 inputs \(one float32 \[1, 16, 16, 3\], two float32 .*expected 1 with"):
        own_model(find_recipe("pytorch"), check_tflite(path), None)


def mobilenet(path: Path, size: int = 224) -> Path:
    """A file of MobileNet's form: the first pixel's red for class 1, nothing for the others."""
    graph = TfliteGraph()
    graph.tensor("input", "float32", (1, size, size, 3))
    graph.tensor("axes", "int32", (2,), np.array([1, 2]))
    graph.tensor("mean", "float32", (1, 3))
    graph.node("MEAN", ["input", "axes"], "mean")
    graph.tensor("weights", "float32", (1001, 3), np.eye(1001, 3))
    graph.tensor("scores", "float32", (1, 1001))
    graph.node("FULLY_CONNECTED", ["mean", "weights"], "scores")
    return graph.save(path, ["input"], ["scores"])


def test_mobilenet_is_brought_in_the_backends_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mobilenet_v1_1.0_224.tflite"
    spec = find_for("mobilenet", LiteRt.reads)
    monkeypatch.delenv("MODEL_DIR", raising=False)
    with pytest.raises(
        InputError, match=r"no trained weights here: MODEL_DIR is not set; give --model FILE \(mobilenet_v"
    ):
        spec.build("trained", str)

    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    mobilenet(path)

    assert spec.build("trained", str) == path
    for found in (spec, for_file(path, "mobilenet"), for_file(path, None), for_file(path, "mobilenet", "mobilenet")):
        assert (found.name, found.classes, found.label_offset, found.recipe.layout) == ("mobilenet", 1001, -1, "NHWC")
        check_fit(found, check_tflite(path))
        sums = sums_of(path)
        sha256 = digest_of(sums)
        assert weights_of(found, path, sums, sha256, "trained", {sha256: "mobilenet"})[0] == "trained"
        assert weights_of(found, path, sums, sha256, "trained", {}) == ("unknown", None)
    assert find_for("mobilenet", OnnxRuntime.reads) is MODELS["mobilenet"]


def test_a_file_of_another_shape_is_no_mobilenet(tmp_path: Path) -> None:
    path = mobilenet(tmp_path / "small.tflite", size=192)

    with pytest.raises(
        InputError, match=r"input of another size: got input float32 \[1, 192, 192, 3\], expected float32"
    ):
        check_fit(for_file(path, "mobilenet"), check_tflite(path))


@pytest.mark.parametrize("name", ["resnet50", "efficientnet-lite0"])
def test_a_model_that_is_no_tflite_file_is_refused_before_it_is_built(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"expected \.tflite for this backend: .* --model FILE\.tflite --model-name {name}"
    ):
        find_for(name, LiteRt.reads)
