"""Tensors as the open inference protocol (KServe's v2) sends them: datatypes, raw bytes, and pictures as inputs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec

DTYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
"""NumPy's names of the protocol's datatypes. An element of BYTES is a bytes object."""
DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}

Wire = Literal["jpeg", "pixels", "tensor"]
"""What crosses of a picture: its file's bytes, its decoded pixels, or the model's input."""
JPEG, PIXELS = "jpeg", "pixels"
"""Names of the inputs that ``sut serve`` has for pictures that it preprocesses itself."""
PICTURES = {
    JPEG: TensorSpec(JPEG, "object", (None, 1)),
    PIXELS: TensorSpec(PIXELS, "uint8", (None, None, None, 3), "NHWC"),
}
"""Those inputs. Pixels are RGB; pictures of one request are of one size."""

ANSWER = TensorSpec("answer", "float32", (None,), "N")
"""The output that ``sut serve --answers`` has in the place of the model's: labels as LoadGen gets them."""

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where a tensor's elements are that is not sent as bytes."""

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What reading JSON of somebody else may raise."""

_LENGTH = struct.Struct("<I")


def wire_of(spec: TensorSpec) -> Wire:
    """What a server wants for an input: files where it takes BYTES, pixels where height and width are open."""
    if spec.dtype == "object":
        return "jpeg"
    axes = spec.shape[-3:]
    return "pixels" if spec.dtype == "uint8" and axes[:2] == (None, None) and axes[2:] == (3,) else "tensor"


def spec_of(name: str, datatype: str, shape: Iterable[int], sample_shape: tuple[int, ...] | None = None) -> TensorSpec:
    """An input or output of a server's metadata, whose open axes are -1.

    Raises ``ValueError`` for a datatype that there is none of in NumPy.
    """
    axes = tuple(None if int(axis) < 0 else int(axis) for axis in shape)
    if datatype not in DTYPES:
        raise ValueError(f"tensor '{name}' is {datatype}, expected one of {', '.join(DTYPES)}")
    return TensorSpec.of(name, DTYPES[datatype], axes, sample_shape)


def to_bytes(array: NDArray[Any]) -> bytes:
    """An array as the protocol sends it: row-major, little endian; elements of BYTES each behind their length."""
    if array.dtype != object:
        return array.tobytes()
    return b"".join(part for item in array.flat for part in (_LENGTH.pack(len(item)), item))


def from_bytes(raw: bytes | memoryview, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """The array that was sent, a view of ``raw`` unless it is BYTES.

    Raises ``ValueError`` for an unknown datatype, and where the bytes are not those of that shape.
    """
    if datatype not in DTYPES:
        raise ValueError(f"got the datatype {datatype}, expected one of {', '.join(DTYPES)}")
    count = prod(shape)
    if any(axis < 0 for axis in shape):
        raise ValueError(f"got the shape {list(shape)}, expected no negative axis")
    if datatype == "BYTES":
        return _elements(raw, count).reshape(shape)
    dtype = np.dtype(DTYPES[datatype])
    if len(raw) != count * dtype.itemsize:
        raise ValueError(f"got {len(raw):,} bytes for {datatype} {list(shape)}, expected {count * dtype.itemsize:,}")
    return np.frombuffer(raw, dtype).reshape(shape)


def from_contents(contents: Any, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """The array of a message of gRPC that has its elements one by one. Raises ``ValueError`` as ``from_bytes``."""
    if datatype not in _CONTENTS:
        raise ValueError(f"a tensor of {datatype} is sent as raw contents only")
    try:
        return np.array(list(getattr(contents, _CONTENTS[datatype])), DTYPES[datatype]).reshape(tuple(shape))
    except OverflowError as error:
        raise ValueError(str(error)) from error


def _elements(raw: bytes | memoryview, count: int) -> NDArray[Any]:
    """So many elements of BYTES. Raises ``ValueError`` where there are fewer or more."""
    if count * _LENGTH.size > len(raw):  # before room is made for as many as somebody says
        raise ValueError(f"{len(raw):,} bytes are too few for {count:,} elements of BYTES")
    found = np.empty(count, object)
    at = 0
    for position in range(count):
        if len(raw) - at < _LENGTH.size:
            raise ValueError(f"got {position:,} elements of BYTES, expected {count:,}")
        [length] = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if len(raw) - at < length:
            raise ValueError(f"element {position} of BYTES says {length:,} bytes, and {len(raw) - at:,} are there")
        found[position] = bytes(raw[at : at + length])
        at += length
    if at != len(raw):
        raise ValueError(f"got {len(raw) - at:,} bytes behind {count:,} elements of BYTES")
    return found
