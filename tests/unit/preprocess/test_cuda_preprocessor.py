"""``cuda`` with its kernels in host form: right rows, nothing back to the host, refusals counted, bad input said."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg

import preprocess.cuda
from kernels.device import Buffer, DeviceError, Growing
from kernels.hot_path import VARIANTS
from kernels.resize import describe
from plugins.driver import Installed
from plugins.errors import DeviceNotFound
from preprocess import registry
from preprocess.base import BadPicture, Recipe
from preprocess.cuda import BY_CPU, Cuda, OnDevice, _cuda_of, _described
from preprocess.oracle import fit, oracle
from preprocess.parts.decode import decode
from preprocess.parts.gpu_decode import DevicePixels, GpuDecoder, JpegEngine, NvImageCodec
from preprocess.parts.jpeg import read_frame
from preprocess.parts.self_test import DecoderNotUsable, plain_jpeg
from sut.errors import ExitCode
from sut.process.telling import code_of
from sut.qsl.library import Rows
from tests.core import needs
from tests.unit.device_form import (
    PLACE,
    CudaHost,
    DeviceSlot,
    HostAccessError,
    HostForm,
    NvImageCodecOnHost,
    Untouchable,
    Uploading,
    WatchedDevice,
    put,
)

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the host form of the kernels needs g++")

PHOTOS = sorted((Path(__file__).parents[3] / "sut/datasets/demo_photos").glob("*.jpg"))
FILES = [path.read_bytes() for path in PHOTOS[:3]]
PHOTO = decode(FILES[0])
GREY = cv2.cvtColor(PHOTO, cv2.COLOR_BGR2GRAY)

RESNET50 = Recipe(
    name="resnet50", size=64, fit="resize-crop", interpolation="area", mean=(123.68, 116.78, 103.94), layout="NCHW"
)
LITE0 = Recipe(
    name="lite0", size=64, fit="crop-resize", interpolation="cubic", mean=(127.0, 1.0, 2.0), std=(128.0, 2.0, 4.0)
)
HALVES = dataclasses.replace(RESNET50, name="halves", colour_order="BGR", layout="NHWC", dtype="float16")
PIXELS = Recipe(name="pixels", size=64, fit="resize-crop", interpolation="linear", layout="NHWC", dtype="uint8")
YOLO = Recipe(name="yolo", size=64, fit="letterbox", interpolation="linear", std=(255.0, 255.0, 255.0))
TOP_LEFT = Recipe(
    name="top-left",
    size=65,
    fit="letterbox",
    align="top-left",
    interpolation="area",
    layout="NHWC",
    dtype="uint8",
    pad_level=7,
)
RETINANET = Recipe(
    name="retinanet", size=64, fit="stretch", interpolation="linear", mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)
)
VIT = dataclasses.replace(
    RETINANET, name="vit", fit="resize-crop", interpolation="pillow-bicubic", short_side=71, crop_offset="round"
)
RECIPES = [RESNET50, LITE0, HALVES, PIXELS, YOLO, TOP_LEFT, RETINANET, VIT]


def jpeg(pixels: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(".jpg", pixels, settings)[1].tobytes()


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + data[2:]


def without_jfif(data: bytes) -> bytes:
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


PROGRESSIVE = jpeg(PHOTO, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
CMYK = simplejpeg.encode_jpeg(np.ascontiguousarray(np.dstack([PHOTO, GREY])), colorspace="CMYK")
ADOBE_RGB = with_segment(without_jfif(FILES[0]), 0xEE, b"Adobe\0\x64\0\0\0\0\0")
BITS_12 = FILES[0].replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c", 1)
PNG = cv2.imencode(".png", PHOTO)[1].tobytes()
ROTATED = with_segment(FILES[0], 0xE1, b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0))


@pytest.fixture(scope="module")
def device() -> Iterator[WatchedDevice]:
    with WatchedDevice() as running:
        yield running


class Working:
    """An ``OnDevice`` on a device that lives on."""

    def __init__(self, device: WatchedDevice) -> None:
        self._device = device
        self.made: list[OnDevice] = []

    def __call__(self, recipe: Recipe, decoder: GpuDecoder | None = None, **options: Any) -> OnDevice:
        device = self._device
        device.read_bytes = device.written_bytes = 0
        self.made.append(HostForm(recipe, device, decoder or Uploading(device), PLACE, **options))
        return self.made[-1]


@pytest.fixture
def working(device: WatchedDevice) -> Working:
    return Working(device)


def expected(recipe: Recipe, encoded: list[bytes]) -> np.ndarray:
    return np.stack([oracle(decode(data), recipe)[0] for data in encoded])


def assert_close(got: np.ndarray, want: np.ndarray, recipe: Recipe) -> None:
    """Within one level everywhere, and nearly always the same."""
    assert got.dtype == want.dtype
    level = 1 / np.asarray(recipe.std).reshape((3, 1, 1) if recipe.layout == "NCHW" else 3)
    levels = np.abs(got.astype(np.float64) - want.astype(np.float64)) / level
    assert levels.max() <= 1.1
    assert levels.mean() < 0.01


def run(preprocessor: OnDevice, encoded: list[bytes], target: Any) -> list[Any]:
    marks: list[str] = []
    geometries = preprocessor.run(encoded, target, marks.append)
    assert tuple(marks) == preprocessor.stages
    assert len(geometries) == len(encoded)
    return geometries


# -------------------------------------------------------------------------------------------------- into the slot


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_rows_are_the_oracles_and_nothing_comes_back_to_the_host(
    device: WatchedDevice, working: Working, recipe: Recipe
) -> None:
    preprocessor = working(recipe)
    slot = DeviceSlot(device, recipe, 4)

    geometries = run(preprocessor, FILES, slot)

    assert device.read_bytes == 0
    got = slot.download()
    assert_close(got[:3], expected(recipe, FILES), recipe)
    assert (got[3].view(np.uint8) == 0xCD).all(), "a row that nobody asked for"
    assert [(each.width, each.height) for each in geometries] == [decode(data).shape[1::-1] for data in FILES]
    assert preprocessor.decoded_by_cpu == 0


@pytest.mark.parametrize("recipe", [RESNET50, PIXELS, YOLO], ids=lambda recipe: recipe.name)
def test_all_kernels_give_the_same_bytes(device: WatchedDevice, working: Working, recipe: Recipe) -> None:
    rows = []
    for variant in VARIANTS:
        slot = DeviceSlot(device, recipe, len(FILES))
        run(working(recipe, kernels=variant), FILES, slot)
        rows.append(slot.download())
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


def test_pixels_are_uploaded_as_bgr(device: WatchedDevice, working: Working) -> None:
    slot = DeviceSlot(device, RESNET50, 2)
    marks: list[str] = []
    pictures = [decode(data) for data in FILES[:2]]

    working(RESNET50).run_pixels([pictures[0], pictures[1][:, ::-1][:, ::-1]], slot, marks.append)

    assert marks == ["preprocess"]
    assert device.read_bytes == 0
    assert_close(slot.download(), expected(RESNET50, FILES[:2]), RESNET50)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_kernel_is_told_what_its_own_module_would_tell_it(device: WatchedDevice, recipe: Recipe) -> None:
    shapes = [(512, 384), (64, 64), (10, 700), (146, 146), (1, 1)]
    held = [put(device, np.zeros((height, width, 3), np.uint8)) for width, height in shapes]
    fits = [fit(recipe, width, height) for width, height in shapes]
    told = _described(held, fits, recipe)
    pad_level = {"pad_level": recipe.pad_level} if recipe.fit == "letterbox" else {}
    for row, pixels, where in zip(told, held, fits, strict=True):
        assert isinstance(pixels.owner, Buffer)
        assert row == describe(device, pixels.owner, where, recipe.interpolation, pitch=pixels.pitch, **pad_level)


def test_batches_of_any_size_follow_each_other(device: WatchedDevice, working: Working) -> None:
    preprocessor = working(PIXELS)
    for encoded in ([FILES[0]], [PNG, *FILES, PNG], [PNG], FILES[1:]):
        slot = DeviceSlot(device, PIXELS, len(encoded))
        run(preprocessor, encoded, slot)
        assert_close(slot.download(), expected(PIXELS, encoded), PIXELS)


def test_zero_pictures_are_no_launch(device: WatchedDevice, working: Working) -> None:
    slot = DeviceSlot(device, PIXELS, 1)
    assert run(working(PIXELS), [], slot) == []
    assert (slot.download().view(np.uint8) == 0xCD).all()


def test_host_memory_gets_the_rows_in_one_copy_which_is_counted(device: WatchedDevice, working: Working) -> None:
    preprocessor = working(RESNET50)
    buffer = np.full((3, *RESNET50.sample_shape), 77, np.float32)

    run(preprocessor, FILES[:2], Rows.of(buffer))

    assert device.read_bytes == buffer[:2].nbytes
    assert_close(buffer[:2], expected(RESNET50, FILES[:2]), RESNET50)
    assert (buffer[2] == 77).all()
    told = {what: count for what, count in preprocessor.counts().items() if count}
    assert told == {
        f"pictures were preprocessed on {device.name}": 2,
        "batches were copied from cuda:0 to the host memory that the backend reads": 1,
    }


# ----------------------------------------------------------------------------------------------- which decoder

REFUSED = {
    "progressive": PROGRESSIVE,
    "CMYK": CMYK,
    "RGB": ADOBE_RGB,
    "PNG": PNG,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_the_header_rules_out_never_reaches_the_decoder(
    device: WatchedDevice, working: Working, data: bytes
) -> None:
    decoder = Uploading(device)
    preprocessor = working(PIXELS, decoder)
    slot = DeviceSlot(device, PIXELS, 3)

    run(preprocessor, [FILES[0], data, FILES[1]], slot)

    assert decoder.seen == FILES[:2]
    assert preprocessor.decoded_by_cpu == 1
    assert device.read_bytes == 0
    assert_close(slot.download(), expected(PIXELS, [FILES[0], data, FILES[1]]), PIXELS)


def test_what_the_decoder_refuses_is_decoded_by_the_cpu_one_by_one_and_counted(
    device: WatchedDevice, working: Working
) -> None:
    preprocessor = working(PIXELS, Uploading(device, refuses=lambda data: data == FILES[1]))
    slot = DeviceSlot(device, PIXELS, 3)

    run(preprocessor, FILES, slot)

    assert preprocessor.decoded_by_cpu == 1
    assert_close(slot.download(), expected(PIXELS, FILES), PIXELS)
    assert preprocessor.counts()[BY_CPU] == 1


def test_a_picture_that_is_refused_alone_is_decoded_by_the_cpu(device: WatchedDevice, working: Working) -> None:
    preprocessor = working(PIXELS, Uploading(device, refuses=lambda data: data == FILES[1]))
    slot = DeviceSlot(device, PIXELS, 1)

    run(preprocessor, FILES[1:2], slot)

    assert preprocessor.decoded_by_cpu == 1
    assert_close(slot.download(), expected(PIXELS, FILES[1:2]), PIXELS)


@pytest.mark.parametrize("count", [1, 3])
def test_a_decoder_that_refuses_a_plain_jpeg_too_is_not_believed(
    device: WatchedDevice, working: Working, count: int
) -> None:
    broken = [False]
    preprocessor = working(PIXELS, Uploading(device, refuses=lambda data: broken[0]))
    run(preprocessor, FILES, DeviceSlot(device, PIXELS, 3))
    broken[0] = True

    with pytest.raises(DecoderNotUsable, match=r"OpenCV .* does not decode a plain JPEG here: told to refuse it"):
        run(preprocessor, FILES[:count], DeviceSlot(device, PIXELS, count))

    assert preprocessor.decoded_by_cpu == 0


class Named(WatchedDevice):
    """Knows whether it is the one that other libraries would work on."""

    is_current = False

    @contextmanager
    def current(self) -> Iterator[None]:
        self.is_current = True
        yield
        self.is_current = False


def test_decoders_are_made_and_used_on_the_gpu_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    with Named() as device:

        class Asked(Uploading):
            def __init__(self) -> None:
                seen.append(device.is_current)
                super().__init__(device)

            def decode(self, encoded: Sequence[bytes], stream: int | None) -> list[DevicePixels | None]:
                seen.append(device.is_current)
                return super().decode(encoded, stream)

        monkeypatch.setattr(preprocess.cuda, "open_device", lambda name: device)
        opened, decoder = preprocess.cuda.open_both(1, Asked)
        run(HostForm(PIXELS, opened, decoder, PLACE), FILES[:1], DeviceSlot(device, PIXELS, 1))
    assert seen == [True, True]
    assert not device.is_current


def test_what_runs_the_kernels_is_told(device: WatchedDevice, working: Working) -> None:
    preprocessor = working(PIXELS, details="X (sm_90) through CuPy 14, kernels for sm_90 by NVRTC 13.0")
    assert not any(preprocessor.counts().values())
    for encoded in (FILES, FILES[:1]):
        run(preprocessor, encoded, DeviceSlot(device, PIXELS, len(encoded)))
    told = {what: count for what, count in preprocessor.counts().items() if count}
    assert told == {"pictures were preprocessed on X (sm_90) through CuPy 14, kernels for sm_90 by NVRTC 13.0": 4}


@pytest.mark.parametrize("data", [b"", b"no picture", BITS_12], ids=["empty", "text", "12 bits"])
def test_what_no_decoder_takes_is_named_and_the_next_batch_works(
    device: WatchedDevice, working: Working, data: bytes
) -> None:
    preprocessor = working(PIXELS)
    slot = DeviceSlot(device, PIXELS, 3)
    with pytest.raises(BadPicture, match="cannot decode") as caught:
        preprocessor.run([FILES[0], FILES[1], data], slot, lambda stage: None)
    assert caught.value.position == 2

    run(preprocessor, FILES, slot)
    assert_close(slot.download(), expected(PIXELS, FILES), PIXELS)


def test_headers_are_read_as_libjpeg_reads_them() -> None:
    def seen(data: bytes) -> tuple[Any, ...]:
        frame = read_frame(data)
        assert frame is not None
        return frame.coding, frame.precision, frame.width, frame.height, frame.colours

    assert seen(FILES[0]) == ("baseline", 8, 512, 384, "YCbCr")
    assert seen(ROTATED) == ("baseline", 8, 512, 384, "YCbCr")
    assert seen(jpeg(GREY)) == ("baseline", 8, 512, 384, "grey")
    assert seen(PROGRESSIVE)[0] == "progressive"
    assert seen(CMYK)[4] == "other"
    assert seen(BITS_12)[:2] == ("extended", 12)
    assert seen(ADOBE_RGB)[4] == "RGB"
    assert seen(with_segment(ADOBE_RGB, 0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"))[4] == "YCbCr", "JFIF comes before Adobe"
    names = FILES[0].index(b"\xff\xc0") + 10
    named = bytearray(without_jfif(FILES[0]))
    shift = len(FILES[0]) - len(named)
    for position, name in enumerate(b"RGB"):
        named[names - shift + 3 * position] = name
    assert seen(bytes(named))[4] == "RGB"
    for nothing in (b"", b"\xff\xd8", PNG, FILES[0][:20], b"\xff\xd8\xff\xc0\0\x11\x08"):
        assert read_frame(nothing) is None


# ------------------------------------------------------------------------------------------------- nvImageCodec


@pytest.fixture
def codec(device: WatchedDevice) -> Iterator[NvImageCodecOnHost]:
    decoder = NvImageCodecOnHost(device)
    yield decoder
    decoder.close()


@needs("gpu-cu13")
def test_nvimagecodec_decodes_as_opencv_does(
    device: WatchedDevice, working: Working, codec: NvImageCodecOnHost
) -> None:
    encoded = [*FILES, ROTATED, PROGRESSIVE, jpeg(GREY), CMYK]
    preprocessor = working(PIXELS, codec)
    for _ in range(2):  # the second time into the memory of the first
        slot = DeviceSlot(device, PIXELS, len(encoded))
        run(preprocessor, encoded, slot)
        assert_close(slot.download(), expected(PIXELS, encoded), PIXELS)
    assert preprocessor.counts()[BY_CPU] == 2, "CMYK, twice"


@needs("gpu-cu13")
def test_nvimagecodec_answers_none_for_each_that_it_refuses(codec: NvImageCodecOnHost) -> None:
    cut = FILES[1][: len(FILES[1]) // 2]
    found = codec.decode([FILES[0], cut, b"no picture", BITS_12, FILES[2]], None)
    assert [pixels is None for pixels in found] == [False, True, True, True, False]
    assert codec.decode([b"no picture"], None) == [None]
    assert "nvImageCodec" in codec.version()


@needs("gpu-cu13")
def test_the_plain_jpeg_is_one_that_every_decoder_takes(codec: NvImageCodecOnHost) -> None:
    frame = read_frame(plain_jpeg())
    assert frame is not None
    assert (frame.coding, frame.precision, frame.colours) == ("baseline", 8, "YCbCr")
    assert codec.takes(plain_jpeg())
    height, width, _ = decode(plain_jpeg()).shape
    assert (height, width) == (frame.height, frame.width)


@needs("gpu-cu13")
def test_an_nvimagecodec_that_decodes_nothing_is_refused_when_it_is_opened() -> None:
    from nvidia import nvimgcodec

    # Without a GPU its decoder on one is made, and refuses everything.
    broken = NvImageCodec.__new__(NvImageCodec)
    with pytest.raises(
        DecoderNotUsable, match=r"nvImageCodec [0-9.]+ does not decode a plain JPEG here: it refuses it"
    ):
        broken._open(
            nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, [nvimgcodec.Backend(nvimgcodec.BackendKind.GPU_ONLY)], threads=1
        )


@needs("gpu-cu13")
@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
@pytest.mark.parametrize("make", [NvImageCodec, JpegEngine])
def test_without_a_gpu_no_decoder_on_one_can_be_opened(make: Callable[[int], NvImageCodec]) -> None:
    with pytest.raises(DecoderNotUsable, match=r"nvImageCodec .*Could not create decoder") as caught:
        make(0)
    assert "\n" not in str(caught.value)
    assert code_of(caught.value) == ExitCode.SETUP


@needs("gpu-cu13")
def test_an_nvimagecodec_that_breaks_later_is_not_believed(
    codec: NvImageCodecOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(codec.decode(FILES[:2], None))
    refuses = SimpleNamespace(decode=lambda streams, **options: [None] * len(streams))
    monkeypatch.setattr(codec, "_decoder", refuses)
    with pytest.raises(DecoderNotUsable):
        codec.decode(FILES[:2], None)


@needs("gpu-cu13")
def test_nvimagecodec_is_opened_anew_for_a_larger_batch(
    codec: NvImageCodecOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts: list[int] = []

    class Decoder:
        """Notes the size of its first batch, by which nvImageCodec shares the work from then on."""

        def __init__(self) -> None:
            self.batches = 0

        def decode(self, streams: list[Any], **options: Any) -> list[Any]:
            if not self.batches:
                firsts.append(len(streams))
            self.batches += 1
            return [np.zeros((8, 8, 3), np.uint8)] * len(streams)

    codec._rows = 0
    monkeypatch.setattr(codec, "_make", Decoder)
    codec.check()
    for count in (1, 2, 1, 3, 3, 2):
        codec.decode(FILES[:count], None)
    assert firsts == [1, 2, 3]


@needs("gpu-cu13")
@pytest.mark.parametrize(
    ("share", "engine"),
    [(0, None), (0.25, (0.25, "FIXED")), (1.0, (1.0, "FIXED")), ("adaptive", (0.5, "ADAPTIVE_MINIMIZE_IDLE_TIME"))],
)
def test_the_share_of_the_jpeg_engine_is_handed_to_nvimagecodec(
    monkeypatch: pytest.MonkeyPatch, share: Any, engine: tuple[float, str] | None
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(NvImageCodec, "_open", lambda self, *given: opened.extend(given))

    NvImageCodec(2, share, threads=5)

    gpu, backends, threads = opened
    assert (gpu, threads) == (2, 5)
    kinds = {each.backend_kind.name: (each.load_hint, each.load_hint_policy.name) for each in backends}
    assert kinds.pop("HW_GPU_ONLY", None) == engine
    assert set(kinds) == {"GPU_ONLY", "HYBRID_CPU_GPU"}, "no decoder of its own for the CPU"


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu": -1}, "gpu: got -1, expected the index of a GPU"),
        ({"hw_share": 65}, "hw_share: got 65, expected a number from 0 to 1 or adaptive"),
        ({"hw_share": "all"}, "hw_share: got 'all', expected a number from 0 to 1 or adaptive"),
        ({"hw_share": True}, "hw_share: got True, expected a number from 0 to 1 or adaptive"),
        ({"threads": 0}, "threads: got 0, expected a number of threads from 1"),
        ({"threads": 1.5}, "threads: got 1.5, expected a number of threads from 1"),
    ],
)
def test_bad_options_are_refused_before_a_gpu_is_looked_for(options: dict[str, Any], said: str) -> None:
    assert set(options) <= {each.name for each in dataclasses.fields(Cuda.options)}
    with pytest.raises(ValueError, match=said):
        Cuda(PIXELS, **options)


def test_the_gpu_is_given_back_where_there_is_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(
        preprocess.cuda,
        "open_device",
        lambda name: SimpleNamespace(current=nullcontext, close=lambda: closed.append(name)),
    )

    def decoder() -> GpuDecoder:
        raise DecoderNotUsable("one", "it is broken")

    with pytest.raises(DecoderNotUsable, match="one does not decode"):
        preprocess.cuda.open_both(1, decoder)
    assert closed == ["cuda:1"]


def test_a_slot_elsewhere_is_refused_before_anything_is_decoded(device: WatchedDevice, working: Working) -> None:
    decoder = Uploading(device)
    slot = DeviceSlot(device, PIXELS, 1)
    slot.place = "cuda:1"
    with pytest.raises(ValueError, match=r"the slot lies on cuda:1, expected cuda:0"):
        working(PIXELS, decoder).run(FILES[:1], slot, lambda stage: None)
    assert decoder.seen == []


def test_slots_that_do_not_fit_are_refused_before_anything_is_decoded(device: WatchedDevice, working: Working) -> None:
    decoder = Uploading(device)
    preprocessor = working(PIXELS, decoder)

    def refused(shape: tuple[int, ...], dtype: str, strides: tuple[int, ...] | None = None) -> str:
        array = Untouchable(4096, shape, dtype, strides)
        target = SimpleNamespace(n=2, buffers={"images": array}, place=PLACE)
        with pytest.raises(ValueError) as caught:
            preprocessor.run(FILES[:2], target, lambda stage: None)
        return str(caught.value)

    fitting = (2, 64, 64, 3)
    assert "at least 2 rows" in refused((1, 64, 64, 3), "uint8")
    assert "(2, 64, 64, 4)" in refused((2, 64, 64, 4), "uint8")
    assert "float32" in refused(fitting, "float32")
    assert "strided" in refused(fitting, "uint8", (64 * 64 * 3, 64 * 3 + 1, 3, 1))
    assert decoder.seen == []


def test_the_untouchable_is_what_it_says() -> None:
    array = Untouchable(4096, (2, 2), "uint8")
    for look in (np.asarray, lambda each: each.get(), lambda each: each.tobytes(), lambda each: each[0]):
        with pytest.raises(HostAccessError):
            look(array)


@pytest.mark.parametrize(
    ("shape", "dtype", "strides"),
    [((4, 4, 4), "uint8", None), ((4, 4, 3), "uint16", None), ((4, 4, 3), "uint8", (12, 1, 4))],
    ids=["four channels", "16 bits", "planar"],
)
def test_pixels_of_another_form_are_refused(
    shape: tuple[int, ...], dtype: str, strides: tuple[int, ...] | None
) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 .height, width, 3."):
        DevicePixels.of(Untouchable(4096, shape, dtype, strides))


def test_pixels_are_taken_with_their_pitch(device: WatchedDevice) -> None:
    pixels = put(device, PHOTO, padding=7)
    assert (pixels.width, pixels.height, pixels.pitch) == (512, 384, 3 * 512 + 7)


def test_contradictions_are_refused_and_the_device_is_given_back() -> None:
    for recipe, options, said in (
        (dataclasses.replace(PIXELS, mean=(1.0, 0.0, 0.0)), {}, "mean"),
        (PIXELS, {"kernels": "fast"}, "kernels: got 'fast', expected one of naive, tiled, fused"),
    ):
        closed: list[str] = []
        device: Any = SimpleNamespace(close=lambda: closed.append("device"))  # noqa: B023
        decoder: Any = SimpleNamespace(close=lambda: closed.append("decoder"))  # noqa: B023
        with pytest.raises(ValueError, match=said):
            HostForm(recipe, device, decoder, PLACE, **options)
        assert closed == ["decoder", "device"]


def test_too_little_memory_is_one_line(device: WatchedDevice) -> None:
    with pytest.raises(DeviceError, match="bytes") as caught:
        Growing(device).of(1 << 50)
    assert "\n" not in str(caught.value)


def test_a_growing_buffer_grows_only(device: WatchedDevice) -> None:
    growing = Growing(device)
    first = growing.of(100)
    assert growing.of(50) is first
    second = growing.of(101)
    assert second.nbytes >= 101
    assert first.freed


def test_closing_gives_decoder_and_device_back() -> None:
    with CudaHost(PIXELS) as preprocessor:
        buffer = np.empty((1, *PIXELS.sample_shape), np.uint8)
        run(preprocessor, FILES[:1], Rows.of(buffer))
    with pytest.raises(DeviceError):
        run(preprocessor, FILES[:1], Rows.of(buffer))


# --------------------------------------------------------------------------------------------- what is missing

Machine = Callable[..., str]


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What ``cuda`` says on a machine with a driver or without, with some modules and with a compiler or without."""

    def says(driver: Installed | None, modules: tuple[str, ...] = (), compiler: bool = False, built: int = 12) -> str:
        def installed() -> Installed:
            if driver is None:
                raise DeviceNotFound("no NVIDIA driver: install one")
            return driver

        def find_compiler(newest: int) -> None:
            if not compiler:
                raise ModuleNotFoundError("none")

        monkeypatch.setattr(preprocess.cuda, "installed_driver", installed)
        monkeypatch.setattr(preprocess.cuda, "find_compiler", find_compiler)
        monkeypatch.setattr(preprocess.cuda, "is_installed", lambda module: module in modules)
        monkeypatch.setattr(preprocess.cuda, "_cuda_of", lambda module: built)
        try:
            assert registry.load("cuda") is Cuda
        except ModuleNotFoundError as error:
            assert "\n" not in str(error)
            return str(error)
        return ""

    return says


ALL = ("cupy", "nvidia.nvimgcodec")


def test_all_that_is_missing_is_said_in_one_line(missing: Machine) -> None:
    nothing = missing(None)
    for part in ("driver", "GPU", "PyCUDA or CuPy", "NVRTC or nvcc", "nvImageCodec", "install one", "[gpu-cu13]"):
        assert part in nothing
    assert "cuda" in nothing


def test_only_what_is_missing_is_said(missing: Machine) -> None:
    driver = Installed(13, 0, 1)
    assert missing(driver, ALL, compiler=True) == ""
    assert missing(driver, ("pycuda", "nvidia.nvimgcodec"), compiler=True) == ""
    assert "not here: NVRTC or nvcc; pip" in missing(driver, ALL)
    assert "not here: nvImageCodec; pip" in missing(driver, ("cupy",), compiler=True)
    assert "not here: PyCUDA or CuPy; pip" in missing(driver, ("nvidia.nvimgcodec",), compiler=True)
    assert "not here: a GPU" in missing(Installed(13, 0, 0), ALL, compiler=True)
    assert "pip" not in missing(Installed(13, 0, 0), ALL, compiler=True)


@pytest.mark.parametrize(("cuda", "extra"), [(12, "gpu-cu12"), (13, "gpu-cu13"), (14, "gpu-cu13")])
def test_the_extra_is_that_of_the_drivers_cuda(missing: Machine, cuda: int, extra: str) -> None:
    assert f".[{extra}]" in missing(Installed(cuda, 1, 1))


def test_a_driver_that_is_too_old_is_said(missing: Machine) -> None:
    assert "a driver with CUDA 12 (this one has 11.4)" in missing(Installed(11, 4, 1), ALL, compiler=True)


def test_options_are_known_by_name() -> None:
    Cuda.read_options({"kernels": "naive", "gpu": 1, "hw_share": 0.5})
    known = r"known: gpu .*, hw_share .*, kernels"
    with pytest.raises(ValueError, match=rf"cuda has no option 'kernel'; did you mean kernels\? {known}"):
        Cuda.read_options({"kernel": "naive"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hw_share": -0.1}, "hw_share: got -0.1, expected a number from 0 to 1"),
        ({"hw_share": 65}, "hw_share: got 65, expected a number from 0 to 1"),
        ({"hw_share": "all"}, "hw_share: got 'all', expected a number from 0 to 1"),
        ({"gpu": -1}, "gpu: got -1, expected the index of a GPU"),
        ({"gpu": "cuda:1"}, "gpu: got 'cuda:1', expected the index of a GPU"),
        ({"gpu": True}, "gpu: got True, expected the index of a GPU"),
    ],
)
def test_bad_values_of_options_are_refused_before_a_gpu_is_opened(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cuda(PIXELS, **options)


@pytest.mark.parametrize(("driver", "extra"), [(Installed(12, 8, 1), "gpu-cu12"), (Installed(13, 0, 1), "gpu-cu13")])
def test_a_decoder_for_a_newer_cuda_than_the_drivers_is_refused(
    missing: Machine, driver: Installed, extra: str
) -> None:
    newer = driver.major + 1
    assert missing(driver, ALL, compiler=True, built=newer) == (
        f"the preprocessor cuda needs what is not here: nvImageCodec for the driver's CUDA {driver.major} "
        f"(the one here is for CUDA {newer}); pip install -e '.[{extra}]'"
    )
    assert missing(driver, ALL, compiler=True, built=driver.major) == ""
    assert missing(driver, ALL, compiler=True, built=12) == "", "a driver runs what an older CUDA built"


@pytest.mark.parametrize(("said", "cuda"), [(13030, 13), (13492, 13), (12090, 12), (1280, 12)])
def test_the_cuda_of_a_library_is_what_it_says_itself(monkeypatch: pytest.MonkeyPatch, said: int, cuda: int) -> None:
    monkeypatch.setitem(sys.modules, "some_library", SimpleNamespace(__cuda_version__=said))
    assert _cuda_of("some_library") == cuda


@needs("gpu-cu13")
def test_the_decoders_that_are_installed_say_their_cuda() -> None:
    for module in ("nvidia.nvimgcodec", "nvidia.dali"):
        assert _cuda_of(module) in (12, 13)
