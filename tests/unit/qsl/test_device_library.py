"""Tensors at the boundary ``device``: loaded into the device once, copied there into slots, never read back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from backends.null import Null
from kernels.device import DeviceError
from preprocess.base import Preprocessor, Recipe
from preprocess.opencv import OpenCV
from sut.datasets.demo import open_demo
from sut.errors import InputError, SetupError
from sut.qsl.device_library import DeviceLibrary, device_place
from sut.qsl.library import Loading, Rows
from sut.qsl.pictures import size_of
from tests.unit.device_form import PLACE, DeviceSlot, HostForm, Uploading, WatchedDevice

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the host form of the kernels needs g++")

RECIPE = Recipe(name="r", size=48, fit="resize-crop", interpolation="area", mean=(123.68, 116.78, 103.94))


class Lasting(HostForm):
    """On the library's own device, which outlives it."""

    def close(self) -> None:
        self._decoder.close()


@pytest.fixture
def device() -> Iterator[WatchedDevice]:
    with WatchedDevice() as running:
        yield running


def library(device: WatchedDevice, make: Callable[[], Preprocessor], capacity: int = 4) -> DeviceLibrary:
    # One worker: the host form is for one thread.
    how = Loading(open_demo(), make, capacity, 1)
    return DeviceLibrary(how, RECIPE, device=device, gather=device.gather, place=PLACE)


def by_opencv(indices: list[int]) -> np.ndarray:
    demo = open_demo()
    rows = np.empty((len(indices), *RECIPE.sample_shape), np.float32)
    with OpenCV(RECIPE) as working:
        working.run([demo.read(index) for index in indices], Rows.of(rows), lambda stage: None)
    return rows


def filled(held: DeviceLibrary, device: WatchedDevice, indices: list[int], rows: int) -> np.ndarray:
    slot = DeviceSlot(device, RECIPE, rows)
    source = held.source()
    marks: list[str] = []
    device.read_bytes = device.written_bytes = 0
    geometries = source.fill(indices, slot, marks.append)
    assert device.read_bytes == device.written_bytes == 0
    assert marks == list(source.stages)
    assert [(each.width, each.height) for each in geometries] == [size_of(held.dataset.read(i)) for i in indices]
    return slot.download()


def test_a_cpu_preprocessors_rows_are_uploaded_once_and_copied_on_the_device(device: WatchedDevice) -> None:
    held = library(device, lambda: OpenCV(RECIPE))
    held.load([3, 1, 1, 5])

    got = filled(held, device, [5, 1, 5], rows=4)

    np.testing.assert_array_equal(got[:3], by_opencv([5, 1, 5]))
    assert (got[3].view(np.uint8) == 0xCD).all(), "a row that nobody asked for"


def test_a_preprocessor_on_the_device_writes_there(device: WatchedDevice) -> None:
    held = library(device, lambda: Lasting(RECIPE, device, Uploading(device), PLACE))
    held.load([0, 2])
    assert device.read_bytes == 0
    np.testing.assert_allclose(filled(held, device, [2, 0], rows=2), by_opencv([2, 0]), atol=1.001)


def test_memory_of_unloaded_samples_is_used_again(device: WatchedDevice) -> None:
    held = library(device, lambda: OpenCV(RECIPE), capacity=2)
    held.load([0, 1])
    rows = {buffer.address for buffer in held.row.values()}
    held.unload([0, 1, 1])
    with pytest.raises(ValueError, match="sample 1 is not loaded"):
        held.source().fill([1], DeviceSlot(device, RECIPE, 1), lambda stage: None)
    held.load([4, 5])
    assert {buffer.address for buffer in held.row.values()} == rows
    np.testing.assert_array_equal(filled(held, device, [5, 4], rows=2), by_opencv([5, 4]))


def test_a_slot_elsewhere_is_refused(device: WatchedDevice) -> None:
    held = library(device, lambda: OpenCV(RECIPE))
    held.load([0])
    host = Rows.of(np.empty((1, *RECIPE.sample_shape), np.float32))
    with pytest.raises(ValueError, match="the slot lies on host, expected cuda:0"):
        held.source().fill([0], host, lambda stage: None)


def test_a_bad_picture_is_named(device: WatchedDevice) -> None:
    def fail(*given: Any) -> None:
        raise ValueError("will not")

    held = library(device, lambda: type("Failing", (OpenCV,), {"run": fail})(RECIPE))
    with pytest.raises(InputError, match=r"\(sample 2\): will not"):
        held.load([2])
    assert not held.is_loaded[2]


def test_closing_frees_the_memory(device: WatchedDevice) -> None:
    held = library(device, lambda: OpenCV(RECIPE))
    held.load([0])
    held.close()
    with pytest.raises(DeviceError):
        device.alloc(1)


def test_a_backend_without_a_place_on_a_device_is_refused_with_the_reason() -> None:
    with pytest.raises(SetupError, match=r"null takes its input from host memory only: use --boundary tensor"):
        device_place("null", Null.places)
    assert device_place("b", ("pinned", "cuda:1", "host")) == "cuda:1"
