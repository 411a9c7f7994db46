"""Numba kernels of the ``fused`` preprocessor: resize what the crop keeps, round, look up, and lay out, in one pass.

The arithmetic is that of ``preprocess/oracle.py``; what differs is the order. An output row is summed over its source
rows first, which is SIMD over contiguous bytes, and then over columns: the costly scattered pass is made once per
output row instead of once per source row. The order moves float32 sums by a few units in the last place, which changes
about one value in 100,000, by one level (``preprocess/fused.py`` says where it is more). The integer path (two taps)
keeps the oracle's order and is equal to the bit.

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
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from preprocess.oracle import CUBIC_A, WEIGHT_BITS

Array = NDArray[Any]
Window = tuple[Array, Array, Array]
_Function = TypeVar("_Function", bound=Callable[..., Any])

# Fused multiply-add is the only liberty taken: it rounds less often, never more. Nothing may reorder sums.
OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy"}

_A = np.float32(CUBIC_A)
_ONE = np.float32(1 << WEIGHT_BITS)
_U1, _U2, _U3 = np.uint32(1), np.uint32(2), np.uint32(3)


def _helper(function: _Function) -> _Function:
    """Compiled as part of what calls it."""
    return cast(_Function, numba.njit(**OPTIONS)(function))


def area_window(begin: Any, source: Any, target: Any, skipped: Any, size: Any) -> Window:
    """Pixel area relation for outputs ``skipped`` to ``skipped + size`` of ``source`` pixels shrunk to ``target``.

    The source pixels are those from ``begin`` on.
    """
    scale = 1.0 / (target / source)
    first = np.empty(size, np.uint32)
    count = np.empty(size, np.uint32)
    weights = np.zeros((size, (int(scale) + 6) // 4 * 4), np.float32)  # whole fours for ``_multiply``
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


@_helper
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


def _multiply_fours(
    typing: Any, across: Any, at: Any, weights: Any, first: Any, sums: Any, to: Any, taps: Any, add: Any
) -> Any:
    """Four floats at once: sums[to : to + 4] (+)= sum over taps of across[at + 3 * tap :][:4] * weights[first + tap].

    That is one pixel: its three channels, and the next one's first, which nobody reads. Numba's own vectoriser sees
    only scattered loads here. ``taps`` and ``add`` (whether to keep what is in ``sums``) are literals.
    """
    count, keep = taps.literal_value, add.literal_value
    signature = types.void(across, at, weights, first, sums, to, taps, add)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        four = ir.VectorType(ir.FloatType(), 4)
        undefined, zeros = ir.Constant(four, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), 4), None)

        def address(array: int, index: Any, offset: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            return builder.gep(data, [builder.add(index, ir.Constant(index.type, offset))])

        def vector(array: int, index: Any, offset: int) -> Any:
            return builder.bitcast(address(array, index, offset), four.as_pointer())

        where = vector(4, arguments[5], 0)
        total = builder.load(where, align=4) if keep else None
        for tap in range(count):
            weight = builder.insert_element(
                undefined, builder.load(address(2, arguments[3], tap)), ir.Constant(ir.IntType(32), 0)
            )
            weight = builder.shuffle_vector(weight, undefined, zeros)
            part = builder.fmul(builder.load(vector(0, arguments[1], 3 * tap), align=4), weight, flags=("contract",))
            total = part if total is None else builder.fadd(total, part, flags=("contract",))
        builder.store(total, where, align=4)
        return context.get_dummy_value()

    return signature, generate


_multiply: Callable[..., None] = intrinsic(prefer_literal=True)(_multiply_fours)


@_helper
def _sum_columns(across: Array, at: Array, weights: Array, taps: Any, longest: Any, sums: Array) -> None:
    """``sums[4 * x :][:3]`` becomes the weighted sum of up to ``longest`` columns of ``across`` from ``at[x]`` on."""
    size = at.size
    if longest <= 3:
        for x in range(size):
            _multiply(across, np.int64(at[x]), weights, x * taps, sums, x * 4, 3, False)
    else:
        for x in range(size):
            _multiply(across, np.int64(at[x]), weights, x * taps, sums, x * 4, 4, False)
        for tap in range(4, longest, 4):
            for x in range(size):
                _multiply(across, np.int64(at[x]) + 3 * tap, weights, x * taps + tap, sums, x * 4, 4, True)


@_helper
def _finish(
    levels: Array,
    column: Any,
    channel: Any,
    row: Any,
    affine: Array,
    tables: Array,
    place: Array,
    out: Array,
    floats: Array,
) -> None:
    """Whole levels of one row, channel c of pixel x at ``levels[x * column + c * channel]``, to values in ``out``."""
    size = levels.size // (column if column > 1 else 3)
    for c in range(3):
        begin = place[c] + row * place[4]
        given = levels[c * channel :]
        if floats.size > 0:
            mean, scale = affine[0, c], affine[1, c]
            to = floats[begin:]
            if place[3] == 1:
                for x in range(size):
                    to[x] = (given[x * column] - mean) * scale
            else:
                for x in range(size):
                    to[x * 3] = (given[x * column] - mean) * scale
        else:
            values, table = out[begin:], tables[c]
            for x in range(size):
                values[x * place[3]] = table[np.uint8(given[x * column])]


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
    as float32, is not empty, ``(level - affine[0]) * affine[1]`` per channel gives what is in ``tables``.
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
    low, high = np.float32(0), np.float32(255)
    for y in range(size):
        _sum_rows(rows, np.int64(first_y[y]), np.int64(count_y[y]), weights_y[y], left, n, across)
        _sum_columns(across, at, flat, taps, longest, sums)
        for i in range(size * 4):
            sums[i] = min(max(np.rint(sums[i] + bias), low), high)
        _finish(sums, 4, 1, y, affine, tables, place, out, floats)


@_helper
def _blend_columns(row: Array, left: Array, right: Array, near: Array, far: Array, across: Array) -> None:
    """Blend the columns of one source row, flat BGR, into the planes of ``across``, int32, four bits dropped."""
    four = np.int32(4)
    blue, green, red = across[: left.size], across[left.size : 2 * left.size], across[2 * left.size :]
    for x in range(left.size):
        i, j, a, b = left[x], right[x], near[x], far[x]
        blue[x] = np.int32(np.int32(row[i]) * a + np.int32(row[j]) * b) >> four
        green[x] = np.int32(np.int32(row[i + _U1]) * a + np.int32(row[j + _U1]) * b) >> four
        red[x] = np.int32(np.int32(row[i + _U2]) * a + np.int32(row[j + _U2]) * b) >> four


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
    upper = np.empty(3 * size, np.int32)
    lower = np.empty(3 * size, np.int32)
    have_upper, have_lower = np.int64(-1), np.int64(-1)
    left = (pairs_x[0] * 3).astype(np.uint32)
    right = (pairs_x[1] * 3).astype(np.uint32)
    weights = pairs_x[2:].astype(np.int32)
    levels = np.empty(3 * size, np.float32)
    rows = pixels.reshape(pixels.shape[0], pixels.shape[1] * 3)
    sixteen, two = np.int32(16), np.int32(2)
    for y in range(size):
        above, below = pairs_y[0, y], pairs_y[1, y]
        if above != have_upper:
            if above == have_lower:
                upper, lower = lower, upper
                have_lower = np.int64(-1)
            else:
                _blend_columns(rows[above], left, right, weights[0], weights[1], upper)
            have_upper = above
        if below != have_lower:
            _blend_columns(rows[below], left, right, weights[0], weights[1], lower)
            have_lower = below
        a, b = np.int32(pairs_y[2, y]), np.int32(pairs_y[3, y])
        for i in range(3 * size):
            part = np.int32(np.int32(upper[i] * a) >> sixteen) + np.int32(np.int32(lower[i] * b) >> sixteen)
            levels[i] = np.int32(np.int32(part + two) >> two)
        _finish(levels, 1, size, y, affine, tables, place, out, floats)
