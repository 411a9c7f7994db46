"""RetinaNet in MLPerf's form, whose file the user brings."""

from __future__ import annotations

from pathlib import Path

from sut.errors import InputError
from sut.models.base import Weights
from sut.models.files import brought
from sut.text import Say

CLASSES = 264
"""Those of MLPerf's part of OpenImages. The model answers with their ids, from 0."""
SCORE_THRESHOLD = 0.05
"""The reference answers with no box below it."""
TRAINED_FILE = "retinanet.onnx"
REFERENCE_FILE = "resnext50_32x4d_fpn.onnx"
"""MLPerf's name for the trained model."""


def build(weights: Weights, say: Say) -> Path:
    """The ``ModelSpec.build`` of RetinaNet: ``TRAINED_FILE`` or ``REFERENCE_FILE`` in $MODEL_DIR.

    Its input is float32 [1, 3, 800, 800], levels from 0 to 1; its outputs are boxes [n, 4] in pixels of the input,
    labels [n] and scores [n]. Raises ``InputError`` where neither is there, and for random weights.
    """
    if weights != "trained":
        raise InputError(f"retinanet has no {weights} weights, expected --weights trained")
    return brought("retinanet", TRAINED_FILE, also=REFERENCE_FILE)
