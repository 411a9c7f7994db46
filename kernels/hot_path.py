"""From decoded pictures to the model's input on one device: in one kernel, or step by step as libraries do it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from numpy.typing import NDArray

from kernels.device import Buffer, Device, Growing
from kernels.normalize import Normalize, Output, check_target
from kernels.resize import Resize
from kernels.transpose import transpose_images
from plugins.base import Closing

Variant = Literal["naive", "tiled", "fused"]
VARIANTS: tuple[Variant, ...] = ("naive", "tiled", "fused")


class HotPath(Closing):
    """One lane's way from pictures to the model's input, used by one thread, one stream at a time.

    ``fused`` is the resize kernel alone: it normalizes and lays out what it has at hand. ``naive`` and ``tiled`` are a
    chain of launches, resize to uint8 NHWC, transpose, normalize, with the transpose of that name; where the output is
    NHWC there is nothing to transpose and they are the same. All three give the same bytes.

    Holds scratch memory for the largest batch so far, in a chain 3 or 6 bytes for each pixel of the output.
    """

    def __init__(self, device: Device, variant: Variant, output: Output) -> None:
        """Raises ``ValueError`` for an unknown variant."""
        if variant not in VARIANTS:
            raise ValueError(f"kernels is '{variant}', expected one of {', '.join(VARIANTS)}")
        self._device, self._variant, self._output = device, variant, output
        self._scratch = Growing(device), Growing(device)
        """For interleaved levels, and for planar ones where the output is."""
        self._n = 0
        if variant == "fused":
            self._resize = Resize(device, output)
            return
        self._resize = Resize(device, Output(size=output.size, layout="NHWC", dtype="uint8", swap=output.swap))
        self._normalize = Normalize(device, replace(output, swap=False), source_layout=output.layout)

    def run(self, pictures: NDArray[Any], target: Buffer, stream: int | None = None) -> None:
        """Write one sample for each of ``pictures`` (see ``kernels.resize.describe``) into ``target``, in order.

        Raises ``ValueError`` before anything runs: no pictures, pictures that contradict themselves, or a target that
        is too small or another device's.
        """
        self.load(pictures, stream)
        self.launch(target, stream)

    def load(self, pictures: NDArray[Any], stream: int | None = None) -> None:
        """Bring what describes ``pictures`` to the device: the first half of ``run``. Raises ``ValueError``."""
        self._resize.load(pictures, stream)
        self._n = len(pictures)

    def launch(self, target: Buffer, stream: int | None = None) -> None:
        """Write one sample for each of the pictures last loaded into ``target``: the second half, any number of times.

        Raises ``ValueError`` where none were loaded, and for a target that does not fit.
        """
        if self._variant == "fused":
            self._resize.launch(target, stream)
            return
        output, n = self._output, self._n
        check_target(self._device, target, output, n)
        pixels = output.size * output.size
        levels = last = self._scratch[0].of(3 * pixels * n, stream)
        self._resize.launch(levels, stream)
        if output.layout == "NCHW":
            last = self._scratch[1].of(3 * pixels * n, stream)
            transpose_images(self._device, levels, last, n, pixels, "uint8", "NCHW", self._variant, stream)
        self._normalize.run(last, target, n, stream)

    def close(self) -> None:
        """Free what it holds on the device."""
        self._resize.close()
        if self._variant != "fused":
            self._normalize.close()
        for scratch in self._scratch:
            scratch.close()
