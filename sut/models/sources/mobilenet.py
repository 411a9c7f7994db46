"""MobileNet v1 in MLPerf's form, whose file the user brings."""

from __future__ import annotations

from pathlib import Path

from sut.errors import InputError
from sut.models.base import Build, Weights
from sut.models.files import brought
from sut.text import Say

CLASSES = 1001
"""The ImageNet classes after class 0, "background"."""
TRAINED_FILE = "mobilenet_v1_1.0_224"
"""MLPerf's name for the trained model, in any format."""


def builder(suffix: str) -> Build:
    """The ``ModelSpec.build`` of MobileNet: ``mobilenet_v1_1.0_224.onnx``, or another ``suffix``, in $MODEL_DIR.

    Its input is float32 [batch, 3, 224, 224], of a .tflite file [batch, 224, 224, 3], its scores float32 [batch, 1001].
    Raises ``InputError`` where it is not there, and for random weights.
    """

    def build(weights: Weights, say: Say) -> Path:
        if weights != "trained":
            raise InputError(f"mobilenet has no {weights} weights, expected --weights trained")
        return brought("mobilenet", TRAINED_FILE + suffix)

    return build
