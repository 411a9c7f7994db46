"""Tensors on the wire: what was sent is what comes, and what is none is refused before room is made for it."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from backends.base import TensorSpec
from backends.kserve_tensors import DATATYPES, DTYPES, PICTURES, from_bytes, spec_of, to_bytes, wire_of

NUMBERS = sorted(set(DTYPES) - {"BYTES"})
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@given(st.sampled_from(NUMBERS).flatmap(lambda each: npst.arrays(DTYPES[each], SHAPES)))
def test_numbers_go_there_and_back(array: NDArray[Any]) -> None:
    found = from_bytes(to_bytes(array), DATATYPES[array.dtype.name], array.shape)

    assert found.dtype == array.dtype and found.shape == array.shape
    assert found.tobytes() == array.tobytes()


@given(npst.arrays(object, SHAPES, elements=st.binary(max_size=20)))
def test_elements_of_bytes_go_there_and_back(array: NDArray[Any]) -> None:
    found = from_bytes(to_bytes(array), "BYTES", array.shape)

    assert found.shape == array.shape and list(found.flat) == list(array.flat)


@given(
    st.binary(max_size=100),
    st.sampled_from([*DTYPES, "FP8", ""]),
    st.lists(st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**63)), max_size=4),
)
def test_any_bytes_are_an_array_of_that_shape_or_refused(raw: bytes, datatype: str, shape: list[int]) -> None:
    try:
        found = from_bytes(raw, datatype, shape)
    except ValueError:
        return
    assert found.shape == tuple(shape)
    assert to_bytes(found) == raw


@pytest.mark.parametrize(
    ("raw", "shape", "told"),
    [
        (b"", [1], "too few"),
        (b"", [2**40, 1], "too few"),
        (struct.pack("<I", 2**32 - 1), [1], "says 4,294,967,295 bytes, and 0 are there"),
        (struct.pack("<I", 0) * 2, [1], "got 4 bytes behind 1 elements"),
        (struct.pack("<I", 1) + b"a" + b"\0\0\0", [2], "got 1 elements of BYTES, expected 2"),
        (b"", [-1, -1], "no negative axis"),
    ],
)
def test_bytes_that_are_no_elements(raw: bytes, shape: list[int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        from_bytes(raw, "BYTES", shape)


def test_numbers_are_little_endian() -> None:
    assert to_bytes(np.array([1, 256], np.uint16)) == b"\x01\x00\x00\x01"
    assert from_bytes(b"\x00\x00\x80\x3f", "FP32", [1]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("datatype", "shape", "wire"),
    [
        ("BYTES", [-1, 1], "jpeg"),
        ("BYTES", [-1], "jpeg"),
        ("UINT8", [-1, -1, -1, 3], "pixels"),
        ("UINT8", [-1, 224, 224, 3], "tensor"),
        ("UINT8", [-1, -1, -1, 1], "tensor"),
        ("UINT8", [-1], "tensor"),
        ("FP32", [-1, -1, -1, 3], "tensor"),
        ("FP32", [-1, 3, 224, 224], "tensor"),
        ("FP32", [], "tensor"),
    ],
)
def test_what_crosses_is_what_the_metadata_says(datatype: str, shape: list[int], wire: str) -> None:
    assert wire_of(spec_of("input", datatype, shape)) == wire


def test_pictures_of_our_own_server_are_known_by_their_inputs() -> None:
    assert {name: wire_of(spec) for name, spec in PICTURES.items()} == {"jpeg": "jpeg", "pixels": "pixels"}


def test_axes_that_a_server_leaves_open_are_the_recipes() -> None:
    assert spec_of("a", "FP32", [-1, 3, -1, -1], (3, 8, 8)) == TensorSpec("a", "float32", (None, 3, 8, 8), "NCHW")
    assert spec_of("a", "FP32", [4, 3, 8, 8]).shape == (4, 3, 8, 8)
    with pytest.raises(ValueError, match="tensor 'a' is BF16, expected one of BOOL"):
        spec_of("a", "BF16", [1])
