"""Numba kernels of Pillow's resize, equal to it to the bit: ``preprocess/parts/pillow.py`` says how it goes.

All is in integers behind the windows' weights, so the order of sums is free. Only what the crop keeps is worked out:
with columns first, each source row that is needed once, into a ring of as many rows as the longest window has; with
rows first, the columns that are needed, one output row at a time.

Windows are those of ``fused_kernels.py`` with int32 weights, in units of ``2**-PRECISION_BITS``. Nothing here checks
bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from preprocess.parts.fused_kernels import Array, Window, helper
from preprocess.parts.pillow import BICUBIC_A, PRECISION_BITS
from preprocess.parts.vectors import multiply

EXACTLY = {"error_model": "numpy"}
"""No liberties with the weights: a product that is not rounded by itself could round a weight the other way."""

_HALF = np.int32(1 << PRECISION_BITS - 1)
_ZERO, _MOST = np.int32(0), np.int32(255)


def filter_window(begin: Any, source: Any, target: Any, skipped: Any, size: Any, support: Any) -> Window:
    """Outputs ``skipped`` to ``skipped + size`` of ``source`` pixels, from ``begin`` on, that become ``target``.

    The filter is the one of this ``support``: 1 bilinear, 2 bicubic, 3 Lanczos.
    """
    scale = source / target
    stretch = max(scale, 1.0)
    reach, step = support * stretch, 1.0 / stretch
    longest = int(np.ceil(reach)) * 2 + 1
    first = np.empty(size, np.uint32)
    count = np.empty(size, np.uint32)
    weights = np.zeros((size, (longest + 3) // 4 * 4), np.int32)  # whole fours for ``multiply``
    share = np.empty(longest, np.float64)
    for output in range(size):
        centre = (output + skipped + 0.5) * scale
        low = max(int(centre - reach + 0.5), 0)
        high = min(int(centre + reach + 0.5), source)
        total = 0.0
        for tap in range(high - low):
            x, a = abs((low + tap - centre + 0.5) * step), BICUBIC_A
            if x >= support:
                share[tap] = 0.0
            elif support == 1:
                share[tap] = 1.0 - x
            elif support == 3:
                share[tap] = np.sinc(x) * np.sinc(x / 3)
            elif x < 1:
                share[tap] = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
            else:
                share[tap] = (((x - 5) * x + 8) * x - 4) * a
            total += share[tap]
        if total == 0:
            total = 1.0
        for tap in range(high - low):
            weight = share[tap] / total * (1 << PRECISION_BITS)
            weights[output, tap] = int(weight - 0.5) if weight < 0 else int(weight + 0.5)
        first[output] = begin + low
        count[output] = high - low
    return first, count, weights


@helper
def _round(sums: Array, n: Any, levels: Array) -> None:
    """Sums, which begin at a half, to the levels below them."""
    for i in range(n):
        levels[i] = np.uint8(min(max(np.int32(sums[i] >> PRECISION_BITS), _ZERO), _MOST))


@helper
def _rows(rows: Array, top: Any, count: Any, weights: Array, left: Any, n: Any, sums: Array, levels: Array) -> None:
    """``levels[:n]`` becomes the rounded sum of ``count`` rows from byte ``left`` on; behind the last is the first."""
    height, end = rows.shape[0], left + n
    for i in range(n):
        sums[i] = _HALF
    done = 0
    while done + 4 <= count:
        at = top + done
        r, s = rows[at % height, left:end], rows[(at + 1) % height, left:end]
        t, u = rows[(at + 2) % height, left:end], rows[(at + 3) % height, left:end]
        a, b, c, d = weights[done], weights[done + 1], weights[done + 2], weights[done + 3]
        for i in range(n):
            sums[i] += np.int32(
                np.int32(np.int32(r[i]) * a)
                + np.int32(np.int32(s[i]) * b)
                + np.int32(np.int32(t[i]) * c)
                + np.int32(np.int32(u[i]) * d)
            )
        done += 4
    for more in range(done, count):
        r, a = rows[(top + more) % height, left:end], weights[more]
        for i in range(n):
            sums[i] += np.int32(np.int32(r[i]) * a)
    _round(sums, n, levels)


@helper
def _columns(row: Array, at: Array, weights: Array, taps: Any, longest: Any, sums: Array, levels: Array) -> None:
    """``levels[4 * x :][:3]`` becomes the rounded sum of up to ``longest`` pixels of ``row`` from ``at[x]`` on."""
    for i in range(4 * at.size):
        sums[i] = _HALF
    for tap in range(0, longest, 4):
        for x in range(at.size):
            multiply(row, np.int64(at[x]) + 3 * tap, weights, x * taps + tap, sums, x * 4, 4, True)
    _round(sums, 4 * at.size, levels)


def resample(
    pixels: Array,
    first_x: Array,
    count_x: Array,
    weights_x: Array,
    first_y: Array,
    count_y: Array,
    weights_y: Array,
    rows_first: Any,
    levels: Array,
) -> None:
    """One picture by windows, each axis rounded by itself, into ``levels``, uint8 (rows, 4 * columns), blue first.

    ``pixels`` uint8 (height, width, 3) BGR; ``rows_first`` says which axis comes first.
    """
    size, taps = first_x.size, weights_x.shape[1]
    rows = pixels.reshape(pixels.shape[0], pixels.shape[1] * 3)
    left = np.int64(first_x[0]) * 3
    n: Any = (np.int64(first_x[size - 1]) + np.int64(count_x[size - 1])) * 3 - left
    at = np.empty(size, np.uint32)
    for x in range(size):
        at[x] = first_x[x] * np.uint32(3) - left
    flat = weights_x.reshape(size * taps)
    longest, depth = int(count_x.max()), 1 if rows_first else int(count_y.max())
    # Padded windows read past the last pixel, so what lies there is a number.
    line = np.zeros(n + 3 * taps + 4, np.uint8)
    sums = np.empty(max(n, 4 * size), np.int32)
    ring = np.empty((depth, 4 * size), np.uint8)
    done = np.int64(0)
    for y in range(first_y.size):
        top, count = np.int64(first_y[y]), np.int64(count_y[y])
        if rows_first:
            _rows(rows, top, count, weights_y[y], left, n, sums, line)
            _columns(line, at, flat, taps, longest, sums, levels[y])
        else:
            for row in range(max(done, top), top + count):
                for i in range(n):
                    line[i] = rows[row, left + i]
                _columns(line, at, flat, taps, longest, sums, ring[row % depth])
            done = top + count
            _rows(ring, top, count, weights_y[y], 0, 4 * size, sums, levels[y])
