"""The reader of legacy torch files: right tensors from right files, one clear ``ValueError`` from all others."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sut.models.sources.torch_pickle import MAGIC, PROTOCOL, load_state_dict

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integers(*values: int) -> bytes:
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def storage(kind: str, key: str, count: int) -> bytes:
    name = text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    return b"(" + name + b"J" + struct.pack("<i", count) + b"NtQ"


def tensor(store: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    where = b"J" + struct.pack("<i", offset) + integers(*shape) + integers(*strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + store + where + b"\x89" + ORDERED_DICT + b"tR"


def state(**tensors: bytes) -> bytes:
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02" + ORDERED_DICT + b"(" + items + b"u."


def legacy(body: bytes, *storages: np.ndarray, magic: int = MAGIC, little_endian: bool = True) -> bytes:
    machine = {"protocol_version": PROTOCOL, "little_endian": little_endian}
    head = b"".join(pickle.dumps(part, 2) for part in (magic, PROTOCOL, machine))
    keys = pickle.dumps([str(number) for number in range(len(storages))], 2)
    return head + body + keys + b"".join(struct.pack("<q", len(values)) + values.tobytes() for values in storages)


FLOATS = np.arange(6, dtype="<f4")
LONGS = np.array([7], dtype="<i8")
GOOD = legacy(
    state(
        plain=tensor(storage("FloatStorage", "0", 6), 0, (2, 3), (3, 1)),
        turned=tensor(storage("FloatStorage", "0", 6), 0, (3, 2), (1, 3)),
        part=tensor(storage("FloatStorage", "0", 6), 4, (2,), (1,)),
        scalar=tensor(storage("LongStorage", "1", 1), 0, (), ()),
    ),
    FLOATS,
    LONGS,
)


def load(folder: Path, data: bytes) -> dict[str, np.ndarray]:
    path = folder / "weights.pth"
    path.write_bytes(data)
    return load_state_dict(path, hashlib.sha256(data).hexdigest())


def test_tensors_come_with_their_shapes_types_and_values(tmp_path: Path) -> None:
    tensors = load(tmp_path, GOOD)

    assert list(tensors) == ["plain", "turned", "part", "scalar"]
    np.testing.assert_array_equal(tensors["plain"], FLOATS.reshape(2, 3))
    np.testing.assert_array_equal(tensors["turned"], FLOATS.reshape(2, 3).T)
    np.testing.assert_array_equal(tensors["part"], FLOATS[4:])
    assert tensors["scalar"].dtype == np.int64 and tensors["scalar"] == 7
    assert all(values.flags.c_contiguous for values in tensors.values())


@pytest.mark.parametrize("name", ["os\nsystem", "builtins\neval", "collections\ndefaultdict", "torch\nload"])
@pytest.mark.parametrize("place", ["object", "start", "argument"])
def test_any_other_name_is_refused_and_not_called(tmp_path: Path, name: str, place: str) -> None:
    mark = tmp_path / "called"
    call = f"c{name}\n(".encode() + text(f"touch {mark}") + b"tR"
    data = {
        "object": legacy(b"\x80\x02" + call + b"."),
        "start": b"\x80\x02" + call + b"." + GOOD,
        "argument": legacy(state(plain=tensor(call, 0, (1,), (1,)))),
    }[place]

    with pytest.raises(ValueError, match=rf"it names {name.replace(chr(10), '.')}, which is not allowed"):
        load(tmp_path, data)

    assert not mark.exists()


def test_a_wrong_hash_is_told_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"cos\nsystem\n")

    with pytest.raises(ValueError, match=r"weights.pth have sha256 [0-9a-f]{64} \(11 bytes\), expected abc"):
        load_state_dict(path, "abc")


def test_a_missing_file_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        load_state_dict(tmp_path / "none.pth", "abc")


@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        (b"", "not a legacy torch file"),
        (b"PK\x03\x04 a newer torch file", "not a legacy torch file"),
        (legacy(state(), magic=5), "starts with 5 and 1001"),
        (legacy(state(), little_endian=False), "big-endian"),
        (legacy(b"\x80\x02]."), "something else than tensors"),
        (legacy(b"\x80\x02}(" + text("a") + b"K\x01u."), "something else than tensors"),
        (legacy(state(a=tensor(storage("FloatStorage", "0", 9), 0, (1,), (1,))), FLOATS), "has 6 values, expected 9"),
        (legacy(state(a=tensor(storage("FloatStorage", "0", 6), 0, (7,), (1,))), FLOATS), "beyond its storage of 6"),
        (legacy(state(a=tensor(storage("FloatStorage", "0", 6), 5, (2,), (1,))), FLOATS), "beyond its storage of 6"),
        (legacy(state(a=tensor(storage("FloatStorage", "0", 6), -1, (2,), (1,))), FLOATS), "offset, shape and strides"),
        (legacy(state(a=tensor(storage("FloatStorage", "0", 6), 0, (2,), ())), FLOATS), "unequal shape and strides"),
        (legacy(state(a=tensor(integers(1), 0, (2,), (1,))), FLOATS), "without a storage"),
        (GOOD[:-3], "ends within storage 1"),
        (GOOD[:-20], "ends within storage 0"),
    ],
)
def test_a_file_that_is_not_right_is_told_in_one_line(tmp_path: Path, data: bytes, fragment: str) -> None:
    with pytest.raises(ValueError, match=r"weights\.pth are not") as caught:
        load(tmp_path, data)

    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, len(GOOD) - 1))
def test_no_beginning_of_a_file_is_taken_for_the_whole(tmp_path: Path, length: int) -> None:
    with pytest.raises(ValueError, match="not a legacy torch file"):
        load(tmp_path, GOOD[:length])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_a_changed_byte_gives_tensors_or_a_value_error(tmp_path: Path, place: int, value: int) -> None:
    damaged = bytearray(GOOD)
    damaged[place] = value

    try:
        tensors = load(tmp_path, bytes(damaged))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(values, np.ndarray) for values in tensors.values())
