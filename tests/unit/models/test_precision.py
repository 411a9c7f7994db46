"""Conversion to lower precision: what comes out, that it is made once and whole, and what is refused."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from plugins.cache import SUMS
from sut.errors import InputError, RunError, SetupError
from sut.files import cached
from sut.models.content import content_digest
from sut.models.precision import convert as precision
from sut.models.precision.calibration import Calibration, preprocessed
from sut.models.precision.convert import convert
from sut.models.precision.fold import fold
from tests.children import CHECKOUT, run_python
from tests.core import needs
from tests.unit.small_models import RECIPE, SIZE, pictures, quiet, scores, unheard, write_classifier

SAMPLES = 24


def samples(count: int = SAMPLES, seed: int = 8) -> Calibration:
    return Calibration(preprocessed(pictures(count, seed), count, RECIPE), f"{count} pictures")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("model") / "small.onnx")


Convert = Callable[..., Path]


@pytest.fixture(scope="module")
def converted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Converts the small model, each form once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield lambda form, progress=unheard: convert(model, form, samples(), quiet, progress)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def lost(full: np.ndarray, reduced: np.ndarray) -> float:
    """How far the scores are off, of how much they vary from picture to picture; both root mean square."""
    assert reduced.shape == full.shape
    return float(np.sqrt(np.square(reduced - full).mean() / full.var(axis=0).mean()))


def openvino_scores(path: Path, tensors: np.ndarray) -> np.ndarray:
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    return np.array(compiled(tensors)[0])


def checked(path: Path) -> onnx.ModelProto:
    found = onnx.load(path)
    onnx.checker.check_model(found, full_check=True)
    return found


# What comes out


@needs("nncf")
def test_int8_has_8_bit_weights_and_unsigned_activations(model: Path, converted: Convert) -> None:
    path = converted("int8")

    graph = checked(path).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    points = Counter(kinds[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear")
    assert points[TensorProto.UINT8] >= 2, "behind the ReLUs"
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    assert {sizes[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"} == {1}, "per tensor"
    weights = [tensor for tensor in graph.initializer if len(tensor.dims) > 1]
    assert {tensor.data_type for tensor in weights} == {TensorProto.INT8}
    test = preprocessed(pictures(300, 9), 300, RECIPE)
    assert 0 < lost(scores(model, test), scores(path, test)) < 0.4


@pytest.mark.slow
@needs("nncf")
def test_int8_for_tensorrt_is_symmetric_and_has_no_quantised_bias(model: Path, converted: Convert) -> None:
    path = converted("int8-signed")

    graph = checked(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    points = [node.input[2] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(points) > 4
    for name in points:
        assert tensors[name].data_type == TensorProto.INT8
        assert not numpy_helper.to_array(tensors[name]).any()
    assert TensorProto.INT32 not in {tensor.data_type for tensor in tensors.values()}
    biases = [tensor for name, tensor in tensors.items() if "bias" in name]
    assert biases and {tensor.data_type for tensor in biases} == {TensorProto.FLOAT}
    test = preprocessed(pictures(300, 9), 300, RECIPE)
    assert 0 < lost(scores(model, test), scores(path, test)) < 0.4


@needs("nncf")
def test_int8_for_openvino_is_an_ir_of_two_files(model: Path, converted: Convert) -> None:
    path = converted("int8-openvino")

    assert path.suffix == ".xml" and path.with_suffix(".bin").stat().st_size > 0
    assert {file.name for file in path.parent.iterdir()} == {path.name, path.with_suffix(".bin").name, SUMS}
    assert "FakeQuantize" in path.read_text()
    test = preprocessed(pictures(300, 9), 300, RECIPE)
    assert 0 < lost(scores(model, test), openvino_scores(path, test)) < 0.4
    other = shutil.copytree(path.parent, path.parents[1] / "other") / path.name
    assert content_digest(path) == content_digest(other)
    with other.with_suffix(".bin").open("ab") as weights:
        weights.write(b"more")
    assert content_digest(path) != content_digest(other)


@needs("nncf")
def test_openvino_runs_the_onnx_form_too(model: Path, converted: Convert) -> None:
    test = preprocessed(pictures(300, 9), 300, RECIPE)

    assert 0 < lost(scores(model, test), openvino_scores(converted("int8"), test)) < 0.4


def test_fp16_keeps_float32_at_both_ends(model: Path, converted: Convert) -> None:
    path = converted("fp16")

    graph = checked(path).graph
    ends = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert ends == {TensorProto.FLOAT}
    assert {tensor.data_type for tensor in graph.initializer} == {TensorProto.FLOAT16}
    test = preprocessed(pictures(300, 9), 300, RECIPE)
    assert 0 < lost(scores(model, test), scores(path, test)) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", ["fp16", *(pytest.param(form, marks=needs("nncf")) for form in ("int8", "int8-openvino"))]
)
def test_a_folded_model_converts(model: Path, cache: Path, form: str) -> None:
    folded, left = fold(model, RECIPE, quiet)
    calibration = Calibration(preprocessed(pictures(SAMPLES, 8), SAMPLES, left), "")

    path = convert(folded, form, calibration, quiet, unheard)

    tensors, pixels = (preprocessed(pictures(300, 9), 300, recipe) for recipe in (RECIPE, left))
    got = openvino_scores(path, pixels) if path.suffix == ".xml" else scores(path, pixels)
    assert pixels.dtype == np.uint8
    assert 0 < lost(scores(model, tensors), got) < 0.4


@pytest.mark.slow
@needs("nncf")
def test_an_old_file_gets_scales_per_channel(model: Path, tmp_path: Path, cache: Path) -> None:
    old = onnx.load(model)
    old.opset_import[0].version = 11  # its operators are the same there
    for tensor in old.graph.initializer:
        old.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    old.ir_version = 3
    onnx.save(old, tmp_path / "old.onnx")

    path = convert(tmp_path / "old.onnx", "int8", samples(), quiet, unheard)

    found = checked(path)
    assert [value.name for value in found.graph.input] == ["images"]
    scales = {tensor.name: tensor.dims for tensor in found.graph.initializer if "scale" in tensor.name}
    assert [8] in [list(dims) for dims in scales.values()], "the first convolution has 8 channels"


@pytest.mark.slow
@needs("nncf")
def test_a_fixed_batch_is_calibrated_in_batches(tmp_path: Path, cache: Path) -> None:
    fixed = write_classifier(tmp_path / "fixed.onnx", batch=8)
    told: list[tuple[int, int]] = []

    path = convert(fixed, "int8", samples(20), quiet, lambda *now: told.append(now))

    assert told[-1] == (16, 16)
    assert scores(path, samples(8).tensors).shape == (8, 10)
    with pytest.raises(InputError, match="there are 7 calibration samples, expected 8 or more"):
        convert(fixed, "int8", samples(7), quiet, unheard)


# How it is made


@pytest.mark.slow
@needs("nncf")
def test_the_process_stays_as_it_was(model: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (logging.getLoggerClass(), logging.root.level, list(logging.root.handlers), list(sys.path))
    told: list[tuple[int, int]] = []

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(model, "int8", samples(), quiet, lambda *now: told.append(now))

    assert (logging.getLoggerClass(), logging.root.level, list(logging.root.handlers), list(sys.path)) == before
    assert "nncf" not in sys.modules and "nncf" not in logging.root.manager.loggerDict
    assert capfd.readouterr() == ("", "")
    assert told[-1] == (SAMPLES, SAMPLES) and {total for _, total in told} == {SAMPLES}
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.slow
@needs("nncf")
@pytest.mark.parametrize("form", ["int8", "int8-openvino"])
def test_two_conversions_give_equal_models(
    model: Path, converted: Convert, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = converted(form)
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path))

    again = convert(model, form, samples(), quiet, unheard)

    assert again != first and again.name == first.name
    if form == "int8":
        assert again.read_bytes() == first.read_bytes()
    else:
        assert again.with_suffix(".bin").read_bytes() == first.with_suffix(".bin").read_bytes()
        test = preprocessed(pictures(100, 9), 100, RECIPE)
        np.testing.assert_array_equal(openvino_scores(again, test), openvino_scores(first, test))


def test_a_model_is_made_once_per_content_form_and_samples(
    model: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(path: Path, form: str, to: Path, *_: Any) -> None:
        made.append(form)
        to.touch()

    monkeypatch.setattr(precision, "_convert", make)
    monkeypatch.setattr(precision, "_require", lambda form: None)
    copy = tmp_path / "small.onnx"
    shutil.copy(model, copy)
    other = write_classifier(tmp_path / "small2.onnx", weight_name="other")

    def run(path: Path = model, form: str = "int8", calibration: Calibration | None = None) -> Path:
        return convert(path, form, calibration or samples(), quiet, unheard)

    assert run() == run(copy)
    assert made == ["int8"]
    paths = [run(), run(form="int8-signed"), run(form="fp16"), run(form="int8-openvino"), run(other)]
    paths.append(run(calibration=samples(seed=9)))
    assert len(set(paths)) == len(made) == 6
    assert run(form="fp16", calibration=samples(seed=9)) == paths[2], "which needs no samples"
    monkeypatch.setattr(precision, "_version", lambda package: "99")
    assert run() not in paths


KILLED = """
import os, signal, sys
from pathlib import Path
from sut.models.precision.calibration import Calibration
from sut.models.precision.convert import convert
import numpy as np

def die(done, total):
    os.kill(os.getpid(), signal.SIGKILL)

tensors = np.zeros((24, 3, 16, 16), np.float32)
convert(Path(sys.argv[1]), sys.argv[2], Calibration(tensors, ""), print, die)
"""


@pytest.mark.slow
@needs("nncf")
@pytest.mark.parametrize("form", ["int8-openvino"])
def test_a_kill_in_the_middle_leaves_nothing_that_counts(model: Path, cache: Path, form: str) -> None:
    killed = run_python("-c", KILLED, model, form, cwd=CHECKOUT, TMPDIR=str(cache.parent))

    assert killed.code == -signal.SIGKILL, killed.err
    assert not [path for path in cache.iterdir() if not path.name.startswith(".")]
    assert not list(cache.parent.glob("sut-*")) and not list(cache.parent.glob("tmp*")), "no samples are left"
    calibration = Calibration(np.zeros((24, 3, SIZE, SIZE), np.float32), "")
    path = convert(model, form, calibration, quiet, unheard)
    assert path.is_file() and path.with_suffix(".bin").is_file()


def make_ir(path: Path) -> None:
    path.write_text("<net/>")
    path.with_suffix(".bin").write_bytes(b"weights")


def test_of_two_processes_that_make_an_ir_the_first_wins(cache: Path) -> None:
    def make(path: Path) -> None:
        cached("small.xml", "key", make_ir, quiet)
        path.write_text("late")
        path.with_suffix(".bin").write_bytes(b"late")

    path = cached("small.xml", "key", make, quiet)

    assert (path.read_text(), path.with_suffix(".bin").read_bytes()) == ("<net/>", b"weights")
    assert [child.name for child in cache.iterdir()] == [path.parent.name]


def test_an_ir_that_fails_leaves_nothing(cache: Path) -> None:
    def fail(path: Path) -> None:
        make_ir(path)
        raise OSError(28, os.strerror(28))

    with pytest.raises(
        InputError, match=r"cannot keep small\.xml in the cache folder .*: No space left on device; make room"
    ):
        cached("small.xml", "key", fail, quiet)
    assert list(cache.iterdir()) == []


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Something else in the place of the converting process; $5 is the number of its pipe."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("echo so much; kill -9 $$", RunError, r"process was killed by SIGKILL; it said: so much"),
        (
            'echo \'{"event": "failed", "code": 1, "message": "no good"}\' > /proc/self/fd/$5',
            InputError,
            r"small\.onnx cannot be converted to .*: no good",
        ),
        (
            'echo \'{"event": "failed", "code": 3, "message": "", "errno": 28}\' > /proc/self/fd/$5',
            InputError,
            r"No space left on device; make room",
        ),
    ],
)
def test_whatever_happens_to_the_process_is_told(
    model: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: type, said: str
) -> None:
    stand_in(tmp_path, monkeypatch, script)

    with pytest.raises(error, match=said) as caught:
        convert(model, "fp16", None, quiet, unheard)

    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


# What is refused


def write(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    found = onnx.load(write_classifier(tmp_path / "changed.onnx"))
    change(found)
    onnx.save(found, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def add_node(operator: str) -> Callable[[onnx.ModelProto], None]:
    return lambda found: found.graph.node.append(helper.make_node(operator, ["a"], ["b"], name="more"))


def add_8_bit_weight(found: onnx.ModelProto) -> None:
    found.graph.initializer.append(numpy_helper.from_array(np.zeros((2, 2), np.int8), "small.weight"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add_node("QuantizeLinear"), "a node QuantizeLinear"),
        (add_node("FakeQuantize"), "a node FakeQuantize"),
        (add_node("QLinearConv"), "a node QLinearConv"),
        (add_8_bit_weight, r"the 8-bit weight small\.weight"),
    ],
)
@pytest.mark.parametrize("form", ["int8", "fp16"])
def test_a_quantised_model_is_not_converted_again(
    tmp_path: Path, cache: Path, change: Any, said: str, form: str
) -> None:
    path = write(tmp_path, change)

    with pytest.raises(InputError, match=rf"is quantised already \(it has {said}\), expected the float32 model"):
        convert(path, form, samples(), quiet, unheard)


def test_a_float16_model_is_its_own_fp16_form_and_no_source_of_another(tmp_path: Path, cache: Path) -> None:
    path = write_classifier(tmp_path / "half.onnx", dtype="float16")

    assert convert(path, "fp16", None, quiet, unheard) == path
    with pytest.raises(InputError, match="is float16, expected float32 weights to quantise"):
        convert(path, "int8", samples(), quiet, unheard)


def test_missing_packages_are_told_with_the_command(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("nncf", "openvino") else name)

    with pytest.raises(SetupError, match="int8-openvino models need nncf, openvino; run: pip install nncf openvino"):
        convert(model, "int8-openvino", samples(), quiet, unheard)
    with pytest.raises(SetupError, match="int8 models need nncf; run: pip install nncf onnx onnxruntime"):
        convert(model, "int8", samples(), quiet, unheard)


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        (None, "int8 needs pictures to calibrate with, got none"),
        (Calibration(np.zeros((9, 3, 8, 8), np.float32), ""), r"calibration samples are float32 \[3, 8, 8\] each"),
        (Calibration(np.zeros((9, 3, SIZE, SIZE), np.uint8), ""), r"calibration samples are uint8"),
        (Calibration(np.full((9, 3, SIZE, SIZE), np.nan, np.float32), ""), "samples are not finite"),
        (Calibration(np.zeros((0, 3, SIZE, SIZE), np.float32), ""), "there are 0 calibration samples, expected 1"),
    ],
)
def test_samples_that_do_not_do_are_refused(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, calibration: Calibration | None, said: str
) -> None:
    monkeypatch.setattr(precision, "_require", lambda form: None)

    with pytest.raises(InputError, match=said):
        convert(model, "int8", calibration, quiet, unheard)


def test_an_unknown_form_is_refused_with_the_nearest(model: Path, cache: Path) -> None:
    with pytest.raises(InputError, match=r"unknown form 'int-8' of a model; did you mean int8\?"):
        convert(model, "int-8", samples(), quiet, unheard)


@needs("nncf")
def test_a_model_without_a_layer_to_quantise_is_refused(tmp_path: Path, cache: Path) -> None:
    def only_pool(found: onnx.ModelProto) -> None:
        del found.graph.node[:], found.graph.initializer[:], found.graph.output[:]
        found.graph.node.append(helper.make_node("ReduceMax", ["images"], ["most"], axes=[2, 3], keepdims=0))
        found.graph.output.append(helper.make_tensor_value_info("most", TensorProto.FLOAT, ["batch", 3]))

    path = write(tmp_path, only_pool)

    with pytest.raises(InputError, match="cannot be converted to int8: "):
        convert(path, "int8", samples(), quiet, unheard)

    assert list(cache.iterdir()) == []
