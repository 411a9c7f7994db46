"""Small classifiers that answer wrongly without an error, each in its own way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from backends.base import TensorSpec
from sut.models.onnx_graph import OnnxGraph

SIZE = 32
CLASSES = 1000
RECIPE = f"fit: crop-resize\ninterpolation: linear\nmean: [120, 115, 105]\nstd: [16, 16, 16]\nclasses: {CLASSES}\n"
"""A recipe file for all of them."""
BACKGROUND = RECIPE + "label_offset: -1\n"
"""The same with a class 0 that is no label."""

IMAGES = TensorSpec("images", "float32", (None, 3, SIZE, SIZE))
SCORES = TensorSpec("scores", "float32", (None, CLASSES))
AUX = TensorSpec("aux", "float32", (None, CLASSES))
LABELS = TensorSpec("labels", "int64", (None,))
COLUMN = TensorSpec("labels", "int64", (None, 1))


def write_odd(path: Path, kind: str) -> Path:
    """Write a model whose ``scores`` are seeded sums of a picture's mean colours, spoilt as ``kind`` says.

    ``sound`` and ``labels`` (chosen by an ArgMax) are not spoilt. Others read what else is in the batch (``softmax over
    batch``, ``training norm``, ``scaled by batch``, ``first eight rows``, which answer for all others), draw lots
    (``noise``), fail but for one row (``only alone``), have two outputs that fit (``two scores``), twice the rows
    (``twice the rows``), always answer 5 (``constant``), or give labels of scores that are none (``nan behind argmax``,
    or ``nan for white`` pictures) or that nothing chose (``no argmax``).
    """
    graph = OnnxGraph("odd")
    x = "images"
    if kind == "training norm":  # as a batch norm in training mode does: less the mean over the batch
        x = graph.node("Sub", [x, graph.node("ReduceMean", [x], "mean", axes=[0, 2, 3])], "norm")
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x], "pool")], "features")
    if kind == "only alone":
        x = graph.node("Reshape", [x, graph.weight("one row", np.array([1, 3]))], "row")
    draw = np.random.default_rng(1)
    for name in ("sums", "aux"):
        weights = graph.weight(f"{name} weights", draw.normal(size=(3, CLASSES)).astype(np.float32))
        graph.node("MatMul", [x, weights], name)
    outputs = _labels(graph, kind) or _scores(graph, kind)
    graph.save(path, [IMAGES], [AUX, *outputs] if kind == "two scores" else outputs)
    return path


def _labels(graph: OnnxGraph, kind: str) -> list[TensorSpec]:
    """Labels from the sums, for the kinds that have them."""
    match kind:
        case "labels":
            chosen = "sums"
        case "nan behind argmax":
            chosen = graph.node("Mul", ["sums", graph.weight("nan", np.float32([np.nan]))], "spoilt")
        case "nan for white":
            root = graph.node(
                "Sqrt", [graph.node("Sub", [graph.weight("bright", np.float32([8])), "features"], "less")], "root"
            )
            worst = graph.node("ReduceSum", [root, graph.weight("colours", np.array([1]))], "worst", keepdims=1)
            chosen = graph.node("Add", ["sums", worst], "spoilt")
        case "twice the rows":
            chosen = graph.node("Concat", ["sums", "sums"], "twice", axis=0)
        case "no argmax":
            first = [graph.weight(name, np.array([value])) for name, value in (("from", 0), ("to", 1), ("axis", 1))]
            graph.node("Cast", [graph.node("Slice", ["sums", *first], "first")], "rounded", to=onnx.TensorProto.INT64)
            graph.node("Mul", ["rounded", graph.weight("nothing", np.array([[0]]))], "labels")
            return [COLUMN]
        case _:
            return []
    graph.node("ArgMax", [chosen], "labels", axis=1, keepdims=0)
    return [LABELS]


def _scores(graph: OnnxGraph, kind: str) -> list[TensorSpec]:
    """Scores from the sums."""
    match kind:
        case "softmax over batch":
            graph.node("Softmax", ["sums"], "scores", axis=0)
        case "scaled by batch":
            graph.node("Mul", ["sums", graph.node("ReduceL1", ["sums"], "size")], "scores")
        case "noise":
            graph.node("Add", ["sums", graph.node("RandomNormalLike", ["sums"], "lots", scale=9.0)], "scores")
        case "first eight rows":
            zero, one, eight = (graph.weight(f"number {value}", np.array(value)) for value in (0, 1, 8))
            count = graph.node("Gather", [graph.node("Shape", ["sums"], "shape"), zero], "count")
            rows = graph.node("Mod", [graph.node("Range", [zero, count, one], "rows"), eight], "first rows")
            graph.node("Gather", ["sums", rows], "scores", axis=0)
        case "constant":
            nothing = graph.node("Mul", ["sums", graph.weight("zero", np.float32([0]))], "nothing")
            graph.node("Add", [nothing, graph.weight("five", np.eye(1, CLASSES, 5, dtype=np.float32))], "scores")
        case _:
            graph.node("Identity", ["sums"], "scores")
    return [SCORES]
