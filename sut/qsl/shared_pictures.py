"""Pictures in memory that other processes read, too: what ``PictureLibrary`` holds where others preprocess."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ALIGNED = 64


class Span(NamedTuple):
    """Where a picture lies: ``nbytes`` from ``offset``; ``height`` and ``width`` are 0 for a file's bytes."""

    offset: int
    nbytes: int
    height: int = 0
    width: int = 0


class SharedPictures(MutableMapping[int, Any]):
    """By index files' bytes, or decoded pixels, uint8 (height, width, 3). Used by several threads.

    ``descriptor`` is of nameless memory (memfd_create(2)), which grows; what is given back is used again once nothing
    is held any more, as LoadGen unloads what it has loaded.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("pictures", os.MFD_CLOEXEC)
        self.spans: dict[int, Span] = {}
        self._end = 0
        self._lock = threading.Lock()

    def __setitem__(self, index: int, picture: bytes | NDArray[np.uint8]) -> None:
        sides = picture.shape[:2] if isinstance(picture, np.ndarray) else (0, 0)
        data = memoryview(picture.tobytes() if isinstance(picture, np.ndarray) else picture)
        with self._lock:
            offset, self._end = self._end, self._end + -(-len(data) // _ALIGNED) * _ALIGNED
        if len(data):
            os.posix_fallocate(self.descriptor, offset, len(data))
        written = 0
        while written < len(data):
            written += os.pwrite(self.descriptor, data[written:], offset + written)
        self.spans[index] = Span(offset, len(data), *sides)

    def __delitem__(self, index: int) -> None:
        with self._lock:
            del self.spans[index]
            if not self.spans:
                self._end = 0
                os.ftruncate(self.descriptor, 0)

    def __getitem__(self, index: int) -> Any:
        """A copy: for what is looked at before the clock."""
        span = self.spans[index]
        data = os.pread(self.descriptor, span.nbytes, span.offset)
        return np.frombuffer(data, np.uint8).reshape(span.height, span.width, 3) if span.height else data

    def __iter__(self) -> Iterator[int]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.descriptor)


class PictureReader:
    """The same memory in another process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory: mmap.mmap | None = None

    def read(self, span: Span) -> Any:
        """A file's bytes, which are copied, or pixels where they lie."""
        if not span.height:
            return os.pread(self._descriptor, span.nbytes, span.offset)
        if self._memory is None or len(self._memory) < span.offset + span.nbytes:
            # What was read from the old mapping may still be in use: it goes with the last of it.
            self._memory = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size, prot=mmap.PROT_READ)
        return np.frombuffer(self._memory, np.uint8, span.nbytes, span.offset).reshape(span.height, span.width, 3)
