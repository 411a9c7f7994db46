"""A preprocessor that only takes time: as many milliseconds a picture in each stage as planted, and no core.

For what looks at stages: whether the ledger finds the planted times, whether a tuner chooses as many workers as they
ask for. The tensor it makes holds a number that depends on the file, nothing of the picture.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.options import option
from plugins.sleep import sleep_until
from preprocess.base import Geometry, Mark, Preprocessor, Recipe, Target, only_buffer
from preprocess.oracle import fit
from preprocess.parts.header import Header, read_header

_CODES = 256


@dataclass(frozen=True, slots=True)
class PlantedMs:
    """What was planted, for each picture."""

    decode_ms: float = option(1.0, "milliseconds that decoding a picture takes", least=0, unit="milliseconds")
    decode_ms_per_megapixel: float = option(
        0.0, "milliseconds more for every million pixels of the picture", least=0, unit="milliseconds"
    )
    resize_ms: float = option(0.5, "milliseconds that resizing it takes", least=0, unit="milliseconds")
    normalize_ms: float = option(0.25, "milliseconds that normalising it takes", least=0, unit="milliseconds")


class Simulated(Preprocessor):
    """Sleeps ``decode_ms``, ``resize_ms`` and ``normalize_ms`` for each picture, in the stages of those names.

    A picture whose header can be read takes ``decode_ms_per_megapixel`` longer to decode for each million pixels.

    Row: zeros, the first value excepted, which is the CRC-32 of the file (of the bytes, for pixels) modulo 256,
    normalised as the recipe says. The geometry is the recipe's for the picture's size, which is what its header says
    (before any EXIF rotation); for what has none, that of a picture of the input's size.
    """

    name = "simulated"
    stages = ("decode", "resize", "normalize")
    computes_pixels = False
    options = PlantedMs

    def __init__(self, recipe: Recipe, **options: Any) -> None:
        """Raises ``ValueError`` for a bad option."""
        super().__init__(recipe)
        chosen: PlantedMs = self.read_options(options)
        self._per_pixel_ns = chosen.decode_ms_per_megapixel
        self._planted_ms = {stage: getattr(chosen, f"{stage}_ms") for stage in self.stages}

    @classmethod
    def version(cls) -> str:
        """There is no library to have a version."""
        return "none"

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """Take the planted time of all stages. Raises ``ValueError`` for a buffer that does not fit."""
        only_buffer(self.recipe, target, len(encoded))
        until_ns = self._stage("decode", len(encoded), time.monotonic_ns())
        codes = [zlib.crc32(data) % _CODES for data in encoded]
        unknown = Header(self.recipe.size, self.recipe.size)
        headers = [read_header(data) or unknown for data in encoded]
        pixels = sum(header.width * header.height for header in headers)
        sleep_until(until_ns + int(self._per_pixel_ns * pixels))
        mark("decode")
        return self._finish(codes, [(header.width, header.height) for header in headers], target, mark)

    def run_pixels(self, pictures: Sequence[NDArray[np.uint8]], target: Target, mark: Mark) -> list[Geometry]:
        """Take the planted time of all stages but ``decode``."""
        only_buffer(self.recipe, target, len(pictures))
        codes = [zlib.crc32(each.tobytes()) % _CODES for each in pictures]
        return self._finish(codes, [(each.shape[1], each.shape[0]) for each in pictures], target, mark)

    def _finish(
        self, codes: Sequence[int], sizes: Sequence[tuple[int, int]], target: Target, mark: Mark
    ) -> list[Geometry]:
        count = len(codes)
        buffer: NDArray[Any] = only_buffer(self.recipe, target, count)[:count]
        sleep_until(self._stage("resize", count, time.monotonic_ns()))
        mark("resize")
        until_ns = self._stage("normalize", count, time.monotonic_ns())
        buffer[...] = 0
        buffer[:, 0, 0, 0] = (np.array(codes) - self.recipe.mean[0]) / self.recipe.std[0]
        geometries = [fit(self.recipe, max(1, width), max(1, height)).geometry for width, height in sizes]
        sleep_until(until_ns)
        mark("normalize")
        return geometries

    def _stage(self, name: str, pictures: int, begin_ns: int) -> int:
        """When a stage that began then ends, in ns."""
        return begin_ns + int(1e6 * pictures * self._planted_ms[name])
