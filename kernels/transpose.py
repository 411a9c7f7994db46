"""Launches the kernels of ``transpose.cu``: a matrix turned, or pictures between NHWC and NCHW."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from kernels.device import Argument, Buffer, Device, Dim3
from kernels.normalize import Layout

MODULE = "transpose"
SUFFIXES = {"float32": "f32", "float16": "f16", "uint8": "u8"}
"""How entry points are named by the dtype that they move."""
CHANNELS = 3

Variant = Literal["naive", "tiled", "tile16x16", "tile16x17"]
"""``tile16x16`` and ``tile16x17`` are the literature's tiles, for study: float32 only."""
ImageVariant = Literal["naive", "tiled"]

# The numbers below are those of transpose.cu.
_SMALL_BLOCK: Dim3 = (16, 16, 1)
_TILED_BLOCK: Dim3 = (32, 8, 1)
_TILES_DOWN = {"float32": 2, "float16": 1, "uint8": 1}
_LANES = 256
_MOST = 2**31 - 4096  # the end of the last tile must be an int, too


def transpose(
    device: Device,
    source: Argument,
    target: Argument,
    rows: int,
    columns: int,
    dtype: str,
    variant: Variant = "tiled",
    stream: int | None = None,
) -> None:
    """Write the transpose, (columns, rows), of the C-contiguous (rows, columns) matrix at ``source`` to ``target``.

    ``dtype`` is float32, float16 or uint8; the two are buffers, or addresses as ``np.uint64``, and must not overlap.
    Raises ``ValueError`` for another dtype, a size under 1, or a buffer that is too small.
    """
    function, grid, block = launch_shape(rows, columns, dtype, variant)
    _check(np.dtype(dtype).itemsize, source, target, rows=rows, columns=columns)
    device.launch(MODULE, function, grid, block, [source, target, np.int32(rows), np.int32(columns)], stream)


def launch_shape(rows: int, columns: int, dtype: str, variant: Variant) -> tuple[str, Dim3, Dim3]:
    """Of ``transpose``: the entry point, the grid and the block. Raises ``ValueError`` for a dtype that it has not."""
    suffix = _suffix(dtype)
    if variant not in ("naive", "tiled") and dtype != "float32":
        raise ValueError(f"the variant {variant} moves float32, got {dtype}: use naive or tiled")
    if variant == "tiled":
        side = 32 * (4 // np.dtype(dtype).itemsize)
        blocks = math.ceil(columns / side) * math.ceil(rows / (side * _TILES_DOWN[dtype]))
        block = _TILED_BLOCK
    else:
        blocks = math.ceil(columns / 16) * math.ceil(rows / 16)
        block = _SMALL_BLOCK
    return f"transpose_{variant}_{suffix}", (blocks, 1, 1), block


def transpose_images(
    device: Device,
    source: Argument,
    target: Argument,
    pictures: int,
    pixels: int,
    dtype: str,
    to: Layout,
    variant: ImageVariant = "tiled",
    stream: int | None = None,
) -> None:
    """Bring ``pictures`` of ``pixels`` (height x width) with three channels from the other layout ``to`` this one.

    Pictures follow each other without gaps. Arguments and errors are those of ``transpose``.
    """
    suffix = _suffix(dtype)
    _check(CHANNELS * np.dtype(dtype).itemsize, source, target, pictures=pictures, pixels=pixels)
    if variant == "tiled":
        blocks = pictures * math.ceil(pixels / (_LANES * (16 // np.dtype(dtype).itemsize)))
    else:
        blocks = math.ceil(pictures * pixels * CHANNELS / _LANES)
    direction = "nhwc_to_nchw" if to == "NCHW" else "nchw_to_nhwc"
    args = [source, target, np.int32(pictures), np.int32(pixels)]
    device.launch(MODULE, f"{direction}_{variant}_{suffix}", (blocks, 1, 1), (_LANES, 1, 1), args, stream)


def _suffix(dtype: str) -> str:
    if dtype not in SUFFIXES:
        raise ValueError(f"cannot transpose {dtype}, expected {', '.join(SUFFIXES)}")
    return SUFFIXES[dtype]


def _check(item_bytes: int, source: Argument, target: Argument, **sizes: int) -> None:
    for name, size in sizes.items():
        if not 1 <= size <= _MOST:
            raise ValueError(f"{name} is {size}, expected 1 to {_MOST}")
    nbytes = item_bytes * math.prod(sizes.values())
    for name, given in (("source", source), ("target", target)):
        if isinstance(given, Buffer) and given.nbytes < nbytes:
            raise ValueError(f"{name} has {given.nbytes} bytes, expected at least {nbytes}")
    if source is target:
        raise ValueError("source and target are one buffer, expected two: a transpose in place is not there")
