"""Messages as bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes

from sut.channels.wire import HEADER_BYTES, MAX_ID, Message, pack, unpack

NUMBERS = scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc")


@given(
    arrays(NUMBERS, array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3)),
    st.integers(0, MAX_ID),
    st.binary(max_size=40),
    st.integers(0, 2**62),
    st.binary(max_size=40),
)
def test_an_array_comes_back(body: np.ndarray, number: int, spans: bytes, sent_ns: int, beyond: bytes) -> None:
    found, sent = unpack(b"".join(pack(Message(number, body, spans), sent_ns)) + beyond)

    assert (found.id, found.spans, sent) == (number, spans, sent_ns)
    assert (found.body.dtype, found.body.shape) == (body.dtype, body.shape)
    assert found.body.tobytes() == body.tobytes()


@given(st.binary(max_size=300))
def test_bytes_come_back(body: bytes) -> None:
    assert unpack(b"".join(pack(Message(0, body), 1)))[0].body == body


@given(
    st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: bytes(pack(Message(1, b"12345"), 0)[0]) + rest)
)
def test_other_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        assert unpack(data)[0].nbytes <= len(data)
    except ValueError as error:
        assert "expected" in str(error)


def test_the_body_lies_in_the_buffer_and_is_aligned_as_it_is() -> None:
    buffer = bytearray(b"".join(pack(Message(1, np.zeros(3, np.float64)), 0)))
    message, _ = unpack(memoryview(buffer))
    buffer[HEADER_BYTES : HEADER_BYTES + 8] = struct.pack("d", 2.5)

    assert message.body.tolist() == [2.5, 0, 0]
    assert HEADER_BYTES % 64 == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data[:127], "127 bytes, expected a message, whose header alone has 128"),
        (lambda data: b"xx" + data[2:], "begin with b'xx"),
        (lambda data: data[:2] + b"\x09" + data[3:], "begin with"),
        (lambda data: data[:96] + b"\x09" + data[97:], "9 dimensions"),
        (lambda data: data[:-1], "message of 139 bytes, expected 140"),
        (lambda data: data[:4] + b"\x01" + data[5:], "message 7: got 140 bytes, expected 141"),
        (lambda data: data[:24] + b"|O\0\0\0\0\0\0" + data[32:], "dtype '|O', expected numbers"),
        (lambda data: data[:24] + b"\xff\0\0\0\0\0\0\0" + data[32:], "expected numbers"),
        (lambda data: data[:32] + struct.pack("Q", 2**64 - 1) + data[40:], "message of 140 bytes"),
    ],
)
def test_what_is_no_message_is_refused(change: object, text: str) -> None:
    data = b"".join(pack(Message(7, np.zeros(3, np.float32)), 0))

    with pytest.raises(ValueError, match=text.replace("|", r"\|")):
        unpack(change(data))  # type: ignore[operator]
