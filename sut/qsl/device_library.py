"""The sample library of the boundary ``device``: ready tensors that stay in the accelerator's memory.

Inside the clock is one copy per sample from there to the slot, on the device, which the backend's stream waits for: its
end falls into the stage ``infer``. MLPerf's rules start the clock earlier, so results at this boundary are for study:
what a request costs once its input has arrived (what NVIDIA's submissions call ``start_from_device``).

On a GPU none of this has run yet; tests run it with device memory in host form.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Slot
from kernels.device import Buffer, Device, DeviceArray
from preprocess.base import Geometry, Mark, Preprocessor, Recipe, Target, unmarked
from preprocess.parts.device_memory import lent_slot
from sut.errors import SetupError
from sut.qsl.library import Library, Loading, Rows, Source

Gather = Callable[[Buffer, Sequence[Buffer], int | None], None]
"""Copies buffers, one behind the other, to the start of the first, all of one device: ``GpuDevice.gather``."""


def device_place(name: str, places: Sequence[str]) -> str:
    """The place on an accelerator where the backend of that name takes its input, of its ``places``: ``cuda:0``.

    Raises ``SetupError`` for a backend that takes it from host memory only.
    """
    for place in places:
        if place.startswith("cuda:"):
            return place
    raise SetupError(
        f"--boundary device keeps tensors in the accelerator's memory, but {name} takes its input from "
        f"{', '.join(places)} memory only: use --boundary tensor, or a backend that takes cuda:N"
    )


class DeviceLibrary(Library):
    """Preprocessed samples in a device's memory, a buffer each, in the model's own dtype and layout."""

    def __init__(self, how: Loading, recipe: Recipe, *, device: Device, gather: Gather, place: str) -> None:
        """Owns ``device`` from now on; ``gather`` copies within its memory, which slots call ``place``."""
        super().__init__(how)
        self.recipe, self.device, self.gather, self.place = recipe, device, gather, place
        self._row_bytes = int(np.prod(recipe.sample_shape)) * np.dtype(recipe.dtype).itemsize
        self._free: list[Buffer] = []
        self._uploading = threading.Lock()
        self.row: dict[int, Buffer] = {}
        self.geometry: dict[int, Geometry] = {}

    def source(self, lane: int = 0) -> Source:
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
        rows = _rows(self.row[index].address, 1, self.recipe, self.place)
        [geometry] = preprocess_to(preprocessor, [self._read(index)], rows, self._upload)
        return geometry

    def _upload(self, address: int, host: NDArray[Any]) -> None:
        with self._uploading:
            self.device.write(address, host, None)

    def _drop(self, index: int) -> None:
        self._free.append(self.row.pop(index))
        del self.geometry[index]

    def close(self) -> None:
        """Free all rows, and the device."""
        self.device.close()


def _rows(address: int, n: int, recipe: Recipe, place: str) -> Rows:
    return Rows(n, {"rows": DeviceArray(address, (n, *recipe.sample_shape), recipe.dtype)}, place)


def preprocess_to(
    preprocessor: Preprocessor, encoded: Sequence[bytes], target: Target, upload: Callable[[int, NDArray[Any]], None]
) -> list[Geometry]:
    """Preprocess into the first rows of a target on a GPU; where the preprocessor can, not by way of the host.

    ``upload`` copies an array to an address of the GPU's.
    """
    if "cuda" in preprocessor.places:
        return preprocessor.run(encoded, target, unmarked)
    [array] = target.buffers.values()
    recipe = preprocessor.recipe
    host = np.empty((len(encoded), *recipe.sample_shape), recipe.dtype)
    geometries = preprocessor.run(encoded, Rows.of(host), unmarked)
    upload(array.__cuda_array_interface__["data"][0], host)
    return geometries


class _DeviceGather(Source):
    def __init__(self, library: DeviceLibrary) -> None:
        self._library = library
        self._stream = library.device.new_stream()

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        library = self._library
        library.require(indices)
        device = library.device
        slot = lent_slot(library.recipe, target, len(indices), device, library.place)
        # In one go: 2 us of Python a row, where a call for each takes 7 (measured on a CPU).
        library.gather(slot, [library.row[index] for index in indices], self._stream)
        if isinstance(target, Slot) and target.stream is not None:
            target.ready = device.signal(self._stream)
        else:
            device.synchronize(self._stream)
        mark("preprocess")
        return [library.geometry[index] for index in indices]
