"""Pillow's resize of 8-bit pictures, in plain NumPy and equal to it to the bit.

Pillow stretches a filter by as much as the picture shrinks, so that every source pixel counts (antialiasing): output
``x`` is centred at ``(x + 0.5) * scale`` and takes the pixels whose centres lie within ``support * max(scale, 1)``.
Weights are worked out in double, divided by their sum, which the picture's edge leaves smaller, and rounded to 22 bits
behind the point, half away from zero. One axis comes first and is rounded to bytes, half up; then the other one is,
from those bytes: columns first, but for what ``kernels.placement.rows_first`` says. An axis whose length does not
change keeps its pixels: the one weight that is not zero is one.

Observed of Pillow 13.0.0, against which tests hold it. Up to 12 columns were always the first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.placement import SUPPORTS, Interpolation

PRECISION_BITS = 32 - 8 - 2
"""Of a weight, behind the point: what an int32 has left beside a byte, a sign, and weights of more than one."""
BICUBIC_A = -0.5
"""Pillow's sharpness of the cubic kernel."""

Taps = tuple[NDArray[np.intp], NDArray[np.int32]]


def taps(filter_: Interpolation, source: int, target: int, outputs: NDArray[np.intp]) -> Taps:
    """Source pixels of ``outputs`` and their weights, both of shape (longest window, outputs); 0 where one is shorter.

    ``source`` pixels become ``target``.
    """
    scale = source / target
    stretch = max(scale, 1.0)
    support = SUPPORTS[filter_] * stretch
    centre = (outputs + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.intp), 0)
    end = np.minimum((centre + support + 0.5).astype(np.intp), source)
    indices = first + np.arange((end - first).max())[:, None]
    distance = (indices - centre + 0.5) * (1.0 / stretch)
    weights = np.where(indices < end, _weight(filter_, distance), 0.0)
    total = np.add.accumulate(weights)[-1]  # from the first to the last: a sum of any other order is another double
    weights = weights / np.where(total == 0, 1.0, total) * (1 << PRECISION_BITS)
    return indices.clip(max=source - 1), np.trunc(weights + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)


def _weight(filter_: Interpolation, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The filter's value at ``x``, in output pixels from the centre where the picture shrinks, else source pixels."""
    x, a = np.abs(x), BICUBIC_A
    if filter_ == "pillow-bilinear":
        return np.maximum(1.0 - x, 0.0)
    if filter_ == "pillow-bicubic":
        near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * a
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def filtered(pixels: NDArray[np.uint8], across: Taps, down: Taps) -> NDArray[np.uint8]:
    """Columns, then rows; uint8 (height, width, channels) in and out. Only rows that ``down`` has are worked out."""
    rows, row_of = np.unique(down[0], return_inverse=True)
    sums = np.zeros((len(rows), across[0].shape[1], pixels.shape[2]), np.int32)
    for indices, weights in zip(*across, strict=True):
        sums += pixels[rows[:, None], indices] * weights[:, None]
    between = _levels(sums)
    sums = np.zeros((down[0].shape[1], *between.shape[1:]), np.int32)
    for indices, weights in zip(row_of.reshape(down[0].shape), down[1], strict=True):
        sums += between[indices] * weights[:, None, None]
    return _levels(sums)


def _levels(sums: NDArray[np.int32]) -> NDArray[np.uint8]:
    return ((sums + (1 << PRECISION_BITS - 1)) >> PRECISION_BITS).clip(0, 255).astype(np.uint8)
