"""What a preprocessor is: one way from a picture's bytes to the model's input tensor.

A *recipe* says what must come out; a preprocessor is one way to compute it. All of them answer to the scalar oracle of
the same recipe (``preprocess/oracle.py``), which is itself checked against OpenCV.

Errors: raise ``BadPicture`` for a picture that cannot be decoded, ``ValueError`` for a recipe or buffer that does not
fit, ``ModuleNotFoundError`` for a library that is not installed. Preprocessors speak arrays and know nothing of
backends or LoadGen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.device import SENT_PLACES
from kernels.placement import Interpolation
from plugins.base import Plugin

Mark = Callable[[str], None]
"""Called when a stage has ended, once per batch: ``mark("decode")``."""


def unmarked(stage: str) -> None:
    """The ``Mark`` of what is not timed, or timed as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What preprocessing must produce. Frozen: it can be a key, and it is written into every result.

    ``fit`` is the order of the two geometric steps:

    - ``resize-crop``: the short side becomes ``short_side``, keeping the aspect ratio (the other side truncated to
      int), then the centre ``size`` is cut out at integer offsets (MLPerf's ResNet-50 and MobileNet, torchvision,
      image processors of transformers);
    - ``crop-resize``: a centre square of ``max(1, int(size / (size + crop_padding) * short side))`` is cut out at
      ``(side - c + 1) // 2`` and resized to ``size`` (EfficientNet-Lite);
    - ``stretch``: the whole picture becomes ``size`` x ``size``, whatever its aspect ratio (MLPerf's RetinaNet); with a
      ``short_side`` that x that, of which the centre ``size`` is cut out (DeiT's image processor, timm's squash);
    - ``letterbox``: the whole picture becomes as large as fits, keeping the aspect ratio, each side rounded to the
      nearest; what is left of the square is ``pad_level``, on both sides (``align`` centre) or behind (YOLO).

    Then, per channel in ``colour_order``: ``(value - mean) / std`` in float32, laid out as ``layout`` and cast to
    ``dtype``; ``uint8`` means the pixels themselves, so it goes with mean 0 and std 1 only.
    """

    name: str
    size: int
    """Height and width of the model's input in pixels."""
    fit: Literal["resize-crop", "crop-resize", "stretch", "letterbox"]
    interpolation: Interpolation
    crop_percent: float = 87.5
    short_side: int | None = None
    """Pixels that ``resize-crop`` makes the short side and ``stretch`` both, ``size`` at least; None:
    int(100 * size / crop_percent), and ``size``.
    """
    crop_offset: Literal["floor", "round"] = "floor"
    """Where ``resize-crop`` and ``stretch`` cut when (side - size) / 2 is no whole number: rounded down, as MLPerf's
    harness and transformers do, or half to even, as torchvision's ``CenterCrop`` does.
    """
    crop_padding: int = 32
    pad_level: int = 114
    """Level of all three channels where a letterbox has no picture."""
    align: Literal["centre", "top-left"] = "centre"
    """Where the picture lies in a letterbox."""
    colour_order: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "float16", "uint8"] = "float32"

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """Shape of one sample without the batch axis, in ``layout``."""
        return (3, self.size, self.size) if self.layout == "NCHW" else (self.size, self.size, 3)


@dataclass(frozen=True, slots=True)
class Geometry:
    """What preprocessing did to one picture, so that boxes can be mapped back: x_in = x_out / scale_x + left.

    ``left`` and ``top`` are the crop's offset in pixels of the original picture, ``width`` x ``height`` as it is after
    its EXIF rotation; they are negative where the picture was padded.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    left: float
    top: float


class BadPicture(ValueError):
    """A picture that cannot be decoded. Whoever knows the files can name the right one of the batch by ``position``."""

    def __init__(self, position: int, reason: object) -> None:
        """``position`` is that of the picture in its batch, from 0; ``reason`` says what was got and expected."""
        super().__init__(str(reason))
        self.position = position


class Target(Protocol):
    """Where a preprocessor writes: a backend's slot, or anything of its shape.

    ``buffers`` has one array per input tensor with at least as many rows as pictures; read-only attributes otherwise.
    """

    @property
    def n(self) -> int: ...
    @property
    def buffers(self) -> Mapping[str, Any]: ...
    @property
    def place(self) -> str: ...


class Preprocessor(Plugin, ABC):
    """One lane's preprocessor for one recipe. Used by one thread at a time."""

    places: ClassVar[tuple[str, ...]] = ("host",)
    """Where it can write, best first."""
    stages: ClassVar[tuple[str, ...]] = ("preprocess",)
    """The stages it marks, in order. One that cannot be split has the one stage ``preprocess``."""
    computes_pixels: ClassVar[bool] = True
    """False for one that only passes time: it is left out where all are compared with the oracle."""

    def __init__(self, recipe: Recipe) -> None:
        """One with ``options`` gets those that the user set as keywords, which ``read_options`` reads."""
        self.recipe = recipe

    @classmethod
    def forwards(cls) -> bool:
        """Whether it makes no tensor, but hands pictures on to a server that preprocesses them itself."""
        return cls.places[0] in SENT_PLACES

    @classmethod
    def check_machine(cls) -> None:
        """Raise ``ModuleNotFoundError`` in one line, with what to do, for all that this machine is known to lack."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Version of the library behind it."""

    @abstractmethod
    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """Turn ``encoded`` (whole files) into the first ``len(encoded)`` rows of the target's only buffer.

        Raises ``BadPicture`` for one that cannot be decoded; its text does not know the file's name.
        """

    def run_pixels(self, pictures: Sequence[NDArray[np.uint8]], target: Target, mark: Mark) -> list[Geometry]:
        """Do what ``run`` does behind decoding; marks ``pixel_stages``.

        ``pictures`` are decoded as OpenCV does it: uint8 (height, width, 3), BGR, rotated as EXIF says. Raises
        ``ValueError`` where a preprocessor cannot start from pixels.
        """
        raise ValueError(f"the preprocessor {self.name} decodes by itself: it cannot start from pixels")

    @classmethod
    def pixel_stages(cls) -> tuple[str, ...]:
        """The stages of ``run_pixels``: all but ``decode``."""
        return tuple(stage for stage in cls.stages if stage != "decode")

    def counts(self) -> Mapping[str, int]:
        """How often something happened that a reader of the result must know: what, as the end of a sentence, and how
        often so far. Those of several lanes add up; what is 0 need not be told.
        """
        return {}


def only_buffer(recipe: Recipe, target: Target, n: int) -> NDArray[Any]:
    """The target's only buffer, in host memory, once it is known to take ``n`` pictures of ``recipe``.

    Raises ``ValueError`` for another dtype, shape or number of rows, and for a buffer that is strided.
    """
    buffer: NDArray[Any]
    name, buffer = next(iter(target.buffers.items()))
    check_buffer(recipe, name, buffer.dtype, buffer.shape, n)
    if not buffer.flags.c_contiguous:
        raise ValueError(f"input {name} is strided, expected a C-contiguous buffer")
    return buffer


def check_buffer(recipe: Recipe, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], n: int) -> None:
    """Raise ``ValueError`` where a buffer of this dtype and shape does not take ``n`` pictures of ``recipe``."""
    if dtype != recipe.dtype or shape[1:] != recipe.sample_shape or shape[0] < n:
        raise ValueError(
            f"input {name} is {dtype} {tuple(shape)}, expected {recipe.dtype} with at least "
            f"{n} rows of {recipe.sample_shape} (recipe {recipe.name})"
        )
