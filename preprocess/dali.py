"""NVIDIA DALI on the CPU: its decoder, with the exact resize or with its own nearest one behind it.

``dali`` lets DALI decode and OpenCV do the rest, so its parity is that of ``opencv``. ``dali-resize`` lets DALI resize
and normalise too; its filters are not OpenCV's, and what comes out differs by as much as ``sut parity`` says.

Both hand DALI the JPEGs that it decodes bit for bit as OpenCV does: 8 bits, grey or three components, any EXIF
rotation. It differs by up to 2 levels in CMYK and by 1 in PNGs of 16 bits, and reads no GIF or AVIF, so whatever is not
such a JPEG, and whatever DALI refuses, is decoded by OpenCV, and counted (``decoded_by_opencv``).

DALI writes what it finds wrong with a picture to stderr, and there is no switch for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import cv2
import numpy as np
import nvidia.dali
from numpy.typing import NDArray
from nvidia.dali import fn, types

from preprocess.base import Geometry, Mark, Preprocessor, Recipe, Target, only_buffer
from preprocess.opencv import OpenCV, decode_at
from preprocess.oracle import Fit, check_recipe, fit

Pixels = NDArray[np.uint8]
ColourOrder = Literal["RGB", "BGR"]

_FILTERS = {
    "area": (types.INTERP_LINEAR, types.INTERP_GAUSSIAN, True),
    "linear": (types.INTERP_LINEAR, types.INTERP_LINEAR, False),
    "cubic": (types.INTERP_CUBIC, types.INTERP_CUBIC, False),
}
"""The nearest there is: filter where a picture shrinks, filter where it grows, whether it is smoothed when it shrinks.

Mean and largest difference from the oracle in levels, on the demo photos: area 0.81 and 41, linear 0.12 and 1, cubic
0.55 and 14 (DALI's kernel has the sharpness -0.5, OpenCV's -0.75). For area all other filters are farther on average;
where a picture grows, OpenCV's blends only at the edges between pixels, and the Gaussian is half as far as linear.
"""
_DTYPES = {"float32": types.FLOAT, "float16": types.FLOAT16, "uint8": types.UINT8}
_IMAGE_TYPES = {"RGB": types.RGB, "BGR": types.BGR}

_LOSSY_8_BIT_FRAMES = (0xC0, 0xC1, 0xC2)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}


class _Pipeline:
    """A DALI pipeline on the CPU for batches of any size; built when it is first needed, and anew for a larger batch.

    One thread: lanes and workers are the parallelism. DALI gives up a pipeline after any error, so that is dropped, and
    the next batch gets a new one (some milliseconds).
    """

    def __init__(self, graph: Callable[[], Any]) -> None:
        self._graph = graph
        self._pipeline: Any = None
        self._rows = 0

    def run(self, inputs: Mapping[str, Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
        """The pipeline's one output, an array per picture, each valid until the next call.

        Raises ``RuntimeError``, as DALI does.
        """
        rows = len(next(iter(inputs.values())))
        if self._pipeline is None or rows > self._rows:
            self._build(max(rows, self._rows))
        try:
            for name, arrays in inputs.items():
                self._pipeline.feed_input(name, list(arrays))
            [output] = self._pipeline.run()
        except RuntimeError:
            self.close()
            raise
        return [np.asarray(output.at(row)) for row in range(rows)]

    def _build(self, rows: int) -> None:
        pipeline = nvidia.dali.Pipeline(
            batch_size=rows,
            num_threads=1,
            device_id=None,
            prefetch_queue_depth=1,  # this and the next are what feed_input() asks for
            exec_dynamic=False,
        )
        with pipeline:
            pipeline.set_outputs(self._graph())
        pipeline.build()
        self._pipeline, self._rows = pipeline, rows

    def close(self) -> None:
        self._pipeline = None


class _Decoder:
    """Decodes batches of files with DALI, and with OpenCV what DALI does not decode as OpenCV does."""

    def __init__(self) -> None:
        self.by_opencv = 0
        self._pipeline = _Pipeline(_decode_graph)

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels]:
        """Pixels, uint8 (height, width, 3) in RGB, each valid until the next call.

        Raises ``BadPicture`` for the first one that neither can decode.
        """
        own = [position for position, data in enumerate(encoded) if _is_plain_jpeg(data)]
        try:
            found = self._run([encoded[position] for position in own])
        except RuntimeError:
            # DALI does not reliably say which picture it was.
            return [self._decode_alone(position, data) for position, data in enumerate(encoded)]
        pictures = dict(zip(own, found, strict=True))
        return [
            pictures[position] if position in pictures else self._by_opencv(position, data)
            for position, data in enumerate(encoded)
        ]

    def _run(self, encoded: Sequence[bytes]) -> list[Pixels]:
        return self._pipeline.run({"encoded": [np.frombuffer(data, np.uint8) for data in encoded]}) if encoded else []

    def _decode_alone(self, position: int, data: bytes) -> Pixels:
        if _is_plain_jpeg(data):
            with suppress(RuntimeError):
                [pixels] = self._run([data])
                return pixels.copy()
        return self._by_opencv(position, data)

    def _by_opencv(self, position: int, data: bytes) -> Pixels:
        pixels = np.asarray(cv2.cvtColor(decode_at(position, data), cv2.COLOR_BGR2RGB), np.uint8)
        self.by_opencv += 1
        return pixels

    def close(self) -> None:
        self._pipeline.close()


class Dali(Preprocessor):
    """DALI decodes, OpenCV does the rest: bit for bit what ``opencv`` gives."""

    name = "dali"
    stages = OpenCV.stages

    def __init__(self, recipe: Recipe) -> None:
        """Raises ``ValueError`` for a recipe that contradicts itself, such as uint8 with a mean."""
        super().__init__(recipe)
        self._decoder = _Decoder()
        self._from_bgr = OpenCV(recipe)
        # DALI decodes to RGB in half the time that BGR takes it. What follows treats the channels alike, so RGB needs
        # no more than the recipe of the opposite order.
        self._from_rgb = OpenCV(replace(recipe, colour_order="BGR" if recipe.colour_order == "RGB" else "RGB"))

    @classmethod
    def version(cls) -> str:
        """DALI's version."""
        return str(nvidia.dali.__version__)

    @property
    def decoded_by_opencv(self) -> int:
        """Pictures so far that DALI was not given, or refused."""
        return self._decoder.by_opencv

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """Turn ``encoded`` (whole files) into the first ``len(encoded)`` rows of the target's only buffer.

        Raises ``BadPicture`` for one that cannot be decoded and ``ValueError`` for a buffer that does not fit; the next
        batch works again.
        """
        pictures = self._decoder.decode(encoded)
        mark("decode")
        return self._from_rgb.run_pixels(pictures, target, mark)

    def run_pixels(self, pictures: Sequence[Pixels], target: Target, mark: Mark) -> list[Geometry]:
        """Resize, crop and normalise decoded pictures, uint8 (height, width, 3) in BGR: OpenCV's work alone."""
        return self._from_bgr.run_pixels(pictures, target, mark)

    def close(self) -> None:
        """Drop the pipeline."""
        self._decoder.close()


class DaliResize(Preprocessor):
    """DALI decodes, resizes by the nearest filter it has, crops and normalises.

    The last three are one pipeline, which cannot be told apart: the stage ``preprocess``.
    """

    name = "dali-resize"
    stages = ("decode", "preprocess")

    def __init__(self, recipe: Recipe) -> None:
        """Raises ``ValueError`` for a recipe that contradicts itself, such as uint8 with a mean."""
        super().__init__(recipe)
        check_recipe(recipe)
        self._decoder = _Decoder()
        self._from_bgr = _Pipeline(lambda: _resize_graph(recipe, "BGR"))
        self._from_rgb = _Pipeline(lambda: _resize_graph(recipe, "RGB"))

    @classmethod
    def version(cls) -> str:
        """DALI's version."""
        return str(nvidia.dali.__version__)

    @property
    def decoded_by_opencv(self) -> int:
        """Pictures so far that DALI was not given, or refused."""
        return self._decoder.by_opencv

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """As ``Dali.run``; raises ``RuntimeError`` where DALI cannot resize what was decoded."""
        pictures = self._decoder.decode(encoded)
        mark("decode")
        return self._resize(self._from_rgb, pictures, target, mark)

    def run_pixels(self, pictures: Sequence[Pixels], target: Target, mark: Mark) -> list[Geometry]:
        """Resize, crop and normalise decoded pictures, uint8 (height, width, 3) in BGR."""
        return self._resize(self._from_bgr, pictures, target, mark)

    def _resize(self, pipeline: _Pipeline, pictures: Sequence[Pixels], target: Target, mark: Mark) -> list[Geometry]:
        buffer = only_buffer(self.recipe, target, len(pictures))
        fits = [fit(self.recipe, picture.shape[1], picture.shape[0]) for picture in pictures]
        # A crop before the resize is cut out here: given as DALI's region it would blend in pixels from beyond.
        boxes = [np.ascontiguousarray(where.cut(picture)) for where, picture in zip(fits, pictures, strict=True)]
        kept = [_kept_region(where) for where in fits]
        samples = pipeline.run(
            {"pixels": boxes, "start": [start for start, _ in kept], "end": [end for _, end in kept]}
        )
        for row, sample in zip(buffer, samples, strict=False):
            np.copyto(row, sample)
        mark("preprocess")
        return [where.geometry for where in fits]

    def close(self) -> None:
        """Drop the pipelines."""
        for pipeline in (self._decoder, self._from_bgr, self._from_rgb):
            pipeline.close()


def _decode_graph() -> Any:
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
    return fn.decoders.image(encoded, device="cpu", output_type=types.RGB)


def _resize_graph(recipe: Recipe, given: ColourOrder) -> Any:
    """Pixels in the order ``given``, and the region of them that is kept, to the model's input."""
    pixels = fn.external_source(name="pixels", dtype=types.UINT8, ndim=3, layout="HWC")
    shrink, grow, antialias = _FILTERS[recipe.interpolation]
    resized = fn.resize(
        pixels,
        size=[recipe.size, recipe.size],
        roi_start=fn.external_source(name="start", dtype=types.FLOAT, ndim=1),
        roi_end=fn.external_source(name="end", dtype=types.FLOAT, ndim=1),
        min_filter=shrink,
        mag_filter=grow,
        antialias=antialias,
        dtype=types.UINT8,
    )
    if given != recipe.colour_order:
        resized = fn.color_space_conversion(
            resized, image_type=_IMAGE_TYPES[given], output_type=_IMAGE_TYPES[recipe.colour_order]
        )
    return fn.crop_mirror_normalize(
        resized,
        dtype=_DTYPES[recipe.dtype],
        output_layout=recipe.layout[1:],
        mean=list(recipe.mean),
        std=list(recipe.std),
    )


def _kept_region(where: Fit) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The part of the box that the crop keeps: start and end as (y, x) in pixels of the box.

    Resizing only that part to the crop's size is the resize and the crop in one.
    """
    per_output = np.array([where.box_height / where.resized_height, where.box_width / where.resized_width])
    start = np.array([where.crop_top, where.crop_left]) * per_output
    return start.astype(np.float32), (start + where.size * per_output).astype(np.float32)


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether these are the bytes of a lossy JPEG of 8 bits with one or three components, as its frame header says.

    Marker segments are walked as ITU T.81, annex B has them.
    """
    if not data.startswith(b"\xff\xd8"):
        return False
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _FRAMES:
            return marker in _LOSSY_8_BIT_FRAMES and data[at + 4] == 8 and data[at + 9] in (1, 3)
        else:
            at += 2 if marker in _ALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
