"""The sample library of the boundary ``device``: ready tensors that stay in the accelerator's memory.

Inside the clock is one copy per sample from there to the slot, on the device, which the backend's stream waits for: its
end falls into the stage ``infer``. MLPerf's rules start the clock earlier, so results at this boundary are for study:
what a request costs once its input has arrived (what NVIDIA's submissions call ``start_from_device``).

On a GPU none of this has run yet; tests run it with device memory in host form.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from backends.base import Backend, Slot
from kernels.device import Buffer, Device, DeviceArray
from preprocess.base import Geometry, Mark, Preprocessor, Recipe, Target, unmarked
from preprocess.parts.device_memory import Lent, lent_slot
from sut.errors import SetupError
from sut.qsl.library import Library, Loading, Rows, Source

Copy = Callable[[Buffer, Buffer, int | None], None]
"""Copies all of the second to the start of the first, both of one device, on a stream: ``GpuDevice.copy``."""


def device_place(backend: Backend) -> str:
    """The place on an accelerator where a backend takes its input: ``cuda:0``.

    Raises ``SetupError`` for a backend that takes it from host memory only.
    """
    for place in backend.places:
        if place.startswith("cuda:"):
            return place
    raise SetupError(
        f"--boundary device keeps tensors in the accelerator's memory, but {backend.name} takes its input from "
        f"{', '.join(backend.places)} memory only: use --boundary tensor, or a backend that takes cuda:N"
    )


class DeviceLibrary(Library):
    """Preprocessed samples in a device's memory, a buffer each, in the model's own dtype and layout."""

    def __init__(self, how: Loading, recipe: Recipe, *, device: Device, copy: Copy, place: str) -> None:
        """Owns ``device`` from now on; ``copy`` copies within its memory, which slots call ``place``."""
        super().__init__(how)
        self.recipe, self.device, self.copy, self.place = recipe, device, copy, place
        self._row_bytes = int(np.prod(recipe.sample_shape)) * np.dtype(recipe.dtype).itemsize
        self._free: list[Buffer] = []
        self._uploading = threading.Lock()
        self.row: dict[int, Buffer] = {}
        self.geometry: dict[int, Geometry] = {}

    def source(self) -> Source:
        """A source that copies on the device, on a stream of its own."""
        return _DeviceGather(self)

    def _reserve(self, indices: Sequence[int]) -> None:
        for index in indices:
            if index not in self.row:
                self.row[index] = self._free.pop() if self._free else self.device.alloc(self._row_bytes)

    def _load_chunk(self, chunk: Sequence[int]) -> None:
        preprocessor = self._preprocessor()
        for index in chunk:
            with self._blaming(index):
                self.geometry[index] = self._preprocess(preprocessor, index)

    def _preprocess(self, preprocessor: Preprocessor, index: int) -> Geometry:
        """Fill a sample's row: where the preprocessor can, without a way through host memory."""
        recipe, row = self.recipe, self.row[index]
        if "cuda" in preprocessor.places:
            array = DeviceArray(row.address, (1, *recipe.sample_shape), recipe.dtype)
            [geometry] = preprocessor.run([self._read(index)], Rows(1, {"rows": array}, self.place), unmarked)
            return geometry
        host = np.empty((1, *recipe.sample_shape), recipe.dtype)
        [geometry] = preprocessor.run([self._read(index)], Rows.of(host), unmarked)
        with self._uploading:
            self.device.upload(host, row)
        return geometry

    def _drop(self, index: int) -> None:
        self._free.append(self.row.pop(index))
        del self.geometry[index]

    def close(self) -> None:
        """Free all rows, and the device."""
        self.device.close()


class _DeviceGather(Source):
    def __init__(self, library: DeviceLibrary) -> None:
        self._library = library
        self._stream = library.device.new_stream()

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        library = self._library
        library.require(indices)
        device = library.device
        slot = lent_slot(library.recipe, target, len(indices), device, library.place)
        for position, index in enumerate(indices):
            row = library.row[index]
            library.copy(Lent(device, slot.address + position * row.nbytes, row.nbytes), row, self._stream)
        if isinstance(target, Slot) and target.stream is not None:
            target.ready = device.signal(self._stream)
        else:
            device.synchronize(self._stream)
        mark("preprocess")
        return [library.geometry[index] for index in indices]
