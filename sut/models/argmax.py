"""Scores that a model keeps to itself: what an ArgMax reads whose labels are all that it tells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sut.models.content import load_whole, save_whole

if TYPE_CHECKING:
    from onnx import GraphProto

_CHOOSING = ("ArgMax", "TopK")
_PASSING = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Gather", "Slice", "Add", "Sub")
"""Operators that may stand between the index of the best score and the label."""


def expose_scores(path: Path, output: str, to: Path) -> str | None:
    """Write a copy of an .onnx file to ``to`` whose only output is what the ArgMax or TopK behind ``output`` reads.

    Returns the name of that output. None, and nothing is written, where no such node is found. The copy is one file,
    whatever files hold the weights. Raises what ``load_whole`` and ``save_whole`` do.
    """
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
    """The tensor that the ArgMax or TopK reads whose indices become the labels ``output``; None where there is none."""
    made_by = {name: node for node in graph.node for name in node.output}
    name: str | None = output
    while name is not None and (node := made_by.get(name)) is not None:
        if node.op_type in _CHOOSING:
            return str(node.input[0])
        if node.op_type not in _PASSING:
            return None
        computed = (each for each in node.input if each in made_by and made_by[each].op_type != "Constant")
        name = next(computed, None)
    return None
