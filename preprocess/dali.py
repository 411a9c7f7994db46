"""NVIDIA DALI on the CPU: its decoder, with the exact resize or with its own nearest one behind it.

``dali`` lets DALI decode and OpenCV do the rest, so its parity is that of ``opencv``. ``dali-resize`` lets DALI resize
and normalise too; its filters are not OpenCV's, and what comes out differs by as much as ``sut parity`` says.

Both hand DALI the JPEGs that it decodes bit for bit as OpenCV does: 8 bits, grey or three components, any EXIF
rotation. It differs by up to 2 levels in CMYK and by 1 in PNGs of 16 bits, and reads no GIF or AVIF, so whatever is not
such a JPEG, and whatever DALI refuses, is decoded by OpenCV, and counted (``counts``). A DALI that refuses a
plain JPEG too is an error.

DALI writes what it finds wrong with a picture to stderr, and there is no switch for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from preprocess.parts.jpeg import read_frame
from preprocess.parts.self_test import DecoderNotUsable, plain_jpeg

Pixels = NDArray[np.uint8]
ColourOrder = Literal["RGB", "BGR"]

_FILTERS = {
    "area": (types.INTERP_LINEAR, types.INTERP_GAUSSIAN, True),
    "linear": (types.INTERP_LINEAR, types.INTERP_LINEAR, False),
    "cubic": (types.INTERP_CUBIC, types.INTERP_CUBIC, False),
    "pillow-bilinear": (types.INTERP_LINEAR, types.INTERP_LINEAR, True),
    "pillow-bicubic": (types.INTERP_CUBIC, types.INTERP_CUBIC, True),
    "pillow-lanczos": (types.INTERP_LANCZOS3, types.INTERP_LANCZOS3, True),
}
"""The nearest there is: filter where a picture shrinks, filter where it grows, whether it is smoothed when it shrinks.

Mean and largest difference from the oracle in levels, on the demo photos: area 0.81 and 41, linear 0.12 and 1, cubic
0.55 and 14 (DALI's kernel has the sharpness -0.5, OpenCV's -0.75); of Pillow's, which round between their two passes,
bilinear 0.16 and 1, bicubic 0.17 and 6, Lanczos 0.18 and 12. For area all other filters are farther on average;
where a picture grows, OpenCV's blends only at the edges between pixels, and the Gaussian is half as far as linear.
"""
BY_OPENCV = "pictures were decoded by OpenCV, since DALI does not take them or not alike"
_DTYPES = {"float32": types.FLOAT, "float16": types.FLOAT16, "uint8": types.UINT8}
_IMAGE_TYPES = {"RGB": types.RGB, "BGR": types.BGR}


class Pipeline:
    """A DALI pipeline for batches of any size; built when it is first needed, and anew for a larger batch.

    DALI gives up a pipeline after any error, so that is dropped, and the next batch gets a new one (some milliseconds).
    """

    def __init__(self, graph: Callable[[], Any], gpu: int | None = None, threads: int = 1) -> None:
        """``gpu`` is the index of the GPU that it may use; None for the CPU alone.

        One of ``threads``, unless told otherwise: lanes and workers are the parallelism.
        """
        self._graph = graph
        self._gpu, self._threads = gpu, threads
        self._pipeline: Any = None
        self._rows = 0

    def run(self, inputs: Mapping[str, Sequence[Any]], stream: int | None = None) -> Any:
        """The pipeline's one output, DALI's list of tensors.

        On the CPU it is valid until the next call; on a GPU as long as something refers to it, from what has been
        queued on ``stream`` so far. Raises ``RuntimeError``, as DALI does.
        """
        self.prepare(len(next(iter(inputs.values()))))
        try:
            for name, arrays in inputs.items():
                self._pipeline.feed_input(name, list(arrays), cuda_stream=stream)
            [output] = self._pipeline.run(stream)
        except RuntimeError:
            self.close()
            raise
        return output

    def prepare(self, rows: int) -> None:
        """Have a pipeline for as many ``rows``: what ``run`` raises after this is about its inputs.

        Raises ``RuntimeError``, as DALI does, where none can be built.
        """
        if rows <= self._rows:
            return
        pipeline = nvidia.dali.Pipeline(
            batch_size=rows,
            num_threads=self._threads,
            device_id=self._gpu,
            prefetch_queue_depth=1,  # this and the next are what feed_input() asks for on the CPU
            exec_dynamic=self._gpu is not None,  # outputs that outlive the next batch, in the order of a stream
        )
        with pipeline:
            pipeline.set_outputs(self._graph())
        pipeline.build()
        self._pipeline, self._rows = pipeline, rows

    def close(self) -> None:
        # Forgotten too: what part of a batch a GPU's JPEG engine takes is worked out from a pipeline's first batch, so
        # that must be the largest.
        self._pipeline, self._rows = None, 0


def _arrays(output: Any, rows: int) -> list[NDArray[Any]]:
    """The tensors of an output on the CPU, where they lie."""
    return [np.asarray(output.at(row)) for row in range(rows)]


class _Decoder:
    """Decodes batches of files with DALI, and with OpenCV what DALI does not decode as OpenCV does."""

    def __init__(self) -> None:
        self.by_opencv = 0
        self._pipeline = Pipeline(decode_graph)
        self._check()

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels]:
        """Pixels, uint8 (height, width, 3) in RGB, each valid until the next call.

        Raises ``BadPicture`` for the first one that neither can decode, and ``DecoderNotUsable`` where DALI refuses
        all that it is given and a plain JPEG too.
        """
        own = [position for position, data in enumerate(encoded) if _is_plain_jpeg(data)]
        if own:
            self._pipeline.prepare(len(own))
        try:
            pictures = dict(zip(own, self._run([encoded[position] for position in own]), strict=True))
        except RuntimeError:
            # DALI does not reliably say which picture it was.
            pictures = {position: found for position in own if (found := self._alone(encoded[position])) is not None}
            if not pictures:
                self._check()
        return [
            pictures[position] if position in pictures else self._by_opencv(position, data)
            for position, data in enumerate(encoded)
        ]

    def _check(self) -> None:
        """Raise ``DecoderNotUsable`` where DALI does not decode a plain JPEG."""
        try:
            self._run([plain_jpeg()])
        except RuntimeError as error:
            raise DecoderNotUsable(f"DALI {nvidia.dali.__version__}", error) from error

    def _run(self, encoded: Sequence[bytes]) -> list[Pixels]:
        if not encoded:
            return []
        arrays = [np.frombuffer(data, np.uint8) for data in encoded]
        return _arrays(self._pipeline.run({"encoded": arrays}), len(encoded))

    def _alone(self, data: bytes) -> Pixels | None:
        self._pipeline.prepare(1)
        try:
            [pixels] = self._run([data])
        except RuntimeError:
            return None
        return pixels.copy()

    def _by_opencv(self, position: int, data: bytes) -> Pixels:
        pixels = np.asarray(cv2.cvtColor(decode_at(position, data), cv2.COLOR_BGR2RGB), np.uint8)
        self.by_opencv += 1
        return pixels

    def close(self) -> None:
        self._pipeline.close()


class _WithDali(Preprocessor):
    """DALI decodes on the CPU."""

    def __init__(self, recipe: Recipe) -> None:
        """Raises ``ValueError`` for a recipe that contradicts itself, such as uint8 with a mean."""
        super().__init__(recipe)
        check_recipe(recipe)
        self._decoder = _Decoder()

    @classmethod
    def version(cls) -> str:
        """DALI's version."""
        return str(nvidia.dali.__version__)

    def counts(self) -> Mapping[str, int]:
        """Pictures so far that DALI was not given, or refused."""
        return {BY_OPENCV: self._decoder.by_opencv}


class Dali(_WithDali):
    """DALI decodes, OpenCV does the rest: bit for bit what ``opencv`` gives."""

    name = "dali"
    stages = OpenCV.stages

    def __init__(self, recipe: Recipe) -> None:
        """Raises ``ValueError`` for a recipe that contradicts itself, such as uint8 with a mean."""
        super().__init__(recipe)
        self._from_bgr = OpenCV(recipe)
        # DALI decodes to RGB in half the time that BGR takes it. What follows treats the channels alike, so RGB needs
        # no more than the recipe of the opposite order.
        self._from_rgb = OpenCV(replace(recipe, colour_order="BGR" if recipe.colour_order == "RGB" else "RGB"))

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """Turn ``encoded`` (whole files) into the first ``len(encoded)`` rows of the target's only buffer.

        Raises ``BadPicture`` for one that cannot be decoded and ``ValueError`` for a buffer that does not fit; the next
        batch works again.
        """
        pictures = self._decoder.decode(encoded)
        mark("decode")
        return self._from_rgb.run_pixels(pictures, target, mark)

    def counts(self) -> Mapping[str, int]:
        """Pictures so far that DALI was not given, or refused, and what ``opencv`` tells."""
        resized = Counter(self._from_rgb.counts()) + Counter(self._from_bgr.counts())
        return {**super().counts(), **resized}

    def run_pixels(self, pictures: Sequence[Pixels], target: Target, mark: Mark) -> list[Geometry]:
        """Resize, crop and normalise decoded pictures, uint8 (height, width, 3) in BGR: OpenCV's work alone."""
        return self._from_bgr.run_pixels(pictures, target, mark)

    def close(self) -> None:
        """Drop the pipeline."""
        self._decoder.close()


class DaliResize(_WithDali):
    """DALI decodes, resizes by the nearest filter it has, crops and normalises.

    The last three are one pipeline, which cannot be told apart: the stage ``preprocess``.
    """

    name = "dali-resize"
    stages = ("decode", "preprocess")

    def __init__(self, recipe: Recipe) -> None:
        """Raises ``ValueError`` for a recipe that contradicts itself, such as uint8 with a mean."""
        super().__init__(recipe)
        self._from_bgr = Pipeline(lambda: resize_graph(recipe, "BGR"))
        self._from_rgb = Pipeline(lambda: resize_graph(recipe, "RGB"))

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """As ``Dali.run``; raises ``RuntimeError`` where DALI cannot resize what was decoded."""
        pictures = self._decoder.decode(encoded)
        mark("decode")
        return self._resize(self._from_rgb, pictures, target, mark)

    def run_pixels(self, pictures: Sequence[Pixels], target: Target, mark: Mark) -> list[Geometry]:
        """Resize, crop and normalise decoded pictures, uint8 (height, width, 3) in BGR."""
        return self._resize(self._from_bgr, pictures, target, mark)

    def _resize(self, pipeline: Pipeline, pictures: Sequence[Pixels], target: Target, mark: Mark) -> list[Geometry]:
        buffer = only_buffer(self.recipe, target, len(pictures))
        fits = [fit(self.recipe, picture.shape[1], picture.shape[0]) for picture in pictures]
        samples = _arrays(pipeline.run({"pixels": pictures, **regions(self.recipe, fits)}), len(pictures))
        for row, sample in zip(buffer, samples, strict=False):
            np.copyto(row, sample)
        mark("preprocess")
        return [where.geometry for where in fits]

    def close(self) -> None:
        """Drop the pipelines."""
        for pipeline in (self._decoder, self._from_bgr, self._from_rgb):
            pipeline.close()


def decode_graph() -> Any:
    """Files to pixels in RGB, on the CPU."""
    return fn.decoders.image(encoded_input(), device="cpu", output_type=types.RGB)


def encoded_input() -> Any:
    """Whole files, as they are in host memory."""
    return fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)


def resize_graph(recipe: Recipe, given: ColourOrder, device: Literal["cpu", "gpu"] = "cpu") -> Any:
    """Pixels in the order ``given``, and the region of them that is kept, to the model's input; see ``regions``."""
    pixels = fn.external_source(name="pixels", device=device, dtype=types.UINT8, ndim=3, layout="HWC", no_copy=True)
    if recipe.fit == "crop-resize":
        # Given as the resize's region, this crop would blend in pixels from beyond.
        anchor = fn.external_source(name="anchor", dtype=types.INT32, ndim=1)
        shape = fn.external_source(name="shape", dtype=types.INT32, ndim=1)
        pixels = fn.slice(pixels, anchor, shape, axes=[0, 1])
    shrink, grow, antialias = _FILTERS[recipe.interpolation]
    square = [recipe.size, recipe.size]
    told = ("size",) if recipe.fit == "letterbox" else ("roi_start", "roi_end")
    resized = fn.resize(
        pixels,
        **{"size": square, **{name: fn.external_source(name=name, dtype=types.FLOAT, ndim=1) for name in told}},
        min_filter=shrink,
        mag_filter=grow,
        antialias=antialias,
        dtype=types.UINT8,
    )
    if recipe.fit == "letterbox":
        corner = fn.external_source(name="corner", dtype=types.INT32, ndim=1)
        padded: dict[str, Any] = {"out_of_bounds_policy": "pad", "fill_values": recipe.pad_level}
        resized = fn.slice(resized, start=corner, shape=square, axes=[0, 1], **padded)
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


def regions(recipe: Recipe, fits: Sequence[Fit]) -> dict[str, list[NDArray[Any]]]:
    """What ``resize_graph`` is told of each picture, in (y, x): the box that is cut out, where a recipe has one, and
    the part of it that the crop keeps. Resizing only that part to the crop's size is the resize and the crop in one.
    Of a letterbox it is told the size of the whole picture in it, and where its corner lies from the picture's.
    """
    found: dict[str, list[NDArray[Any]]] = {}
    if recipe.fit == "letterbox":
        found["size"] = [np.array([where.resized_height, where.resized_width], np.float32) for where in fits]
        found["corner"] = [np.array([where.crop_top, where.crop_left], np.int32) for where in fits]
        return found
    if recipe.fit == "crop-resize":
        found["anchor"] = [np.array([where.box_top, where.box_left], np.int32) for where in fits]
        found["shape"] = [np.array([where.box_height, where.box_width], np.int32) for where in fits]
    per_output = [
        np.array([where.box_height / where.resized_height, where.box_width / where.resized_width]) for where in fits
    ]
    starts = [np.array([where.crop_top, where.crop_left]) * per for where, per in zip(fits, per_output, strict=True)]
    found["roi_start"] = [start.astype(np.float32) for start in starts]
    found["roi_end"] = [
        (start + recipe.size * per).astype(np.float32) for start, per in zip(starts, per_output, strict=True)
    ]
    return found


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether these are the bytes of a lossy JPEG of 8 bits with one or three components, as its frame header says."""
    frame = read_frame(data)
    return frame is not None and frame.coding != "other" and frame.precision == 8 and frame.colours != "other"
