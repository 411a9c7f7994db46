"""Reads tensors from the file format that torch wrote before its zip archives, without torch and without trust.

Such a file is four pickles (a magic number, a protocol number, facts about the writing machine, the object itself), a
fifth with the storages' keys, and then each storage as an int64 count and its raw values. A pickle can call anything it
can name, so the unpickler here knows three kinds of names and refuses every other before it is looked up.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sut.errors import one_line, reason_of

MAGIC = 0x1950A86A20F9469CFC6C
"""``MAGIC_NUMBER`` of torch/serialization.py."""
PROTOCOL = 1001
"""``PROTOCOL_VERSION`` of torch/serialization.py."""

_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view on a storage whose values come later in the file. ``strides`` and ``offset`` count values, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_unused: Any) -> _Tensor:
    """Stands in for ``torch._utils._rebuild_tensor_v2``; gradients and hooks are dropped."""
    counts = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor without a storage or with unequal shape and strides")
    if any(type(value) is not int or value < 0 for value in counts):
        raise pickle.UnpicklingError(f"a tensor with offset, shape and strides {counts}")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, count, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise pickle.UnpicklingError("it has a storage of an unknown kind")
        return _Storage(str(key), dtype, count)


def load_state_dict(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Read the tensors of a legacy torch file: name to a contiguous array of the stored shape and dtype.

    Nothing of the file is interpreted before its SHA-256 is found to be ``sha256`` (lower-case hex). Allowed in the
    pickle: ``collections.OrderedDict``, ``torch._utils._rebuild_tensor_v2`` and ``torch.*Storage``.

    Raises ``ValueError``, in one line, for a file that cannot be read, has another hash, is no such file, ends early
    or names anything else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"weights {path} cannot be read: {reason_of(error)}") from error
    got = hashlib.sha256(data).hexdigest()
    if got != sha256:
        raise ValueError(f"weights {path} have sha256 {got} ({len(data)} bytes), expected {sha256}")
    try:
        return _parse(data)
    except Exception as error:  # a damaged pickle may raise any exception, as the pickle module documents
        raise ValueError(f"weights {path} are not a legacy torch file of tensors: {one_line(error)}") from error


def _parse(data: bytes) -> dict[str, NDArray[Any]]:
    stream = io.BytesIO(data)
    magic, protocol, machine = (_Unpickler(stream).load() for _ in range(3))
    if magic != MAGIC or protocol != PROTOCOL:
        raise ValueError(f"it starts with {magic!r} and {protocol!r}, expected {MAGIC} and {PROTOCOL}")
    if not machine["little_endian"]:
        raise ValueError("its values are big-endian, expected little-endian")
    tensors = _Unpickler(stream).load()
    keys = _Unpickler(stream).load()
    if not isinstance(tensors, dict) or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ValueError("it holds something else than tensors by name")
    storages = _read_storages(stream, keys, {tensor.storage.key: tensor.storage for tensor in tensors.values()})
    return {str(name): _view(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_storages(stream: io.BytesIO, keys: Sequence[str], known: dict[str, _Storage]) -> dict[str, NDArray[Any]]:
    values = {}
    for key in keys:
        storage = known[key]
        count = int.from_bytes(stream.read(8), "little")
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} values, expected {storage.count}")
        raw = stream.read(count * storage.dtype.itemsize)
        if len(raw) != count * storage.dtype.itemsize:
            raise ValueError(f"it ends within storage {key}")
        values[key] = np.frombuffer(raw, storage.dtype)
    return values


def _view(tensor: _Tensor, values: NDArray[Any]) -> NDArray[Any]:
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 not in tensor.shape and tensor.offset + steps >= values.size:
        raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its storage of {values.size} values")
    if values.dtype != tensor.storage.dtype:
        raise ValueError(f"storage {tensor.storage.key} is used as {tensor.storage.dtype} and {values.dtype}")
    strides = tuple(stride * values.itemsize for stride in tensor.strides)
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides))
