"""Classifiers as .tflite files: an ONNX graph of a few operators, written by the schema that the runtime brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import numpy_helper

from sut.models.precision.calibration import preprocessed
from tests.unit.small_models import RECIPE, pictures, write_classifier

OPERATORS = schema.BuiltinOperator
TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
}
ACTIVATIONS = {"Relu": schema.ActivationFunctionType.RELU, "Clip": schema.ActivationFunctionType.RELU6}
Range = tuple[float, float]


@dataclass
class TfliteGraph:
    """A graph in the making. Tensors are known by their names."""

    tensors: dict[str, schema.TensorT] = field(default_factory=dict)
    nodes: list[schema.OperatorT] = field(default_factory=list)
    codes: list[schema.OperatorCodeT] = field(default_factory=list)
    buffers: list[schema.BufferT] = field(default_factory=lambda: [schema.BufferT()])

    def tensor(self, name: str, dtype: str, shape: Sequence[int | None], values: np.ndarray | None = None) -> str:
        """Add a tensor, a constant where it has ``values``; None is an axis that is open."""
        made = schema.TensorT(name=name, type=TYPES[dtype], shape=[size or 1 for size in shape])
        if None in shape:
            made.shapeSignature = [-1 if size is None else size for size in shape]
        if values is not None:
            made.buffer = len(self.buffers)
            data = np.frombuffer(np.ascontiguousarray(values, dtype).tobytes(), np.uint8)
            self.buffers.append(schema.BufferT(data=data))
        self.tensors[name] = made
        return name

    def scaled(self, name: str, scales: Any, zero: int = 0, axis: int = 0) -> None:
        """Say what the integers of a tensor stand for: (value - zero) * scale."""
        scale = np.atleast_1d(np.asarray(scales, np.float32))
        self.tensors[name].quantization = schema.QuantizationParametersT(
            scale=scale, zeroPoint=np.full(len(scale), zero, np.int64), quantizedDimension=axis
        )

    def node(self, operator: str, inputs: Sequence[str], output: str, options: Any = None) -> str:
        """Add a node: a builtin operator, or a custom one where there is none of that name."""
        code = schema.OperatorCodeT(builtinCode=getattr(OPERATORS, operator, OPERATORS.CUSTOM), version=1)
        if not hasattr(OPERATORS, operator):
            code.customCode = operator
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        places = list(self.tensors)
        made = schema.OperatorT(opcodeIndex=len(self.codes), inputs=[places.index(each) for each in inputs])
        made.outputs = [places.index(output)]
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.codes.append(code)
        self.nodes.append(made)
        return output

    def save(self, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Path:
        """Write the file."""
        places = list(self.tensors)
        graph = schema.SubGraphT(tensors=list(self.tensors.values()), operators=self.nodes)
        graph.inputs, graph.outputs = ([places.index(each) for each in names] for names in (inputs, outputs))
        model = schema.ModelT(version=3, operatorCodes=self.codes, subgraphs=[graph], buffers=self.buffers)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())
        return path


class Converter:
    """An ONNX classifier as TFLite has it: NHWC, what cuts off values within the operator before it.

    With ``ranges``, what each tensor of the float32 file reaches, it is in 8 bits: activations per tensor, weights per
    channel. With ``dynamic`` only the weights are.
    """

    def __init__(self, source: Path, batch: int | None, ranges: dict[str, Range] | None, dynamic: bool) -> None:
        self.onnx = onnx.load(source).graph
        self.weights = {each.name: numpy_helper.to_array(each) for each in self.onnx.initializer}
        self.batch = batch
        self.ranges = ranges
        self.dynamic = dynamic
        self.graph = TfliteGraph()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.names: dict[str, str] = {}
        self.scales: dict[str, float] = {}

    def convert(self, to: Path, *, softmax: bool = False, labels: bool = False, floats: bool = False) -> Path:
        [image] = [each for each in self.onnx.input if each.name not in self.weights]
        _, channels, height, width = (axis.dim_value for axis in image.type.tensor_type.shape.dim)
        source = self.onnx.output[0].name
        if floats and self.ranges:
            shown = self.graph.tensor("picture", "float32", (self.batch, height, width, channels))
            self.activation(image.name, (height, width, channels))
            self.graph.node("QUANTIZE", [shown], image.name, schema.QuantizeOptionsT())
        else:
            shown = self.activation(image.name, (height, width, channels))
        made_by = {node.input[0]: node for node in self.onnx.node if node.op_type in ACTIVATIONS}
        steps: dict[str, Callable[[onnx.NodeProto, str, int], None]] = {
            "Conv": self.conv,
            "Gemm": self.dense,
            "GlobalAveragePool": self.mean,
            "Add": self.add,
        }
        for node in self.onnx.node:
            if node.op_type in steps:
                cut = made_by.get(node.output[0])
                steps[node.op_type](node, (cut or node).output[0], ACTIVATIONS[cut.op_type] if cut else 0)
            elif node.op_type == "Flatten":
                self.names[node.output[0]] = self.names.get(node.input[0], node.input[0])
        if softmax:
            self.scales["shares"] = 1 / 256
            source = self.graph.node(
                "SOFTMAX",
                [source],
                self.activation("shares", self.shapes[source], zero=-128),
                schema.SoftmaxOptionsT(beta=1.0),
            )
        if labels:
            axis = self.graph.tensor("label.axis", "int32", (1,), np.array([1]))
            out = self.graph.tensor("label", "int64", (self.batch,))
            options = schema.ArgMaxOptionsT(outputType=schema.TensorType.INT64)
            source = self.graph.node("ARG_MAX", [source, axis], out, options)
        return self.graph.save(to, [shown], [source])

    def activation(self, name: str, shape: tuple[int, ...], zero: int | None = None) -> str:
        self.shapes[name] = shape
        self.graph.tensor(name, "int8" if self.ranges else "float32", (self.batch, *shape))
        if self.ranges:
            if zero is None:
                low, high = (float(end) for end in self.ranges[name])
                self.scales[name] = (max(high, 0) - min(low, 0)) / 255 or 1
                zero = round(-128 - min(low, 0) / self.scales[name])
            self.graph.scaled(name, self.scales[name], zero)
        return name

    def conv(self, node: onnx.NodeProto, out: str, cut: int) -> None:
        told = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        stride, groups = told.get("strides", [1, 1])[0], told.get("group", 1)
        source = self.source(node)
        height, width, _ = self.shapes[source]
        values = self.weights[node.input[1]]
        inputs = self.computed(node, source, values.transpose((1, 2, 3, 0) if groups > 1 else (0, 2, 3, 1)), groups > 1)
        self.activation(out, (-(-height // stride), -(-width // stride), len(values)))
        kind = schema.DepthwiseConv2DOptionsT if groups > 1 else schema.Conv2DOptionsT
        options = kind(padding=schema.Padding.SAME, strideW=stride, strideH=stride, fusedActivationFunction=cut)
        if groups > 1:
            options.depthMultiplier = 1
        self.graph.node("DEPTHWISE_CONV_2D" if groups > 1 else "CONV_2D", inputs, out, options)

    def dense(self, node: onnx.NodeProto, out: str, cut: int) -> None:
        source = self.source(node)
        inputs = self.computed(node, source, self.weights[node.input[1]], depthwise=False)
        self.activation(out, (len(self.weights[node.input[1]]),))
        self.graph.node("FULLY_CONNECTED", inputs, out, schema.FullyConnectedOptionsT(fusedActivationFunction=cut))

    def mean(self, node: onnx.NodeProto, out: str, cut: int) -> None:
        source = self.source(node)
        axes = self.graph.tensor(f"{out}.axes", "int32", (2,), np.array([1, 2]))
        self.activation(out, self.shapes[source][2:])
        self.graph.node("MEAN", [source, axes], out, schema.ReducerOptionsT(keepDims=False))

    def add(self, node: onnx.NodeProto, out: str, cut: int) -> None:
        names = [self.names.get(name, name) for name in node.input]
        self.activation(out, self.shapes[names[0]])
        self.graph.node("ADD", names, out, schema.AddOptionsT(fusedActivationFunction=cut))

    def source(self, node: onnx.NodeProto) -> str:
        return self.names.get(node.input[0], node.input[0])

    def computed(self, node: onnx.NodeProto, source: str, values: np.ndarray, depthwise: bool) -> list[str]:
        """What a convolution or dense layer reads: its source, its weights and its bias."""
        if depthwise:
            values = values.reshape(1, *values.shape[1:3], -1)
        weight, bias = node.input[1], node.input[2]
        axis = 3 if depthwise else 0
        if not (self.ranges or self.dynamic):
            self.graph.tensor(weight, "float32", values.shape, values)
            self.graph.tensor(bias, "float32", self.weights[bias].shape, self.weights[bias])
            return [source, weight, bias]
        others = tuple(each for each in range(values.ndim) if each != axis)
        scales = np.abs(values).max(axis=others) / 127
        shape = [-1 if each == axis else 1 for each in range(values.ndim)]
        self.graph.tensor(weight, "int8", values.shape, np.rint(values / scales.reshape(shape)))
        self.graph.scaled(weight, scales, axis=axis)
        if self.dynamic:
            self.graph.tensor(bias, "float32", self.weights[bias].shape, self.weights[bias])
        else:
            whole = scales * self.scales[source]
            self.graph.tensor(bias, "int32", self.weights[bias].shape, np.rint(self.weights[bias] / whole))
            self.graph.scaled(bias, whole)
        return [source, weight, bias]


def write_tflite(
    path: Path,
    *,
    source: Path | None = None,
    batch: int | None = None,
    samples: np.ndarray | None = None,
    int8: bool = False,
    dynamic: bool = False,
    **shown: bool,
) -> Path:
    """An ONNX classifier (None: the small one) as a .tflite file of the same weights.

    ``int8`` is calibrated on ``samples``, NHWC; with ``floats`` its input stays float32. ``softmax`` and ``labels`` add
    what their names say.
    """
    source = source or write_classifier(path.with_suffix(".onnx"))
    ranges = None
    if int8:
        floats = Converter(source, None, None, dynamic=False).convert(path)
        ranges = reached(floats, small_samples(50) if samples is None else samples)
    return Converter(source, batch, ranges, dynamic).convert(path, **shown)


def small_samples(count: int, seed: int = 3) -> np.ndarray:
    """Pictures for the small classifier, NHWC."""
    made: np.ndarray = preprocessed(pictures(count, seed), count, RECIPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(made)


def reached(path: Path, samples: np.ndarray) -> dict[str, Range]:
    """The least and the largest value of every tensor of a float32 file."""
    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    [image] = interpreter.get_input_details()
    interpreter.resize_tensor_input(image["index"], samples.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(image["index"], samples)
    interpreter.invoke()
    found = {}
    for each in interpreter.get_tensor_details():
        if each["name"] and each["dtype"] == np.float32:
            values = interpreter.get_tensor(each["index"])
            found[each["name"]] = (float(values.min()), float(values.max()))
    return found
