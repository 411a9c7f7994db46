"""A model file as a whole: its graph with every weight in it, and the hash of what it consists of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from plugins.files import known_digest, utf8_path
from sut.errors import InputError, one_line
from sut.models import ir, tflite, torch_files
from sut.models.files import ModelInfo, check_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

_OTHERS = {
    ir.SUFFIX: ir.check_ir,
    tflite.SUFFIX: tflite.check_tflite,
    **dict.fromkeys(torch_files.KINDS, torch_files.check_torch),
}
"""What reads model files that are not ONNX."""


def check_model(path: Path) -> ModelInfo:
    """Read the inputs and outputs of any model file: .onnx, OpenVINO's .xml, .tflite, or PyTorch's.

    Raises what reading it does.
    """
    return _OTHERS.get(path.suffix, check_onnx)(path)


def load_whole(path: Path) -> ModelProto:
    """Any .onnx file, with the weights that it keeps in other files.

    Raises what ``check_onnx`` does.
    """
    check_onnx(path)
    import onnx

    with utf8_path(path) as named:
        return onnx.load(named)


def save_whole(model: ModelProto, path: Path) -> None:
    """Write a model with all its weights into one file; the same model gives the same bytes.

    Raises ``InputError`` for one that is too large for that (ONNX's limit is 2 GiB), ``OSError`` where ``path`` cannot
    be written.
    """
    try:
        data = model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf has raised ValueError and EncodeError for it
        raise InputError(f"the model is too large for one file, expected less than 2 GiB: {one_line(error)}") from error
    path.write_bytes(data)


def sums_of(path: Path) -> dict[Path, str]:
    """SHA-256 of a model file and of the files beside it that hold its weights, the model file first.

    Raises what ``check_model`` does.
    """
    return {file: known_digest(file) for file in (path, *check_model(path).beside)}


def digest_of(sums: Mapping[Path, str]) -> str:
    """SHA-256 of all of what ``sums_of`` found, as lower-case hex: that of the file where there is but one."""
    first, *others = sums.values()
    return hashlib.sha256(" ".join((first, *others)).encode()).hexdigest() if others else first


def normalises_in_training(path: Path) -> bool:
    """Whether an .onnx file has a batch norm in training mode, which some runtimes carry on from batch to batch.

    Other files have no such thing. Raises what ``check_model`` does.
    """
    check_model(path)
    if path.suffix in _OTHERS:
        return False
    import onnx

    norms = (node for node in onnx.load(path, load_external_data=False).graph.node if "BatchNorm" in node.op_type)
    return any(each.name == "training_mode" and each.i for node in norms for each in node.attribute)


def content_digest(path: Path) -> str:
    """SHA-256 of a model file and of the files beside it that hold its weights. Raises what ``sums_of`` does."""
    return digest_of(sums_of(path))
