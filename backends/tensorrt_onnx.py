"""What TensorRT is given of an ONNX file, and which files belong to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backends.onnx_weights import tensors_outside

if TYPE_CHECKING:
    from onnx import ModelProto


def weight_files(path: Path) -> list[str]:
    """The files beside an ONNX file, from its folder, that have weights of it."""
    facts = (each for tensor in tensors_outside(_read(path)) for each in tensor.external_data)
    return sorted({each.value for each in facts if each.key == "location"})


def _read(path: Path) -> ModelProto:
    import onnx

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:
        raise ValueError(
            f"{path}: TensorRT cannot read it: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def with_casts_first(path: Path) -> bytes:
    """An ONNX file in which bytes are made floats before they are transposed: TensorRT transposes no uint8.

    So a model that takes pixels (uint8 NHWC) can be read; what it computes is the same. Any other is left as it is.
    """
    import onnx

    model, swapped = _read(path), False
    nodes = model.graph.node
    pixels = {each.name for each in model.graph.input if each.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    for first in nodes:
        after = [node for node in nodes if first.output[0] in node.input]
        if first.op_type == "Transpose" and first.input[0] in pixels and [node.op_type for node in after] == ["Cast"]:
            # Each keeps its inputs, outputs and place: they change their work.
            [second], swapped = after, True
            operator, attributes = first.op_type, list(first.attribute)
            first.op_type, second.op_type = second.op_type, operator
            del first.attribute[:]
            first.attribute.extend(second.attribute)
            del second.attribute[:]
            second.attribute.extend(attributes)
    return bytes(model.SerializeToString()) if swapped else path.read_bytes()
