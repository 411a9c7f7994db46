"""NVIDIA DALI on a GPU: its mixed decoder, with the project's own kernels or with its own resize behind it.

``mixed`` means that a file goes in from host memory and pixels come out in the GPU's, by the GPU's JPEG engine or by
nvJPEG's kernels. They are handed on where they lie. ``dali-gpu`` lets the project's kernels do the rest, so that its
parity is that of the decoder; ``dali-gpu-resize`` lets DALI resize and normalise too, with the filters of
``dali-resize``. It copies twice within the GPU's memory: DALI gathers separate pictures in one buffer before it resizes
them (``external_source``, ``no_copy``, in its manual), and what comes out is copied into the slot.

DALI decodes by the CPU, without a word, what its mixed decoder cannot take. So it is given nothing but baseline JPEGs,
and the others are decoded by OpenCV, and counted. A DALI that refuses a plain JPEG too is an error.

None of this has run on a GPU yet. The graphs have, on the CPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import nvidia.dali
from nvidia.dali import fn, types

from kernels.device import Buffer, DeviceArray
from kernels.hot_path import Variant
from plugins.options import option
from preprocess.base import Recipe
from preprocess.cuda import KERNELS, ColourOrder, GpuOptions, Library, OnGpu
from preprocess.dali import Pipeline, encoded_input, regions, resize_graph
from preprocess.oracle import Fit
from preprocess.parts.gpu_decode import DevicePixels, GpuDecoder
from preprocess.parts.self_test import DecoderNotUsable, plain_jpeg

HW_SHARE = 0.65
"""DALI's own default."""

DALI = Library("DALI", "nvidia.dali", {12: "dali-cu12", 13: "dali"})


class DaliMixed(GpuDecoder):
    """DALI's mixed decoder."""

    def __init__(self, gpu: int | None, hw_share: float = HW_SHARE, threads: int = 1) -> None:
        """``gpu`` is the GPU's index; None decodes on the CPU, by the same graph.

        With one of ``threads`` JPEG engine and nvJPEG's kernels work one after the other, with more at the same time.
        Raises ``DecoderNotUsable`` where DALI does not work.
        """
        self._pipeline = Pipeline(lambda: mixed_graph("cpu" if gpu is None else "mixed", hw_share), gpu, threads)
        self.check()

    @classmethod
    def version(cls) -> str:
        """DALI's version."""
        return f"DALI {nvidia.dali.__version__}"

    def check(self, stream: int | None = None) -> None:
        """See ``GpuDecoder``."""
        try:
            self._run([plain_jpeg()], stream)
        except RuntimeError as error:
            raise DecoderNotUsable(self.version(), error) from error

    def _decode(self, encoded: Sequence[bytes], stream: int | None) -> list[DevicePixels | None]:
        self._pipeline.prepare(len(encoded))
        try:
            return list(self._decoded(encoded, stream))
        except RuntimeError:
            # DALI does not reliably say which picture it was.
            return [self._alone(data, stream) for data in encoded]

    def _alone(self, data: bytes, stream: int | None) -> DevicePixels | None:
        self._pipeline.prepare(1)
        try:
            [pixels] = self._decoded([data], stream)
        except RuntimeError:
            return None
        return pixels

    def _decoded(self, encoded: Sequence[bytes], stream: int | None) -> list[DevicePixels]:
        output = self._run(encoded, stream)
        return [self._pixels(output[row], output) for row in range(len(encoded))]

    def _run(self, encoded: Sequence[bytes], stream: int | None) -> Any:
        return self._pipeline.run({"encoded": [np.frombuffer(data, np.uint8) for data in encoded]}, stream)

    def _pixels(self, tensor: Any, output: Any) -> DevicePixels:
        return DevicePixels.of(tensor, owner=(tensor, output))

    def close(self) -> None:
        """Drop the pipeline."""
        self._pipeline.close()


@dataclass(frozen=True, slots=True)
class DaliGpuResizeOptions(GpuOptions):
    """What may be set of ``dali-gpu-resize``."""

    hw_share: float = option(HW_SHARE, "share of a batch that the GPU's JPEG engine decodes, 0 to 1", least=0, most=1)


@dataclass(frozen=True, slots=True)
class DaliGpuOptions(DaliGpuResizeOptions):
    """What may be set of ``dali-gpu``."""

    kernels: Variant = option("fused", KERNELS)


class DaliGpu(OnGpu):
    """DALI decodes on one NVIDIA GPU, the project's kernels do the rest there. Has not run on hardware yet."""

    name = "dali-gpu"
    options = DaliGpuOptions
    decoder = DaliMixed
    library = DALI


class DaliGpuResize(OnGpu):
    """DALI decodes, resizes by the nearest filter it has, crops and normalises on one NVIDIA GPU.

    Has not run on hardware yet.
    """

    name = "dali-gpu-resize"
    options = DaliGpuResizeOptions
    decoder = DaliMixed
    library = DALI

    def __init__(self, recipe: Recipe, **options: Any) -> None:
        """As ``DaliGpu``."""
        super().__init__(recipe, **options)
        gpu = self.read_options(options).gpu
        orders: tuple[ColourOrder, ...] = ("RGB", "BGR")
        self._resizes = {given: resize_pipeline(recipe, given, gpu) for given in orders}

    def _compute(self, given: ColourOrder, pictures: Sequence[DevicePixels], fits: Sequence[Fit], rows: Buffer) -> None:
        inputs: dict[str, list[Any]] = {"pixels": [_shown(picture) for picture in pictures]}
        inputs |= regions(self.recipe, fits)
        output = self._resizes[given].run(inputs, self._stream)
        stream = ctypes.c_void_p(self._stream)
        output.copy_to_external(ctypes.c_void_p(rows.address), cuda_stream=stream, non_blocking=True)

    def close(self) -> None:
        """Drop the pipelines, then what ``OnDevice`` holds."""
        for pipeline in self._resizes.values():
            pipeline.close()
        super().close()


def _shown(pixels: DevicePixels) -> DeviceArray:
    """Pixels as DALI takes them: an array in the GPU's memory. DALI copies it, into one buffer with the others."""
    strides = None if pixels.pitch == 3 * pixels.width else (pixels.pitch, 3, 1)
    return DeviceArray(pixels.address, (pixels.height, pixels.width, 3), "uint8", strides, pixels.owner)


def mixed_graph(device: Literal["mixed", "cpu"], hw_share: float) -> Any:
    """Files to pixels in RGB, in the GPU's memory (on the CPU for ``cpu``), chroma upsampled as libjpeg-turbo does."""
    return fn.decoders.image(
        encoded_input(), device=device, output_type=types.RGB, hw_decoder_load=hw_share, jpeg_fancy_upsampling=True
    )


def resize_pipeline(recipe: Recipe, given: ColourOrder, gpu: int | None) -> Pipeline:
    """What resizes, crops and normalises on the GPU; on the CPU for None, by the same graph."""
    return Pipeline(lambda: resize_graph(recipe, given, "cpu" if gpu is None else "gpu"), gpu)
