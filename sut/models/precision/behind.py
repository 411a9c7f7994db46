"""What stands behind the last layers with weights of a network: how its answers are read from what these compute.

A detector computes there boxes from distances and puts places in pixels beside scores from 0 to 1. In 8 bits such
places have 255 steps for the whole picture, and scores share their steps with pixels. Found from the outputs backwards,
whatever exported the file and whatever its nodes are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Node = TypeVar("Node")

_LAYERS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul"}  # ONNX's
    | {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"}  # OpenVINO's
)
_SHAPING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


def behind_last_layers(
    ends: Iterable[Node], sources: Callable[[Node], Sequence[Node]], kind: Callable[[Node], str]
) -> list[Node]:
    """All nodes from the outputs back to the nearest layers with weights, without these.

    ``ends`` make the outputs; ``sources`` are the nodes that a node reads from, that of its first input first; ``kind``
    is the name of its operator, ONNX's or OpenVINO's. A convolution or product that weighs the shares of a softmax is
    no such layer: it is how the mean of a distribution is exported, from which YOLO has its distances.
    """
    found: dict[Node, None] = {}
    left = list(ends)
    while left:
        node = left.pop()
        if node in found or (kind(node) in _LAYERS and not _weighs_shares(node, sources, kind)):
            continue
        found[node] = None
        left += sources(node)
    return list(found)


def _weighs_shares(node: Node, sources: Callable[[Node], Sequence[Node]], kind: Callable[[Node], str]) -> bool:
    while first := sources(node)[:1]:
        [node] = first
        if kind(node) not in _SHAPING:
            return kind(node) == "Softmax"
    return False
