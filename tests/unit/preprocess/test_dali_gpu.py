"""DALI's ways on a GPU, as far as a CPU takes them: graphs run on the CPU, kernels and memory in host form."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import preprocess.cuda
from kernels.device import Device
from plugins.driver import Installed
from plugins.errors import DeviceNotFound
from plugins.options import describe
from preprocess import registry
from preprocess.base import BadPicture, Recipe
from preprocess.cuda import OnDevice
from preprocess.oracle import oracle
from preprocess.parts.decode import decode
from preprocess.parts.gpu_decode import DevicePixels
from preprocess.parts.self_test import DecoderNotUsable
from sut.qsl.library import Rows
from tests.core import module_needs
from tests.unit.device_form import PLACE, DeviceSlot, HostForm, WatchedDevice, put

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the host form of the kernels needs g++")
module_needs("dali")

import nvidia.dali  # noqa: E402

from preprocess.dali import DaliResize  # noqa: E402
from preprocess.dali_gpu import DaliGpu, DaliGpuResize, DaliMixed, mixed_graph, resize_pipeline  # noqa: E402

PHOTOS = sorted((Path(__file__).parents[3] / "sut/datasets/demo_photos").glob("*.jpg"))
FILES = [path.read_bytes() for path in PHOTOS[:4]]
RESNET50 = Recipe(name="resnet50", size=96, fit="resize-crop", interpolation="area", mean=(123.68, 116.78, 103.94))
LITE0 = Recipe(
    name="lite0", size=96, fit="crop-resize", interpolation="cubic", mean=(127.0,) * 3, std=(128.0,) * 3, layout="NHWC"
)
PIXELS = Recipe(name="pixels", size=96, fit="resize-crop", interpolation="linear", layout="NHWC", dtype="uint8")
YOLO = Recipe(name="yolo", size=96, fit="letterbox", interpolation="linear", std=(255.0, 255.0, 255.0))
TOP_LEFT = Recipe(
    name="top-left", size=97, fit="letterbox", align="top-left", interpolation="area", layout="NHWC", dtype="uint8"
)
RETINANET = Recipe(name="retinanet", size=96, fit="stretch", interpolation="linear", std=(58.4, 57.1, 57.4))
BGR = dataclasses.replace(PIXELS, name="bgr", colour_order="BGR", layout="NCHW")


@pytest.fixture(scope="module")
def device() -> Iterator[WatchedDevice]:
    with WatchedDevice() as running:
        yield running


class DaliOnHost(DaliMixed):
    """The mixed decoder's graph on the CPU, whose pixels are uploaded."""

    def __init__(self, device: Device, hw_share: float = 0.5) -> None:
        super().__init__(None, hw_share)
        self._device = device
        self._held: list[DevicePixels] = []
        self.seen: list[bytes] = []

    def _decode(self, encoded: Sequence[bytes], stream: int | None) -> list[DevicePixels | None]:
        for pixels in self._held:
            pixels.owner.free()  # type: ignore[attr-defined]
        self._held = []
        self.seen += encoded
        return super()._decode(encoded, None)

    def check(self, stream: int | None = None) -> None:
        super().check(None)

    def _pixels(self, tensor: Any, output: Any) -> DevicePixels:
        self._held.append(put(self._device, np.asarray(tensor), padding=0))
        return self._held[-1]


class HostResize:
    """DALI's resize on the CPU, fed from device memory and copied into device memory as on a GPU."""

    def __init__(self, device: WatchedDevice, recipe: Recipe, given: Any) -> None:
        self._device = device
        self._pipeline = resize_pipeline(recipe, given, None)

    def run(self, inputs: Mapping[str, Sequence[Any]], stream: int | None) -> Any:
        pixels = []
        for shown in inputs["pixels"]:
            interface = shown.__cuda_array_interface__
            assert interface["typestr"] == "|u1"
            assert interface["strides"] is None
            pixels.append(np.empty(interface["shape"], np.uint8))
            self._device.read(interface["data"][0], pixels[-1], None)
        output = self._pipeline.run({**inputs, "pixels": pixels})
        rows = np.stack([np.asarray(output.at(row)) for row in range(len(pixels))])

        def copy_to_external(target: ctypes.c_void_p, *, cuda_stream: ctypes.c_void_p, non_blocking: bool) -> None:
            assert cuda_stream.value == stream
            assert non_blocking
            assert target.value is not None
            self._device.write(target.value, rows, None)

        return SimpleNamespace(copy_to_external=copy_to_external)

    def close(self) -> None:
        self._pipeline.close()


class ResizeOnHost(DaliGpuResize):
    """``dali-gpu-resize`` without a GPU: what opens one is left out."""

    def __init__(self, recipe: Recipe, device: WatchedDevice) -> None:
        OnDevice.__init__(self, recipe, device, DaliOnHost(device), PLACE)
        self._resizes: Any = {given: HostResize(device, recipe, given) for given in ("RGB", "BGR")}


def run(preprocessor: OnDevice, encoded: list[bytes], target: Any) -> None:
    marks: list[str] = []
    assert len(preprocessor.run(encoded, target, marks.append)) == len(encoded)
    assert tuple(marks) == preprocessor.stages


def by_cpu(recipe: Recipe, encoded: list[bytes]) -> np.ndarray:
    buffer = np.empty((len(encoded), *recipe.sample_shape), recipe.dtype)
    with DaliResize(recipe) as working:
        working.run(encoded, Rows.of(buffer), lambda stage: None)
    return buffer


def jpeg(pixels: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(".jpg", pixels, settings)[1].tobytes()


@pytest.mark.parametrize("recipe", [PIXELS, BGR], ids=lambda recipe: recipe.name)
def test_what_dali_decodes_goes_through_the_kernels_to_the_oracles_rows(device: WatchedDevice, recipe: Recipe) -> None:
    preprocessor = HostForm(recipe, device, DaliOnHost(device), PLACE)
    for encoded in (FILES[:1], FILES, FILES[1:3]):
        slot = DeviceSlot(device, recipe, len(encoded))
        run(preprocessor, encoded, slot)
        expected = np.stack([oracle(decode(data), recipe)[0] for data in encoded])
        assert np.abs(slot.download().astype(int) - expected).max() <= 1
    assert preprocessor.decoded_by_cpu == 0


def test_dali_is_given_baseline_jpegs_only_and_the_rest_is_counted(device: WatchedDevice) -> None:
    photo = decode(FILES[0])
    others = [jpeg(photo, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), cv2.imencode(".png", photo)[1].tobytes()]
    decoder = DaliOnHost(device)
    preprocessor = HostForm(PIXELS, device, decoder, PLACE)
    slot = DeviceSlot(device, PIXELS, 3)

    run(preprocessor, [others[0], FILES[0], others[1]], slot)

    assert decoder.seen == FILES[:1]
    assert preprocessor.decoded_by_cpu == 2


def test_what_makes_dali_give_up_costs_the_batch_nothing(device: WatchedDevice) -> None:
    decoder = DaliOnHost(device)
    cut = FILES[1][: len(FILES[1]) // 2]
    found = decoder.decode([FILES[0], cut, FILES[2]], None)
    assert [pixels is None for pixels in found] == [False, True, False]
    assert [(each.width, each.height) for each in found if each] == [
        decode(data).shape[1::-1] for data in (FILES[0], FILES[2])
    ]
    with pytest.raises(BadPicture) as caught:
        HostForm(PIXELS, device, decoder, PLACE).run([FILES[0], cut], DeviceSlot(device, PIXELS, 2), lambda stage: None)
    assert caught.value.position == 1


def test_a_picture_that_dali_refuses_alone_is_refused_and_no_more(device: WatchedDevice) -> None:
    decoder = DaliOnHost(device)
    assert decoder.decode([FILES[1][: len(FILES[1]) // 2]], None) == [None]
    assert all(decoder.decode(FILES[:2], None))


def test_a_dali_that_cannot_be_built_is_no_refusal(device: WatchedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def graph(*given: Any) -> None:
        raise RuntimeError("no driver\nfor this")

    monkeypatch.setattr("preprocess.dali_gpu.mixed_graph", graph)
    with pytest.raises(DecoderNotUsable, match=r"DALI [0-9.]+ does not decode a plain JPEG here: no driver for this;"):
        DaliOnHost(device)


def test_a_dali_that_breaks_later_is_not_believed(device: WatchedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = DaliOnHost(device)
    preprocessor = HostForm(PIXELS, device, decoder, PLACE)
    run(preprocessor, FILES, DeviceSlot(device, PIXELS, len(FILES)))

    def broken(*given: Any) -> None:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(decoder, "_run", broken)
    with pytest.raises(DecoderNotUsable, match="an illegal memory access"):
        run(preprocessor, FILES, DeviceSlot(device, PIXELS, len(FILES)))
    assert preprocessor.decoded_by_cpu == 0


def test_a_pipeline_begins_with_its_largest_batch(device: WatchedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    make = nvidia.dali.Pipeline
    monkeypatch.setattr(nvidia.dali, "Pipeline", lambda **given: made.append(given) or make(**given))
    decoder = DaliOnHost(device)
    for count in (2, 1, 4):
        decoder.decode(FILES[:count], None)
    assert [given["batch_size"] for given in made] == [1, 2, 4]
    decoder.decode([FILES[0], FILES[1][:5000]], None)  # one by one after the error, each of which drops the pipeline
    made.clear()
    decoder.decode(FILES[:3], None)
    assert [given["batch_size"] for given in made] == [3]


def test_the_threads_of_the_decoder_are_dalis(device: WatchedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = nvidia.dali.Pipeline
    monkeypatch.setattr(nvidia.dali, "Pipeline", lambda **given: made.append(given["num_threads"]) or make(**given))
    DaliMixed(None).close()
    DaliMixed(None, threads=3).close()
    assert made == [1, 3]


EVERY = [RESNET50, LITE0, PIXELS, BGR, YOLO, TOP_LEFT, RETINANET]


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.name)
def test_dalis_own_resize_is_that_of_the_cpu_to_the_bit(device: WatchedDevice, recipe: Recipe) -> None:
    preprocessor = ResizeOnHost(recipe, device)
    slot = DeviceSlot(device, recipe, len(FILES))

    run(preprocessor, FILES, slot)

    np.testing.assert_array_equal(slot.download(), by_cpu(recipe, FILES))
    pictures = [decode(data) for data in FILES[:2]]
    slot = DeviceSlot(device, recipe, 2)
    preprocessor.run_pixels(pictures, slot, lambda stage: None)
    np.testing.assert_array_equal(slot.download(), by_cpu(recipe, FILES[:2]))


def test_dalis_own_resize_takes_what_the_cpu_decoded(device: WatchedDevice) -> None:
    encoded = [FILES[0], jpeg(decode(FILES[1]), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)]
    buffer = np.empty((2, *PIXELS.sample_shape), np.uint8)
    preprocessor = ResizeOnHost(PIXELS, device)

    run(preprocessor, encoded, Rows.of(buffer))

    np.testing.assert_array_equal(buffer, by_cpu(PIXELS, encoded))
    assert preprocessor.decoded_by_cpu == preprocessor.batches_to_host == 1


def test_the_share_of_the_jpeg_engine_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Mapping[str, Any]] = []
    decoders = SimpleNamespace(image=lambda encoded, **options: given.append(options))
    monkeypatch.setattr("preprocess.dali_gpu.fn", SimpleNamespace(decoders=decoders))
    monkeypatch.setattr("preprocess.dali_gpu.encoded_input", lambda: None)
    mixed_graph("mixed", 0.25)
    assert given[0]["hw_decoder_load"] == 0.25
    assert given[0]["device"] == "mixed"
    assert given[0]["jpeg_fancy_upsampling"]


@pytest.mark.parametrize("kind", [DaliGpu, DaliGpuResize])
def test_a_share_that_is_none_is_refused(kind: type[DaliGpu]) -> None:
    assert {"hw_share", "threads"} <= {each.name for each in describe(kind.options)}
    with pytest.raises(ValueError, match=r"hw_share: got 65, expected a number from 0 to 1"):
        kind(PIXELS, hw_share=65)
    # DALI's share is fixed.
    with pytest.raises(ValueError, match=r"hw_share: got 'adaptive', expected a number from 0 to 1$"):
        kind(PIXELS, hw_share="adaptive")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dali-gpu", "dali-gpu-resize"])
def test_what_a_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def installed() -> None:
        raise DeviceNotFound("no NVIDIA driver: install one")

    monkeypatch.setattr(preprocess.cuda, "installed_driver", installed)
    with pytest.raises(ModuleNotFoundError, match=rf"the preprocessor {name} needs .*driver, a GPU.*install one"):
        registry.load(name)


@pytest.mark.parametrize(("driver", "extra"), [(12, "dali-cu12"), (13, "dali")])
def test_a_dali_for_a_newer_cuda_than_the_drivers_is_refused(
    monkeypatch: pytest.MonkeyPatch, driver: int, extra: str
) -> None:
    monkeypatch.setattr(preprocess.cuda, "installed_driver", lambda: Installed(driver, 0, 1))
    monkeypatch.setattr(preprocess.cuda, "find_compiler", lambda newest: None)
    monkeypatch.setattr(preprocess.cuda, "is_installed", lambda module: True)
    monkeypatch.setattr(preprocess.cuda, "_cuda_of", lambda module: built)
    built = driver
    assert registry.load("dali-gpu") is DaliGpu
    built = driver + 1
    with pytest.raises(ModuleNotFoundError, match=rf"DALI for the driver's CUDA {driver} .*install -e '.\[{extra}\]'"):
        registry.load("dali-gpu")
