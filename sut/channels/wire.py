"""A message as bytes, the same in a ring and in every broker: a fixed header, the body, the spans. Nothing is pickled.

The header is 128 bytes, so that a body behind it is as aligned as the buffer is. Its head is each message's own; its
form is what the body is, and is mostly that of the message before.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from struct import Struct, error
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ID = 2**63 - 1
HEADER_BYTES = 128
_HEAD = Struct("<2sBxIqq")
"""Mark, version, bytes of spans, id, when it was sent (ns of the machine's monotonic clock)."""
_FORM = Struct("<8s8QB31x")
"""dtype as NumPy spells it, shape (of bytes their number), dimensions (``_BYTES`` where the body is no array)."""
FORM = slice(_HEAD.size, HEADER_BYTES)
"""Where in a message its form is."""
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
        return size_of(self.body) + len(self.spans)


def size_of(body: Any) -> int:
    """A body's bytes, as many as it takes where it lies in one piece."""
    return int(body.nbytes) if isinstance(body, np.ndarray) else memoryview(body).nbytes


def check(message: Message) -> None:
    """Raises ``ValueError`` for an id, or an array, that a message cannot have."""
    if not 0 <= message.id <= MAX_ID:
        raise ValueError(f"got message id {message.id}, expected one from 0 to {MAX_ID}")
    body = message.body
    if isinstance(body, np.ndarray) and (body.dtype.kind not in _KINDS or body.ndim > _DIMENSIONS):
        raise ValueError(
            f"got an array of {body.dtype} with {body.ndim} dimensions, expected numbers and at most {_DIMENSIONS}"
        )


def form_of(body: Any) -> bytes:
    """What is written of a checked body into the header."""
    if not isinstance(body, np.ndarray):
        return _FORM.pack(b"", size_of(body), *(0,) * (_DIMENSIONS - 1), _BYTES)
    return _FORM.pack(body.dtype.str.encode(), *body.shape, *(0,) * (_DIMENSIONS - body.ndim), body.ndim)


def write_head(buffer: Any, at: int, message: Message, sent_ns: int) -> None:
    """Write what stands before a checked message's form into ``buffer``. Raises ``ValueError`` for endless spans."""
    try:
        _HEAD.pack_into(buffer, at, _MARK, _VERSION, len(message.spans), message.id, sent_ns)
    except error:
        raise ValueError(f"message {message.id}: its spans have {len(message.spans)} bytes") from None


def flat(body: Any) -> memoryview:
    """A body's bytes; a copy only of an array that does not lie in one piece."""
    if isinstance(body, np.ndarray):
        return np.ascontiguousarray(body).reshape(-1).view(np.uint8).data
    return memoryview(body).cast("B")


def pack(message: Message, sent_ns: int) -> tuple[bytearray, memoryview, bytes]:
    """The pieces of a checked message, in order. Raises as ``write_head`` does."""
    header = bytearray(_HEAD.size) + form_of(message.body)
    write_head(header, 0, message, sent_ns)
    return header, flat(message.body), message.spans


def unpack(buffer: bytes | memoryview) -> tuple[Message, int]:
    """The opposite: a message whose body lies in ``buffer``, which may be longer, and when it was sent, in ns.

    Raises ``ValueError`` for what is no message, or less than one.
    """
    if len(buffer) < HEADER_BYTES:
        raise ValueError(f"got {len(buffer)} bytes, expected a message, whose header alone has {HEADER_BYTES}")
    view = memoryview(buffer)
    return with_body(view, body_in(view))


def with_body(view: memoryview, body: Any) -> tuple[Message, int]:
    """The same, for who knows the body already. Raises ``ValueError`` as ``unpack`` does."""
    mark, version, spans, number, sent_ns = _HEAD.unpack_from(view)
    if (mark, version) != (_MARK, _VERSION):
        raise ValueError(f"got bytes that begin with {bytes(view[:4])!r}, expected a message")
    end = HEADER_BYTES + body.nbytes
    if end + spans > len(view):
        raise ValueError(f"message {number}: got {len(view)} bytes, expected {end + spans}")
    return Message(number, body, bytes(view[end : end + spans]) if spans else b""), sent_ns


def body_in(view: memoryview) -> Any:
    """The body that a message's form tells of, which lies in ``view``: an array, or a part of it.

    Raises ``ValueError`` for a form that is none, or of a body that is larger than ``view``.
    """
    name, *sizes, dimensions = _FORM.unpack_from(view, _HEAD.size)
    if dimensions > _DIMENSIONS and dimensions != _BYTES:
        raise ValueError(f"got a message of {dimensions} dimensions, expected at most {_DIMENSIONS}")
    dtype = np.dtype(np.uint8) if dimensions == _BYTES else _dtype(name)
    shape = tuple(sizes[: 1 if dimensions == _BYTES else dimensions])
    end = HEADER_BYTES + prod(shape) * dtype.itemsize
    if end > len(view):
        raise ValueError(f"got a message of {len(view)} bytes, expected {end}")
    body = view[HEADER_BYTES:end]
    return body if dimensions == _BYTES else array_on(body, shape, dtype)


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
