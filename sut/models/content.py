"""A model file as a whole: its graph with every weight in it, and the hash of what it consists of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from sut.errors import InputError, one_line
from sut.models.files import check_onnx, sha256_of

if TYPE_CHECKING:
    from onnx import ModelProto


def load_whole(path: Path) -> ModelProto:
    """Any .onnx file, with the weights that it keeps in other files.

    Raises what ``check_onnx`` does.
    """
    check_onnx(path)
    import onnx

    return onnx.load(path)


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


def content_digest(path: Path) -> str:
    """SHA-256 of a model file, as lower-case hex, and of the files beside it that hold its weights, if any.

    An OpenVINO .xml goes with its .bin. Raises what ``check_onnx`` does for other files.
    """
    files = [path, *_beside(path)]
    if len(files) == 1:
        return sha256_of(path)
    return hashlib.sha256(" ".join(map(sha256_of, files)).encode()).hexdigest()


def _beside(path: Path) -> list[Path]:
    if path.suffix == ".xml":
        weights = path.with_suffix(".bin")
        return [weights] if weights.is_file() else []
    check_onnx(path)
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    model = onnx.load(path, load_external_data=False)
    outside = filter(uses_external_data, _get_all_tensors(model))
    return [path.parent / name for name in sorted({ExternalDataInfo(tensor).location for tensor in outside})]
