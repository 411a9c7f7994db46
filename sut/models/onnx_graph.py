"""An ONNX graph in the making, and the file it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from sut.models.files import import_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, TensorProto

OPSET = 17
"""ONNX operator set of the graphs made here: old enough for every supported runtime, new enough for their exporters."""
IR_VERSION = 8
"""ONNX file format version that belongs to ``OPSET`` 17 (ONNX 1.12)."""


class OnnxGraph:
    """An ONNX graph in the making. Every node but a split has one output, which has the node's name."""

    def __init__(self, name: str) -> None:
        """Raises ``SetupError`` where the ``onnx`` package is not installed."""
        self._onnx = import_onnx()
        self._name = name
        self._nodes: list[Any] = []
        self._weights: list[TensorProto] = []

    def begin_with(self, graph: GraphProto) -> None:
        """Take over the nodes and constants of a graph of operator set ``OPSET``; nodes without a name get one."""
        for node in graph.node:
            node.name = node.name or node.output[0]
        self._nodes.extend(graph.node)
        self._weights.extend(graph.initializer)

    def weight(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant of the array's shape and dtype; returns ``name``."""
        self._weights.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def value(self, name: str) -> NDArray[Any]:
        """The constant that was added as ``name``."""
        found = next(each for each in reversed(self._weights) if each.name == name)
        return np.asarray(self._onnx.numpy_helper.to_array(found))

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        """Add a node; returns ``name``."""
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def split(self, name: str, source: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Cut a tensor into parts of these ``sizes``; returns their names."""
        parts = [f"{name}.{number}" for number in range(len(sizes))]
        inputs = [source, self.weight(f"{name}.sizes", np.array(sizes, np.int64))]
        self._nodes.append(self._onnx.helper.make_node("Split", inputs, parts, name=name, axis=axis))
        return parts

    def conv(
        self,
        name: str,
        source: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        stride: int = 1,
        pads: tuple[int, int] = (0, 0),
        groups: int = 1,
        dilation: int = 1,
    ) -> str:
        """Add a square convolution: weight float32 [out, in / groups, k, k], bias float32 [out]; returns ``name``.

        ``pads`` are the zeros before and after, ``dilation`` is from one value of the window to the next, in pixels,
        the same for both axes.
        """
        inputs = [source, self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias)]
        before, after = pads
        window = {"kernel_shape": weight.shape[2:], "strides": [stride, stride], "pads": [before, before, after, after]}
        if dilation > 1:
            window["dilations"] = [dilation, dilation]
        return self.node("Conv", inputs, name, **window, group=groups)

    def resized(self, name: str, source: str, before: int, after: int) -> str:
        """Make square pictures of ``before`` pixels a side ``after`` pixels large, bilinearly; returns ``name``."""
        # The size becomes the product, rounded down: in float32 it is not to fall short.
        scale = np.nextafter(np.float32(after / before), np.float32(np.inf)) if after % before else after / before
        scales = self.weight(f"{name}.scales", np.array([1, 1, scale, scale], np.float32))
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.node("Resize", [source, "", scales], name, **how)

    def save(self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Write the file; an axis of size None becomes the dynamic axis ``batch``. The same graph gives the same bytes.

        Raises ``OSError`` where ``path`` cannot be written.
        """
        helper = self._onnx.helper
        values = [[self._value(spec) for spec in specs] for specs in (inputs, outputs)]
        graph = helper.make_graph(self._nodes, self._name, *values, initializer=self._weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="loadgen-sut")
        path.write_bytes(model.SerializeToString(deterministic=True))

    def _value(self, spec: TensorSpec) -> Any:
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        shape = ["batch" if size is None else size for size in spec.shape]
        return self._onnx.helper.make_tensor_value_info(spec.name, kind, shape)
