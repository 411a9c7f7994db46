"""Times of the kernels on a GPU: events around many launches, inputs rotated past the cache, a copy measured beside.

A sample is one pass over a *rotation*: as many sets of inputs and outputs as it takes to be several times larger than
any GPU's L2 cache, so that nothing is read from there which an earlier launch of the pass has left. The figure is the
median of many passes. Between the events are launches alone, which the GPU runs one behind the other
(``GpuDevice.timed_ms``): what describes the pictures is uploaded before. The bytes are those that must move (each input
read once, each output written once), so bytes per second against those of a device-to-device copy says how far a kernel
is from the memory's roofline.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from kernels.device import Buffer, DeviceError
from kernels.gpu import GpuDevice
from kernels.hot_path import VARIANTS, HotPath
from kernels.hot_path import Variant as HotPathVariant
from kernels.lab.peers import Peer, matrix_peers, picture_peers
from kernels.normalize import Layout, Output
from kernels.placement import Interpolation, Place
from kernels.resize import describe
from kernels.transpose import ImageVariant, Variant, transpose, transpose_images

ROTATION_BYTES = 1 << 30
"""Of a rotation, inputs and outputs: several times the largest L2 there is (126 MB, B200)."""
REPEATS = 30
WARM_UP = 3
SIDE = 8192
"""Rows and columns of the matrices that are transposed."""
PIXELS = 224 * 224
BATCH = 32
PICTURE_SIZES = ((500, 375), (375, 500), (640, 480), (1024, 768), (400, 300), (500, 333), (333, 500), (2048, 1536))
"""Width and height of the pictures of a batch, again and again: ImageNet's commonest, and some larger ones."""
_DTYPES = ("float32", "float16", "uint8")
_OUTPUT = Output(size=224, mean=(123.68, 116.78, 103.94))
_DETECTOR = Output(size=640, dtype="float16", swap=True, std=(255.0, 255.0, 255.0))


@dataclass(frozen=True, slots=True)
class Timing:
    """One thing timed. ``bytes`` and times are of one launch (or one batch); ``kernel`` names what ran."""

    group: str
    kernel: str
    bytes: int
    gpu_ms: float | None
    """Median between events; None for another library's work, which has streams of its own."""
    wall_ms: float | None
    """Median by the host's clock, until the GPU is idle: what a chain of small launches really takes, with all that the
    host does for it."""
    passes: int
    """So many of each."""
    why: str = ""
    """Why a time that should be there is not."""

    def share_of(self, copy: Timing) -> float | None:
        """Bytes per second as a share of the copy's."""
        if self.gpu_ms is None or copy.gpu_ms is None:
            return None
        return (self.bytes / self.gpu_ms) / (copy.bytes / copy.gpu_ms)

    def row(self, copy: Timing, device: str) -> dict[str, Any]:
        """As ``sut kernels bench --json`` prints it."""
        return {
            "device": device,
            **asdict(self),
            "bytes_per_second": None if self.gpu_ms is None else 1e3 * self.bytes / self.gpu_ms,
            "share_of_copy": self.share_of(copy),
        }


def placed(width: int, height: int) -> Place:
    """Where a picture's pixels go: the short side to 256, keeping the aspect ratio, and the middle 224 (MLPerf's)."""
    size, short = 224, min(width, height)
    resized_width, resized_height = (256 if side == short else int(256 * side / short) for side in (width, height))
    left, top = int((resized_width - size) / 2), int((resized_height - size) / 2)
    return Place(width, height, 0, 0, width, height, resized_width, resized_height, left, top, size)


def letterboxed(width: int, height: int, size: int, is_centred: bool = True) -> Place:
    """As large as fits into the square, what is left on both sides or behind."""
    scale = size / max(width, height)
    resized = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (-((size - side) // 2) if is_centred else 0 for side in resized)
    return Place(width, height, 0, 0, width, height, *resized, left, top, size)


def run(
    device: GpuDevice, repeats: int = REPEATS, side: int = SIDE, rotation: int = ROTATION_BYTES
) -> Iterator[Timing]:
    """Time the copy first, then all kernels, fused against separate launches, then other libraries doing the same.

    Raises ``DeviceError`` where the GPU has too little memory or a kernel fails. What another library raises is said in
    its row.
    """
    clock = _Clock(device, repeats)
    yield from _copy(clock, rotation)
    yield from _matrices(clock, side, rotation)
    yield from _images(clock, rotation)
    yield from _pictures(clock, rotation)
    # Last: whatever they do to the context, the kernels have been timed.
    yield from _matrix_peers(clock, side, rotation)
    yield from _picture_peers(clock, rotation)


_Launch = Callable[[int], None]
_SAID = 300
"""Letters of another library's error at the most: CuPy's can hold all that a compiler said."""


class _Clock:
    def __init__(self, device: GpuDevice, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self._stream = device.new_stream()

    def time(
        self, group: str, kernel: str, nbytes: int, launches: Sequence[_Launch], calls: Sequence[_Launch] = ()
    ) -> Timing:
        """Time passes over ``launches``, each of which starts one of the rotation on the stream it is given.

        ``calls`` do the same with all that the host does for it, for the wall time; none: the launches are all.
        """

        def work(stream: int) -> None:
            for launch in launches:
                launch(stream)

        # First: now kernels are loaded and scratch memory is there, which would hold up the launches between events.
        wall_ms = self._wall_ms([partial(call, self._stream) for call in calls or launches])
        passes = [self.device.timed_ms(work) for _ in range(WARM_UP + self.repeats)][WARM_UP:]
        times = [took_ms / len(launches) for took_ms in passes if took_ms is not None]
        gpu_ms = statistics.median(times) if times else None
        why = "" if times else "the host starts launches more slowly than the GPU runs them"
        return Timing(group, kernel, nbytes, gpu_ms, wall_ms, self.repeats, why)

    def time_peer(self, group: str, peer: Peer, nbytes: int) -> Timing:
        """Another library's work, by the host's clock. What it raises, at whatever moment, is the row's ``why``."""
        try:
            with peer.open() as launches:
                wall_ms = self._wall_ms(launches)
        except Exception as error:
            why = " ".join([f"{type(error).__name__}:", *str(error).split()])[:_SAID]
            return Timing(group, peer.name, nbytes, None, None, 0, why)
        return Timing(group, peer.name, nbytes, None, wall_ms, self.repeats)

    def _wall_ms(self, calls: Sequence[Callable[[], Any]]) -> float:
        """Of one of ``calls``; ``device`` waits for all that the context has to do, other libraries' streams too."""
        wall = []
        for _ in range(WARM_UP + self.repeats):
            self.device.synchronize()
            begin = time.perf_counter()
            for call in calls:
                call()
            self.device.synchronize()
            wall.append(1e3 * (time.perf_counter() - begin) / len(calls))
        return statistics.median(wall[WARM_UP:])


def _pairs(clock: _Clock, stack: ExitStack, nbytes: int, rotation: int) -> list[tuple[Buffer, Buffer]]:
    """Sources and targets of ``nbytes`` each, together ``rotation`` at least. Memory is filled: it is there then."""
    pairs = []
    for position in range(max(2, math.ceil(rotation / (2 * nbytes)))):
        source, target = (stack.enter_context(clock.device.alloc(nbytes)) for _ in range(2))
        clock.device.fill(source, position % 251)
        clock.device.fill(target, 0)
        pairs.append((source, target))
    return pairs


def _copy(clock: _Clock, rotation: int) -> Iterator[Timing]:
    nbytes = rotation // 4
    with ExitStack() as stack:
        pairs = _pairs(clock, stack, nbytes, rotation)
        launches = [partial(clock.device.gather, target, [source]) for source, target in pairs]
        yield clock.time("copy", "device to device", 2 * nbytes, launches)


def _matrices(clock: _Clock, side: int, rotation: int) -> Iterator[Timing]:
    for dtype in _DTYPES:
        nbytes = side * side * np.dtype(dtype).itemsize
        group = _matrix_group(side, dtype)
        with ExitStack() as stack:
            pairs = _pairs(clock, stack, nbytes, rotation)
            for variant in get_args(Variant if dtype == "float32" else ImageVariant):
                launches = [partial(transpose, clock.device, *pair, side, side, dtype, variant) for pair in pairs]
                yield clock.time(group, variant, 2 * nbytes, launches)


def _matrix_peers(clock: _Clock, side: int, rotation: int) -> Iterator[Timing]:
    for dtype in _DTYPES:
        for peer in matrix_peers(side, dtype, rotation, clock.device.index):
            yield clock.time_peer(_matrix_group(side, dtype), peer, 2 * side * side * np.dtype(dtype).itemsize)


def _matrix_group(side: int, dtype: str) -> str:
    return f"transpose {side} x {side} {dtype}"


def _images(clock: _Clock, rotation: int) -> Iterator[Timing]:
    n = 8 * BATCH
    for dtype in _DTYPES:
        nbytes = n * PIXELS * 3 * np.dtype(dtype).itemsize
        with ExitStack() as stack:
            pairs = _pairs(clock, stack, nbytes, rotation)
            for to, variant in product(get_args(Layout), get_args(ImageVariant)):
                work = partial(transpose_images, clock.device)
                launches = [partial(work, *pair, n, PIXELS, dtype, to, variant) for pair in pairs]
                yield clock.time(f"{n} pictures to {to} {dtype}", variant, 2 * nbytes, launches)


def _pictures(clock: _Clock, rotation: int) -> Iterator[Timing]:
    """The hot path: whole pictures to the model's input, cropped and in a letterbox."""
    yield from _hot_paths(clock, rotation, _picture_places(), _OUTPUT, "area", VARIANTS)
    padded = [letterboxed(*size, _DETECTOR.size) for size in _sizes()]
    yield from _hot_paths(clock, rotation, padded, _DETECTOR, "linear", ("fused",), ", letterbox")


def _hot_paths(
    clock: _Clock,
    rotation: int,
    places: Sequence[Place],
    output: Output,
    interpolation: Interpolation,
    variants: Sequence[HotPathVariant],
    how: str = "",
) -> Iterator[Timing]:
    group, needed = _picture_group(places, output, how)
    with ExitStack() as stack:
        batches = []
        for position in range(max(2, math.ceil(rotation / needed))):
            described = []
            for place in places:
                pixels = stack.enter_context(clock.device.upload(noise(place.height, place.width, position)))
                described.append(describe(clock.device, pixels, place, interpolation, pad_level=114))
            target = stack.enter_context(clock.device.alloc(output.bytes_for(BATCH)))
            batches.append((np.array(described), target))
        for variant in variants:
            with ExitStack() as paths:
                launches, calls = [], []
                for pictures, target in batches:
                    path = paths.enter_context(HotPath(clock.device, variant, output))
                    path.load(pictures)
                    launches.append(partial(path.launch, target))
                    calls.append(partial(path.run, pictures, target))
                yield clock.time(group, variant, needed, launches, calls)


def _picture_peers(clock: _Clock, rotation: int) -> Iterator[Timing]:
    group, needed = _picture_group(_picture_places(), _OUTPUT)
    for peer in picture_peers(PICTURE_SIZES, BATCH, _OUTPUT, rotation, clock.device.index):
        yield clock.time_peer(group, peer, needed)


def _sizes() -> list[tuple[int, int]]:
    """Of the pictures of a batch."""
    return [PICTURE_SIZES[position % len(PICTURE_SIZES)] for position in range(BATCH)]


def _picture_places() -> list[Place]:
    return [placed(*size) for size in _sizes()]


def _picture_group(places: Sequence[Place], output: Output, how: str = "") -> tuple[str, int]:
    """The name of a batch, and the bytes that must move."""
    needed = sum(_used_bytes(place) for place in places) + len(places) * output.sample_bytes
    return f"{len(places)} pictures to {output.dtype} {output.layout} {output.size}{how}", needed


def noise(height: int, width: int, seed: int = 1) -> NDArray[np.uint8]:
    """A picture whose levels have nothing to do with each other: the worst for a look-up in a table."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _used_bytes(place: Place) -> int:
    """Of the picture, what the crop needs."""
    wide, high = place.size / place.resized_width, place.size / place.resized_height
    return int(3 * place.width * place.height * min(1.0, wide) * min(1.0, high))


def check_memory(device: GpuDevice, rotation: int = ROTATION_BYTES) -> None:
    """Raise ``DeviceError`` where the GPU has too little memory to measure with."""
    try:
        device.alloc(2 * rotation).free()
    except DeviceError as error:
        raise DeviceError(f"timing needs {2 * rotation >> 20} MiB of the GPU's memory: {error}") from error
