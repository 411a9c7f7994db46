"""Model files: where made ones are kept, what is inside a given one, and how one is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from backends.base import TensorSpec
from backends.onnx_weights import tensors_outside
from plugins.files import read_file
from plugins.registry import suggest
from sut.config import expanded
from sut.errors import InputError, SetupError, one_line, reason_of
from sut.text import encodable

if TYPE_CHECKING:
    from types import ModuleType

    from onnx import ModelProto, ValueInfoProto

Key = TypeVar("Key")
Made = TypeVar("Made")

_MOST_BYTES = 2**31 - 1
"""Protobuf's limit: larger models keep their weights in other files."""
_HIGHEST_IR_VERSION = 127  # the largest that is one byte; ONNX 1.23 is at 14
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
    (b"<", "an HTML or XML page"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x80", "a Python pickle"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x1f\x8b", "a gzip archive"),
)


def brought(model: str, file: str, instead: str = "", *, also: str | None = None) -> Path:
    """``file`` in $MODEL_DIR, or what it is ``also`` called: the weights of a ``model`` that only the user can bring.

    Raises ``InputError`` where it is not there, with ``instead`` as another way out.
    """
    bring = f"give --model FILE ({file}), or set MODEL_DIR to its folder" + (f", {instead}" if instead else "")
    folder = os.environ.get("MODEL_DIR")
    if not folder:
        raise InputError(f"{model} has no trained weights here: MODEL_DIR is not set; {bring}")
    path = expanded(folder).absolute() / file
    for found in (path, path.with_name(also or file)):
        if os.path.isfile(found):  # noqa: PTH113 - pathlib's raises for a path that is too long
            return found
    got = "is no file" if os.path.lexists(path) else "does not exist"
    raise InputError(f"{model} has no trained weights here: {path} {got}; {bring}")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model file says of itself.

    A shape of ``()`` also stands for one that the file does not tell. ``layout`` is not known from a file.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    """Without initializers, which old files list among the inputs."""
    outputs: tuple[TensorSpec, ...]
    opset: int = 0
    """Version of ONNX's default operator set; 0 where there is none."""
    beside: tuple[Path, ...] = ()
    """The other files that hold its weights, by name."""

    def only(self, outputs: Sequence[str] | None) -> ModelInfo:
        """Itself with these outputs alone, as ``--outputs`` names them; None for all of them.

        Raises ``InputError`` for one that it does not have.
        """
        if not outputs:
            return self
        check_names("--outputs", outputs, self.outputs)
        return replace(self, outputs=tuple(spec for spec in self.outputs if spec.name in outputs))


def check_names(flag: str, wanted: Iterable[str], specs: Sequence[TensorSpec]) -> None:
    """Raise ``InputError`` for a name that ``flag`` gives and none of a model's tensors has."""
    known = [spec.name for spec in specs]
    for name in wanted:
        if name not in known:
            raise InputError(f"{flag}: the model has no '{name}'; {suggest(name, known)}")


def check_onnx(path: Path) -> ModelInfo:
    """Read the inputs and outputs of any .onnx file; weights kept in other files are looked for but not read.

    Raises ``InputError`` for what is missing, a folder, empty, cut off, not ONNX, or lacks a data file, and
    ``SetupError`` where the ``onnx`` package is not installed.
    """
    model = _with_shapes(_parse(path, read_model(path, _MOST_BYTES, "an .onnx file")))
    beside = _external_data(path, model)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    return ModelInfo(
        path=path,
        inputs=tuple(_spec(path, value) for value in graph.input if value.name not in weights),
        outputs=tuple(_spec(path, value) for value in graph.output),
        opset=max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0),
        beside=tuple(sorted(beside)),
    )


def read_model(path: Path, most_bytes: int, expected: str) -> bytes:
    """The content of a model file. Raises ``InputError``, with what was ``expected``, where there is none."""
    try:
        data = read_file(path, most_bytes)
    except FileNotFoundError:
        raise InputError(f"model {path} does not exist, expected {expected}") from None
    except IsADirectoryError:
        raise InputError(f"model {path} is a folder, expected {expected}") from None
    except OSError as error:
        raise InputError(f"model {path} cannot be read: {reason_of(error)}; expected {expected}") from error
    if not data:
        raise InputError(f"model {path} is empty (0 bytes), expected {expected}; copy or download it again")
    return data


def _parse(path: Path, data: bytes) -> ModelProto:
    model: ModelProto = import_onnx().ModelProto()
    from google.protobuf.message import DecodeError  # what onnx itself is made of

    with suppress(DecodeError):
        model.ParseFromString(data)
        if model.graph.node and model.graph.output and model.opset_import:
            return model
    # Writers put ir_version first: tag 8, then a small number.
    if data[0] == 8 and (len(data) == 1 or 1 <= data[1] <= _HIGHEST_IR_VERSION):
        raise InputError(
            f"model {path} is cut off or damaged ({len(data)} bytes), expected a whole ONNX model;"
            " copy or download it again"
        )
    raise InputError(f"model {path} is {foreign(data)}, expected an ONNX model")


def foreign(data: bytes) -> str:
    """What a file is that is no model, by how it begins."""
    return next((what for start, what in _FOREIGN if data.startswith(start)), f"{len(data)} bytes of something else")


def _with_shapes(model: ModelProto) -> ModelProto:
    """With the shape of each output, as far as it follows from the graph, where the file does not tell one."""
    if all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        return model
    with suppress(Exception):  # what it raises for a graph that does not add up is many things
        inferred: ModelProto = import_onnx().shape_inference.infer_shapes(model)
        return inferred
    return model


def _spec(path: Path, value: ValueInfoProto) -> TensorSpec:
    onnx = import_onnx()
    if not value.type.HasField("tensor_type"):
        raise InputError(f"model {path} has {value.name}, which is not a tensor; expected tensors in and out")
    tensor = value.type.tensor_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except KeyError:
        raise InputError(f"model {path} has {value.name}, which has no known type; export the model again") from None
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim)
    return TensorSpec(value.name, dtype, shape)


def _external_data(path: Path, model: ModelProto) -> set[Path]:
    """The files that weights are kept in, each there and long enough."""
    found = set()
    for tensor in tensors_outside(model):
        facts = {entry.key: entry.value for entry in tensor.external_data}
        file = path.parent / facts.get("location", "")
        check_beside(path, file)
        try:
            needed = int(facts.get("offset", 0)) + int(facts.get("length", 0))
        except ValueError:
            raise InputError(f"model {path} is damaged: its weight {tensor.name} has no place in {file}") from None
        check_beside(path, file, needed)
        found.add(file)
    return found


def check_beside(path: Path, file: Path, needed: int = 0) -> None:
    """Raise ``InputError`` where ``file``, with the weights of a model, is not there or shorter than ``needed``."""
    if encodable(path.name) != path.name:
        raise InputError(f"model {path} keeps its weights in {file}; rename it to a name in UTF-8 to be run")
    if not file.is_file():
        got = "is no file" if file.exists() else "does not exist"
        raise InputError(f"model {path} keeps its weights in {file}, which {got}; put it beside the model")
    if file.stat().st_size < needed:
        raise InputError(
            f"model {path} keeps its weights in {file}, which is cut off: {file.stat().st_size} bytes,"
            f" expected at least {needed}; copy or download it again"
        )


def nearest_first(key: Key, made_by: dict[Key, Made], reads: Callable[[Made], Iterable[Key]]) -> Iterator[Made]:
    """What makes the tensor ``key``, then what makes the tensors which that reads, and so on; takes all of ``made_by``
    that it comes to."""
    keys = [key]
    for each in keys:  # grows: nearer tensors first
        if each in made_by:
            yield (made := made_by.pop(each))
            keys.extend(reads(made))


def import_onnx() -> ModuleType:
    """The package ``onnx``. Raises ``SetupError`` where it is not installed."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise SetupError(f"model files need the package onnx ({one_line(error)}); run: pip install onnx") from error
    return onnx
