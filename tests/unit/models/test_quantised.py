"""Files that were quantised elsewhere: what the bare runtimes run is run, and called by what it executes in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from backends.base import Backend, ModelFile
from backends.onnxruntime import OnnxRuntime
from backends.openvino import OpenVino
from sut.models.precision.calibration import preprocessed
from tests.unit.quantised_models import DYNAMIC, STATIC, write_quantised
from tests.unit.small_models import RECIPE, pictures, scores

KINDS = (*DYNAMIC, *STATIC)
NOT_FOR_OPENVINO = "operators"
"""QGemm and QLinearGlobalAveragePool, which are ONNX Runtime's own."""

NEAR_TIE = 0.05
"""Of the scores' range: a step of 8 bits, rounded otherwise in one layer or two."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("quantised")
    return {kind: write_quantised(folder / f"{number}.onnx", kind) for number, kind in enumerate(KINDS)}


def file_of(path: Path, precision: str) -> ModelFile:
    return ModelFile(path, precision, RECIPE.sample_shape, quantised=True)


@pytest.mark.parametrize(
    ("kind", "executed", "kernels"),
    [
        ("dynamic", "int8", "ConvInteger: 3, DynamicQuantizeMatMul: 1"),
        ("dynamic, unsigned weights", "int8", "ConvInteger: 3, DynamicQuantizeMatMul: 1"),
        ("dynamic head", "fp32+int8", "Conv: 3, DynamicQuantizeMatMul: 1"),
        ("unsigned", "int8", "QGemm: 1, QLinearConv: 3"),
        ("signed", "int8", "QGemm: 1, QLinearConv: 3"),
        ("signed, per channel", "int8", "QGemm: 1, QLinearConv: 3"),
        ("unsigned weights", "int8", "QGemm: 1, QLinearConv: 3"),
        ("in part", "fp32+int8", "Conv: 2, Gemm: 1, QLinearConv: 1"),
        ("operators", "int8", "QGemm: 1, QLinearConv: 3"),
    ],
)
def test_onnxruntime_is_attested_by_the_kernels_that_ran(
    files: dict[str, Path], kind: str, executed: str, kernels: str
) -> None:
    with OnnxRuntime.load(file_of(files[kind], "int8"), "cpu", 1, 1) as backend:
        found = backend.attest()

    assert (found.precision, found.details["kernels"]) == (executed, kernels)


@pytest.mark.parametrize("backend", [OnnxRuntime, OpenVino])
def test_parts_are_told_by_their_arithmetic(files: dict[str, Path], backend: type[Backend]) -> None:
    quantised, left = 8 * 9 * 256, 8 * 27 * 256 + 16 * 72 * 256 + 16 * 10
    part = 100 * quantised / (quantised + left)

    with backend.load(file_of(files["in part"], "fp32"), "cpu", 1, 1) as loaded:
        found = loaded.attest()

    assert found.precision == "fp32+int8"
    share = re.fullmatch(r"fp32: .* %, int8: (.*) %", found.details["multiply_accumulates"])
    # Not exactly: ONNX Runtime counts the channels that it adds to fill a vector, too.
    assert share and float(share[1]) == pytest.approx(part, abs=1)


@pytest.mark.parametrize(
    ("kind", "executed"),
    [
        ("dynamic", "fp32"),
        ("dynamic, unsigned weights", "fp32"),
        ("dynamic head", "fp32"),
        ("unsigned", "int8"),
        ("signed", "int8"),
        ("signed, per channel", "int8"),
        ("unsigned weights", "fp32+int8"),
        ("in part", "fp32+int8"),
    ],
)
def test_openvino_executes_what_it_has_no_integer_kernels_for_in_fp32(
    files: dict[str, Path], kind: str, executed: str
) -> None:
    samples = preprocessed(pictures(8, 9), 8, RECIPE)

    with OpenVino.load(file_of(files[kind], "fp32"), "cpu", 1, 1) as backend, backend.runner() as runner:
        assert backend.attest().precision == executed
        slot = runner.slot(1)
        for sample in samples:  # alone: some of these files look at the whole batch for their scales
            slot.buffers["images"][:] = sample
            found = runner.infer(slot)["scores"][0]
            best = scores(files[kind], sample[None]).argmax()
            assert found[best] >= found.max() - NEAR_TIE * np.ptp(found)


def test_what_openvino_cannot_convert_is_named(files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"openvino cannot run it: .*QGemm"):
        OpenVino.load(file_of(files[NOT_FOR_OPENVINO], "int8"), "cpu", 1, 1)
