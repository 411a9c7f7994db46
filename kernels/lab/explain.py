"""Says why a kernel is as fast as it is, from counts: sectors per request, bank conflicts, bytes moved, time predicted.

The counts come from the host form (``kernels/host/counting.cpp``), so no GPU is needed. A *request* is what one warp
asks for at one line at once. Global memory answers in sectors of 32 bytes: 32 lanes that want 4 bytes each need 4
sectors at the least and 32 at the most. Shared memory answers 32 banks of 4 bytes at once: lanes that want different
words of one bank wait for each other, so many *ways*.

The prediction is sectors x 32 bytes / bandwidth: what it takes if each sector of each request goes to memory. Caches
make the repeated ones cheaper, so it is right for kernels that touch each sector once, and an upper bound for others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from kernels.device import Buffer, Device
from kernels.host.host_device import HostDevice, SiteCount
from kernels.lab.bench import noise, placed
from kernels.normalize import Layout, Normalize, Output
from kernels.placement import Place
from kernels.resize import Resize, describe
from kernels.transpose import SUFFIXES, ImageVariant, Variant, transpose, transpose_images

SECTOR_BYTES = 32

Space = Literal["global", "shared"]
Direction = Literal["read", "write"]


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel on one small input whose counts are typical: they grow with the input, their ratios do not."""

    module: str
    kernel: str
    shape: str
    """Of the input, for people."""
    needed_bytes: int
    """What has to be read and written at the least."""
    why: str
    """What the counts show, and why they are so."""
    run: Callable[[Device], None]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one case asked of memory, by line."""

    case: Case
    sites: tuple[SiteCount, ...]

    @property
    def moved_bytes(self) -> int:
        """All sectors of all requests."""
        return SECTOR_BYTES * sum(site.sectors for site in self.sites)

    @property
    def efficiency(self) -> float:
        """The share of what is moved that is needed; over 1 where several lanes want the same bytes."""
        return self.case.needed_bytes / self.moved_bytes

    def sectors_per_request(self, direction: Direction) -> float | None:
        """Mean over the lines that read (or write) global memory; None where none does."""
        requests = sum(site.requests for site in self._chosen("global", direction))
        return self.sectors(direction) / requests if requests else None

    def sectors(self, direction: Direction) -> int:
        """Of all requests that read (or write) global memory."""
        return sum(site.sectors for site in self._chosen("global", direction))

    @property
    def max_ways(self) -> int | None:
        """The worst bank conflict, 1 for none; None for a kernel without shared memory."""
        return max((site.max_ways for site in self.sites if site.space == "shared"), default=None)

    @property
    def mean_ways(self) -> float | None:
        """How many times longer than without conflicts shared memory is busy; None for a kernel without any."""
        chosen = [site for site in self.sites if site.space == "shared"]
        phases = sum(site.phases for site in chosen)
        return sum(site.wavefronts for site in chosen) / phases if phases else None

    def predicted_s(self, bytes_per_second: float) -> float:
        """Seconds to move all sectors at a bandwidth (read and written bytes counted together, as for a copy)."""
        if not bytes_per_second > 0:
            raise ValueError(f"got a bandwidth of {bytes_per_second} bytes/s, expected more than 0")
        return self.moved_bytes / bytes_per_second

    def row(self, bytes_per_second: float | None) -> dict[str, Any]:
        """As ``sut kernels explain --json`` prints it; without a bandwidth no time is predicted."""
        return {
            "kernel": self.case.kernel,
            "shape": self.case.shape,
            "read_sectors_per_request": self.sectors_per_request("read"),
            "write_sectors_per_request": self.sectors_per_request("write"),
            "max_conflict_ways": self.max_ways,
            "mean_conflict_ways": self.mean_ways,
            "moved_bytes": self.moved_bytes,
            "needed_bytes": self.case.needed_bytes,
            "predicted_us": None if bytes_per_second is None else 1e6 * self.predicted_s(bytes_per_second),
            "why": self.case.why,
            "lines": [asdict(site) for site in self.sites],
        }

    def _chosen(self, space: Space, direction: Direction) -> list[SiteCount]:
        return [site for site in self.sites if (site.space, site.direction) == (space, direction)]


def explain(device: HostDevice, cases: Sequence[Case]) -> list[Explanation]:
    """Run ``cases`` on a device that counts. Raises ``ValueError`` for one that does not."""
    if not device.counts:
        raise ValueError("got a host form that does not count, expected HostDevice(count=True)")
    found = []
    for case in cases:
        device.take_counts()
        case.run(device)
        found.append(Explanation(case, tuple(device.take_counts())))
    return found


def _move(device: Device, nbytes: int, work: Callable[[Device, Buffer, Buffer], None]) -> None:
    """Let ``work`` move ``nbytes`` from one buffer to another."""
    with device.alloc(nbytes) as source, device.alloc(nbytes) as target:
        work(device, source, target)


def copy(device: Device, source: Buffer, target: Buffer, kernel: str, count: int, each: int) -> None:
    """Copy ``count`` float32 by one of the teaching kernels, ``each`` by a thread."""
    grid = (-(-count // (256 * each)), 1, 1)
    device.launch("lab/study", kernel, grid, (256, 1, 1), [source, target, np.int32(count), np.int32(each)])


def multiply(device: Device, a: Buffer, b: Buffer, c: Buffer, kernel: str, m: int, n: int, k: int) -> None:
    """Write the product of (m, k) and (k, n) float32 by one of the teaching kernels."""
    args = (a, b, c, np.int32(m), np.int32(n), np.int32(k))
    device.launch("lab/study", kernel, (-(-n // 16), -(-m // 16), 1), (16, 16, 1), args)


def _multiply(device: Device, kernel: str, side: int) -> None:
    # Zeros: what fresh memory holds could make the sums overflow.
    zeros = np.zeros((side, side), np.float32)
    with device.upload(zeros) as a, device.upload(zeros) as b, device.alloc(zeros.nbytes) as c:
        multiply(device, a, b, c, kernel, side, side, side)


def _resize(device: Device, where: Place, output: Output) -> None:
    with (
        Resize(device, output) as resize,
        device.upload(noise(where.height, where.width)) as pixels,
        device.alloc(output.sample_bytes) as target,
    ):
        resize.run(describe(device, pixels, where, "area")[None], target)
        device.synchronize()


def _normalize(device: Device, output: Output) -> None:
    with (
        Normalize(device, output) as normalize,
        device.upload(noise(output.size, output.size)) as pixels,
        device.alloc(output.sample_bytes) as target,
    ):
        normalize.run(pixels, target, 1)
        device.synchronize()


def _turn_case(variant: Variant, dtype: str, why: str) -> Case:
    side = 256
    nbytes = side * side * np.dtype(dtype).itemsize
    turn = partial(transpose, rows=side, columns=side, dtype=dtype, variant=variant)
    return Case(
        module="transpose",
        kernel=f"transpose_{variant}_{SUFFIXES[dtype]}",
        shape=f"{side} x {side} {dtype}",
        needed_bytes=2 * nbytes,
        why=why,
        run=partial(_move, nbytes=nbytes, work=turn),
    )


def _relay_case(variant: ImageVariant, to: Layout, why: str) -> Case:
    direction = "nhwc_to_nchw" if to == "NCHW" else "nchw_to_nhwc"
    pixels = 224 * 224
    relay = partial(transpose_images, pictures=1, pixels=pixels, dtype="uint8", to=to, variant=variant)
    return Case(
        module="transpose",
        kernel=f"{direction}_{variant}_u8",
        shape="1 x 224 x 224 x 3 uint8",
        needed_bytes=2 * 3 * pixels,
        why=why,
        run=partial(_move, nbytes=3 * pixels, work=relay),
    )


def _copy_case(kernel: str, why: str) -> Case:
    count, each = 1 << 16, 8
    return Case(
        module="lab/study",
        kernel=kernel,
        shape=f"{count} float32, {each} per thread",
        needed_bytes=2 * 4 * count,
        why=why,
        run=partial(_move, nbytes=4 * count, work=partial(copy, kernel=kernel, count=count, each=each)),
    )


def _multiply_case(kernel: str, why: str) -> Case:
    side = 128
    return Case(
        module="lab/study",
        kernel=kernel,
        shape=f"{side} x {side} by {side} x {side} float32",
        needed_bytes=3 * 4 * side * side,
        why=why,
        run=partial(_multiply, kernel=kernel, side=side),
    )


def _resize_case(why: str) -> Case:
    where, output = placed(500, 375), Output(size=224)
    touched = [
        math.ceil((begin + output.size) * whole / resized) - math.floor(begin * whole / resized)
        for begin, whole, resized in (
            (where.crop_left, where.width, where.resized_width),
            (where.crop_top, where.height, where.resized_height),
        )
    ]
    return Case(
        module="resize",
        kernel="resize_f32",
        shape=f"{where.width} x {where.height} uint8, area, short side 256, crop 224, NCHW float32",
        needed_bytes=3 * math.prod(touched) + output.table().nbytes + output.sample_bytes,
        why=why,
        run=partial(_resize, where=where, output=output),
    )


def _normalize_case(why: str) -> Case:
    output = Output(size=224)
    return Case(
        module="normalize",
        kernel="normalize_f32",
        shape="1 x 224 x 224 x 3 uint8 to NCHW float32",
        needed_bytes=3 * output.size**2 + output.table().nbytes + output.sample_bytes,
        why=why,
        run=partial(_normalize, output=output),
    )


CASES: tuple[Case, ...] = (
    _turn_case(
        "naive",
        "float32",
        "a warp of 16 x 16 threads is two rows of 16: it reads two runs of 64 bytes, 4 sectors; it writes 16 columns "
        "of two values that follow each other, 16 sectors of 32 bytes for 8 bytes each",
    ),
    _turn_case(
        "tile16x16",
        "float32",
        "4 sectors both ways; but lane (x, y) reads word 16 x + y of the tile: even x all in bank y, odd x all in bank "
        "16 + y, eight each, and the second y of the warp has two banks of its own: 8 ways",
    ),
    _turn_case(
        "tile16x17",
        "float32",
        "word 17 x + y: 17 is odd, so the 16 lanes of one y are apart; x = 15 of the warp's second y falls on 256 + y, "
        "the bank of x = 0 of its first: 2 ways, writing (17 y + x) as well as reading",
    ),
    _turn_case(
        "tiled",
        "float32",
        "tiles of [32][33]: 32 x 8 threads make each warp one row of 32, and word 33 x + y is in bank x + y: no two "
        "lanes meet; 128 bytes in a row both ways, 4 sectors",
    ),
    _turn_case("tiled", "float16", "values go in pairs, as words of 4 bytes: the same tile, the same 4 sectors"),
    _turn_case("tiled", "uint8", "values go in fours, as words of 4 bytes: the same tile, the same 4 sectors"),
    _relay_case(
        "naive",
        "NCHW",
        "a lane reads one byte: 32 bytes a request where 512 could go; the writes of a warp fall into three planes",
    ),
    _relay_case(
        "tiled",
        "NCHW",
        "each lane has 16 bytes of the stream: 512 bytes a request, 16 sectors, the most there is; in shared memory "
        "the lanes are 48 bytes apart, three units of 16, and an odd number spreads a quarter-warp over all banks",
    ),
    _relay_case("tiled", "NHWC", "the way back: the same words, put together instead of taken apart"),
    _copy_case(
        "copy_linear_f32",
        "each thread copies 8 values in a row: the lanes of a warp are 32 bytes apart, each in a sector of its own",
    ),
    _copy_case("copy_coalesced_f32", "neighbouring lanes copy neighbouring values: 128 bytes a request, 4 sectors"),
    _multiply_case(
        "matmul_naive_f32",
        "every factor comes from global memory: per warp one value of a for each of two rows (2 sectors) and 16 values "
        "of b (2 sectors), for 32 products",
    ),
    _multiply_case(
        "matmul_tiled_f32",
        "each value is read from global memory once per tile and used by 16 threads: 1/8 of the sectors, since the "
        "naive one's lanes share theirs too; in the tiles all lanes of a row want one word of a (a broadcast) and a "
        "row of b",
    ),
    _resize_case(
        "white noise, the worst for the table of levels. One picture alone is cut into 112 tiles of two rows to "
        "keep a GPU busy: each block reads the table of 3 kB again, mostly from a cache, and some rows are read by "
        "two tiles. Rows come in pieces of 16 bytes a lane, 16 sectors at most; a warp writes 32 neighbours of one "
        "plane, 4 sectors",
    ),
    _normalize_case(
        "white noise. A lane takes four pixels, 12 bytes, in three loads of 4 that lie 12 apart: 12 sectors each, "
        "every sector asked for three times, two of them answered by a cache; it writes 16 bytes of each plane: 16 "
        "sectors. 32 lanes look up 32 levels in a table of 256 words: some fall on one bank",
    ),
)
"""The teaching kernels, the transposes, and the two kernels of preprocessing."""


def explain_all() -> list[Explanation]:
    """What every case asks of memory, counted here in host form."""
    with HostDevice(count=True) as device:
        return explain(device, CASES)
