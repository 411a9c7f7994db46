"""Vectors for ``fused_kernels.py``, where Numba's own vectoriser sees but scattered loads or too wide numbers.

Each is written as LLVM has vectors, for any processor; what is told of instructions is so on x86-64 with AVX2, and with
AVX-512 there are twice as many values to one. Nothing here checks bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

PIXELS = 4
"""How many outputs ``blend_pixels`` computes."""
READ = 8
"""Bytes that it reads for each: two pixels of the source, and two bytes more."""
VALUES = 32
"""How many values ``blend_values`` computes."""

_BYTE, _SHORT, _WHOLE = ir.IntType(8), ir.IntType(16), ir.IntType(32)


def _vectors(context: Any, builder: Any, kinds: Any, arrays: Any) -> Callable[..., Any]:
    """``address(which, index, offset, element, count)``: where ``arrays[which][index + offset]``, Numba's type
    ``kinds[which]``, lies, as the address of a vector.
    """

    def address(which: int, index: Any, offset: int, element: Any, count: int) -> Any:
        data = context.make_array(kinds[which])(context, builder, arrays[which]).data
        at = builder.gep(data, [builder.add(index, ir.Constant(index.type, offset))])
        return builder.bitcast(at, ir.VectorType(element, count).as_pointer())

    return address


def _shuffle(builder: Any, one: Any, two: Any, indices: Sequence[int]) -> Any:
    return builder.shuffle_vector(one, two, ir.Constant(ir.VectorType(_WHOLE, len(indices)), list(indices)))


def _splat(builder: Any, value: Any, count: int) -> Any:
    alone = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, count), ir.Undefined), value, ir.Constant(_WHOLE, 0)
    )
    return _shuffle(builder, alone, alone, [0] * count)


def _multiply(
    typing: Any, across: Any, at: Any, weights: Any, first: Any, sums: Any, to: Any, taps: Any, add: Any
) -> Any:
    """Four sums: sums[to : to + 4] (+)= sum over taps of across[at + 3 * tap :][:4] * weights[first + tap].

    That is one pixel: its three channels, and the next one's first, which nobody reads. ``taps`` and ``add`` (whether
    to keep what is in ``sums``) are literals. ``across`` and the others are float32, or uint8 and the others int32.
    """
    count, keep = taps.literal_value, add.literal_value
    are_bytes = across.dtype == types.uint8
    source, kind = (_BYTE, _WHOLE) if are_bytes else (ir.FloatType(), ir.FloatType())
    width = 1 if are_bytes else 4
    signature = types.void(across, at, weights, first, sums, to, taps, add)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _vectors(context, builder, signature.args, arguments)
        where = address(4, arguments[5], 0, kind, 4)
        total = builder.load(where, align=4) if keep else None
        for tap in range(count):
            weight = builder.load(address(2, arguments[3], tap, kind, 1), align=4)
            weight = _shuffle(builder, weight, weight, [0] * 4)
            part = builder.load(address(0, arguments[1], 3 * tap, source, 4), align=width)
            if are_bytes:
                part = builder.mul(builder.zext(part, weight.type), weight)
                total = part if total is None else builder.add(total, part)
            else:
                part = builder.fmul(part, weight, flags=("contract",))
                total = part if total is None else builder.fadd(total, part, flags=("contract",))
        builder.store(total, where, align=4)
        return context.get_dummy_value()

    return signature, generate


def _blend_pixels(typing: Any, row: Any, at: Any, weights: Any, x: Any, across: Any) -> Any:
    """``across[4 * x :][:16]`` becomes four outputs: two neighbouring pixels of ``row`` each, blended in integers.

    ``at`` int64 is where the first of the two begins, ``weights`` int16 (2 * outputs) theirs; four bits are dropped.
    Products of neighbours, summed, are one instruction.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, x = _vectors(context, builder, signature.args, arguments), arguments[3]
        places = builder.load(address(1, x, 0, ir.IntType(64), PIXELS), align=8)
        begins = [builder.extract_element(places, ir.Constant(_WHOLE, pixel)) for pixel in range(PIXELS)]
        parts = [builder.load(address(0, begin, 0, _BYTE, READ), align=1) for begin in begins]
        halves = [_shuffle(builder, parts[i], parts[i + 1], range(2 * READ)) for i in (0, 2)]
        every = _shuffle(builder, halves[0], halves[1], range(PIXELS * READ))
        # Each channel of a pixel beside the same one of its neighbour.
        order = [pixel * READ + place for pixel in range(PIXELS) for place in (0, 3, 1, 4, 2, 5, 6, 7)]
        levels = builder.zext(_shuffle(builder, every, every, order), ir.VectorType(_WHOLE, 32))
        pairs = builder.load(
            address(2, builder.mul(x, ir.Constant(x.type, 2)), 0, _SHORT, 2 * PIXELS),
            align=2,
        )
        pairs = _shuffle(builder, pairs, pairs, [2 * (i // READ) + i % 2 for i in range(32)])
        products = builder.mul(levels, builder.sext(pairs, ir.VectorType(_WHOLE, 32)))
        first, second = (_shuffle(builder, products, products, range(odd, 32, 2)) for odd in (0, 1))
        sums = builder.add(first, second)
        blended = builder.trunc(builder.ashr(sums, ir.Constant(sums.type, [4] * 16)), ir.VectorType(_SHORT, 16))
        builder.store(blended, address(4, builder.mul(x, ir.Constant(x.type, 4)), 0, _SHORT, 16), align=2)
        return context.get_dummy_value()

    return types.void(row, at, weights, x, across), generate


def _blend_values(typing: Any, upper: Any, lower: Any, above: Any, below: Any, i: Any, levels: Any) -> Any:
    """``levels[i:][:32]`` becomes two rows, int16, blended by the weights ``above`` and ``below``, int16.

    16 bits are dropped of each product, which is one instruction then, and two of their sum, rounded.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, i = _vectors(context, builder, signature.args, arguments), arguments[4]
        shorts, wholes = ir.VectorType(_SHORT, VALUES), ir.VectorType(_WHOLE, VALUES)
        two, parts = ir.Constant(shorts, [2] * VALUES), []
        for row in (0, 1):
            values = builder.sext(builder.load(address(row, i, 0, _SHORT, VALUES), align=2), wholes)
            products = builder.mul(values, builder.sext(_splat(builder, arguments[2 + row], VALUES), wholes))
            parts.append(builder.trunc(builder.ashr(products, ir.Constant(wholes, [16] * VALUES)), shorts))
        total = builder.lshr(builder.add(builder.add(parts[0], parts[1]), two), two)
        builder.store(builder.trunc(total, ir.VectorType(_BYTE, VALUES)), address(5, i, 0, _BYTE, VALUES), align=1)
        return context.get_dummy_value()

    return types.void(upper, lower, above, below, i, levels), generate


multiply: Callable[..., None] = intrinsic(prefer_literal=True)(_multiply)
blend_pixels: Callable[..., None] = intrinsic(_blend_pixels)
blend_values: Callable[..., None] = intrinsic(_blend_values)
