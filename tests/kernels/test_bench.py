"""The benchmark's launches, in host form: that they run and fit, never how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from kernels import bench, peers
from kernels.bench import Placed, Timing
from kernels.device import Buffer, DeviceError
from kernels.host import HostDevice
from preprocess.base import Recipe
from preprocess.oracle import fit


class Timed(HostDevice):
    """The host form with what a GPU has and it has not: a clock, and copies."""

    def timed_ms(self, work: Callable[[int], None]) -> float:
        begin = time.perf_counter()
        work(self.new_stream())
        return 1e3 * (time.perf_counter() - begin)

    def copy(self, target: Buffer, source: Buffer, stream: int | None = None) -> None:
        self.upload(self.download(source, source.nbytes, "uint8"), target)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Timed]:
    monkeypatch.setattr(peers, "_module", lambda name: None)
    monkeypatch.setattr(bench, "BATCH", 2)
    monkeypatch.setattr(bench, "PIXELS", 256)
    monkeypatch.setattr(bench, "WARM_UP", 0)
    monkeypatch.setattr(bench, "PICTURE_SIZES", ((50, 37), (37, 50)))
    with Timed() as opened:
        yield opened


def test_everything_is_timed_once_and_runs(device: Timed) -> None:
    timings = list(bench.run(device, repeats=1, side=40, rotation=1 << 16))  # type: ignore[arg-type]

    groups: dict[str, list[str]] = {}
    for timing in timings:
        groups.setdefault(timing.group, []).append(timing.kernel)
        assert timing.gpu_ms is not None and 0 < timing.gpu_ms <= timing.wall_ms
    assert next(iter(groups.items())) == ("copy", ["device to device"])
    assert groups["transpose 40 x 40 float32"] == ["naive", "tiled", "tile16x16", "tile16x17"]
    assert groups["16 pictures to NHWC float16"] == ["naive", "tiled"]
    assert groups["2 pictures to float32 NCHW 224"] == ["naive", "tiled", "fused"]
    assert len(groups) == 1 + 3 + 6 + 1


def test_an_unknown_kernel_or_a_failing_one_is_not_timed(device: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "HOT_PATH", ("fussed",))
    with pytest.raises(ValueError, match="kernels is 'fussed'"):
        list(bench._pictures(bench._Clock(device, 1), 1 << 16))  # type: ignore[arg-type]


def test_inputs_are_rotated_past_the_cache(device: Timed) -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        pairs = bench._pairs(bench._Clock(device, 1), stack, 1000, 1 << 14)  # type: ignore[arg-type]
        assert sum(buffer.nbytes for pair in pairs for buffer in pair) >= 1 << 14
        assert len({buffer.address for pair in pairs for buffer in pair}) == 2 * len(pairs) > 2


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (2048, 1536), (333, 500), (257, 256)])
def test_pictures_are_placed_as_mlperf_does(size: tuple[int, int]) -> None:
    recipe = Recipe(name="a", size=224, fit="resize-crop", interpolation="area")
    placed, expected = Placed(*size), fit(recipe, *size)
    for name in ("box_width", "box_height", "resized_width", "resized_height", "crop_left", "crop_top", "size"):
        assert getattr(placed, name) == getattr(expected, name), name


def test_the_share_of_the_copy_is_in_bytes_per_second() -> None:
    copy = Timing("copy", "device to device", 1000, 1.0, 1.1, 3)
    assert Timing("a", "b", 500, 1.0, 1.0, 3).share_of(copy) == 0.5
    assert Timing("a", "peer", 500, None, 1.0, 3).share_of(copy) is None


def test_too_little_memory_is_said_before_anything_is_timed(device: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(nbytes: int) -> Buffer:
        raise DeviceError("only 12 bytes are free")

    monkeypatch.setattr(device, "alloc", none)
    with pytest.raises(DeviceError, match="timing needs 2048 MiB of the GPU's memory: only 12 bytes are free"):
        bench.check_memory(device)  # type: ignore[arg-type]
