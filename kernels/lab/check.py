"""Every kernel against NumPy, on any device: what ``sut kernels check`` prints and the tests demand.

Results must be equal to the bit. Each kernel runs twice, into memory filled with two different bytes and with a strip
before and behind it: what differs between the two runs has not been written, so exactly the target's bytes must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kernels.device import Buffer, Device
from kernels.gpu import open_device
from kernels.gpu_library import one_line
from kernels.host import HostDevice
from kernels.hot_path import VARIANTS, HotPath, Variant
from kernels.lab.bench import letterboxed
from kernels.lab.explain import copy, multiply
from kernels.normalize import Layout, Normalize, Output
from kernels.placement import SUPPORTS, Interpolation, Place
from kernels.resize import Resize, describe
from kernels.transpose import ImageVariant, transpose, transpose_images
from kernels.transpose import Variant as MatrixVariant
from plugins.driver import installed_driver
from plugins.errors import DeviceNotFound

POISON = (0xA5, 0x5A)
STRIP_BYTES = 256
"""Before and behind a target; keeps its alignment."""

_MEAN, _STD = (123.68, 116.78, 103.94), (58.395, 57.12, 2.5)


ResizeTruth = Callable[[NDArray[np.uint8], Place, Interpolation, int], NDArray[np.uint8]]
"""A picture, uint8 HWC, to the ``size`` square that is kept of it, and the level of what is beyond: the resize that the
kernels must match."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One kernel, or chain of kernels, in one case."""

    kernel: str
    dtype: str
    layout: str
    case: str
    largest_difference: float
    """From the truth, in the output's units."""
    ok: bool
    """Equal to the truth, every byte of the target written and none beside it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to resize, and how it lies in memory."""

    pixels: NDArray[np.uint8]
    place: Place
    interpolation: Interpolation
    padding: int = 0
    """Bytes between its rows."""
    offset: int = 0
    """Bytes before its first row."""
    pad_level: int = 114
    """Of what lies beyond it."""

    def upload(self, device: Device) -> Buffer:
        """To memory that ends with its last pixel, filled up with bytes that are not its own."""
        height, row = len(self.pixels), self.pixels[0].size
        pitch = row + self.padding
        memory = np.full(self.offset + height * pitch, 0x77, np.uint8)
        memory[self.offset :].reshape(height, pitch)[:, :row] = self.pixels.reshape(height, row)
        return device.upload(memory[: len(memory) - self.padding])


@dataclass(frozen=True, slots=True)
class Written:
    """What came out: the target's values, and whether all of them were written and nothing else was."""

    values: NDArray[Any]
    clean: bool

    def row(self, kernel: str, layout: str, case: str, truth: NDArray[Any]) -> CaseResult:
        """Compared with ``truth``, NaN with NaN."""
        difference = np.abs(self.values.astype(np.float64) - truth.astype(np.float64))
        largest = float(difference.max())
        equal = self.values.dtype == truth.dtype and self.values.tobytes() == truth.tobytes()
        return CaseResult(kernel, str(self.values.dtype), layout, case, largest, self.clean and equal)


@contextmanager
def open_any(name: str | None) -> Iterator[tuple[Device, str]]:
    """The device, and one line about it. Without a name: a GPU where a driver shows one, else the host form.

    Raises ``ValueError`` for a name of neither, and what opening the device raises.
    """
    why = ""
    if name is None:
        try:
            name = "cuda" if installed_driver().gpus else "host"
        except DeviceNotFound as error:
            name, why = "host", f" ({one_line(error)})"
    if name == "host":
        with HostDevice() as host:
            yield host, f"the host form{why}"
    elif name == "cpu":
        raise ValueError("unknown device 'cpu', expected cuda, cuda:N, or host for the kernels without a GPU")
    else:
        with open_device(name) as gpu:
            yield gpu, gpu.details


def check(device: Device, truth: ResizeTruth, seed: int = 0) -> Iterator[CaseResult]:
    """All kernels, those of the hot path in cases that take each branch of theirs."""
    random = np.random.default_rng(seed)
    yield from check_study(device, random)
    yield from check_transposes(device, random)
    yield from check_normalize(device, random)
    yield from check_resize(device, truth, random)
    yield from check_detectors(device, truth, random)
    yield from check_filters(device, truth, random)


def write_guarded(device: Device, output: Output, n: int, work: Callable[[Buffer], None]) -> Written:
    """``n`` samples of ``output`` that ``work`` writes into the buffer it is given."""
    begins = range(0, n * output.stride, output.stride)
    samples = [slice(begin, begin + output.sample_bytes) for begin in begins]
    return _write(device, output.bytes_for(n), work, output.dtype, (n, *output.shape), samples)


def run_hot_path(device: Device, pictures: Sequence[Picture], output: Output, variant: Variant = "fused") -> Written:
    """A batch through ``HotPath``, guarded."""
    with HotPath(device, variant, output) as path:
        return _run(device, pictures, output, path.run)


def run_resize(device: Device, pictures: Sequence[Picture], output: Output, tile_rows: int) -> Written:
    """A batch through the resize kernel in tiles of ``tile_rows``, guarded."""
    with Resize(device, output, tile_rows) as kernel:
        return _run(device, pictures, output, kernel.run)


def _run(
    device: Device, pictures: Sequence[Picture], output: Output, run: Callable[[NDArray[Any], Buffer], None]
) -> Written:
    memory = [picture.upload(device) for picture in pictures]
    described = [
        describe(
            device,
            buffer,
            picture.place,
            picture.interpolation,
            offset=picture.offset,
            pitch=picture.pixels[0].size + picture.padding,
            pad_level=picture.pad_level,
        )
        for picture, buffer in zip(pictures, memory, strict=True)
    ]
    written = write_guarded(device, output, len(pictures), lambda target: run(np.stack(described), target))
    for buffer in memory:
        buffer.free()
    return written


def finish(levels: NDArray[np.uint8], output: Output) -> NDArray[Any]:
    """The truth behind the resize: levels (n, size, size, 3) in the pictures' colour order to what ``output`` says."""
    if output.swap:
        levels = levels[..., ::-1]
    values = (levels.astype(np.float32) - np.asarray(output.mean, np.float32)) / np.asarray(output.std, np.float32)
    if output.dtype in ("uint8", "int8"):
        limits = np.iinfo(output.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    if output.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values, dtype=output.dtype)


def check_study(device: Device, random: np.random.Generator) -> Iterator[CaseResult]:
    """Copies, and matrix products added in the order of the inner axis."""
    count = 1000
    values = random.standard_normal(count, np.float32)
    for kernel in ("copy_linear_f32", "copy_coalesced_f32"):
        work = partial(copy, device, kernel=kernel, count=count, each=3)
        yield _moved(device, values, (count,), work).row(kernel, "vector", f"{count} values", values)
    m, n, k = 33, 17, 50
    a, b = random.standard_normal((m, k), np.float32), random.standard_normal((k, n), np.float32)
    truth = np.zeros((m, n), np.float32)
    for i in range(k):
        truth += a[:, i : i + 1] * b[i]
    for kernel in ("matmul_naive_f32", "matmul_tiled_f32"):
        with device.upload(a) as left, device.upload(b) as right:
            product = partial(multiply, device, left, right, kernel=kernel, m=m, n=n, k=k)
            written = _write(device, truth.nbytes, product, truth.dtype, (m, n))
        yield written.row(kernel, "matrix", f"{m} x {k} x {n}", truth)


def check_transposes(device: Device, random: np.random.Generator) -> Iterator[CaseResult]:
    """Matrices and batches of pictures, of sizes that fill whole tiles and of others."""
    matrices: list[tuple[MatrixVariant, str]] = [
        (variant, dtype) for variant in ("naive", "tiled") for dtype in ("float32", "float16", "uint8")
    ]
    for variant, dtype in [*matrices, ("tile16x16", "float32"), ("tile16x17", "float32")]:
        for rows, columns in ((1, 1), (64, 128), (37, 130), (1, 300)):
            matrix = _random_bits(random, (rows, columns), dtype)

            turn = partial(transpose, device, rows=rows, columns=columns, dtype=dtype, variant=variant)
            written = _moved(device, matrix, (columns, rows), turn)
            yield written.row(f"transpose_{variant}", "matrix", f"{rows} x {columns}", matrix.T)
    images: tuple[ImageVariant, ...] = ("naive", "tiled")
    layouts: tuple[Layout, ...] = ("NCHW", "NHWC")
    for image_variant in images:
        for to in layouts:
            for dtype in ("float32", "float16", "uint8"):
                for n, side in ((1, 1), (2, 32), (3, 37)):
                    shape = (n, side, side, 3) if to == "NCHW" else (n, 3, side, side)
                    axes = (0, 3, 1, 2) if to == "NCHW" else (0, 2, 3, 1)
                    batch = _random_bits(random, shape, dtype)
                    truth = np.ascontiguousarray(batch.transpose(axes))
                    relay = partial(transpose_images, device, pictures=n, pixels=side * side, dtype=dtype, to=to)
                    written = _moved(device, batch, truth.shape, partial(relay, variant=image_variant))
                    kernel = f"{'nhwc_to_nchw' if to == 'NCHW' else 'nchw_to_nhwc'}_{image_variant}"
                    yield written.row(kernel, to, f"{n} x {side} x {side}", truth)


def check_normalize(device: Device, random: np.random.Generator) -> Iterator[CaseResult]:
    """The tail alone, for every layout and dtype, with and without other colours."""
    ways: tuple[tuple[Layout, Layout], ...] = (("NHWC", "NCHW"), ("NHWC", "NHWC"), ("NCHW", "NCHW"))
    for source, layout in ways:
        for base in _outputs():
            for n, size in ((2, 20), (3, 33)):
                output = replace(base, size=size, layout=layout)
                levels = random.integers(0, 256, (n, size, size, 3), np.uint8)
                given = levels if source == "NHWC" else np.ascontiguousarray(levels.transpose(0, 3, 1, 2))
                with Normalize(device, output, source) as tail, device.upload(given) as pixels:
                    written = write_guarded(device, output, n, lambda to: tail.run(pixels, to, n))  # noqa: B023
                case = f"{n} x {size} x {size} from {source}{', swapped' if output.swap else ''}"
                yield written.row(f"normalize_{output.suffix}", layout, case, finish(levels, output))


def check_resize(device: Device, truth: ResizeTruth, random: np.random.Generator) -> Iterator[CaseResult]:
    """Batches of different pictures by every method, to every layout and dtype, in one kernel and in three."""
    methods: tuple[Interpolation, ...] = ("area", "linear", "cubic")
    layouts: tuple[Layout, ...] = ("NCHW", "NHWC")
    for method in methods:
        pictures, levels = _drawn(truth, random, method, _places())
        for base in _outputs():
            for layout in layouts:
                output = replace(base, size=_SIZE, layout=layout)
                for variant in VARIANTS if method == "area" else VARIANTS[-1:]:
                    written = run_hot_path(device, pictures, output, variant)
                    case = f"{method}, {len(pictures)} pictures{', swapped' if output.swap else ''}"
                    yield written.row(f"resize {variant}", layout, case, finish(levels, output))
        for layout in layouts:
            output = Output(size=_SIZE, layout=layout, dtype="uint8")
            for tile_rows in _TILE_ROWS:
                written = run_resize(device, pictures, output, tile_rows)
                case = f"{method}, tiles of {tile_rows} rows"
                yield written.row(f"resize_{output.suffix}", layout, case, finish(levels, output))


def check_detectors(device: Device, truth: ResizeTruth, random: np.random.Generator) -> Iterator[CaseResult]:
    """Outputs of several blocks across, as detectors have them; each dtype in both layouts."""
    layouts: tuple[Layout, ...] = ("NCHW", "NHWC")
    for number, (name, places) in enumerate(_detectors().items()):
        pictures, levels = _drawn(truth, random, "linear", places)
        for position, base in enumerate(each for each in _outputs() if not each.swap):
            output = replace(base, size=places[0].size, layout=layouts[(number + position) % 2])
            written = run_hot_path(device, pictures, output)
            yield written.row("resize fused", output.layout, f"linear, {name}", finish(levels, output))


def check_filters(device: Device, truth: ResizeTruth, random: np.random.Generator) -> Iterator[CaseResult]:
    """The same pictures by each of Pillow's filters, to each dtype, in alternating layouts."""
    layouts: tuple[Layout, ...] = ("NCHW", "NHWC")
    for number, method in enumerate(SUPPORTS):
        pictures, levels = _drawn(truth, random, method, _places())
        for position, base in enumerate(_outputs()):
            output = replace(base, size=_SIZE, layout=layouts[(number + position) % 2])
            written = run_hot_path(device, pictures, output)
            case = f"{method}, {len(pictures)} pictures{', swapped' if output.swap else ''}"
            yield written.row("resize fused", output.layout, case, finish(levels, output))


def _drawn(
    truth: ResizeTruth, random: np.random.Generator, method: Interpolation, places: Sequence[Place]
) -> tuple[list[Picture], NDArray[np.uint8]]:
    """Pictures of noise for these places, and the levels that they become."""
    pictures = [
        Picture(random.integers(0, 256, (place.height, place.width, 3), np.uint8), place, method, padding, padding)
        for padding, place in enumerate(places)
    ]
    return pictures, np.stack([truth(each.pixels, each.place, method, each.pad_level) for each in pictures])


_SIZE = 40
_TILE_ROWS = (1, 3, 8, 16)


def _places() -> list[Place]:
    """Shrinking a little, three- and elevenfold; by whole ratios, 2 x 2 and others; growing, on one axis too; tiny.

    And padded: on both sides of rows or columns, by an odd rest too, behind alone, all around, all but one pixel.
    """
    sizes = [(131, 97), (97, 300), (320, 180), (80, 80), (120, 160), (20, 25), (45, 30), (1, 1), (2, 3), (1100, 2)]
    return [
        *(Place(*size, 0, 0, *size, _SIZE, _SIZE, 0, 0, _SIZE) for size in sizes),
        Place(200, 150, 20, 10, 150, 131, 64, 57, 12, 9, _SIZE),
        *(letterboxed(*size, _SIZE) for size in ((131, 97), (97, 300), (20, 25), (3, 900))),
        *(letterboxed(*size, _SIZE, is_centred=False) for size in ((80, 60), (9, 23))),
        Place(60, 50, 5, 5, 40, 41, 19, 22, -11, -7, _SIZE),
        Place(60, 50, 0, 0, 60, 50, 70, 60, 69, -39, _SIZE),
    ]


def _detectors() -> dict[str, list[Place]]:
    """Sizes of detectors, several blocks wide: pictures that shrink and grow, high and wide, a column of one pixel."""
    sizes = ((500, 375), (1, 700))
    return {
        "letterbox 640, centred": [letterboxed(*size, 640) for size in sizes],
        "letterbox 640, top left": [letterboxed(*size, 640, is_centred=False) for size in sizes],
        "stretch 800": [Place(*size, 0, 0, *size, 800, 800, 0, 0, 800) for size in ((500, 375), (1111, 402))],
    }


def _outputs() -> Iterator[Output]:
    yield Output(size=1, mean=_MEAN, std=_STD)
    yield Output(size=1, swap=True, stride_bytes=3 * 64 * 64 * 4)
    yield Output(size=1, dtype="float16", mean=_MEAN, std=_STD)
    yield Output(size=1, dtype="uint8")
    yield Output(size=1, dtype="uint8", swap=True, stride_bytes=3 * 64 * 64)
    yield Output(size=1, dtype="int8", mean=(128.0, 127.0, 130.0), std=(1.0, 1.0, 2.0))


def _random_bits(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Whole numbers that every dtype has, so that they can be told apart and compared."""
    return random.integers(0, 256, shape).astype(dtype)


def _moved(
    device: Device, array: NDArray[Any], shape: tuple[int, ...], work: Callable[[Buffer, Buffer], None]
) -> Written:
    """What ``work(source, target)`` makes of ``array``: as many bytes, of another shape."""
    with device.upload(array) as source:
        return _write(device, array.nbytes, lambda target: work(source, target), array.dtype, shape)


def _write(
    device: Device,
    nbytes: int,
    work: Callable[[Buffer], None],
    dtype: DTypeLike,
    shape: tuple[int, ...],
    parts: Sequence[slice] = (slice(None),),
) -> Written:
    """What ``work`` writes over each poison into a target of ``nbytes``, between the strips around it.

    Every byte of ``parts`` of the target is to be written, and no other.
    """
    results = []
    with device.alloc(nbytes + 2 * STRIP_BYTES) as memory:
        target = Buffer(device, memory.address + STRIP_BYTES, nbytes)
        for poison in POISON:
            device.fill(memory, poison)
            work(target)
            device.synchronize()
            results.append(device.download(memory, memory.nbytes, np.uint8))
    first, second = results
    expected = np.zeros(len(first), bool)
    for part in parts:
        expected[STRIP_BYTES:-STRIP_BYTES][part] = True
    return Written(first[expected].view(dtype).reshape(shape), bool(np.array_equal(first == second, expected)))
