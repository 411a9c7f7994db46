"""What the kernels write, as an ``Output``, and the tail alone: pixels of the model's size to its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernels.device import Argument, Buffer, Device
from plugins.base import Closing

Layout = Literal["NCHW", "NHWC"]

THREADS = 256
STEPS = 4
VECTOR_BYTES = 16
"""Threads of a block, vectors each of them writes, and their bytes: as in normalize.cu."""

SAMPLES_LIMIT = 65535
"""Pictures of one launch: CUDA's limit for the z of a grid."""

SIZE_LIMIT = 16384
"""Largest side of an output: its values are counted in int."""

_SUFFIX = {"float32": "f32", "float16": "f16", "uint8": "u8", "int8": "u8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A model's input: what the levels of resized pixels, three channels interleaved, become.

    Per output channel ``(level - mean) / std`` in float32, then ``dtype``: float16 and int8 are rounded half to even,
    int8 saturates. ``uint8`` means the levels themselves. Raises ``ValueError`` for values that contradict each other.
    """

    size: int
    """Height and width in pixels."""
    layout: Layout = "NCHW"
    dtype: Literal["float32", "float16", "uint8", "int8"] = "float32"
    swap: bool = False
    """Whether the output's channels are the picture's in reverse order: BGR to RGB, or back."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of the output's channels, in their order."""
    stride_bytes: int | None = None
    """From the begin of one sample to the next; None: one after the other."""

    def __post_init__(self) -> None:
        if self.layout not in ("NCHW", "NHWC"):
            raise ValueError(f"layout is {self.layout}, expected NCHW or NHWC")
        if self.dtype not in _SUFFIX:
            raise ValueError(f"dtype is {self.dtype}, expected one of {', '.join(_SUFFIX)}")
        if not 1 <= self.size <= SIZE_LIMIT:
            raise ValueError(f"size is {self.size}, expected 1 to {SIZE_LIMIT} pixels")
        if 0 in self.std:
            raise ValueError(f"std is {self.std}, expected no zero in it")
        if self.dtype == "uint8" and (any(self.mean) or self.std != (1, 1, 1)):
            raise ValueError(
                f"dtype uint8 with mean {self.mean} and std {self.std}, expected mean 0 and std 1 (uint8 means the"
                " pixels themselves); use another dtype or drop mean and std"
            )
        if self.stride_bytes is not None and (
            self.stride_bytes < self.sample_bytes or self.stride_bytes % np.dtype(self.dtype).itemsize
        ):
            raise ValueError(
                f"stride_bytes is {self.stride_bytes}, expected a multiple of {self.dtype}'s"
                f" {np.dtype(self.dtype).itemsize} bytes, at least the {self.sample_bytes} of a sample"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one sample."""
        return (3, self.size, self.size) if self.layout == "NCHW" else (self.size, self.size, 3)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return 3 * self.size * self.size * np.dtype(self.dtype).itemsize

    @property
    def stride(self) -> int:
        """Bytes from the begin of one sample to the next."""
        return self.sample_bytes if self.stride_bytes is None else self.stride_bytes

    @property
    def suffix(self) -> str:
        """How the kernels for this dtype end; int8 is written by those of uint8, with other values."""
        return _SUFFIX[self.dtype]

    def values(self) -> NDArray[Any]:
        """What each level becomes in each output channel: (3, 256) of ``dtype``."""
        levels = np.arange(256, dtype=np.float32)
        mean, std = (np.asarray(each, np.float32)[:, None] for each in (self.mean, self.std))
        return as_dtype((levels - mean) / std, self.dtype)

    def table(self) -> NDArray[np.uint32]:
        """The bits of ``values``, as the kernels take them."""
        values = self.values()
        return values.view(f"u{values.itemsize}").astype(np.uint32)

    def bytes_for(self, n: int) -> int:
        """Bytes of a target for ``n`` samples."""
        return (n - 1) * self.stride + self.sample_bytes


def as_dtype(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Float32 as ``dtype``; integers are rounded half to even and saturated."""
    if dtype in ("int8", "uint8"):
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype)


def check_count(n: int) -> None:
    """Raise ``ValueError`` unless one launch takes ``n`` pictures: 1 to 65535."""
    if not 1 <= n <= SAMPLES_LIMIT:
        raise ValueError(f"got {n} pictures, expected 1 to {SAMPLES_LIMIT}")


def check_target(device: Device, target: Buffer, output: Output, n: int) -> None:
    """Raise ``ValueError`` unless ``target`` is memory of ``device`` that takes ``n`` samples, 1 to 65535 of them."""
    check_count(n)
    check_memory(device, target, output.bytes_for(n), f"the target of {n} samples")
    if target.address % np.dtype(output.dtype).itemsize:
        raise ValueError(f"the target begins at address {target.address}, expected a multiple of {output.dtype}'s size")


def check_memory(device: Device, memory: Buffer, nbytes: int, what: str) -> None:
    """Raise ``ValueError`` unless ``memory`` is usable memory of ``device`` with at least ``nbytes``."""
    if memory.device is not device:
        raise ValueError(f"{what} lies on {memory.device.name}, another device than the kernels' ({device.name})")
    if memory.freed:
        raise ValueError(f"{what} lies in a buffer that has been freed")
    if memory.nbytes < nbytes:
        raise ValueError(f"{what} has {memory.nbytes} bytes, expected at least {nbytes}")


class Normalize(Closing):
    """Pixels of the model's size to its input; holds its table on the device."""

    def __init__(self, device: Device, output: Output, source_layout: Layout = "NHWC") -> None:
        """``source_layout``: of the pixels. Raises ``ValueError`` for NCHW pixels that should become NHWC."""
        if source_layout == "NCHW" and output.layout == "NHWC":
            raise ValueError("NCHW pixels to NHWC output, expected an NCHW output")
        self._device, self._output, self._source_layout = device, output, source_layout
        self._table = device.upload(output.table())

    def run(self, pixels: Buffer, target: Buffer, n: int, stream: int | None = None) -> None:
        """``pixels``: uint8, n samples one after the other. Raises ``ValueError`` before anything runs."""
        output = self._output
        plane = output.size * output.size
        check_target(self._device, target, output, n)
        check_memory(self._device, pixels, 3 * plane * n, f"the pixels of {n} samples")
        planar = output.layout == "NCHW"
        values = plane if planar and self._source_layout == "NHWC" else 3 * plane
        vectors = -(-values * np.dtype(output.dtype).itemsize // VECTOR_BYTES)
        grid = (-(-vectors // (THREADS * STEPS)), 1, n)
        numbers = map(np.int32, (plane, self._source_layout == "NCHW", planar, output.swap))
        lengths = map(np.int64, (3 * plane, output.stride))
        args: tuple[Argument, ...] = (pixels, target, self._table, *lengths, *numbers)
        self._device.launch("normalize", f"normalize_{output.suffix}", grid, (THREADS, 1, 1), args, stream)

    def close(self) -> None:
        """Free what it holds on the device."""
        self._table.free()
