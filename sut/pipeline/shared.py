"""What processes that preprocess share with the one that infers: tensors in place, and what is known of each as bytes.

One nameless mapping (memfd_create(2)) has the rows that tensors lie in, and a header for each row. It is gone when the
last process that has it is. Through pipes go numbers only: a *job* says where a picture lies and into which row it is
to go, a *done* that the row is ready. Either is smaller than ``PIPE_BUF``, so that it is written and read as a whole by
any number of processes, and waking up the reader is one system call.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.base import Geometry, Recipe
from sut.errors import RunError, reason_of
from sut.process.cgroup import free_memory

JOB = Struct("<qqqiii")
"""A sample's number, where its picture begins in the memory of pictures, its bytes (-1: it is not loaded), its row,
height and width (0: it is a file)."""
DONE = Struct("<ii")
"""The row, and the worker."""
MOST_JOBS = 1024
"""On their way at once: their bytes fit into a pipe, so that no writer ever waits for a reader."""

_HEADER_BYTES = 4096
"""Of each row: the sample's number, whether it failed, its geometry and stamps; then what it failed of."""
_ERROR_BYTES = 3000


_placed = lru_cache(4096)(Geometry)
"""The same pictures come again and again."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where rows and headers lie. Each sample has ``stamps``: the begin of its first stage, and the end of each."""

    rows: int
    shape: tuple[int, int, int]
    dtype: str
    stamps: int

    @classmethod
    def of(cls, rows: int, recipe: Recipe, stages: Sequence[str]) -> Layout:
        """For so many samples of a recipe, which go through these stages."""
        return cls(rows, recipe.sample_shape, recipe.dtype, len(stages) + 1)

    @property
    def tensor_bytes(self) -> int:
        """Of all rows, rounded up to whole pages."""
        size = self.rows * prod(self.shape) * np.dtype(self.dtype).itemsize
        return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE

    @property
    def nbytes(self) -> int:
        """Of the whole mapping."""
        return self.tensor_bytes + self.rows * _HEADER_BYTES


class Remote(Exception):
    """What was raised in another process. ``kind`` is the class that it had there."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class SharedRows:
    """The mapping, as each of the processes has it."""

    def __init__(self, layout: Layout, descriptor: int) -> None:
        self.stages = layout.stamps - 1
        self._memory = mmap.mmap(descriptor, layout.nbytes)
        self._headers_at = layout.tensor_bytes
        self._header = Struct(f"<q?qq4d{layout.stamps}q")
        tensors = np.frombuffer(self._memory, layout.dtype, layout.rows * prod(layout.shape))
        self.storage: NDArray[Any] = tensors.reshape(layout.rows, *layout.shape)
        """The tensors, shape (rows, ...) in the recipe's layout and dtype."""

    def tell(self, row: int, number: int, geometry: Geometry, stamps: Sequence[int]) -> None:
        """Write the header of a sample that is ready."""
        at, where = self._headers_at + row * _HEADER_BYTES, geometry
        scales, corner = (where.scale_x, where.scale_y), (where.left, where.top)
        self._header.pack_into(self._memory, at, number, False, where.width, where.height, *scales, *corner, *stamps)

    def tell_failed(self, row: int, number: int, kind: str, text: str, stamps: Sequence[int]) -> None:
        """Write the header of a sample that failed of what is of a class ``kind``; a long text is cut."""
        at = self._headers_at + row * _HEADER_BYTES
        self._header.pack_into(self._memory, at, number, True, 0, 0, 0.0, 0.0, 0.0, 0.0, *stamps)
        at += self._header.size
        what = f"{kind}\0{text}".encode("utf-8", "backslashreplace")[:_ERROR_BYTES]
        self._memory[at : at + 2 + len(what)] = len(what).to_bytes(2, "little") + what

    def told(self, row: int) -> tuple[int, Remote | None, Geometry, Sequence[int]]:
        """Read a row's header: the sample's number, what was raised, geometry and stamps."""
        at = self._headers_at + row * _HEADER_BYTES
        number, has_failed, width, height, scale_x, scale_y, left, top, *stamps = self._header.unpack_from(
            self._memory, at
        )
        error = None
        if has_failed:
            at += self._header.size
            length = int.from_bytes(self._memory[at : at + 2], "little")
            kind, _, text = self._memory[at + 2 : at + 2 + length].decode("utf-8", "replace").partition("\0")
            error = Remote(kind, text)
        return number, error, _placed(width, height, scale_x, scale_y, left, top), stamps


def memory_for(layout: Layout) -> int:
    """A descriptor of memory for a layout, which is there: none is missing when it is first written.

    Raises ``RunError`` where the machine has not so much.
    """
    free, what = free_memory(Path("/")), f"{layout.nbytes / 2**20:,.0f} MiB that workers and lanes share"
    remedy = "take a smaller --max-batchsize, fewer --lanes or --preprocess-workers, or --preprocess-place thread"
    if free is not None and layout.nbytes > free:
        raise RunError(f"{what} are more than the {free / 2**20:,.0f} MiB that are free; {remedy}")
    descriptor = os.memfd_create("rows", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, layout.nbytes)
    except OSError as error:
        os.close(descriptor)
        raise RunError(f"{what} cannot be had: {reason_of(error)}; {remedy}") from error
    return descriptor
