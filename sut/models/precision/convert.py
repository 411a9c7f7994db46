"""Forms of a model in lower precision, made from its ONNX file once and kept.

The quantiser is noisy, changes the process it is imported into (logging, rich, its telemetry) and keeps its memory, so
it works in a process of its own (``quantize.py``); here is what surrounds that: what may be converted, where
the result is kept, and what the user is told.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plugins.registry import suggest
from sut.errors import InputError, SetupError
from sut.files import cached
from sut.models import tflite, torch_files
from sut.models.content import check_model, content_digest, load_whole
from sut.models.files import ModelInfo
from sut.models.ir import SUFFIX, layer_types
from sut.models.own import fits, shown
from sut.models.precision.calibration import Calibration
from sut.models.precision.quantize import ConversionOrders
from sut.process.child import follow
from sut.process.messages import STEPS, Failed
from sut.text import Progress, Say, printable

if TYPE_CHECKING:
    from onnx import ModelProto

CONVERTER = 2
"""To be raised with every change of how files are converted: it is part of the cache key."""
EXACT_BEHIND = 1
"""The same of what is left in floats behind the last layers."""

FORMS = {
    "fp16": ("onnx", "onnxruntime"),
    "int8": ("nncf", "onnx", "onnxruntime"),
    "int8-openvino": ("nncf", "openvino", "onnx"),
    "int8-signed": ("nncf", "onnx", "onnxruntime"),
}
"""The forms, and the packages that make each: float16 weights and layers with float32 inputs and outputs; ONNX with
Q/DQ nodes whose activations are unsigned where they are never negative; OpenVINO IR; ONNX with symmetric signed
activations, as TensorRT wants them."""

_QUANTISING_NODES = ("QuantizeLinear", "DynamicQuantizeLinear", "FakeQuantize")
_INTEGER_NODES = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger")


def convert(
    model: Path,
    form: str,
    calibration: Calibration | None,
    say: Say,
    progress: Progress,
    *,
    exact_behind: bool = False,
) -> Path:
    """``model``, an .onnx file in float32, in another of ``FORMS``; made once per content, calibration and tools.

    OpenVINO's own files are converted to ``int8-openvino`` only.

    ``calibration`` is for the int8 forms, whose layers are chosen by NNCF's preset PERFORMANCE. The answer is an .onnx
    file, for ``int8-openvino`` an .xml with its .bin beside it; for ``fp16`` the model itself if it has that form. With
    ``exact_behind`` the int8 forms compute in floats what stands behind the last layers with weights.

    Raises ``InputError`` for a model that is quantised already or cannot be, and for samples that do not fit it;
    ``SetupError`` where a package is missing; ``RunError`` where the converting process died; and as ``cached`` does.
    """
    if form not in FORMS:
        raise InputError(f"unknown form {form!r} of a model; {suggest(form, FORMS)}")
    info = check_model(model)
    if model.suffix == SUFFIX:
        if form != "int8-openvino":
            raise InputError(f"model {model} is OpenVINO's IR, expected an .onnx file to make {form} of")
    else:
        whole = load_whole(model)
        _refuse_quantised(model, whole)
        if is_float16(whole):
            if form == "fp16":
                return model
            raise InputError(f"model {model} is float16, expected float32 weights to quantise; bring that file")
    _require(form)
    if form == "fp16":
        calibration = None
    elif calibration is None:
        raise InputError(f"{form} needs pictures to calibrate with, got none")
    else:
        _check_samples(model, info, calibration)
    key = {
        "converter": CONVERTER,
        "model": content_digest(model),
        "form": form,
        "calibration": calibration.digest if calibration else None,
        "tools": {package: _version(package) for package in FORMS[form]},
    }
    if exact_behind and calibration is not None:
        key["exact behind"] = EXACT_BEHIND
    name = f"{printable(model.stem)}-{form}{'.xml' if form == 'int8-openvino' else '.onnx'}"
    text = json.dumps(key, sort_keys=True)
    return cached(name, text, lambda path: _convert(model, form, path, calibration, exact_behind, progress), say)


def is_float16(model: ModelProto) -> bool:
    """Whether a model's weights, its tensors of two axes or more, are float16 and none of them float32."""
    from onnx import TensorProto

    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    return TensorProto.FLOAT16 in kinds and TensorProto.FLOAT not in kinds


def quantising_node(path: Path) -> str | None:
    """The operator of the first node that has a runtime compute a model in 8 bits; None where there is none.

    8-bit weights alone do not: DequantizeLinear makes them floats before anything is computed. Raises what
    ``check_model`` does.
    """
    check_model(path)
    if path.suffix == tflite.SUFFIX:
        return tflite.quantised_operator(path)
    if path.suffix in torch_files.KINDS:
        return None
    if path.suffix == SUFFIX:
        return _first(layer_types(path), _QUANTISING_NODES)
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return _first((node.op_type for node in graph.node), _QUANTISING_NODES)


def _first(operators: Iterable[str], among: tuple[str, ...]) -> str | None:
    return next((each for each in operators if each in among or each.startswith(_INTEGER_NODES)), None)


def _refuse_quantised(path: Path, model: ModelProto) -> None:
    from onnx import TensorProto

    operator = _first((node.op_type for node in model.graph.node), (*_QUANTISING_NODES, "DequantizeLinear"))
    weights = (
        f"the 8-bit weight {tensor.name}"
        for tensor in model.graph.initializer
        if len(tensor.dims) > 1 and tensor.data_type in (TensorProto.INT8, TensorProto.UINT8)
    )
    found = f"a node {operator}" if operator else next(weights, None)
    if found:
        raise InputError(
            f"model {path} is quantised already (it has {found}), expected the float32 model to convert; bring that, "
            "or run the file as it is"
        )


def _require(form: str) -> None:
    missing = [package for package in FORMS[form] if importlib.util.find_spec(package) is None]
    if missing:
        raise SetupError(f"{form} models need {', '.join(missing)}; run: pip install {' '.join(FORMS[form])}")


def _version(package: str) -> str:
    for distribution in (package, f"{package}-gpu"):
        with suppress(PackageNotFoundError):
            return version(distribution)
    return "unknown"


def _check_samples(path: Path, info: ModelInfo, calibration: Calibration) -> None:
    tensors = calibration.tensors
    where = f"model {path} takes {shown(info.inputs)}"
    one_alike = len(info.inputs) == 1 and info.inputs[0].dtype == tensors.dtype.name
    if not one_alike or not fits(info.inputs[0].shape[1:], tensors.shape[1:]):
        raise InputError(f"{where}, but the calibration samples are {tensors.dtype} {list(tensors.shape[1:])} each")
    batch = info.inputs[0].shape[0] or 1
    if len(tensors) < batch:
        raise InputError(f"{where}, but there are {len(tensors)} calibration samples, expected {batch} or more")
    if not np.isfinite(tensors).all():
        raise InputError("the calibration samples are not finite (NaN or inf), expected numbers")


def _convert(
    model: Path, form: str, to: Path, calibration: Calibration | None, exact_behind: bool, progress: Progress
) -> None:
    """Convert in a process of its own, which ends with this one, at an exception here, or when it falls silent."""
    with tempfile.TemporaryFile() as samples:
        # Files without a name: nothing of them is left, whoever is killed.
        if calibration is not None:
            np.save(samples, calibration.tensors)
            samples.seek(0)
        orders = ConversionOrders(model, form, to, samples.fileno() if calibration else None, exact_behind)
        fds = (orders.samples,) if orders.samples is not None else ()
        # NNCF would send usage statistics; this variable of its own stops it.
        variables = {"NNCF_CI": "1"}
        doing = f"converting {model} to {form}"
        module = "sut.models.precision.quantize"
        failed = follow(module, orders, STEPS, doing, progress, fds=fds, variables=variables)
    if isinstance(failed, Failed):
        if failed.errno:
            raise OSError(failed.errno, os.strerror(failed.errno))
        raise InputError(f"model {model} cannot be converted to {form}: {failed.named}")
