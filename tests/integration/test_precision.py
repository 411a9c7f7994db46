"""Reduced precision, folding and options from the command line to result.json; what does not fit ends in one line.

Two models: Lite0's trained network, whose files stay in the user's own cache folder as in other tests, and a small one
that is converted and compared from scratch.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.children import Finished, results, run_python, run_sut
from tests.core import needs
from tests.distributions import plug_in
from tests.unit.openvino_models import write_model
from tests.unit.quantised_models import write_quantised
from tests.unit.small_models import RECIPE_FILE

FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
INT8 = (pytest.mark.slow, needs("nncf"))
needs_bf16 = pytest.mark.skipif(
    "avx512_bf16" not in FLAGS and "amx_bf16" not in FLAGS, reason="this CPU has no bfloat16 instructions"
)
Small = Callable[..., Finished]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("small")
    write_model(found / "small.onnx")
    write_model(found / "quantised.onnx", (True, True))
    write_quantised(found / "dynamic.onnx", "dynamic")
    (found / "small.yaml").write_text(RECIPE_FILE)
    return found


@pytest.fixture
def small(folder: Path, tmp_path: Path) -> Small:
    """A short run of the small model, or of that ``file``; what it makes is kept for the other tests."""

    def run(*arguments: str, file: str = "small.onnx") -> Finished:
        return run_sut(
            *("--model", folder / file, "--recipe", folder / "small.yaml", "--count", "3", "--time", "0.5"),
            *arguments,
            cwd=tmp_path,
            SUT_CACHE_DIR=str(folder / "cache"),
        )

    return run


def only(tmp_path: Path, child: Finished) -> dict[str, Any]:
    """The one result of a run that went well."""
    assert child.code == 0, child.err
    [result] = results(tmp_path).values()
    assert result["failed_samples"] == 0
    return result


def error(child: Finished) -> str:
    """The one line that a run was refused with."""
    [line] = [line for line in child.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in child.out + child.err
    return line.removeprefix("error: ")


def check_agreement(child: Finished, result: dict[str, Any], name: str) -> None:
    found = result["agreement"]
    assert 0.9 < found["low"] <= found["value"] <= found["high"] <= 1
    assert found["low"] < found["high"]
    assert found["count"] == 1000
    assert found["source"].startswith("1,000 crops of ")
    assert found["scores"] == "logits" and found["score_difference"] >= 0
    assert found["words"].endswith(f"; largest difference in logits {found['score_difference']:.2g}")
    assert f"{name} against fp32: {found['words']}" in child.out.splitlines()


# The trained model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "arguments", "executed", "name"),
    [
        pytest.param("openvino", ("--precision", "int8"), "int8", "int8", marks=INT8),
        pytest.param("openvino", ("--precision", "bf16", "--fold"), "bf16", "bf16, folded,", marks=needs_bf16),
        pytest.param("openvino", ("--precision", "int8", "--fold"), "int8", "int8, folded,", marks=INT8),
        pytest.param("onnxruntime", ("--precision", "int8"), "int8", "int8", marks=INT8),
        pytest.param("onnxruntime", ("--fold",), "fp32", "fp32, folded,", marks=pytest.mark.slow),
    ],
)
def test_the_photos_are_right_in_every_precision(
    tmp_path: Path, backend: str, arguments: tuple[str, ...], executed: str, name: str
) -> None:
    child = run_sut("--backend", backend, "--accuracy", *arguments, cwd=tmp_path, timeout_s=600)

    result = only(tmp_path, child)
    assert (result["accuracy"]["value"], result["accuracy"]["count"]) == (1.0, 11)
    assert result["attested"]["precision"] == result["precision"] == executed
    assert (result["recipe"]["dtype"] == "uint8") is ("--fold" in arguments)
    check_agreement(child, result, name)
    assert result["agreement"]["source"] == "1,000 crops of 11 pictures"
    assert ("calibrated on 300 crops of 11 scored pictures" in result["notes"]) is (executed == "int8")


# The small model


@pytest.mark.slow
@needs("nncf")
@pytest.mark.parametrize(("backend", "suffix"), [("onnxruntime", ".onnx"), ("openvino", ".xml")])
def test_int8_is_made_and_compared_once(small: Small, folder: Path, tmp_path: Path, backend: str, suffix: str) -> None:
    first = small("--backend", backend, "--precision", "int8")
    again = small("--backend", backend, "--precision", "int8", "--scenario", "Offline")

    assert f"{suffix}\n" in first.err and "making small-int8" in first.err
    assert "comparing int8 with fp32 on 1,000 crops, once" in first.err
    assert "making" not in again.err and "comparing int8" not in again.err
    found = results(tmp_path)
    assert {scenario for scenario, _ in found} == {"SingleStream", "Offline"}
    for child, scenario in ((first, "SingleStream"), (again, "Offline")):
        result = found[scenario, "performance"]
        assert child.code in (0, 4), child.err  # a run this short may be too short
        assert result["failed_samples"] == 0
        assert result["attested"]["precision"] == result["precision"] == "int8"
        assert "calibrated on 300 crops of 8 pictures that are not scored" in result["notes"]
        assert "int8 is not known to be calibrated on MLCommons' list (--rules closed)" in result["rules_broken"]
        assert result["versions"]["openvino"] and result["versions"]["nncf"]
        check_agreement(child, result, "int8")
    assert len(list((folder / "cache").glob(f"*/*-{backend}-int8-agreement.json"))) == 1


@pytest.mark.first(1)
@pytest.mark.parametrize(("backend", "most"), [("onnxruntime", 0.0), ("openvino", 1e-4)])
def test_folding_alone_changes_no_label(small: Small, tmp_path: Path, backend: str, most: float) -> None:
    child = small("--backend", backend, "--fold")

    result = only(tmp_path, child)
    assert (result["precision"], result["recipe"]["dtype"], result["recipe"]["layout"]) == ("fp32", "uint8", "NHWC")
    assert result["agreement"]["value"] == 1.0
    assert result["agreement"]["score_difference"] <= most
    check_agreement(child, result, "fp32, folded,")


def test_the_number_of_crops_is_the_users_and_none_is_said(small: Small, tmp_path: Path) -> None:
    some = small("--backend", "onnxruntime", "--fold", "--agreement", "40")
    [before] = results(tmp_path).values()
    none = small("--backend", "onnxruntime", "--fold", "--agreement", "0", "--overwrite")
    [after] = results(tmp_path).values()

    why = "the labels are not compared with fp32: --agreement 0"
    assert (before["agreement"]["count"], before["agreement"]["source"]) == (40, "40 crops of 3 pictures")
    assert (some.err.count("comparing"), none.err.count("comparing")) == (1, 0)
    assert after["agreement"] is None
    assert after["notes"].count(why) == 1
    assert f"fp32, folded: {why}" in none.out.splitlines()


@pytest.mark.slow
def test_boundaries_are_not_shown_without_the_agreement(small: Small, folder: Path, tmp_path: Path) -> None:
    command = ("-m", "sut", "boundary", "--model", folder / "small.onnx", "--recipe", folder / "small.yaml", "--fold")
    short = ("--time", "0.3", "--rounds", "1", "--json", "--output", "out")
    child = run_python(*command, *short, cwd=tmp_path, SUT_CACHE_DIR=str(folder / "cache"))

    assert child.code in (0, 4), child.err  # a run this short may be too short
    rows = json.loads(child.out)["rows"]
    assert len(rows) == 3
    for row in rows:
        assert row["agreement"]["value"] == 1.0
        assert row["agreement"]["words"].endswith("; largest difference in logits 0")


def test_ready_tensors_have_no_agreement_and_the_result_says_why(small: Small, tmp_path: Path) -> None:
    ready = ("--backend", "onnxruntime", "--fold", "--preprocessed_dir", str(tmp_path / "npy"))
    assert small(*ready, "--output", str(tmp_path / "first")).code == 0

    child = small(*ready, "--use_preprocessed_dataset")

    why = "the labels are not compared with fp32: there are no pictures to compare on, only tensors"
    result = only(tmp_path, child)
    assert result["agreement"] is None
    assert result["notes"].count(why) == 1
    assert child.err.count(why) == 1


EMULATING = """
from backends.base import Attestation
from backends.null import Null


class Emulating(Null):
    name = "emulating"

    def attest(self):
        return Attestation("cpu", "", "none", "none", {"emulated": "bf16, as this is a test"})
"""


def test_what_is_emulated_is_said(tmp_path: Path) -> None:
    plugins = plug_in(tmp_path / "plugins", "emulating", EMULATING, "Emulating")

    child = run_sut("--backend", "emulating", "--time", "0.3", cwd=tmp_path, plugins=plugins)

    result = only(tmp_path, child)
    assert result["notes"].count("emulated: bf16, as this is a test") == 1
    assert child.err.splitlines().count("  emulated: bf16, as this is a test") == 1


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("backend", "file", "precision", "more"),
    [
        ("openvino", "quantised.onnx", "int8", ()),
        # Its convolutions answer with floats: ONNX Runtime has no integer kernels for these.
        ("onnxruntime", "quantised.onnx", "fp32", ()),
        ("openvino", "dynamic.onnx", "fp32", ()),
        ("onnxruntime", "dynamic.onnx", "int8", ()),
        pytest.param("openvino", "quantised.onnx", "int8", ("--fold",), marks=pytest.mark.slow),
        pytest.param("onnxruntime", "dynamic.onnx", "int8", ("--fold",), marks=pytest.mark.slow),
    ],
)
def test_a_quantised_file_is_run_as_it_is(
    small: Small, tmp_path: Path, backend: str, file: str, precision: str, more: tuple[str, ...]
) -> None:
    child = small("--backend", backend, "--precision", precision, *more, file=file)

    result = only(tmp_path, child)
    assert result["attested"]["precision"] == result["precision"] == precision
    assert result["agreement"] is None
    assert result["notes"][:2] == ["the file is quantised already", "there is no FP32 form to compare with"]
    [work] = [note for note in result["notes"] if "multiply-accumulates" in note]
    assert work.startswith(f"{backend} executes the quantised file's multiply-accumulates in ")
    assert f"{precision}: 100.0 %" in work and f"  {work}" in child.err.splitlines()
    assert "  there is no FP32 form to compare with" in child.err.splitlines()
    assert "against fp32" not in child.out
    assert any(rule.startswith("int8 is not known to be calibrated") for rule in result["rules_broken"])


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("backend", "file", "precision", "executed"),
    [
        ("onnxruntime", "quantised.onnx", "int8", "fp32"),
        ("openvino", "quantised.onnx", "bf16", "int8"),
        ("openvino", "dynamic.onnx", "int8", "fp32"),
    ],
)
def test_a_quantised_file_is_not_called_anything_else(
    small: Small, tmp_path: Path, backend: str, file: str, precision: str, executed: str
) -> None:
    child = small("--backend", backend, "--precision", precision, file=file)

    assert child.code == 2
    assert error(child) == (
        f"SingleStream performance: asked {backend} for {precision}, but it executes in {executed}; the file is "
        f"quantised already: run it with --precision {executed}"
    )
    [result] = results(tmp_path).values()
    assert result["valid"] is False


def test_options_and_a_device_in_capitals_reach_openvino(small: Small, tmp_path: Path) -> None:
    child = small(
        *("--backend", "openvino", "--device", "CPU", "--scenario", "MultiStream", "--samples-per-query", "3"),
        *("--set", "backend_options.streams=2", "--set", "backend_options.shape=4"),
    )

    assert child.code in (0, 4), child.err  # a run this short may be too short
    [result] = results(tmp_path).values()
    assert (result["device"], result["attested"]["device"]) == ("cpu", "cpu")
    assert result["attested"]["details"]["num_streams"] == "2", "without the option there is one for each lane"
    assert result["config"]["backend_options"] == {"streams": 2, "shape": 4}
    assert result["samples"] > 0 and result["failed_samples"] == 0
    assert result["padded_samples"] >= result["queries"], "three samples go in four rows"
    assert result["agreement"] is None, "there is nothing that could differ"


# What is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--backend", "onnxruntime", "--precision", "bf16"),
            "backend onnxruntime cannot be asked for bf16; it has fp32, int8",
        ),
        (
            ("--backend", "openvino", "--set", "backend_options.stream=2"),
            "openvino has no option 'stream'; did you mean streams? known: hint (latency or throughput",
        ),
        (
            ("--backend", "onnxruntime", "--set", "backend_options.streams=2"),
            "onnxruntime has no option 'streams'; known",
        ),
        (
            ("--preprocess", "simulated", "--set", "preprocess_options.decode=2"),
            "simulated has no option 'decode'; did you mean decode_ms? known: decode_ms (milliseconds",
        ),
        (
            ("--backend", "openvino", "--fold", "--set", "backend_options.streams=many"),
            "openvino option streams: got 'many', expected a whole number from 1 to",
        ),
        (("--set", "backend_options=streams"), "backend_options: Input should be a valid dictionary, got 'streams'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    small: Small, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    child = small(*arguments)

    assert child.code == 1
    assert error(child).startswith(said)
    assert results(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--precision", "int8"), "backend null cannot be asked for int8; it has fp32"),
        (("--fold",), "--fold puts normalisation into the model, and backend null has none"),
    ],
)
def test_the_null_backend_has_no_model_to_change(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    child = run_sut("--backend", "null", "--time", "0.5", *arguments, cwd=tmp_path)

    assert (child.code, error(child)) == (1, said)


@pytest.mark.parametrize("backend", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_the_boundary_device_needs_a_backend_on_a_gpu(small: Small, backend: str) -> None:
    child = small("--backend", backend, "--boundary", "device")

    assert child.code == 2
    assert error(child) == (
        "SingleStream performance: --boundary device keeps tensors in the accelerator's memory, but "
        f"{backend} takes its input from host memory only: use --boundary tensor, or a backend that takes cuda:N"
    )


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="there is an NVIDIA driver")
def test_the_preprocessor_cuda_says_what_is_missing(small: Small) -> None:
    child = small("--backend", "onnxruntime", "--preprocess", "cuda")

    assert child.code == 2
    assert error(child).startswith("the preprocessor cuda needs what is not here: ")
    assert "no NVIDIA driver (libcuda.so.1 does not load)" in error(child)


# Preprocessors

FAILING = """
from preprocess.base import BadPicture
from preprocess.opencv import OpenCV


class Failing(OpenCV):
    name = "failing"

    def run(self, encoded, target, mark):
        for position, data in enumerate(encoded):
            if len(data) == {size}:
                raise BadPicture(position, "only whole when it was loaded")
        return super().run(encoded, target, mark)
"""


@pytest.mark.parametrize(
    ("scenario", "bad"),
    [("Offline", "second.jpg"), pytest.param("SingleStream", "first.jpg", marks=pytest.mark.slow)],
)
def test_a_picture_that_goes_bad_in_warm_up_is_named(tmp_path: Path, scenario: str, bad: str) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("first.jpg", "second.jpg", "third.jpg"):
        side = 80 if name == bad else 64  # so that its file is of another size
        encoded = cv2.imencode(".jpg", np.full((side, side, 3), 128, np.uint8))[1]
        (pictures / name).write_bytes(encoded.tobytes())
    source = FAILING.format(size=(pictures / bad).stat().st_size)
    plugins = plug_in(tmp_path / "plugins", "failing", source, "Failing", "sut.preprocessors")

    child = run_sut(
        *("--backend", "simulated", "--preprocess", "failing", "--boundary", "jpeg", "--scenario", scenario),
        *("--dataset", "folder", "--dataset-path", pictures, "--time", "0.5"),
        cwd=tmp_path,
        plugins=plugins,
    )

    assert child.code == 3
    said = f"failed before the run, in warm-up: {bad}: BadPicture: only whole when it was loaded"
    assert error(child) == f"{scenario} performance: {said}"
    [result] = results(tmp_path).values()
    assert (result["valid"], result["first_error"], result["samples"]) == (False, said, 0)


def test_planted_stages_are_as_long_as_planted(tmp_path: Path) -> None:
    planted_ms = {"decode": 6.0, "resize": 3.0, "normalize": 2.0}
    options = [word for name, ms in planted_ms.items() for word in ("--set", f"preprocess_options.{name}_ms={ms}")]

    child = run_sut(
        *("--backend", "simulated", "--preprocess", "simulated", "--boundary", "jpeg", "--time", "0.5", *options),
        *("--set", "backend_options.a_ms=4", "--set", "backend_options.b_ms=1"),
        cwd=tmp_path,
    )

    assert child.code in (0, 4), child.err  # a run this short may be too short
    [result] = results(tmp_path).values()
    assert result["samples"] > 0 and result["failed_samples"] == 0
    for stage, planted in (planted_ms | {"infer": 5.0}).items():
        assert result["stages_ns"][stage]["p50"] >= planted * 1e6, stage
    assert result["config"]["preprocess_options"] == {f"{name}_ms": ms for name, ms in planted_ms.items()}
    assert result["attested"]["details"]["batch_ms"] == "4 + 1 n"
    assert result["agreement"] is None
