"""A message as bytes, the same in a ring and in every broker: a fixed header, the body, the spans. Nothing is pickled.

The header is 128 bytes, so that a body behind it is as aligned as the buffer is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from struct import Struct, error
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ID = 2**63 - 1
HEADER = Struct("<2sBBI8sqq8Q32x")
"""Mark, version, dimensions (``_BYTES`` where the body is no array), bytes of spans, dtype as NumPy spells it, id, when
it was sent (ns of the machine's monotonic clock), shape (of bytes their number).
"""
_MARK, _VERSION = b"sc", 1
_BYTES = 255
_DIMENSIONS = 8
_KINDS = frozenset("biufc")
"""Of dtypes that are plain numbers: what else NumPy has holds pointers, or names that the header has no room for."""


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What goes through a channel. Whoever takes one may read its body until it is ``done``, and not write to it.

    ``id`` is unique among all messages of a channel and run, 0 to 2**63 - 1; ``body`` bytes, or an array of numbers
    with up to eight dimensions; ``spans`` plain bytes, for stamps in ns.
    """

    id: int
    body: Any
    spans: bytes = b""

    @property
    def nbytes(self) -> int:
        """Bytes of body and spans."""
        body = self.body.nbytes if isinstance(self.body, np.ndarray) else memoryview(self.body).nbytes
        return int(body) + len(self.spans)


def header_of(message: Message, sent_ns: int) -> bytes:
    """The header. Raises ``ValueError`` for an id, or an array, that a message cannot have."""
    body = message.body
    dimensions, dtype, shape = _BYTES, b"", (0,)
    if not isinstance(body, np.ndarray):
        shape = (memoryview(body).nbytes,)
    elif body.dtype.kind in _KINDS and body.ndim <= _DIMENSIONS:
        dimensions, dtype, shape = body.ndim, body.dtype.str.encode(), body.shape
    else:
        raise ValueError(
            f"message {message.id}: got an array of {body.dtype} with {body.ndim} dimensions, expected numbers and at "
            f"most {_DIMENSIONS}"
        )
    sizes = (*shape, *(0,) * (_DIMENSIONS - len(shape)))
    try:
        return HEADER.pack(
            _MARK, _VERSION, dimensions, len(message.spans), dtype, _checked(message.id), sent_ns, *sizes
        )
    except error:
        raise ValueError(f"message {message.id}: its spans have {len(message.spans)} bytes") from None


def _checked(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise ValueError(f"got message id {number}, expected one from 0 to {MAX_ID}")
    return number


def flat(body: Any) -> memoryview:
    """A body's bytes; a copy only of an array that does not lie in one piece."""
    if isinstance(body, np.ndarray):
        return np.ascontiguousarray(body).reshape(-1).view(np.uint8).data
    return memoryview(body).cast("B")


def pack(message: Message, sent_ns: int) -> tuple[bytes, memoryview, bytes]:
    """The pieces of a message, in order. Raises as ``header_of`` does."""
    return header_of(message, sent_ns), flat(message.body), message.spans


def unpack(buffer: bytes | memoryview) -> tuple[Message, int]:
    """The opposite: a message whose body lies in ``buffer``, which may be longer, and when it was sent, in ns.

    Raises ``ValueError`` for what is no message, or less than one.
    """
    if len(buffer) < HEADER.size:
        raise ValueError(f"got {len(buffer)} bytes, expected a message, whose header alone has {HEADER.size}")
    mark, version, dimensions, spans, name, number, sent_ns, *sizes = HEADER.unpack_from(buffer)
    if (mark, version) != (_MARK, _VERSION) or not (dimensions == _BYTES or dimensions <= _DIMENSIONS):
        raise ValueError(f"got bytes that begin with {bytes(buffer[:4])!r}, expected a message")
    dtype = np.dtype(np.uint8) if dimensions == _BYTES else _dtype(name)
    shape = tuple(sizes[: 1 if dimensions == _BYTES else dimensions])
    end = HEADER.size + prod(shape) * dtype.itemsize
    if end + spans > len(buffer):
        raise ValueError(f"message {number}: got {len(buffer)} bytes, expected {end + spans}")
    view = memoryview(buffer)
    body: Any = view[HEADER.size : end]
    if dimensions != _BYTES:
        body = array_on(body, shape, dtype)
    return Message(number, body, bytes(view[end : end + spans])), sent_ns


def array_on(buffer: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array that lies on ``buffer``; nothing is copied."""
    return np.ndarray(shape, dtype, buffer)


def _dtype(name: bytes) -> np.dtype[Any]:
    text = name.rstrip(b"\0").decode("ascii", "replace")
    try:
        found = np.dtype(text)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in _KINDS:
        raise ValueError(f"got a message of dtype {text!r}, expected numbers")
    return found
