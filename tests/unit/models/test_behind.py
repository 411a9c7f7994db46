"""What a detector's INT8 file leaves in floats: all that stands behind its last layers with weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from sut.models.precision import convert as converting
from sut.models.precision.behind import behind_last_layers
from sut.models.precision.calibration import Calibration
from sut.models.precision.convert import convert
from sut.tasks.registry import TASKS, find_task
from tests.core import needs
from tests.unit.small_models import quiet, unheard

SIDE, BINS, CLASSES = 16, 8, 3


def write_detector(path: Path, mean: str = "Conv", named: bool = True) -> Path:
    """Two convolutions; boxes, as the mean of a distribution in pixels, beside scores: YOLO's form, in small.

    ``mean`` is the operator that weighs the shares of the softmax.
    """
    draw = np.random.default_rng(4)
    node = onnx.helper.make_node
    tensors = {
        "stem": draw.normal(0, 0.5, (16, 3, 3, 3)),
        "box": draw.normal(0, 0.7, (4 * BINS, 16, 1, 1)),
        "class": draw.normal(0, 0.7, (CLASSES, 16, 1, 1)),
        "bins": np.arange(BINS).reshape((1, BINS, 1, 1) if mean == "Conv" else (1, 1, 1, BINS)),
        "stride": np.float32(64),
    }
    shapes = {"apart": [0, 4, BINS, -1], "together": [0, 4, -1], "scores": [0, CLASSES, -1]}
    weigh = {
        "Conv": [
            node("Transpose", ["apart"], ["turned"], perm=[0, 2, 1, 3]),
            node("Softmax", ["turned"], ["shares"], axis=1),
            node("Conv", ["shares", "bins"], ["means"]),
        ],
        "MatMul": [
            node("Softmax", ["apart"], ["shares"], axis=2),
            node("MatMul", ["bins", "shares"], ["means"]),
        ],
    }[mean]
    nodes = [
        node("Conv", ["images", "stem"], ["raw"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["raw"], ["features"]),
        node("Conv", ["features", "box"], ["distances"]),
        node("Conv", ["features", "class"], ["logits"]),
        node("Reshape", ["distances", "to.apart"], ["apart"]),
        *weigh,
        node("Reshape", ["means", "to.together"], ["distance"]),
        node("Add", ["distance", "distance"], ["size"]),
        node("Mul", ["size", "stride"], ["pixels"]),
        node("Reshape", ["logits", "to.scores"], ["flat"]),
        node("Sigmoid", ["flat"], ["probabilities"]),
        node("Concat", ["pixels", "probabilities"], ["output0"], axis=1),
    ]
    for each in nodes if named else ():
        each.name = f"/{each.output[0]}"
    constants = [onnx.numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in tensors.items()]
    constants += [onnx.numpy_helper.from_array(np.array(shape), f"to.{name}") for name, shape in shapes.items()]
    value = onnx.helper.make_tensor_value_info
    image = value("images", onnx.TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    answer = value("output0", onnx.TensorProto.FLOAT, ["n", 4 + CLASSES, SIDE * SIDE // 4])
    graph = onnx.helper.make_graph(nodes, "detector", [image], [answer], constants)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def samples(count: int = 24) -> np.ndarray:
    return np.random.default_rng(3).random((count, 3, SIDE, SIDE), np.float32)


def answers(path: Path) -> np.ndarray:
    if path.suffix == ".xml":
        import openvino

        return np.array(openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(samples())[0])
    import onnxruntime

    return np.array(
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": samples()})[0]
    )


@pytest.mark.parametrize(
    "links",
    [
        {"out": ["concat"], "concat": ["mul", "sigmoid"], "mul": ["conv 1"], "sigmoid": ["gemm 2"]},
        {"out": ["mean"], "mean": ["conv 3"], "conv 3": ["transpose"], "transpose": ["softmax"], "softmax": ["conv 1"]},
    ],
)
def test_from_the_outputs_back_to_the_nearest_weights(links: dict[str, list[str]]) -> None:
    kinds = {"conv": "Conv", "gemm": "Gemm", "softmax": "Softmax", "transpose": "Transpose"}
    before = {"conv 1": ["relu"], "gemm 2": ["relu"], "relu": ["conv 0"]}

    found = behind_last_layers(
        ["out"], lambda node: (links | before).get(node, []), lambda n: kinds.get(n.split()[0], "Other")
    )

    assert {*found} == {*links}


@needs("nncf")
@pytest.mark.slow
@pytest.mark.parametrize("form", ["int8-openvino", "int8", "int8-signed"])
@pytest.mark.parametrize(("mean", "named"), [("Conv", True), ("Conv", False), ("MatMul", True)])
def test_boxes_of_an_int8_file_have_no_steps_of_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, mean: str, named: bool
) -> None:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    model = write_detector(tmp_path / "detector.onnx", mean, named)
    calibration = Calibration(samples(), "some")
    full = answers(model)

    exact, plain = (
        answers(convert(model, form, calibration, quiet, unheard, exact_behind=exact)) for exact in (True, False)
    )

    steps = [len(np.unique(found[:, :4])) for found in (full, exact, plain)]
    assert steps[1] > steps[0] / 2 and steps[2] < 600
    errors = [float(np.abs(found[:, :4] - full[:, :4]).mean()) for found in (exact, plain)]
    assert errors[0] < errors[1]
    assert exact[:, 4:].min() >= 0 and np.abs(exact[:, 4:] - full[:, 4:]).mean() < 0.02


def test_a_classifier_is_the_same_file_under_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[dict[str, object]] = []
    monkeypatch.setattr(converting, "_require", lambda form: None)
    monkeypatch.setattr(converting, "cached", lambda name, key, make, say: keys.append(json.loads(key)) or tmp_path)
    model = write_detector(tmp_path / "detector.onnx")

    for exact in (False, True):
        convert(model, "int8", Calibration(samples(), "some"), quiet, unheard, exact_behind=exact)
    convert(model, "fp16", None, quiet, unheard, exact_behind=True)

    assert sorted(keys[0]) == ["calibration", "converter", "form", "model", "tools"]
    assert {*keys[1]} - {*keys[0]} == {"exact behind"}
    assert keys[0] == {name: value for name, value in keys[1].items() if name in keys[0]}
    assert {*keys[2]} == {*keys[0]}


def test_the_task_says_whether_it_matters() -> None:
    assert {name for name in TASKS if not find_task(name).exact_behind} == {"classification"}
