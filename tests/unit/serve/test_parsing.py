"""A body of any bytes is a request, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backends.kserve_tensors import DTYPES
from sut.serve.http import parse
from sut.serve.refused import Refused
from sut.serve.regions import Regions

_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just(10**400),
    st.just([]),
    st.just({}),
)
_NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.integers(-2, 4), st.floats(), _ODD)
_PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["binary_data_size", "binary_data", "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"]
    ),
    _NUMBERS,
)
_INPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(st.just("images"), _ODD),
        "datatype": st.one_of(st.sampled_from(sorted(DTYPES)), _ODD),
        "shape": st.one_of(st.lists(_NUMBERS, max_size=3), _ODD),
        "data": st.one_of(st.lists(_NUMBERS, max_size=4), _ODD, st.recursive(_ODD, st.lists, max_leaves=4)),
        "parameters": st.one_of(_PARAMETERS, _ODD),
    },
)
_REQUEST = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(st.one_of(_INPUT, _ODD), max_size=2), _ODD)},
    optional={
        "outputs": st.one_of(st.lists(st.one_of(_INPUT, _ODD), max_size=2), _ODD),
        "parameters": _ODD,
        "id": _ODD,
    },
)


def parsed(body: bytes, length: str = "") -> Any:
    try:
        return parse(body, length, Regions(1000))
    except Refused as refused:
        assert refused.status in (400, 404, 413)
        assert len(str(refused)) <= 1000
        return None


@settings(max_examples=60)
@given(_REQUEST, st.binary(max_size=20), st.sampled_from(["", "+", "-"]))
def test_whatever_json_says_it_is_read_or_refused(content: Any, tail: bytes, length: str) -> None:
    body = json.dumps(content).encode()
    parsed(body + tail, {"": "", "+": str(len(body)), "-": str(-len(body))}[length])


@given(st.binary(max_size=200), st.text(max_size=5))
def test_whatever_bytes_come_they_are_read_or_refused(body: bytes, length: str) -> None:
    parsed(body, length)


@pytest.mark.parametrize(
    "body", [b"[" * 1_000_000, b'{"inputs":' * 100_000, b'{"inputs": [' + b"9" * 5000, b"\xff", b"", b"{}"], ids=repr
)
@pytest.mark.parametrize("length", ["", "0", "²", "-1", "1e3", "9" * 5000, "0x10", "99999"])
def test_bombs(body: bytes, length: str) -> None:
    assert parsed(body, length) is None


def request(rows: NDArray[Any], datatype: str, **more: Any) -> tuple[bytes, str]:
    own = {"name": "a", "shape": rows.shape, "datatype": datatype, "parameters": {"binary_data_size": rows.nbytes}}
    head = json.dumps({"inputs": [own], **more}).encode()
    return head + rows.tobytes(), str(len(head))


def test_a_request_is_read() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    wanted = [{"name": "b", "parameters": {"binary_data": True}}, {"name": "c"}]
    body, length = request(rows, "FP32", outputs=wanted, id=7, parameters={"binary_data_output": True})

    found = parse(body, length, None)

    [one] = found.given
    assert (one.name, one.datatype, one.shape, bytes(one.raw)) == ("a", "FP32", [2, 3], rows.tobytes())
    assert found.outputs == {"b": {"binary_data": True}, "c": {}}
    assert (found.id, found.binary, found.tensor_bytes) == ("7", True, 24)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_tail_of_another_length_is_refused(change: int) -> None:
    body, length = request(np.zeros(4, np.float32), "FP32")
    body = body[:-1] if change < 0 else body + b"a"

    with pytest.raises(Refused, match="bytes"):
        parse(body, length, None)


def test_memory_is_not_shared_unless_that_is_allowed() -> None:
    how = {"shared_memory_region": "mine", "shared_memory_byte_size": 4}
    body = json.dumps({"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "parameters": how}]}).encode()

    with pytest.raises(Refused, match="start it with --shared-memory"):
        parse(body, "", None)
    with pytest.raises(Refused, match="'mine' is not registered"):
        parse(body, "", Regions(1000))
