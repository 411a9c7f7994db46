"""Preparation: which file a backend is given for a precision, what is said of it, and what is refused before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.base import ModelFile
from backends.null import Null
from backends.onnxruntime import OnnxRuntime
from backends.openvino import OpenVino
from preprocess.base import Recipe
from sut.config import RunConfig
from sut.datasets.base import DataSet
from sut.datasets.demo import open_demo
from sut.datasets.registry import open_dataset
from sut.errors import InputError
from sut.models.base import ModelSpec
from sut.models.precision.fold import folded
from sut.models.preparation import Prepared, form_for, prepare, spec_to_run
from tests.unit.openvino_models import write_model
from tests.unit.small_models import CLASSES, RECIPE, quiet, unheard, write_classifier

QUANTISED_NOTES = ("the file is quantised already", "there is no FP32 form to compare with")


class Anything(Null):
    """Can be asked for every precision, and needs a form of its own for most."""

    name = "anything"
    needs_model = True
    precisions = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp16", "int8": "int8"}  # noqa: RUF012


class Plain(Null):
    """Can be asked for fp32 only."""

    name = "plain"
    needs_model = True


def spec_of(path: Path) -> ModelSpec:
    return ModelSpec(name="small", recipe=RECIPE, build=lambda weights, say: path, classes=CLASSES)


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "quantised.onnx", (True, True))


class Converter:
    """Stands for the conversion and the choice of pictures; remembers what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
        self.made = made
        self.models: list[tuple[Path, str, Any]] = []
        self.calibrated: list[dict[str, Any]] = []
        monkeypatch.setattr("sut.models.precision.convert.convert", self.convert)
        monkeypatch.setattr("sut.models.precision.calibration.calibrate_on", self.calibrate_on)

    def convert(self, model: Path, form: str, calibration: Any, *_: Any, exact_behind: bool) -> Path:
        self.models.append((model, form, calibration))
        return self.made

    def calibrate_on(
        self, scored: DataSet, whole: DataSet, recipe: Recipe, list_file: Path | None, *, closed: bool
    ) -> Any:
        self.calibrated.append(
            {"scored": scored.count, "whole": whole.count, "recipe": recipe, "list": list_file, "closed": closed}
        )
        return SimpleNamespace(source="three pictures", notes=("they are few",))


# Forms


@pytest.mark.parametrize(
    ("backend", "precision", "form"),
    [
        (OnnxRuntime, "fp32", "fp32"),
        (OnnxRuntime, "int8", "int8"),
        (OnnxRuntime, "fp16", "fp16"),
        (OpenVino, "bf16", "fp32"),
        (OpenVino, "int8", "int8-openvino"),
        (Null, "fp32", "fp32"),
    ],
)
def test_the_backend_says_which_form_a_precision_takes(backend: Any, precision: str, form: str) -> None:
    assert form_for(backend, precision, "cuda") == form


@pytest.mark.parametrize(
    ("backend", "precision", "said"),
    [
        (OnnxRuntime, "bf16", "backend onnxruntime cannot be asked for bf16; it has fp32, int8"),
        (OnnxRuntime, "fp16", "backend onnxruntime cannot be asked for fp16 on cpu; it has fp32, int8"),
        (Null, "int8", "backend null cannot be asked for int8; it has fp32"),
    ],
)
def test_a_precision_that_a_backend_never_has_is_refused_with_those_it_has(
    backend: Any, precision: str, said: str
) -> None:
    with pytest.raises(InputError) as refused:
        form_for(backend, precision, "cpu")

    assert str(refused.value) == said


def test_folding_leaves_the_pixels_to_the_preprocessor(model: Path) -> None:
    spec = spec_of(model)

    run = spec_to_run(spec, RunConfig(fold=True))

    assert spec_to_run(spec, RunConfig()) is spec
    assert run.recipe == folded(RECIPE) != RECIPE
    assert (run.name, run.classes, run.build) == (spec.name, spec.classes, spec.build)


# What is prepared


def test_the_backend_is_given_file_precision_and_shape(model: Path) -> None:
    prepared = Prepared(Path("a.xml"), model, model)

    assert prepared.model_file("int8", spec_of(model)) == ModelFile(Path("a.xml"), "int8", RECIPE.sample_shape)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_where_the_backend_takes_the_file_as_it_is_nothing_is_made(model: Path, cache: Path, precision: str) -> None:
    prepared = prepare(RunConfig(precision=precision), spec_of(model), Anything, open_demo(), quiet, unheard)

    assert prepared == Prepared(model, model, model)
    assert not cache.exists()


def test_a_folded_file_is_run_and_the_source_is_remembered(model: Path) -> None:
    prepared = prepare(RunConfig(fold=True), spec_of(model), Anything, open_demo(), quiet, unheard)

    assert prepared.file == prepared.onnx != model
    assert (prepared.source, prepared.form, prepared.notes) == (model, "fp32", ())
    [image] = onnx.load(prepared.file).graph.input
    assert image.type.tensor_type.elem_type == TensorProto.UINT8


@pytest.mark.parametrize(("made", "onnx_is_made"), [("made.onnx", True), ("made.xml", False)])
def test_a_converted_file_is_run_and_says_what_has_calibrated_it(
    model: Path, monkeypatch: pytest.MonkeyPatch, made: str, onnx_is_made: bool
) -> None:
    converter = Converter(monkeypatch, Path(made))

    prepared = prepare(RunConfig(precision="int8"), spec_of(model), Anything, open_demo(), quiet, unheard)

    assert prepared == Prepared(
        Path(made),
        Path(made) if onnx_is_made else model,  # check_onnx reads it, and cannot read OpenVINO's
        model,
        "int8",
        ("calibrated on three pictures", "they are few"),
    )
    [(converted, form, _)] = converter.models
    assert (converted, form) == (model, "int8")
    assert converter.calibrated == [{"scored": 11, "whole": 11, "recipe": RECIPE, "list": None, "closed": False}]


def test_what_is_not_scored_may_calibrate(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converter = Converter(monkeypatch, Path("made.onnx"))
    config = RunConfig(precision="int8", count=3, calibration_list=Path("list.txt"), rules="closed")

    prepare(config, spec_of(model), Anything, open_dataset("demo", None, None, 3), quiet, unheard)

    assert converter.calibrated == [
        {"scored": 3, "whole": 11, "recipe": RECIPE, "list": Path("list.txt"), "closed": True}
    ]


def test_a_folded_model_is_calibrated_with_pixels(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converter = Converter(monkeypatch, Path("made.onnx"))

    prepared = prepare(RunConfig(precision="int8", fold=True), spec_of(model), Anything, open_demo(), quiet, unheard)

    assert [each["recipe"] for each in converter.calibrated] == [folded(RECIPE)]
    [(converted, _, _)] = converter.models
    assert converted != model and "folded" in converted.name
    assert prepared.source == model


def test_fp16_needs_no_pictures(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converter = Converter(monkeypatch, Path("made.onnx"))

    prepared = prepare(RunConfig(precision="fp16"), spec_of(model), Anything, open_demo(), quiet, unheard)

    assert converter.models == [(model, "fp16", None)]
    assert (converter.calibrated, prepared.form, prepared.notes) == ([], "fp16", ())


def test_the_closed_division_takes_no_pictures_but_those_of_its_list(model: Path) -> None:
    config = RunConfig(precision="int8", rules="closed")

    with pytest.raises(InputError, match=r"closed division take MLCommons' calibration pictures only; .*-list FILE"):
        prepare(config, spec_of(model), Anything, open_demo(), quiet, unheard)


def test_a_precision_that_is_not_there_is_refused_before_the_model_is_built() -> None:
    def never(weights: str, say: Any) -> Path:
        raise AssertionError("built")

    spec = ModelSpec(name="small", recipe=RECIPE, build=never)

    with pytest.raises(InputError, match="backend plain cannot be asked for int8; it has fp32"):
        prepare(RunConfig(precision="int8"), spec, Plain, open_demo(), quiet, unheard)


# Files that are quantised already


@pytest.mark.parametrize(
    ("backend", "precision"),
    [(Anything, "int8"), (OnnxRuntime, "int8"), (OpenVino, "int8"), (Plain, "fp32"), (OnnxRuntime, "fp32")],
)
def test_a_quantised_file_is_run_as_it_is(quantised: Path, cache: Path, backend: Any, precision: Any) -> None:
    spec = spec_of(quantised)

    prepared = prepare(RunConfig(precision=precision), spec, backend, open_demo(), quiet, unheard)

    assert prepared == Prepared(quantised, quantised, quantised, "int8", QUANTISED_NOTES, quantised=True)
    assert prepared.model_file(precision, spec) == ModelFile(quantised, precision, RECIPE.sample_shape, quantised=True)
    assert not cache.exists()


def test_a_quantised_file_can_be_folded(quantised: Path) -> None:
    config = RunConfig(precision="int8", fold=True)

    prepared = prepare(config, spec_of(quantised), OpenVino, open_demo(), quiet, unheard)

    operators = [node.op_type for node in onnx.load(prepared.file).graph.node]
    assert operators[0] == "Transpose" and "QuantizeLinear" in operators
    assert (prepared.onnx, prepared.source) == (prepared.file, quantised)
    assert (prepared.notes, prepared.quantised) == (QUANTISED_NOTES, True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"calibration_list": Path("list.txt")}, "so --calibration-list has no effect: leave it out"),
        ({"rules": "closed"}, "--rules closed asks which pictures have calibrated it: bring the float32 model"),
    ],
)
def test_nothing_is_said_of_how_a_quantised_file_was_calibrated(
    quantised: Path, settings: dict[str, Any], said: str
) -> None:
    config = RunConfig(precision="int8", **settings)

    with pytest.raises(InputError, match=said):
        prepare(config, spec_of(quantised), OnnxRuntime, open_demo(), quiet, unheard)


def changed(model: Path, to: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    found = onnx.load(model)
    change(found)
    onnx.save(found, to)
    return to


@pytest.mark.parametrize("operator", ["DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "QGemm"])
def test_integer_arithmetic_is_found_by_its_node(model: Path, tmp_path: Path, operator: str) -> None:
    node = helper.make_node(operator, ["a"], ["b"], name="more")
    path = changed(model, tmp_path / "changed.onnx", lambda found: found.graph.node.append(node))

    assert prepare(RunConfig(), spec_of(path), OnnxRuntime, open_demo(), quiet, unheard).quantised


def test_8_bit_weights_that_become_floats_are_computed_in_fp32(model: Path, tmp_path: Path) -> None:
    def keep_in_8_bits(found: onnx.ModelProto) -> None:
        graph = found.graph
        [weight] = [tensor for tensor in graph.initializer if tensor.name == "dense.weight"]
        values = numpy_helper.to_array(weight)
        step = np.float32(np.abs(values).max() / 127)
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(np.round(values / step).astype(np.int8), "small"))
        graph.initializer.append(numpy_helper.from_array(step, "step"))
        graph.node.insert(0, helper.make_node("DequantizeLinear", ["small", "step"], ["dense.weight"]))

    path = changed(model, tmp_path / "changed.onnx", keep_in_8_bits)
    spec = spec_of(path)

    prepared = prepare(RunConfig(), spec, OnnxRuntime, open_demo(), quiet, unheard)

    assert prepared == Prepared(path, path, path)
    with OnnxRuntime.load(prepared.model_file("fp32", spec), "cpu", 1, 1) as backend, backend.runner() as runner:
        assert runner.infer(runner.slot(2))["scores"].shape == (2, CLASSES)
    with pytest.raises(
        InputError, match=r"is quantised already \(it has a node DequantizeLinear\), expected the float"
    ):
        prepare(RunConfig(precision="int8"), spec, OnnxRuntime, open_demo(), quiet, unheard)
