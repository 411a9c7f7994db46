"""What a decoder must prove before its refusals are believed: that it can decode a plain JPEG.

Refused pictures are decoded by the CPU, so a decoder that cannot decode anything would pass for one that is given odd
pictures only, and every figure would be the CPU's. So a decoder is tried when it is made, and again after a batch of
which it refused everything.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from plugins.errors import DeviceNotFound

_WIDTH, _HEIGHT = 128, 96
"""Whole macroblocks of 16 x 16 pixels."""


class DecoderNotUsable(DeviceNotFound):
    """A decoder that is installed, but does not decode a plain JPEG here."""

    def __init__(self, decoder: str, reason: object) -> None:
        """``decoder`` is its name and version, ``reason`` what it said."""
        said = " ".join(str(reason).split()) or "it does not say why"
        super().__init__(
            f"{decoder} does not decode a plain JPEG here: {said}; ./run_local.sh doctor shows what is installed, and "
            "--preprocess opencv needs none of it"
        )


@functools.cache
def plain_jpeg() -> bytes:
    """A small baseline JPEG, 8 bits, YCbCr 4:2:0: what every JPEG decoder takes."""
    across, down = np.meshgrid(np.linspace(0, 255, _WIDTH), np.linspace(0, 255, _HEIGHT))
    pixels = np.dstack([across, down, 255 - across]).astype(np.uint8)
    settings = [cv2.IMWRITE_JPEG_PROGRESSIVE, 0, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    return cv2.imencode(".jpg", pixels, settings)[1].tobytes()
