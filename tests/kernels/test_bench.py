"""The benchmark's launches, in host form: that they run and fit, never how fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.device import Buffer, DeviceError, Dim3
from kernels.host import HostDevice
from kernels.lab import bench, peers
from kernels.lab.bench import Timing, letterboxed, placed
from kernels.lab.peers import Launches, Peer
from kernels.normalize import Output
from plugins.packages import is_installed
from preprocess.base import Recipe
from preprocess.oracle import fit

TOOK_MS = 6.0


class Timed(HostDevice):
    """The host form with what a GPU has and it has not: a clock, copies, and a number."""

    index = 1

    def __init__(self) -> None:
        super().__init__()
        self.too_slow = False
        self.timing = False
        self.between: set[str] = set()
        """What was asked for between the events."""

    def timed_ms(self, work: Callable[[int], None]) -> float | None:  # type: ignore[override]
        self.timing = True
        work(self.new_stream())
        self.timing = False
        return None if self.too_slow else TOOK_MS

    def note(self, what: str) -> None:
        if self.timing:
            self.between.add(what)

    def gather(self, target: Buffer, sources: Sequence[Buffer], stream: int | None = None) -> None:
        self.note("copy")
        [source] = sources
        super().write(target.address, self.download(source, source.nbytes, "uint8"), stream)

    def start(
        self, module: str, function: str, grid: Dim3, block: Dim3, args: Sequence[np.generic], stream: int | None
    ) -> None:
        self.note("launch")
        super().start(module, function, grid, block, args, stream)

    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        self.note("write")
        super().write(address, array, stream)

    def allocate(self, nbytes: int) -> int:
        self.note("allocate")
        return super().allocate(nbytes)

    def synchronize(self, stream: int | None = None) -> None:
        self.note("synchronize")
        super().synchronize(stream)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Timed]:
    monkeypatch.setattr(peers, "is_installed", lambda name: False)
    monkeypatch.setattr(bench, "BATCH", 2)
    monkeypatch.setattr(bench, "PIXELS", 256)
    monkeypatch.setattr(bench, "WARM_UP", 0)
    monkeypatch.setattr(bench, "PICTURE_SIZES", ((50, 37), (37, 50)))
    with Timed() as opened:
        yield opened


def run(device: Timed) -> list[Timing]:
    return list(bench.run(device, repeats=1, side=40, rotation=1 << 16))  # type: ignore[arg-type]


def test_everything_is_timed_once_and_runs(device: Timed) -> None:
    timings = run(device)

    groups: dict[str, list[str]] = {}
    for timing in timings:
        groups.setdefault(timing.group, []).append(timing.kernel)
        assert timing.gpu_ms is not None and 0 < timing.gpu_ms <= TOOK_MS / 2  # a rotation has two launches or more
        assert timing.wall_ms is not None and timing.wall_ms > 0
        assert timing.why == ""
    assert next(iter(groups.items())) == ("copy", ["device to device"])
    assert groups["transpose 40 x 40 float32"] == ["naive", "tiled", "tile16x16", "tile16x17"]
    assert groups["16 pictures to NHWC float16"] == ["naive", "tiled"]
    assert groups["2 pictures to float32 NCHW 224"] == ["naive", "tiled", "fused"]
    assert groups["2 pictures to float16 NCHW 640, letterbox"] == ["fused"]
    assert len(groups) == 1 + 3 + 6 + 2


def test_between_the_events_are_launches_and_copies_alone(device: Timed) -> None:
    run(device)
    assert device.between == {"launch", "copy"}


@pytest.mark.slow
def test_a_host_that_is_too_slow_is_told_of_instead_of_timed(device: Timed) -> None:
    device.too_slow = True
    for timing in run(device):
        assert timing.gpu_ms is None
        assert timing.why == "the host starts launches more slowly than the GPU runs them"
        assert timing.wall_ms is not None


def test_an_unknown_kernel_or_a_failing_one_is_not_timed(device: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "VARIANTS", ("fussed",))
    with pytest.raises(ValueError, match="kernels is 'fussed'"):
        list(bench._pictures(bench._Clock(device, 1), 1 << 16))  # type: ignore[arg-type]


def test_inputs_are_rotated_past_the_cache(device: Timed) -> None:
    with ExitStack() as stack:
        pairs = bench._pairs(bench._Clock(device, 1), stack, 1000, 1 << 14)  # type: ignore[arg-type]
        assert sum(buffer.nbytes for pair in pairs for buffer in pair) >= 1 << 14
        assert len({buffer.address for pair in pairs for buffer in pair}) == 2 * len(pairs) > 2


def fail(*arguments: object) -> None:
    raise RuntimeError("no\nheaders " + "of CUDA " * 100)


@contextmanager
def opened(launches: Launches, closed: list[bool]) -> Iterator[Launches]:
    try:
        yield launches
    finally:
        closed.append(True)


@pytest.mark.slow
def test_a_library_that_fails_ends_its_own_row(device: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    ran: list[int] = []
    given = [
        Peer("does not open", fail),  # type: ignore[arg-type]
        Peer("does not run", partial(opened, [fail], closed)),
        Peer("loses the context", partial(opened, [partial(ran.append, 1), device.close], closed)),
        Peer("has no context", partial(opened, [partial(ran.append, 2)], closed)),
    ]
    monkeypatch.setattr(bench, "matrix_peers", lambda side, dtype, rotation, index: given[:2])
    monkeypatch.setattr(bench, "picture_peers", lambda sizes, batch, output, rotation, index: given[2:])

    timings = run(device)

    kernels, others = timings[:-8], {timing.kernel: timing for timing in timings[-8:]}
    assert all(timing.gpu_ms is not None for timing in kernels)
    assert [timing.kernel for timing in timings[-8:]] == [peer.name for peer in [*given[:2] * 3, *given[2:]]]
    for name, why in (
        ("does not open", "RuntimeError: no headers of CUDA of CUDA"),
        ("does not run", "RuntimeError: no headers of CUDA of CUDA"),
        ("loses the context", "DeviceError: the device has been closed"),
        ("has no context", "DeviceError: the device has been closed"),
    ):
        assert others[name].why.startswith(why)
        assert len(others[name].why) <= 300
        assert (others[name].gpu_ms, others[name].wall_ms, others[name].passes) == (None, None, 0)
    assert ran == [1]
    assert len(closed) == 3 + 2


def test_a_library_that_works_has_the_host_s_time(device: Timed) -> None:
    closed: list[bool] = []
    ran: list[int] = []
    peer = Peer("good", partial(opened, [partial(ran.append, 1), partial(ran.append, 2)], closed))
    timing = bench._Clock(device, 2).time_peer("group", peer, 100)  # type: ignore[arg-type]
    assert (timing.kernel, timing.gpu_ms, timing.passes, timing.why) == ("good", None, 2, "")
    assert timing.wall_ms is not None and timing.wall_ms > 0
    assert (ran, closed) == ([1, 2] * 2, [True])


class FakeCupy(ModuleType):
    """As much of CuPy as transposes need: arrays that count, the GPU named and the pool's call."""

    def __init__(self, most: int) -> None:
        super().__init__("cupy")
        self.used: list[int] = []
        self.freed = 0
        self.alive = 0
        self.copied = 0
        cupy = self

        class Array:
            def __init__(self) -> None:
                cupy.alive += 1

            def __del__(self) -> None:
                cupy.alive -= 1

            @property
            def T(self) -> Any:
                return self

        def make(shape: tuple[int, ...], dtype: str) -> Array:
            if cupy.alive == most:
                raise MemoryError("out of memory")
            return Array()

        def copyto(target: Any, source: Any) -> None:
            cupy.copied += 1

        def free() -> None:
            assert cupy.alive == 0
            cupy.freed += 1

        self.zeros = self.empty = make
        self.copyto = copyto
        self.cuda = SimpleNamespace(Device=lambda index: SimpleNamespace(use=lambda: self.used.append(index)))
        self.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=free)


@pytest.mark.parametrize(("most", "why"), [(99, ""), (4, "MemoryError: out of memory")])
def test_a_library_gives_its_memory_back(device: Timed, monkeypatch: pytest.MonkeyPatch, most: int, why: str) -> None:
    cupy = FakeCupy(most)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(peers, "is_installed", lambda name: name == "cupy")
    [peer] = peers.matrix_peers(8, "float32", 3 * 2 * 8 * 8 * 4, device.index)

    timing = bench._Clock(device, 2).time_peer("group", peer, 100)  # type: ignore[arg-type]

    assert (peer.name, timing.why) == ("CuPy copyto", why)
    assert (cupy.used, cupy.freed, cupy.alive) == ([1], 1, 0)
    assert cupy.copied == (0 if why else 2 * 3)


def test_a_pytorch_without_a_gpu_says_so(device: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(is_available=lambda: False)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(peers, "is_installed", lambda name: name == "torch")
    found = [*peers.matrix_peers(8, "uint8", 1, 0), *peers.picture_peers([(4, 3)], 2, Output(size=2), 1, 0)]
    clock = bench._Clock(device, 1)  # type: ignore[arg-type]
    assert {clock.time_peer("group", peer, 1).why for peer in found} == {"RuntimeError: PyTorch sees no GPU"}
    assert len(found) == 2


def test_libraries_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_installed("json") and is_installed("xml.dom")
    assert not is_installed("no_such") and not is_installed("no_such.part")
    monkeypatch.setitem(sys.modules, "json", None)
    assert not is_installed("json")
    monkeypatch.setattr(peers, "is_installed", lambda name: True)
    names = [peer.name for peer in peers.matrix_peers(8, "uint8", 1, 0)]
    names += [peer.name for peer in peers.picture_peers([(4, 3)], 2, Output(size=2), 1, 0)]
    assert [name.split()[0].rstrip(",") for name in names] == ["CuPy", "PyTorch", "PyTorch", "DALI"]


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (2048, 1536), (333, 500), (257, 256)])
def test_pictures_are_placed_as_mlperf_does(size: tuple[int, int]) -> None:
    recipe = Recipe(name="a", size=224, fit="resize-crop", interpolation="area")
    assert astuple(placed(*size)) == astuple(fit(recipe, *size))


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


@pytest.mark.parametrize("size", [*bench.PICTURE_SIZES, (1, 700), (641, 640)])
@pytest.mark.parametrize("is_centred", [True, False])
def test_letterboxes_are_the_oracle_s(size: tuple[int, int], is_centred: bool) -> None:
    align = "centre" if is_centred else "top-left"
    recipe = Recipe(name="yolo", size=640, fit="letterbox", align=align, interpolation="linear")
    assert astuple(letterboxed(*size, 640, is_centred)) == astuple(fit(recipe, *size))
