"""Model files: where made ones are kept, what is inside a given one, and how one is written."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import kernels.cache
from backends.base import TensorSpec
from kernels.files import SMALL_BYTES, lock, open_file, read_file
from sut.config import expanded
from sut.errors import InputError, SetupError, one_line, suggest
from sut.models.base import Say
from sut.text import encodable

if TYPE_CHECKING:
    from types import ModuleType

    from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, TensorProto, ValueInfoProto

SUMS = "sha256sums"
"""Beside made files: their sums, as ``sha256sum`` writes them, under the hash of the key that they were made for."""

_LEFTOVER_AGE_S = 3600.0
_BLOCK_BYTES = 1 << 20
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


def cache_dir() -> Path:
    """The folder for made files, as ``kernels.cache`` has it. Raises ``InputError`` where no home folder is known."""
    try:
        return kernels.cache.cache_dir()
    except ValueError as error:
        raise InputError(one_line(error)) from error


def cached(name: str, key: str, make: Callable[[Path], None], say: Say, *, quietly: bool = False) -> Path:
    """The cached file for ``name`` and ``key``; where it is not there yet, ``make(path)`` writes it and ``say`` tells.

    ``key`` names everything the content depends on (the hash of the weights, the builder's version): another key is
    another file. Each file has a folder of its own, with whatever else ``make`` puts beside it and the sums of both,
    by which alone it is believed: what was damaged or exchanged is made again, and ``say`` tells that even if
    ``quietly``. The folder is made under a random name that nothing had before and then renamed, so it is there as a
    whole or not at all, whoever was killed; of two processes at once both make it and the first one's stays.

    Raises ``InputError`` where the cache folder cannot be written or the disk is full, and what ``make`` raises.
    """
    cache = cache_dir()
    digest = hashlib.sha256(key.encode()).hexdigest()
    folder = cache / f"{Path(name).stem}-{digest[:16]}"
    path = folder / name
    part = cache / f".{folder.name}.{secrets.token_hex(8)}.part"
    try:
        if _is_whole(path, digest):
            return path
        kernels.cache.make_private(cache)
        _remove_leftovers(cache, folder.name)
        if os.path.lexists(folder):
            say(f"making {name} again: {folder} is not as it was made")
        elif not quietly:
            say(f"making {name} once, as {path}")
        try:
            part.mkdir()
            make(part / name)
            _seal(part, digest)
            _put(part, path, digest)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise InputError(
            f"cannot keep {name} in the cache folder {cache}: {reason}; make room or set SUT_CACHE_DIR to another"
        ) from error
    return path


def _is_whole(path: Path, digest: str) -> bool:
    """Whether a made file and those beside it are as they were made, for this key."""
    try:
        first, *lines = read_file(path.parent / SUMS, SMALL_BYTES).decode().splitlines()
        sums = {name: found for found, _, name in (line.partition("  ") for line in lines)}
        if first != f"# {digest}" or path.name not in sums:
            return False
        return all(known_digest(path.with_name(name)) == found for name, found in sums.items())
    except (OSError, ValueError):
        return False


def _seal(part: Path, digest: str) -> None:
    """Write the sums, and bring everything to the disk."""
    sums = "".join(f"{sha256_of(file)}  {file.name}\n" for file in sorted(part.iterdir()))
    (part / SUMS).write_text(f"# {digest}\n{sums}", encoding="utf-8")
    for file in part.iterdir():
        with file.open("rb+") as written:
            os.fsync(written.fileno())


def _put(part: Path, path: Path, digest: str) -> None:
    """Put what was made in its place, unless another process was faster; one at a time, so that none takes it away."""
    folder = path.parent
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        lock(descriptor)
        if _is_whole(path, digest):
            return
        if os.path.lexists(folder):
            folder.rename(aside := part.with_suffix(".old.part"))
            part.rename(folder)
            _remove(aside)
        else:
            part.rename(folder)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Delete a file or a folder, as far as that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()


def brought(model: str, file: str, instead: str = "") -> Path:
    """``file`` in $MODEL_DIR: the weights of a ``model`` that only the user can bring.

    Raises ``InputError`` where it is not there, with ``instead`` as another way out.
    """
    bring = f"give --model FILE ({file}), or set MODEL_DIR to its folder" + (f", {instead}" if instead else "")
    folder = os.environ.get("MODEL_DIR")
    if not folder:
        raise InputError(f"{model} has no trained weights here: MODEL_DIR is not set; {bring}")
    path = expanded(folder).absolute() / file
    if os.path.isfile(path):  # noqa: PTH113 - pathlib's raises for a path that is too long
        return path
    got = "is no file" if os.path.lexists(path) else "does not exist"
    raise InputError(f"{model} has no trained weights here: {path} {got}; {bring}")


def _remove_leftovers(folder: Path, name: str) -> None:
    """Delete what killed processes left; younger ones may still be written by a living one."""
    for part in folder.glob(f".{name}.*.part"):
        with suppress(OSError):
            if time.time() - part.lstat().st_mtime > _LEFTOVER_AGE_S:
                _remove(part)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read now, in blocks."""
    return _read_digest(path, "sha256")


def known_digest(path: Path, algorithm: str = "sha256") -> str:
    """The same, by any algorithm of ``hashlib``, read once in this process for as long as the file is not touched."""
    status = path.stat()
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _digest_at(path, algorithm, stamp)


@lru_cache(maxsize=64)
def _digest_at(path: Path, algorithm: str, stamp: tuple[int, ...]) -> str:
    return _read_digest(path, algorithm)


def _read_digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    with open_file(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


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
        reason = error.strerror or one_line(error)
        raise InputError(f"model {path} cannot be read: {reason}; expected {expected}") from error
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
    got = next((what for start, what in _FOREIGN if data.startswith(start)), f"{len(data)} bytes of something else")
    raise InputError(f"model {path} is {got}, expected an ONNX model")


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
    for tensor in (each for part in (model.graph, *model.functions) for each in _tensors(part)):
        if not tensor.external_data:
            continue
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


def _tensors(graph: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    """Every tensor of a graph or function and of the graphs within its nodes."""
    yield from getattr(graph, "initializer", ())
    attributes: Iterator[AttributeProto] = (attribute for node in graph.node for attribute in node.attribute)
    for attribute in attributes:
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def import_onnx() -> ModuleType:
    """The package ``onnx``. Raises ``SetupError`` where it is not installed."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise SetupError(f"model files need the package onnx ({one_line(error)}); run: pip install onnx") from error
    return onnx
