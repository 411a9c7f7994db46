"""The small classifier as OpenVINO's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino

from tests.unit.small_models import write_classifier


def write_ir(
    path: Path, *, source: Path | None = None, shape: list[Any] | None = None, half: bool = False, **model: Any
) -> Path:
    """An .xml and its .bin, of an ONNX file or of the small classifier; ``half`` keeps the weights in float16."""
    source = source or write_classifier(path.with_suffix(".onnx"), **model)
    network = openvino.Core().read_model(source)
    if shape is not None:
        network.reshape(shape)
    openvino.save_model(network, path, compress_to_fp16=half)
    return path
