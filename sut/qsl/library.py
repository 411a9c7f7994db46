"""The query sample library: holds samples at the timing boundary, and fills slots with them.

The boundary is where the clock starts. What lies before it is done when a sample is loaded; what lies behind it is done
by a *source*, of which each lane has one of its own:

- ``tensor`` (MLPerf's rule): preprocessed before the clock; inside it is one gather of ready tensors into the slot;
- ``pixels``: decoded before the clock; resizing and normalising are timed;
- ``jpeg``: the file's bytes are held; decoding too is timed.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.base import Geometry, Mark, Preprocessor, Recipe, Target, unmarked
from preprocess.parts.decode import MOST_BYTES, check
from sut.datasets.base import DataSet
from sut.errors import InputError, reason_of
from sut.qsl.pictures import Seen, most_bytes
from sut.qsl.tensor_store import TensorStore

_CHUNK = 8
_NOWHERE, _MADE, _STORED = range(3)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of an array, in the shape a preprocessor writes into."""

    n: int
    buffers: dict[str, Any]
    place: str = "host"

    @classmethod
    def of(cls, array: NDArray[Any]) -> Rows:
        """All rows of ``array``."""
        return cls(len(array), {"rows": array})


class Source(ABC):
    """What one lane, or one preprocessing worker, fills slots with."""

    stages: tuple[str, ...] = ("preprocess",)
    """What ``fill`` marks, in order."""

    @abstractmethod
    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        """Write the samples into the target's first rows.

        Raises ``ValueError`` for a sample that is not loaded: stale rows must never be inferred in its place.
        """

    def view(self, index: int) -> tuple[NDArray[Any], list[Geometry]] | None:
        """One ready sample where it lies, shape (1, ...), instead of a copy; None where there is none to be had.

        Raises ``ValueError`` for a sample that is not loaded. Stands for ``fill``, so it must not be preprocessing.
        """
        return None

    def counts(self) -> Mapping[str, int]:
        """What a reader of the result must know of its work, as ``Preprocessor.counts``."""
        return {}

    def close(self) -> None:
        """Give back what it holds."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How samples of a data set are loaded: by ``workers`` threads, at most ``capacity`` at a time.

    Each thread has a preprocessor that ``make`` makes, of the lane whose number it is given, or else of the first;
    ``loaded`` is called with the number of samples after each piece of work.
    """

    dataset: DataSet
    make: Callable[..., Preprocessor]
    capacity: int
    workers: int
    loaded: Callable[[int], None] = lambda count: None


class Library(ABC):
    """Samples of a data set, loaded as ``how`` says."""

    def __init__(self, how: Loading) -> None:
        self.dataset = dataset = how.dataset
        self.performance_count = how.capacity
        self._how = how
        self.is_loaded = np.zeros(dataset.count, bool)
        self._seen = Seen(dataset)
        self._most_bytes = MOST_BYTES
        self._counted: Counter[str] = Counter()
        self._of_thread = threading.local()
        self._made: list[Preprocessor] = []

    @property
    def count(self) -> int:
        """Samples in the data set."""
        return self.dataset.count

    stages: tuple[str, ...] = ("preprocess",)
    """The stages that its sources mark."""

    def notes(self) -> list[str]:
        """What a reader of the result must know of the samples, as far as they were loaded."""
        return [*(f"{count:,} {what}" for what, count in self._counted.items() if count), *self._seen.notes()]

    def rules_broken(self) -> list[str]:
        """Which of MLPerf's rules the samples break, as far as they were loaded."""
        return self._seen.equal()

    def _preprocessor(self) -> Preprocessor:
        """The one of this thread, made when it is first needed, until ``load`` has ended."""
        if not hasattr(self._of_thread, "preprocessor"):
            self._of_thread.preprocessor = self._how.make()
            self._made.append(self._of_thread.preprocessor)
        preprocessor: Preprocessor = self._of_thread.preprocessor
        return preprocessor

    def _close_preprocessors(self) -> None:
        """Close those of all threads, which have ended; what they counted becomes notes."""
        with ExitStack() as stack:
            while self._made:
                preprocessor = self._made.pop()
                stack.callback(preprocessor.close)
                self._counted.update(preprocessor.counts())

    @abstractmethod
    def source(self, lane: int = 0) -> Source:
        """A new source, for one thread at a time: that of a lane, or one that works on the same device."""

    def close(self) -> None:
        """Give back what it holds beside host memory. Called once, after all sources were closed."""

    @abstractmethod
    def _load_chunk(self, chunk: Sequence[int]) -> None:
        """Load a few samples; ``_read`` them. Called by several threads at once."""

    def _reserve(self, indices: Sequence[int]) -> None:
        """Make room for samples that are about to be loaded."""

    @abstractmethod
    def _drop(self, index: int) -> None:
        """Forget one loaded sample."""

    def load(self, indices: Iterable[int]) -> None:
        """Load samples that are not loaded yet. Duplicates, which LoadGen sends in MultiStream, are loaded once.

        Raises ``InputError`` naming the file for a picture that is missing, damaged, too large or cannot be decoded.
        """
        wanted = [index for index in dict.fromkeys(indices) if not self.is_loaded[index]]
        self._reserve(wanted)
        self._most_bytes = most_bytes(self._how.workers)
        chunks = [wanted[at : at + _CHUNK] for at in range(0, len(wanted), _CHUNK)]
        try:
            with ThreadPoolExecutor(self._how.workers, thread_name_prefix="load") as pool:
                for chunk in pool.map(self._load_and_mark, chunks):
                    self._how.loaded(len(chunk))
        finally:
            self._close_preprocessors()

    def _load_and_mark(self, chunk: Sequence[int]) -> Sequence[int]:
        self._load_chunk(chunk)
        self.is_loaded[chunk] = True
        return chunk

    def unload(self, indices: Iterable[int]) -> None:
        """Forget samples. Duplicates and samples that are not loaded are no error."""
        for index in indices:
            if self.is_loaded[index]:
                self.is_loaded[index] = False
                self._drop(index)

    def _read(self, index: int) -> bytes:
        """One file's bytes, known to be a whole picture that can be decoded in the memory there is."""
        data = self.dataset.read(index)
        check(data, self._most_bytes)
        self._seen.read(index, data)
        return data

    @contextmanager
    def _blaming(self, index: int) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            name = self.dataset.root / self.dataset.files[index]
            raise InputError(f"{name} (sample {index}): {reason_of(error)}") from error

    def require(self, indices: Sequence[int]) -> None:
        """Raise ``ValueError`` if one of the samples is not loaded."""
        there = self.is_loaded[indices]
        if not there.all():
            raise ValueError(f"sample {indices[int(there.argmin())]} is not loaded")


class NothingLibrary(Library):
    """For a backend that takes no input: nothing is read, nothing is held."""

    def source(self, lane: int = 0) -> Source:
        """A source that fills nothing."""
        return _Nothing()

    def load(self, indices: Iterable[int]) -> None:
        """There is nothing to load."""

    def _load_chunk(self, chunk: Sequence[int]) -> None:
        raise NotImplementedError

    def _drop(self, index: int) -> None:
        raise NotImplementedError


class _Nothing(Source):
    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        mark("preprocess")
        return []


class TensorLibrary(Library):
    """Preprocessed samples in one contiguous array of the model's own dtype and layout.

    With a ``store`` they come from there, and what it has not is preprocessed and kept there. They are copied out of
    it: memory of our own is not taken from us in the middle of a run, as pages of a mapped file can be.
    """

    def __init__(self, how: Loading, recipe: Recipe, store: TensorStore | None = None) -> None:
        super().__init__(how)
        self._store = store
        self._origin = np.full(how.dataset.count, _NOWHERE, np.int8)
        self.row_of = np.full(how.dataset.count, -1, np.int64)
        self.geometry = np.empty(how.dataset.count, object)
        self.storage: NDArray[Any] = np.empty((how.capacity, *recipe.sample_shape), recipe.dtype)
        self._free = list(range(how.capacity - 1, -1, -1))

    def source(self, lane: int = 0) -> Source:
        """A source that gathers tensors."""
        return _Gather(self)

    def notes(self) -> list[str]:
        """Those of any library, and how many samples came from the store when they were loaded for the first time."""
        notes = super().notes()
        if self._store is None:
            return notes
        stored, known = (self._origin == _STORED).sum(), (self._origin != _NOWHERE).sum()
        return [f"{stored:,} of {known:,} samples came preprocessed from {self._store.name}", *notes]

    def rules_broken(self) -> list[str]:
        """Those of any library, and tensors that were made elsewhere."""
        broken = super().rules_broken()
        if self._store is not None and (foreign := len(self._store.foreign)):
            broken.append(f"tensors made elsewhere: {foreign:,}, in {self._store.name}")
        return broken

    def _reserve(self, indices: Sequence[int]) -> None:
        if self._store is not None:
            self._store.prepare(indices)
        if (more := len(indices) - len(self._free)) > 0:
            old = len(self.storage)
            grown = np.empty((old + more, *self.storage.shape[1:]), self.storage.dtype)
            grown[:old] = self.storage
            self.storage = grown
            self._free += range(old, old + more)
        for index in indices:
            if self.row_of[index] < 0:
                self.row_of[index] = self._free.pop()

    def _load_chunk(self, chunk: Sequence[int]) -> None:
        missing = [index for index in chunk if not self._load_stored(index)]
        if not missing:
            return
        preprocessor = self._preprocessor()
        for index in missing:
            row = self.storage[self.row_of[index]]
            with self._blaming(index):
                [geometry] = preprocessor.run([self._read(index)], Rows.of(row[np.newaxis]), unmarked)
            self._take_in(index, geometry, _MADE)
            if self._store is not None:
                self._store.keep(index, row, geometry, self._seen.known[index])

    def _load_stored(self, index: int) -> bool:
        if self._store is None:
            return False
        with self._blaming(index):
            taken = self._store.take(index, self.storage[self.row_of[index]])
        if taken is None:
            return False
        geometry, self._seen.known[index] = taken
        self._take_in(index, geometry, _STORED)
        return True

    def _take_in(self, index: int, geometry: Geometry, origin: int) -> None:
        self.geometry[index] = geometry
        if self._origin[index] == _NOWHERE:
            self._origin[index] = origin

    def _drop(self, index: int) -> None:
        self._free.append(int(self.row_of[index]))
        self.row_of[index] = -1
        self.geometry[index] = None


class _Gather(Source):
    def __init__(self, library: TensorLibrary) -> None:
        self._library = library

    def view(self, index: int) -> tuple[NDArray[Any], list[Geometry]] | None:
        library = self._library
        if not library.is_loaded[index]:
            raise ValueError(f"sample {index} is not loaded")
        row = int(library.row_of[index])
        return library.storage[row : row + 1], [library.geometry[index]]

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        library = self._library
        library.require(indices)
        [buffer] = target.buffers.values()
        rows = library.row_of[indices]
        if len(rows) == 1:
            buffer[0] = library.storage[rows[0]]
        else:
            # Any mode but "raise" lets take() write straight into `out`; the rows are known to be in range.
            np.take(library.storage, rows, axis=0, out=buffer[: len(rows)], mode="clip")
        geometries: list[Geometry] = library.geometry[indices].tolist()
        mark("preprocess")
        return geometries
