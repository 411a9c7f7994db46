"""Numba kernels of the ``fused`` preprocessor: resize what the crop keeps, round, look up, and lay out, in one pass.

The arithmetic is that of ``preprocess/oracle.py``; what differs is the order. An output row is summed over its source
rows first, which is SIMD over contiguous bytes, and then over columns: the costly scattered pass is made once per
output row instead of once per source row. The order moves float32 sums by a few units in the last place, which changes
about one value in 100,000, by one level (``preprocess/fused.py`` says where it is more). The integer path (two taps)
keeps the oracle's order and is equal to the bit.

Where the picture covers only a part of the square (a letterbox), the kernels are given the outputs of that part and the
sample from its first pixel on; ``pad`` fills the rest, so that no value is written twice.

Between the two passes a pixel has four places, of which the last is nobody's: vectors hold whole pixels then.

A *window* is a run of neighbouring source pixels per output: ``first`` uint32 (outputs), ``count`` uint32 (outputs) and
``weights`` float32 (outputs, longest window), padded with zeros. *Pairs* are two source indices, uint32, and two
integer weights, int32, per output, all of shape (4, outputs) in one int64 array.

Scalars are annotated ``Any``: what Numba makes of them is said where they are compiled (``compiled.py``).
Everything here is compiled without bounds checks and writes into the caller's memory: callers pass shapes that fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from preprocess.oracle import CUBIC_A, WEIGHT_BITS
from preprocess.parts.vectors import PIXELS, READ, VALUES, blend_pixels, blend_values, multiply

Array = NDArray[Any]
Window = tuple[Array, Array, Array]
_Function = TypeVar("_Function", bound=Callable[..., Any])

# Fused multiply-add is the only liberty taken: it rounds less often, never more. Nothing may reorder sums.
OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy"}

_A = np.float32(CUBIC_A)
_ONE = np.float32(1 << WEIGHT_BITS)
_U3, _BYTE = np.uint32(3), np.uint32(255)


def helper(function: _Function) -> _Function:
    """Compiled as part of what calls it."""
    return cast(_Function, numba.njit(**OPTIONS)(function))


def area_window(begin: Any, source: Any, target: Any, skipped: Any, size: Any) -> Window:
    """Pixel area relation for outputs ``skipped`` to ``skipped + size`` of ``source`` pixels shrunk to ``target``.

    The source pixels are those from ``begin`` on.
    """
    scale = 1.0 / (target / source)
    first = np.empty(size, np.uint32)
    count = np.empty(size, np.uint32)
    weights = np.zeros((size, (int(scale) + 6) // 4 * 4), np.float32)  # whole fours for ``multiply``
    for output in range(size):
        start = (output + skipped) * scale
        end = start + scale
        cell = min(scale, source - start)
        last = min(int(np.floor(end)), source - 1)
        lead = min(int(np.ceil(start)), last)
        n = 0
        first[output] = begin + lead
        if lead - start > 1e-3:
            first[output] = begin + lead - 1
            weights[output, 0] = np.float32((lead - start) / cell)
            n = 1
        for _ in range(lead, last):
            weights[output, n] = np.float32(1.0 / cell)
            n += 1
        if end - last > 1e-3:
            weights[output, n] = np.float32(min(end - last, 1.0, cell) / cell)
            n += 1
        count[output] = n
    return first, count, weights


def cubic_window(begin: Any, source: Any, target: Any, skipped: Any, size: Any) -> Window:
    """Four pixels around the linear position; where the edge repeats, its weights are added up."""
    scale = 1.0 / (target / source)
    first = np.empty(size, np.uint32)
    count = np.empty(size, np.uint32)
    weights = np.zeros((size, 4), np.float32)
    share = np.empty(4, np.float32)
    for output in range(size):
        position = np.float32((output + skipped + 0.5) * scale - 0.5)
        floor = int(np.floor(position))
        x = np.float32(position - np.float32(floor))
        share[0] = ((_A * (x + 1) - 5 * _A) * (x + 1) + 8 * _A) * (x + 1) - 4 * _A
        share[1] = ((_A + 2) * x - (_A + 3)) * x * x + 1
        share[2] = ((_A + 2) * (1 - x) - (_A + 3)) * (1 - x) * (1 - x) + 1
        share[3] = 1 - share[0] - share[1] - share[2]
        start = min(max(floor - 1, 0), source - 1)
        first[output] = begin + start
        end = start
        for tap in range(4):
            at = min(max(floor - 1 + tap, 0), source - 1)
            weights[output, at - start] += share[tap]
            end = max(end, at)
        count[output] = end - start + 1
    return first, count, weights


def pairs(begin: Any, source: Any, target: Any, skipped: Any, size: Any, area: Any) -> Array:
    """Two pixels and their 11-bit weights: linear, or what area mode does where an axis grows (``area`` true)."""
    scale = 1.0 / (target / source)
    inverse = target / source
    found = np.empty((4, size), np.int64)
    for output in range(size):
        at = output + skipped
        if area:
            index = int(np.floor(at * scale))
            share = np.float32((at + 1) - (index + 1) * inverse)
            share = np.float32(0) if share <= 0 else np.float32(share - np.floor(share))
        else:
            position = np.float32((at + 0.5) * scale - 0.5)
            index = int(np.floor(position))
            share = np.float32(position - np.float32(index))
        found[0, output] = begin + min(max(index, 0), source - 1)
        found[1, output] = begin + min(max(index + 1, 0), source - 1)
        found[2, output] = int(np.rint(np.float32(np.float32(1) - share) * _ONE))
        found[3, output] = int(np.rint(share * _ONE))
    return found


@helper
def _sum_rows(rows: Array, top: Any, count: Any, weights: Array, left: Any, n: Any, across: Array) -> None:
    """``across[:n]`` becomes the weighted sum of ``count`` source rows from byte ``left`` on; up to four in one go."""
    end = left + n
    r = rows[top, left:end]
    a = weights[0]
    if count == 1:
        for i in range(n):
            across[i] = np.float32(r[i]) * a
        return
    s = rows[top + 1, left:end]
    b = weights[1]
    if count == 2:
        for i in range(n):
            across[i] = np.float32(r[i]) * a + np.float32(s[i]) * b
        return
    t = rows[top + 2, left:end]
    c = weights[2]
    for i in range(n):
        across[i] = np.float32(r[i]) * a + np.float32(s[i]) * b + np.float32(t[i]) * c
    done = 3
    while done + 4 <= count:
        r, s = rows[top + done, left:end], rows[top + done + 1, left:end]
        t, u = rows[top + done + 2, left:end], rows[top + done + 3, left:end]
        a, b, c, d = weights[done], weights[done + 1], weights[done + 2], weights[done + 3]
        for i in range(n):
            across[i] += np.float32(r[i]) * a + np.float32(s[i]) * b + np.float32(t[i]) * c + np.float32(u[i]) * d
        done += 4
    for more in range(done, count):
        r = rows[top + more, left:end]
        a = weights[more]
        for i in range(n):
            across[i] += np.float32(r[i]) * a


@helper
def _sum_columns(across: Array, at: Array, weights: Array, taps: Any, longest: Any, sums: Array) -> None:
    """``sums[4 * x :][:3]`` becomes the weighted sum of up to ``longest`` columns of ``across`` from ``at[x]`` on."""
    size = at.size
    if longest <= 3:
        for x in range(size):
            multiply(across, np.int64(at[x]), weights, x * taps, sums, x * 4, 3, False)
    else:
        for x in range(size):
            multiply(across, np.int64(at[x]), weights, x * taps, sums, x * 4, 4, False)
        for tap in range(4, longest, 4):
            for x in range(size):
                multiply(across, np.int64(at[x]) + 3 * tap, weights, x * taps + tap, sums, x * 4, 4, True)


@helper
def finish(levels: Array, row: Any, affine: Array, tables: Array, place: Array, out: Array, floats: Array) -> None:
    """Levels of one row, uint8 (4 * columns), blue first, to values in ``out``."""
    words = levels.view(np.uint32)  # a vector of bytes four apart is a load and a shift of words
    for c in range(3):
        begin, shift = place[c] + row * place[4], np.uint32(8 * c)
        if floats.size > 0:
            mean, scale, rest = affine[0, c], affine[1, c], affine[2, c]
            to = floats[begin:]
            if place[3] == 1:
                for x in range(words.size):
                    value = np.float32(np.int32(np.uint32(words[x] >> shift) & _BYTE)) - mean
                    to[x] = value * scale + value * rest
            else:
                for x in range(words.size):
                    value = np.float32(np.int32(np.uint32(words[x] >> shift) & _BYTE)) - mean
                    to[x * 3] = value * scale + value * rest
        else:
            values, table = out[begin:], tables[c]
            for x in range(words.size):
                values[x * place[3]] = table[levels[4 * x + c]]


def lay_out(levels: Array, affine: Array, tables: Array, place: Array, out: Array, floats: Array) -> None:
    """All rows of levels, uint8 (rows, 4 * columns), to values in ``out``; the arguments are those of ``weigh``."""
    for y in range(levels.shape[0]):
        finish(levels[y], y, affine, tables, place, out, floats)


def pad(
    top: Any, bottom: Any, left: Any, right: Any, size: Any, level: Any, tables: Array, place: Array, out: Array
) -> None:
    """Fill a sample with ``level``, but for rows ``top`` to ``bottom`` of columns ``left`` to ``right``."""
    for c in range(3):
        value = tables[c, level]
        for y in range(size):
            begin, inside = place[c] + y * place[4], top <= y < bottom
            _fill(out[begin:], left if inside else size, place[3], value)
            if inside:
                _fill(out[begin + right * place[3] :], size - right, place[3], value)


@helper
def _fill(out: Array, count: Any, step: Any, value: Any) -> None:
    """``count`` values, ``step`` (1 or 3) apart."""
    if step == 1:
        for x in range(count):
            out[x] = value
    else:
        for x in range(count):
            out[3 * x] = value


def weigh(
    pixels: Array,
    first_x: Array,
    count_x: Array,
    weights_x: Array,
    first_y: Array,
    count_y: Array,
    weights_y: Array,
    bias: Any,
    affine: Array,
    tables: Array,
    place: Array,
    out: Array,
    floats: Array,
) -> None:
    """One picture by windows, into ``out``.

    ``pixels`` uint8 (height, width, 3) BGR; ``bias`` is added before rounding half to even; ``tables`` (3, 256) are the
    bits of the values that the levels of blue, green and red become; ``out`` is one sample as flat bits, ``place`` the
    offsets there of blue, green and red, and the steps to the next column and row. Where ``floats``, the same memory
    as float32, is not empty, what is in ``tables`` is ``value * affine[1] + value * affine[2]`` with
    ``value = level - affine[0]``, per channel.
    """
    size = first_x.size
    rows = pixels.reshape(pixels.shape[0], pixels.shape[1] * 3)
    begin = first_x[0]
    end = np.int64(begin)
    for x in range(size):
        end = max(end, np.int64(first_x[x]) + np.int64(count_x[x]))
    left = np.int64(begin) * 3
    n = end * 3 - left
    taps = weights_x.shape[1]
    # Padded windows read past the last pixel, so what lies there is a number.
    across = np.zeros(n + 3 * taps + 4, np.float32)
    at = np.empty(size, np.uint32)
    for x in range(size):
        at[x] = (first_x[x] - begin) * _U3
    flat = weights_x.reshape(size * taps)
    longest = count_x.max()
    sums = np.empty(size * 4, np.float32)
    levels = np.empty(size * 4, np.uint8)
    low, high = np.float32(0), np.float32(255)
    for y in range(first_y.size):
        _sum_rows(rows, np.int64(first_y[y]), np.int64(count_y[y]), weights_y[y], left, n, across)
        _sum_columns(across, at, flat, taps, longest, sums)
        for i in range(size * 4):
            levels[i] = np.uint8(np.int32(min(max(np.rint(sums[i] + bias), low), high)))
        finish(levels, y, affine, tables, place, out, floats)


@helper
def _blend_columns(row: Array, at: Array, weights: Array, quick: Any, across: Array) -> None:
    """Blend columns of one source row, flat BGR, into ``across``, int16 (4 * outputs), four bits dropped.

    The first ``quick`` outputs are those for which ``blend_pixels`` reads nothing beyond the row.
    """
    for x in range(0, quick, PIXELS):
        blend_pixels(row, at, weights, x, across)
    for x in range(quick, at.size):
        a, b = np.int32(weights[2 * x]), np.int32(weights[2 * x + 1])
        i = at[x]
        j = i + 3 if b else i
        for c in range(3):
            across[4 * x + c] = np.int32(np.int32(row[i + c]) * a + np.int32(row[j + c]) * b) >> 4


def blend(
    pixels: Array,
    pairs_x: Array,
    pairs_y: Array,
    affine: Array,
    tables: Array,
    place: Array,
    out: Array,
    floats: Array,
) -> None:
    """One picture by pairs, into ``out``; the arguments are those of ``weigh``.

    Columns first, then rows, in integers: four bits are dropped before a row's product and 16 after it.
    """
    size = pairs_x.shape[1]
    whole = (4 * size + VALUES - 1) // VALUES * VALUES
    upper = np.zeros(whole, np.int16)
    lower = np.zeros(whole, np.int16)
    have_upper, have_lower = np.int64(-1), np.int64(-1)
    rows = pixels.reshape(pixels.shape[0], pixels.shape[1] * 3)
    at = pairs_x[0] * 3
    weights = np.empty(2 * size, np.int16)
    quick = 0
    for x in range(size):
        # At an edge both are the same pixel, which has both weights then.
        alone = pairs_x[0, x] == pairs_x[1, x]
        weights[2 * x] = pairs_x[2, x] + (pairs_x[3, x] if alone else 0)
        weights[2 * x + 1] = 0 if alone else pairs_x[3, x]
        if at[x] + READ <= rows.shape[1]:
            quick = x + 1
    quick -= quick % PIXELS
    levels = np.empty(whole, np.uint8)
    for y in range(pairs_y.shape[1]):
        above, below = pairs_y[0, y], pairs_y[1, y]
        if above != have_upper:
            if above == have_lower:
                upper, lower = lower, upper
                have_lower = np.int64(-1)
            else:
                _blend_columns(rows[above], at, weights, quick, upper)
            have_upper = above
        if below != have_lower:
            _blend_columns(rows[below], at, weights, quick, lower)
            have_lower = below
        for i in range(0, whole, VALUES):
            blend_values(upper, lower, np.int16(pairs_y[2, y]), np.int16(pairs_y[3, y]), i, levels)
        finish(levels[: 4 * size], y, affine, tables, place, out, floats)
