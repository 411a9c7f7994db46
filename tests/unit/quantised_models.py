"""The small classifier as ONNX Runtime's own tools quantise it, in ways that runtimes execute differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from sut.models.precision.calibration import preprocessed
from tests.unit.small_models import RECIPE, pictures, write_classifier

SIGNED, UNSIGNED = QuantType.QInt8, QuantType.QUInt8
DYNAMIC: dict[str, dict[str, Any]] = {
    "dynamic": {"weight_type": SIGNED},
    "dynamic, unsigned weights": {"weight_type": UNSIGNED},
    "dynamic head": {"weight_type": SIGNED, "op_types_to_quantize": ["Gemm", "MatMul"]},
}
STATIC: dict[str, dict[str, Any]] = {
    "unsigned": {"activation_type": UNSIGNED, "weight_type": SIGNED},
    "signed": {"activation_type": SIGNED, "weight_type": SIGNED},
    "signed, per channel": {"activation_type": SIGNED, "weight_type": SIGNED, "per_channel": True},
    "unsigned weights": {"activation_type": UNSIGNED, "weight_type": UNSIGNED},
    "in part": {"activation_type": UNSIGNED, "weight_type": SIGNED, "nodes_to_quantize": ["depthwise"]},
    "operators": {"activation_type": UNSIGNED, "weight_type": SIGNED, "quant_format": QuantFormat.QOperator},
}
"""With Q/DQ nodes, the last one with integer operators instead."""


class Samples(CalibrationDataReader):
    """Eight pictures, one at a time."""

    def __init__(self) -> None:
        self._left = iter(preprocessed(pictures(8), 8, RECIPE))

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        sample = next(self._left, None)
        return None if sample is None else {"images": sample[None]}


def write_quantised(path: Path, kind: str) -> Path:
    """One of ``DYNAMIC`` or ``STATIC``: ``images`` in, ``scores`` [batch, 10] out."""
    plain = onnx.shape_inference.infer_shapes(onnx.load(write_classifier(path)))
    if kind in DYNAMIC:
        quantize_dynamic(plain, path, **DYNAMIC[kind])
    else:
        quantize_static(plain, path, Samples(), **{"quant_format": QuantFormat.QDQ, **STATIC[kind]})
    return path
