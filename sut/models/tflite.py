"""TFLite's model files: a flatbuffer, of which is read what has to be known before a run.

The runtime, which reads all of it, is for the processes that run models. What the numbers of fields, types and
operators mean is in TensorFlow Lite's schema.fbs, version 3; how a flatbuffer is laid out, in its "internals".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

from backends.base import TensorSpec
from sut.errors import InputError
from sut.models.files import ModelInfo, foreign, nearest_first, read_model

SUFFIX = ".tflite"

_MOST_BYTES = 2**31 - 1
"""What the offsets of a flatbuffer reach; larger models keep their weights behind it."""
_IDENTIFIER = b"TFL3"
_DTYPES = {
    **{0: "float32", 1: "float16", 10: "float64", 18: "bfloat16", 6: "bool"},
    **{17: "int4", 9: "int8", 7: "int16", 2: "int32", 4: "int64", 3: "uint8", 16: "uint16", 15: "uint32", 12: "uint64"},
}
_OPERATORS = {
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    9: "FULLY_CONNECTED",
    126: "BATCH_MATMUL",
    48: "TOPK_V2",
    56: "ARG_MAX",
}
"""Those that something is asked about here."""
_CHOOSING = ("ARG_MAX", "TOPK_V2")
_SMALL = ("int4", "int8", "uint8")


class _Table:
    """A table of a flatbuffer. All raise ``ValueError`` or ``struct.error`` where what they read is not in the file."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._number("<i", at)

    def number(self, field: int, form: str) -> int:
        """A number; 0 for a field that is not there, which stands for the default."""
        at = self._place(field)
        return self._number(form, at) if at else 0

    def vector(self, field: int, form: str = "I") -> tuple[int, tuple[int, ...]]:
        """Where the items of a vector begin, and the items; 0 and none for one that is not there."""
        if not (at := self._place(field)):
            return 0, ()
        at += self._number("<I", at)
        return at + 4, struct.unpack_from(f"<{self._number('<I', at)}{form}", self._data, at + 4)

    def tables(self, field: int) -> list[_Table]:
        """The tables of a vector of them."""
        at, offsets = self.vector(field)
        return [_Table(self._data, at + 4 * place + offset) for place, offset in enumerate(offsets)]

    def text(self, field: int) -> str:
        """A text."""
        return bytes(self.vector(field, "B")[1]).decode(errors="replace")

    def table(self, field: int) -> _Table | None:
        """A table; None for one that is not there."""
        at = self._place(field)
        return _Table(self._data, at + self._number("<I", at)) if at else None

    def _place(self, field: int) -> int:
        """Where a field is; 0 for one that is not there."""
        at = 4 + 2 * field
        offset = self._number("<H", self._fields + at) if at < self._number("<H", self._fields) else 0
        return self._at + offset if offset else 0

    def _number(self, form: str, at: int) -> int:
        if at < 0:  # which would count from the end
            raise ValueError(f"an offset leads to {at}")
        return int(struct.unpack_from(form, self._data, at)[0])


@dataclass(frozen=True, slots=True)
class _Operator:
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Graph:
    """Tensors are meant by their numbers. ``shown_at`` is where the file has those of its outputs.

    Each tensor is as the backend shows it, and whether the file has 8 bits or fewer for a value.
    """

    tensors: list[tuple[TensorSpec, bool]]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: list[_Operator]
    shown_at: int


def check_tflite(path: Path) -> ModelInfo:
    """Read the inputs and outputs of a .tflite file, under the names and in the dtypes that the backend has for them.

    Raises ``InputError`` for what is missing, empty, cut off, damaged or no .tflite file.
    """
    graph = _read(path)[1]
    found: dict[str, tuple[TensorSpec, ...]] = {}
    for kind, numbers in (("input", graph.inputs), ("output", graph.outputs)):
        specs = (graph.tensors[number][0] for number in numbers)
        found[kind] = tuple(replace(spec, name=spec.name or f"{kind}{at}") for at, spec in enumerate(specs))
    return ModelInfo(path, found["input"], found["output"])


def quantised_operator(path: Path) -> str | None:
    """The first operator that multiplies by weights in 8 bits; None where there is none. Raises as ``check_tflite``."""
    graph = _read(path)[1]
    computing = (each for each in graph.operators if each.name not in ("", *_CHOOSING))
    return next((each.name for each in computing if graph.tensors[each.inputs[1]][1]), None)


def expose_scores(path: Path, output: str, to: Path) -> str | None:
    """Write a copy of a .tflite file to ``to`` where the output ``output`` shows what the ARG_MAX before it reads.

    Or the TOPK_V2, whichever is nearer. Returns the name that this output has then; None, and nothing is written, where
    there is none. Raises as ``check_tflite``.
    """
    data, graph = _read(path)
    place = [spec.name for spec in check_tflite(path).outputs].index(output)
    made_by = {number: each for each in graph.operators for number in each.outputs}
    for made in nearest_first(graph.outputs[place], made_by, lambda made: made.inputs):
        if made.name in _CHOOSING:
            changed = bytearray(data)
            struct.pack_into("<i", changed, graph.shown_at + 4 * place, made.inputs[0])
            to.write_bytes(changed)
            return check_tflite(to).outputs[place].name
    return None


def _read(path: Path) -> tuple[bytes, _Graph]:
    data = read_model(path, _MOST_BYTES, f"a {SUFFIX} file")
    if data[4:8] != _IDENTIFIER:
        raise InputError(
            f"model {path} is {foreign(data)}, expected a TFLite model, which has {_IDENTIFIER!r} at byte 4"
        )
    try:
        graph = _graph(data)
    except (ValueError, IndexError, struct.error):
        raise InputError(
            f"model {path} is cut off or damaged ({len(data)} bytes), expected a whole TFLite model; copy or download "
            "it again"
        ) from None
    return data, graph


def _graph(data: bytes) -> _Graph:
    model = _Table(data, struct.unpack_from("<I", data)[0])
    for buffer in model.tables(4):
        buffer.vector(0, "x")  # the weights, of which all bytes have to be there
    names = [_OPERATORS.get(max(code.number(0, "<b"), code.number(3, "<i")), "") for code in model.tables(1)]
    graph = model.tables(2)[0]
    shown_at, outputs = graph.vector(2, "i")
    inputs, tensors = graph.vector(1, "i")[1], [_tensor(each) for each in graph.tables(0)]
    operators = [
        _Operator(names[each.number(0, "<I")], each.vector(1, "i")[1], each.vector(2, "i")[1])
        for each in graph.tables(3)
    ]
    read = {number for each in operators for number in each.inputs} - {-1}  # which is one that is left out
    made = {number for each in operators for number in each.outputs}
    if not outputs or not {*inputs, *outputs, *read, *made} <= {*range(len(tensors))}:
        raise ValueError("a tensor is not there")
    if any(each.name and len(each.inputs) < 2 for each in operators):
        raise ValueError("an operator has nothing to compute with")
    return _Graph(tensors, inputs, outputs, operators, shown_at)


def _tensor(table: _Table) -> tuple[TensorSpec, bool]:
    # The shape of an old file, and of one that fixes all axes, stands alone; else it is one that would fit.
    axes = table.vector(7, "i")[1] or table.vector(0, "i")[1]
    dtype = _DTYPES.get(table.number(1, "<b"), "unknown")
    scales = table.table(4)
    # Then its integers stand for other numbers.
    is_scaled = dtype.startswith(("int", "uint")) and scales is not None and any(scales.vector(2)[1])
    shown, shape = "float32" if is_scaled else dtype, tuple(axis if axis >= 0 else None for axis in axes)
    return TensorSpec(table.text(3), shown, shape), dtype in _SMALL
