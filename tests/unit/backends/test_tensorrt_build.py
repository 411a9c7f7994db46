"""Engines of whole models, really built by TensorRT-RTX without a GPU, none of which is run.

EfficientNet-Lite0, and ResNet-50 with random weights, in FP32, FP16 and INT8: for each GPU architecture that is listed
an engine for one sample, and for batches of 1 to 8 one for all of them together. For Turing (sm_75) there is FP16
alone: of the others it is checked that one line says why.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from sut.datasets.demo import open_demo
from sut.models.precision.calibration import preprocessed, random_crops, read_picture
from sut.models.precision.fold import folded
from sut.models.registry import find
from tests.core import module_needs

module_needs("tensorrt-rtx")

from backends.tensorrt_engine import Build, architectures, build_engine, import_tensorrt  # noqa: E402
from backends.tensorrt_onnx import with_casts_first  # noqa: E402
from benchmarks.tensorrt_engines import MODELS, SIZES, prepared  # noqa: E402

pytestmark = pytest.mark.slow
trt = import_tensorrt()
TURING = "sm_75"
WEIGHTS = {"efficientnet-lite0": 4.6e6, "resnet50": 25.5e6}
"""How many there are, about."""
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@pytest.mark.parametrize("precision", BYTES)
@pytest.mark.parametrize("model", MODELS)
def test_engines_are_built_for_every_architecture(model: str, precision: str) -> None:
    file, shape = prepared(model, precision)
    path, known = file.file, architectures(trt)
    assert {TURING, "sm_80", "sm_86", "sm_89", "sm_120"} <= {*known}
    least = BYTES[precision] * WEIGHTS[model]

    for each in known:
        build = Build((1,), shape, architectures=(each,))
        if each == TURING and precision != "fp16":
            with pytest.raises(ValueError, match=r"cannot build an engine of it: .*FP32 GEMM is not supported.*$"):
                build_engine(trt, path, build)
        else:
            assert len(build_engine(trt, path, build)[0]) > 0.9 * least
    together = tuple(each for each in known if each != TURING)
    assert len(build_engine(trt, path, Build(SIZES, shape, architectures=together))[0]) > 0.9 * least


def labels(model: bytes, samples: NDArray[np.uint8]) -> NDArray[np.int64]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [scores] = session.run(None, {session.get_inputs()[0].name: samples})
    return np.asarray(scores).argmax(1)


def test_int8_that_takes_pixels_is_built_and_keeps_its_labels() -> None:
    model, shape = prepared(MODELS[0], "int8", fold=True)

    plan, _ = build_engine(trt, model.file, Build((1, 8), shape, architectures=("sm_89",)))

    assert len(plan) > WEIGHTS[MODELS[0]]
    changed, photos = with_casts_first(model.file), open_demo()
    assert changed != model.file.read_bytes()
    whole = [read_picture(photos, index, "compare on") for index in range(photos.count)]
    pictures = [*whole, *random_crops(whole, len(whole), 50, 7)]
    samples = preprocessed(iter(pictures), len(pictures), folded(find(MODELS[0]).recipe))
    assert samples.dtype == np.uint8 and samples.shape[1:] == shape
    np.testing.assert_array_equal(labels(changed, samples), labels(model.file.read_bytes(), samples))
