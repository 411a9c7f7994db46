"""Decoders that leave a JPEG's pixels in a GPU's memory, and what they hand over.

A file's header decides first: a decoder is not given what it cannot take. What it refuses all the same is answered with
None, picture by picture, and decoded by the CPU; but only a decoder that decodes a plain JPEG is believed.

Nothing here has run on a GPU yet. nvImageCodec's own decoder for the CPU takes the same calls, and with that they run.
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, ClassVar, Literal, Self

import numpy as np

from preprocess.parts.jpeg import Coding, read_frame
from preprocess.parts.self_test import DecoderNotUsable, plain_jpeg

# It writes to stderr about every picture that it cannot decode, unless it finds this when it is imported.
os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")

_FIRST_SHARE = 0.5
"""Of a batch, for the JPEG engine, before nvImageCodec adapts it."""

HwShare = float | Literal["adaptive"]


@dataclass(frozen=True, slots=True)
class DevicePixels:
    """A decoded picture where it lies: uint8 (height, width, 3), RGB, ``pitch`` bytes from row to row.

    ``owner`` is what keeps the memory.
    """

    address: int
    pitch: int
    width: int
    height: int
    owner: object

    @classmethod
    def of(cls, array: Any, owner: object = None) -> Self:
        """What an object with ``__cuda_array_interface__`` holds; the object itself is the owner unless one is given.

        Raises ``ValueError`` for anything but uint8 (height, width, 3) with pixels one after the other.
        """
        interface = array.__cuda_array_interface__
        height, width, *channels = interface["shape"]
        pitch, *steps = interface.get("strides") or (3 * width, 3, 1)
        if np.dtype(interface["typestr"]) != np.uint8 or channels != [3] or steps != [3, 1]:
            raise ValueError(
                f"decoded pixels are {interface['typestr']} {tuple(interface['shape'])} with the strides "
                f"{interface.get('strides')}, expected uint8 (height, width, 3) with pixels one after the other"
            )
        return cls(interface["data"][0], pitch, width, height, array if owner is None else owner)


class GpuDecoder(ABC):
    """Decodes batches of JPEGs into the memory of one GPU, to RGB and rotated as EXIF says. Used by one thread."""

    codings: ClassVar[frozenset[Coding]] = frozenset({"baseline", "extended"})
    """How a JPEG may be coded to be given to it."""

    def takes(self, data: bytes) -> bool:
        """Whether the file's header lets it try: JPEG of 8 bits, grey or YCbCr, of one of ``codings``."""
        frame = read_frame(data)
        return (
            frame is not None
            and frame.coding in self.codings
            and frame.precision == 8
            and frame.colours in ("grey", "YCbCr")
        )

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Name and version of the library."""

    def decode(self, encoded: Sequence[bytes], stream: int | None) -> list[DevicePixels | None]:
        """Decode at least one file; None for each that is refused.

        What is queued on ``stream`` afterwards finds the pixels there. They stay until the next call. Raises
        ``DecoderNotUsable`` where all were refused and a plain JPEG is too: then it was not the pictures.
        """
        found = self._decode(encoded, stream)
        if all(pixels is None for pixels in found):
            self.check(stream)
        return found

    @abstractmethod
    def check(self, stream: int | None = None) -> None:
        """Decode a plain JPEG. Raises ``DecoderNotUsable`` where that fails. No pixels stay."""

    @abstractmethod
    def _decode(self, encoded: Sequence[bytes], stream: int | None) -> list[DevicePixels | None]:
        """As ``decode``, believed as it is."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""


class NvImageCodec(GpuDecoder):
    """nvImageCodec: the GPU's JPEG engine where it has one, else nvJPEG's kernels.

    Its decoders for the CPU are left out, so that what a CPU decodes is counted. nvJPEG takes progressive files too, by
    its documentation. Chroma is upsampled as libjpeg-turbo does it (``fancy_upsampling``): the simple way differs from
    that by 0 to 2 levels on average and up to 70 on the demo photos (libjpeg-turbo's own simple upsampling).
    """

    codings: ClassVar[frozenset[Coding]] = frozenset({"baseline", "extended", "progressive"})
    options: ClassVar[str] = ":fancy_upsampling=1"

    def __init__(self, gpu: int, hw_share: HwShare = 1.0, threads: int = 1) -> None:
        """``gpu`` is the GPU's index, ``hw_share`` the share of a batch that its JPEG engine is offered, 0 to 1.

        ``adaptive`` leaves the share to nvImageCodec's policy of that name, beginning with a half. How many pictures
        that are nvImageCodec 0.9 works out once, from a decoder's first batch, and rounds up: ``adaptive`` stays at a
        half, and of a small batch any share above 0 is all. With one of ``threads`` the engine and nvJPEG's kernels
        work one after the other, with more at the same time.

        Raises ``ModuleNotFoundError`` where nvImageCodec is not installed, ``DecoderNotUsable`` where it does not work.
        """
        nvimgcodec = _library()
        kinds, policies = nvimgcodec.BackendKind, nvimgcodec.LoadHintPolicy
        backends = [nvimgcodec.Backend(kind) for kind in (kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)]
        if isinstance(hw_share, str):
            policy = policies.ADAPTIVE_MINIMIZE_IDLE_TIME
            backends.insert(0, nvimgcodec.Backend(kinds.HW_GPU_ONLY, _FIRST_SHARE, policy))
        elif hw_share > 0:
            backends.insert(0, nvimgcodec.Backend(kinds.HW_GPU_ONLY, hw_share, policies.FIXED))
        self._open(gpu, backends, threads)

    def _open(self, gpu: int, backends: Sequence[Any], threads: int) -> None:
        nvimgcodec = self._codec = _library()
        self._make = partial(
            nvimgcodec.Decoder,
            device_id=gpu,
            max_num_cpu_threads=threads,
            backends=list(backends),
            options=self.options,
        )
        self._decoder: Any = None
        self._rows = 0
        self._params = nvimgcodec.DecodeParams(apply_exif_orientation=True, sample_format=nvimgcodec.SampleFormat.I_RGB)
        self._images: list[Any] = []
        self.check()

    @classmethod
    def version(cls) -> str:
        """nvImageCodec's version."""
        return f"nvImageCodec {_library().__version__}"

    def check(self, stream: int | None = None) -> None:
        """See ``GpuDecoder``."""
        try:
            [image] = self._decoded([self._codec.CodeStream(plain_jpeg())], stream)
        except RuntimeError as error:
            raise DecoderNotUsable(self.version(), error) from error
        self._images = []
        if image is None:
            raise DecoderNotUsable(self.version(), "it refuses it")

    def _decode(self, encoded: Sequence[bytes], stream: int | None) -> list[DevicePixels | None]:
        images: list[Any] = [None] * len(encoded)
        readable = []
        for position, data in enumerate(encoded):
            try:
                readable.append((position, self._codec.CodeStream(data)))
            except RuntimeError:  # it cannot read the header
                continue
        for (position, _), image in zip(readable, self._decoded([each for _, each in readable], stream), strict=True):
            images[position] = image
        return [None if image is None else self._pixels(image) for image in images]

    def _decoded(self, streams: list[Any], stream: int | None) -> list[Any]:
        """Decode into the memory of the last batch where that had as many pictures: it grows, but is not made anew."""
        if not streams:
            return []
        if len(streams) > self._rows:
            # How many pictures the JPEG engine takes is worked out once, from a decoder's first batch (nvImageCodec's
            # LoadHintPolicy.FIXED): one that began with a single picture would leave the engine idle ever after.
            self._images = []
            self._decoder, self._rows = self._make(), len(streams)
        reused = self._images[: len(streams)] if len(self._images) >= len(streams) else None
        decoded: list[Any] = self._decoder.decode(streams, images=reused, params=self._params, cuda_stream=stream or 0)
        if all(image is not None for image in decoded) and len(decoded) >= len(self._images):
            self._images = decoded
        return decoded

    def _pixels(self, image: Any) -> DevicePixels:
        return DevicePixels.of(image)

    def close(self) -> None:
        """Drop the decoder and its pictures."""
        self._images = []
        self._decoder = None


class JpegEngine(NvImageCodec):
    """The GPU's JPEG engine alone: where a GPU has none, ``NvImageCodec`` leaves its share to nvJPEG without a word."""

    codings: ClassVar[frozenset[Coding]] = frozenset({"baseline"})

    def __init__(self, gpu: int) -> None:
        """Raises as ``NvImageCodec``, ``DecoderNotUsable`` too where there is no engine."""
        nvimgcodec = _library()
        self._open(gpu, [nvimgcodec.Backend(nvimgcodec.BackendKind.HW_GPU_ONLY)], 1)


def _library() -> ModuleType:
    return importlib.import_module("nvidia.nvimgcodec")
