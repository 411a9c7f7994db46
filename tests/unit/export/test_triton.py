"""What ``sut export triton`` writes, config.pbtxt as config.proto reads it, and what it refuses."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc.model_config_pb2 import ModelConfig

from backends.base import TensorSpec
from plugins.files import sha256_of
from sut.config import RunConfig
from sut.errors import InputError, RunError
from sut.export.triton import Exported, export
from sut.export.triton_config import TritonConfig, is_checked
from tests.unit.quantised_models import write_quantised
from tests.unit.small_models import RECIPE_FILE, quiet, unheard, with_weights_outside, write_classifier, write_means


def exported(
    tmp_path: Path, model: Path | str, form: str = "onnxruntime", overwrite: bool = False, **settings: Any
) -> Exported:
    (tmp_path / "small.yaml").write_text(RECIPE_FILE)
    known: dict[str, Any] = {"model": str(model), "recipe": str(tmp_path / "small.yaml"), "scenario": "Server"}
    config = RunConfig(**{**known, "threads": 1, "lanes": 1, "max_batchsize": 8, **settings})
    return export(config, form, tmp_path / "models", overwrite=overwrite, say=quiet, progress=unheard)


def read(written: Exported) -> dict[str, Any]:
    """config.pbtxt by config.proto, fields by their names there."""
    message = text_format.Parse((written.folder / "config.pbtxt").read_text(), ModelConfig())
    return MessageToDict(message, preserving_proto_field_name=True)


def plain(**more: Any) -> dict[str, Any]:
    """What is so of the small classifier for Triton's ONNX Runtime."""
    return {
        "name": "small",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [{"name": "images", "data_type": "TYPE_FP32", "dims": ["3", "16", "16"]}],
        "output": [{"name": "scores", "data_type": "TYPE_FP32", "dims": ["10"]}],
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "dynamic_batching": {"preferred_batch_size": [8]},
        **more,
    }


def without_parameters(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "parameters"}


def test_a_model_in_fp32_has_its_tensors_batching_threads_and_sum(tmp_path: Path, cache: Path) -> None:
    model = write_classifier(tmp_path / "small.onnx")

    written = exported(tmp_path, model, lanes=2, threads=3, max_batchsize=4, max_wait_ms=1.5)

    found = read(written)
    assert without_parameters(found) == plain(
        max_batch_size=4,
        instance_group=[{"count": 2, "kind": "KIND_CPU"}],
        dynamic_batching={"preferred_batch_size": [4], "max_queue_delay_microseconds": "1500"},
    )
    assert {key: value["string_value"] for key, value in found["parameters"].items()} == {
        "intra_op_thread_count": "3",
        "inter_op_thread_count": "1",
        "sha256": sha256_of(model),
        "precision": "fp32",
        "sha256 of model.onnx": sha256_of(model),
    }
    assert written.checked and written.files == ("1/model.onnx", "config.pbtxt")
    assert (written.folder / "1/model.onnx").read_bytes() == model.read_bytes()


def test_a_folded_model_takes_pixels(tmp_path: Path, cache: Path) -> None:
    found = read(exported(tmp_path, write_classifier(tmp_path / "small.onnx"), fold=True))

    [taken] = found["input"]
    assert (taken["data_type"], taken["dims"]) == ("TYPE_UINT8", ["16", "16", "3"])


def test_a_model_in_int8_is_the_quantised_file(tmp_path: Path, cache: Path) -> None:
    model = write_quantised(tmp_path / "small.onnx", "unsigned")

    written = exported(tmp_path, model, precision="int8")

    assert without_parameters(read(written)) == plain()
    assert sha256_of(written.folder / "1/model.onnx") == sha256_of(model)


def test_a_model_of_several_outputs_has_all_and_one_value_a_row_is_reshaped(tmp_path: Path, cache: Path) -> None:
    model = write_means(tmp_path / "small.onnx", axes=("n", 3, 16, 16), outputs=("labels", "scores", "map"))

    found = read(exported(tmp_path, model))

    assert found["output"] == [
        {"name": "labels", "data_type": "TYPE_INT64", "dims": ["1"], "reshape": {}},
        {"name": "scores", "data_type": "TYPE_FP32", "dims": ["1000"]},
        {"name": "map", "data_type": "TYPE_FP32", "dims": ["3", "1", "1"]},
    ]


def test_a_detector_has_its_boxes(tmp_path: Path, cache: Path) -> None:
    config = RunConfig(model="planted", scenario="Server", threads=1, lanes=1)
    written = export(config, "onnxruntime", tmp_path, overwrite=False, say=quiet, progress=unheard)

    found = read(written)
    assert found["input"][0]["dims"] == ["3", "640", "640"]
    assert found["output"] == [{"name": "output0", "data_type": "TYPE_FP32", "dims": ["84", "1600"]}]


def test_a_model_of_one_batch_size_has_whole_shapes_and_nothing_batches(tmp_path: Path, cache: Path) -> None:
    found = read(exported(tmp_path, write_classifier(tmp_path / "small.onnx", batch=4)))

    assert "max_batch_size" not in found and "dynamic_batching" not in found  # 0, which is the default
    assert (found["input"][0]["dims"], found["output"][0]["dims"]) == (["4", "3", "16", "16"], ["4", "10"])


def test_weights_beside_the_model_come_along(tmp_path: Path, cache: Path) -> None:
    model = with_weights_outside(write_classifier(tmp_path / "small.onnx"))

    written = exported(tmp_path, model)

    assert written.files == ("1/model.onnx", "1/weights.bin", "config.pbtxt")
    assert read(written)["parameters"]["sha256 of weights.bin"]["string_value"] == sha256_of(tmp_path / "weights.bin")


@pytest.mark.parametrize(
    ("boundary", "asked"),
    [
        ("tensor", {"name": "images", "data_type": "TYPE_FP32", "dims": ["3", "16", "16"]}),
        ("jpeg", {"name": "jpeg", "data_type": "TYPE_STRING", "dims": ["1"]}),
        (
            "pixels",
            {"name": "pixels", "data_type": "TYPE_UINT8", "dims": ["-1", "-1", "3"], "allow_ragged_batch": True},
        ),
    ],
)
def test_the_pipeline_is_asked_with_what_its_boundary_has(
    tmp_path: Path, cache: Path, boundary: str, asked: dict[str, Any]
) -> None:
    model = write_classifier(tmp_path / "small.onnx")

    written = exported(tmp_path, model, "python", boundary=boundary, max_wait_ms=2)

    expected = plain(backend="python", input=[asked])
    del expected["platform"]
    assert read(written)["parameters"]["sha256"]["string_value"] == sha256_of(model)
    assert without_parameters(read(written)) == {
        **expected,
        "dynamic_batching": {"preferred_batch_size": [8], "max_queue_delay_microseconds": "2000"},
    }
    assert written.files == ("1/model.py", "1/pipeline.json", "config.pbtxt")
    orders = json.loads((written.folder / "1/pipeline.json").read_text())
    assert orders["config"]["boundary"] == boundary and orders["prepared"]["sha256"] == sha256_of(model)


def test_a_pipeline_pads_for_a_model_of_one_batch_size(tmp_path: Path, cache: Path) -> None:
    found = read(exported(tmp_path, write_classifier(tmp_path / "small.onnx", batch=4), "python"))

    assert (found["max_batch_size"], found["output"][0]["dims"]) == (4, ["10"])


@pytest.mark.parametrize(
    ("form", "settings", "said"),
    [
        ("onnx", {}, "unknown form 'onnx'; did you mean onnxruntime? known: onnxruntime, python"),
        (
            "onnxruntime",
            {"backend": "openvino"},
            "the form onnxruntime takes the .onnx file that the backend onnxruntime",
        ),
        ("onnxruntime", {"boundary": "jpeg"}, "the form onnxruntime has the model alone, got --boundary jpeg"),
        ("python", {"boundary": "device"}, "--boundary device is in the memory of one process"),
        ("python", {"identify": "resnet50"}, "sut export triton writes one model; leave --identify out"),
        ("python", {"device": "cpu,cuda:0"}, "a model is exported for one device, got --device cpu,cuda:0"),
        (
            "python",
            {"preprocess_workers": 2},
            "preprocess_workers is of runs, and the server that this is exported for",
        ),
        ("python", {"affinity": "lanes=0"}, "affinity is of runs"),
        ("python", {"serve": "grpc"}, "serve is of runs"),
        ("onnxruntime", {"backend_options": {"tf32": True}}, "the options of onnxruntime (tf32) are for a GPU"),
        ("python", {"backend_options": {"tf32": True}}, "the options of onnxruntime (tf32) are for a GPU"),
        ("onnxruntime", {"model": "no/model.tflite"}, "model no/model.tflite does not exist, expected a .tflite file"),
    ],
)
def test_what_cannot_be_exported_is_told_before_anything_is_written(
    tmp_path: Path, cache: Path, form: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as raised:
        exported(tmp_path, settings.pop("model", None) or write_classifier(tmp_path / "small.onnx"), form, **settings)

    assert said in str(raised.value)
    assert not (tmp_path / "models").exists()


def test_what_is_there_is_replaced_only_when_asked_and_only_a_model(tmp_path: Path, cache: Path) -> None:
    model = write_classifier(tmp_path / "small.onnx")
    written = exported(tmp_path, model)
    old = (written.folder / "1/model.onnx").read_bytes()

    with pytest.raises(InputError, match="is there already; choose another --output, or add --overwrite"):
        exported(tmp_path, model, "python")
    assert (written.folder / "1/model.onnx").read_bytes() == old
    assert exported(tmp_path, model, "python", overwrite=True).files == (
        "1/model.py",
        "1/pipeline.json",
        "config.pbtxt",
    )
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["small"]
    (written.folder / "config.pbtxt").unlink()
    with pytest.raises(InputError, match="is no model of a repository"):
        exported(tmp_path, model, overwrite=True)


def test_nothing_is_left_of_what_cannot_be_written_whole(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_classifier(tmp_path / "small.onnx")
    written = exported(tmp_path, model)
    before = sha256_of(written.folder / "1/model.onnx")

    def full(*paths: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); choose another --output"):
        exported(tmp_path, model, overwrite=True)

    assert [path.name for path in (tmp_path / "models").iterdir()] == ["small"]
    assert sha256_of(written.folder / "1/model.onnx") == before


def test_a_model_on_a_gpu_names_it() -> None:
    images = TensorSpec("images", "float16", (None, 3, 4, 4))
    config = TritonConfig("m", "onnxruntime", [images], [], 8, gpu=1)

    message = text_format.Parse(config.text, ModelConfig())

    [group] = message.instance_group
    assert (group.kind, [*group.gpus]) == (group.KIND_GPU, [1])
    assert MessageToDict(message.input[0])["dataType"] == "TYPE_FP16"


def test_names_are_quoted_and_types_that_triton_does_not_have_refused() -> None:
    name = 'a "b" \\ é\n'
    config = TritonConfig("m", "onnxruntime", [TensorSpec(name, "int8", (None, 3))], [], 8)

    assert text_format.Parse(config.text, ModelConfig()).input[0].name == name
    odd = TritonConfig("m", "onnxruntime", [TensorSpec("x", "complex64", (None, 3))], [], 8)
    with pytest.raises(InputError, match="x is complex64, expected one of bool, uint8"):
        _ = odd.text


def test_a_text_that_config_proto_does_not_know_is_an_error_of_ours() -> None:
    with pytest.raises(RunError, match=r"config\.pbtxt is none by config\.proto"):
        is_checked("name: 'x'\nmax_batchsize: 8\n")
