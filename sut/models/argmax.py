"""Scores that a model keeps to itself: what an ArgMax reads whose labels are all that it tells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sut.models import ir, tflite, torch_files
from sut.models.content import load_whole, save_whole
from sut.models.files import nearest_first

if TYPE_CHECKING:
    from onnx import GraphProto

_CHOOSING = ("ArgMax", "TopK")


def expose_scores(path: Path, output: str, to: Path) -> str | None:
    """Write a copy of a model file to ``to`` that shows what the ArgMax or TopK behind ``output`` reads.

    Returns the name of the output that does. None, and nothing is written, where no such node is found, and for a file
    of PyTorch's. The copy of an .onnx file is one file, whatever files hold the weights. Raises what ``load_whole``,
    ``save_whole`` and the ``expose_scores`` of the other formats do.
    """
    if path.suffix == ir.SUFFIX:
        return ir.expose_scores(path, output, to)
    if path.suffix == tflite.SUFFIX:
        return tflite.expose_scores(path, output, to)
    if path.suffix in torch_files.KINDS:
        return None
    import onnx

    model = load_whole(path)
    scores = scores_behind(model.graph, output)
    if scores is not None:
        del model.graph.output[:]
        # Without a type: runtimes infer it, as they do for every tensor between two nodes.
        model.graph.output.append(onnx.ValueInfoProto(name=scores))
        save_whole(model, to)
    return scores


def scores_behind(graph: GraphProto, output: str) -> str | None:
    """The tensor that the ArgMax or TopK reads which is nearest before the labels ``output``, whatever operators stand
    between; None where there is none."""
    made_by = {name: node for node in graph.node for name in node.output}
    nodes = nearest_first(output, made_by, lambda node: node.input)
    return next((str(node.input[0]) for node in nodes if node.op_type in _CHOOSING), None)
