"""The query sample library: holds samples at the timing boundary, and fills slots with them.

At the boundary ``tensor`` (MLPerf's rule) a sample is preprocessed when it is loaded, before the clock starts; what is
left inside the clock is one gather of ready tensors into the slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Slot
from preprocess.base import Geometry, Preprocessor, Recipe
from preprocess.decode import check
from sut.datasets.base import DataSet
from sut.errors import InputError, one_line

_CHUNK = 8


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows of the storage, in the shape a preprocessor writes into."""

    n: int
    buffers: dict[str, Any]
    place: str = "host"
    stream: int | None = None


class Library:
    """Samples of a data set, preprocessed by ``make_preprocessor`` on ``workers`` threads into one contiguous array.

    ``capacity`` is how many samples LoadGen loads at a time. Without a recipe (a backend that takes no input) nothing
    is held. ``loaded`` is called with the number of samples after each piece of work.
    """

    def __init__(
        self,
        dataset: DataSet,
        recipe: Recipe | None,
        make_preprocessor: Callable[[], Preprocessor],
        capacity: int,
        workers: int,
        loaded: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.dataset = dataset
        self.performance_count = capacity
        self._make_preprocessor = make_preprocessor
        self._workers = workers
        self._loaded = loaded
        self._row_of = np.full(dataset.count, -1, np.int64)
        self._geometry = np.empty(dataset.count, object)
        self._free: list[int] = list(range(capacity - 1, -1, -1))
        self._recipe = recipe
        self._storage: NDArray[Any] | None = None
        if recipe is not None:
            self._storage = np.empty((capacity, *recipe.sample_shape), recipe.dtype)

    @property
    def count(self) -> int:
        """Samples in the data set."""
        return self.dataset.count

    def load(self, indices: Iterable[int]) -> None:
        """Load samples that are not loaded yet. Duplicates, which LoadGen sends in MultiStream, are loaded once.

        Raises ``InputError`` naming the file for a picture that is missing, damaged or cannot be decoded.
        """
        if self._storage is None:
            return
        wanted = [index for index in dict.fromkeys(indices) if self._row_of[index] < 0]
        if len(wanted) > len(self._free):
            self._grow(len(wanted) - len(self._free))
        rows = {index: self._free.pop() for index in wanted}
        chunks = [wanted[at : at + _CHUNK] for at in range(0, len(wanted), _CHUNK)]
        try:
            with ThreadPoolExecutor(self._workers, thread_name_prefix="load") as pool:
                for _ in pool.map(lambda chunk: self._load_chunk(chunk, rows), chunks):
                    pass
        except BaseException:
            self._free += [row for index, row in rows.items() if self._row_of[index] < 0]
            raise

    def _grow(self, more: int) -> None:
        assert self._storage is not None
        old = len(self._storage)
        grown = np.empty((old + more, *self._storage.shape[1:]), self._storage.dtype)
        grown[:old] = self._storage
        self._storage = grown
        self._free += range(old, old + more)

    def _load_chunk(self, chunk: Sequence[int], rows: dict[int, int]) -> None:
        assert self._storage is not None
        with self._make_preprocessor() as preprocessor:
            for index in chunk:
                try:
                    data = self.dataset.read(index)
                    check(data)
                    target = _Rows(1, {"storage": self._storage[rows[index]][np.newaxis]})
                    [self._geometry[index]] = preprocessor.run([data], target, _unmarked)
                except (OSError, ValueError) as error:
                    name = self.dataset.root / self.dataset.files[index]
                    raise InputError(f"{name} (sample {index}): {one_line(error)}") from error
                self._row_of[index] = rows[index]
        self._loaded(len(chunk))

    def unload(self, indices: Iterable[int]) -> None:
        """Forget samples. Duplicates and samples that are not loaded are no error."""
        for index in indices:
            row = int(self._row_of[index])
            if row >= 0:
                self._row_of[index] = -1
                self._free.append(row)
                self._geometry[index] = None

    def fill(self, indices: Sequence[int], slot: Slot, mark: Callable[[str], None]) -> list[Geometry]:
        """Copy the samples' tensors into the slot's first rows.

        Raises ``ValueError`` for a sample that is not loaded: stale rows must never be inferred in its place.
        """
        if self._storage is None:
            return []
        [buffer] = slot.buffers.values()
        rows = self._row_of[indices]
        if rows.min() < 0:
            raise ValueError(f"sample {indices[int(rows.argmin())]} is not loaded")
        if len(rows) == 1:
            buffer[0] = self._storage[rows[0]]
        else:
            # Any mode but "raise" lets take() write straight into `out`; the rows are known to be in range.
            np.take(self._storage, rows, axis=0, out=buffer[: len(rows)], mode="clip")
        geometries: list[Geometry] = self._geometry[indices].tolist()
        return geometries


def _unmarked(stage: str) -> None:
    """Loading is not timed."""
