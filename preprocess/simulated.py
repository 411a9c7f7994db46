"""A preprocessor that only takes time: as many milliseconds a picture in each stage as planted, and no core.

For what looks at stages: whether the ledger finds the planted times, whether a tuner chooses as many workers as they
ask for. The tensor it makes holds a number that depends on the file, nothing of the picture.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from preprocess.base import Geometry, Mark, Preprocessor, Recipe, Target, only_buffer

_CODES = 256
_PR_SET_TIMERSLACK = 29
_thread = threading.local()


class Simulated(Preprocessor):
    """Sleeps ``decode_ms``, ``resize_ms`` and ``normalize_ms`` for each picture, in the stages of those names.

    Row: zeros, the first value excepted, which is the CRC-32 of the file (of the bytes, for pixels) modulo 256,
    normalised as the recipe says.
    """

    name = "simulated"
    stages = ("decode", "resize", "normalize")
    computes_pixels = False
    options: ClassVar[Mapping[str, str]] = {
        "decode_ms": "milliseconds that decoding a picture takes (1)",
        "resize_ms": "milliseconds that resizing it takes (0.5)",
        "normalize_ms": "milliseconds that normalising it takes (0.25)",
    }

    def __init__(
        self, recipe: Recipe, *, decode_ms: float = 1.0, resize_ms: float = 0.5, normalize_ms: float = 0.25
    ) -> None:
        """Raises ``ValueError`` for a time below zero."""
        super().__init__(recipe)
        self._planted_ms = {"decode": decode_ms, "resize": resize_ms, "normalize": normalize_ms}
        for stage, planted in self._planted_ms.items():
            if not 0 <= planted < float("inf"):
                raise ValueError(f"{stage}_ms: got {planted}, expected milliseconds")

    @classmethod
    def version(cls) -> str:
        """There is no library to have a version."""
        return "none"

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """Take the planted time of all stages. Raises ``ValueError`` for a buffer that does not fit."""
        only_buffer(self.recipe, target, len(encoded))
        until_ns = self._stage("decode", len(encoded), time.monotonic_ns())
        codes = [zlib.crc32(data) % _CODES for data in encoded]
        _sleep_until(until_ns)
        mark("decode")
        return self._finish(codes, target, mark)

    def run_pixels(self, pictures: Sequence[NDArray[np.uint8]], target: Target, mark: Mark) -> list[Geometry]:
        """Take the planted time of all stages but ``decode``."""
        only_buffer(self.recipe, target, len(pictures))
        return self._finish([zlib.crc32(each.tobytes()) % _CODES for each in pictures], target, mark)

    def _finish(self, codes: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        count = len(codes)
        buffer: NDArray[Any] = only_buffer(self.recipe, target, count)[:count]
        _sleep_until(self._stage("resize", count, time.monotonic_ns()))
        mark("resize")
        until_ns = self._stage("normalize", count, time.monotonic_ns())
        buffer[...] = 0
        buffer[:, 0, 0, 0] = (np.array(codes) - self.recipe.mean[0]) / self.recipe.std[0]
        _sleep_until(until_ns)
        mark("normalize")
        size = self.recipe.size
        return [Geometry(size, size, 1.0, 1.0, 0.0, 0.0)] * count

    def _stage(self, name: str, pictures: int, begin_ns: int) -> int:
        """When a stage that began then ends, in ns."""
        return begin_ns + int(1e6 * pictures * self._planted_ms[name])


def _sleep_until(until_ns: int) -> None:
    """Sleep without the GIL, to some 10 us: Linux wakes a thread up to 50 us late unless it asks for better, once."""
    if not getattr(_thread, "exact", False):
        _thread.exact = True
        if (prctl := _prctl()) is not None:
            prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if (left_ns := until_ns - time.monotonic_ns()) > 0:
        time.sleep(left_ns / 1e9)


@cache
def _prctl() -> Callable[..., int] | None:
    return ctypes.CDLL(None).prctl if sys.platform == "linux" else None
