"""The host form itself: that it runs kernels as a GPU would, and that it catches what it is there to catch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.device import SOURCES, DeviceError
from kernels.host import HostDevice, build
from kernels.host.host_device import Order

Make = Callable[..., HostDevice]
ORDERS: tuple[Order, ...] = ("forward", "reverse", "shuffled")


def run(device: HostDevice, kernel: str, *args: Any, block: int = 1, grid: int = 1) -> None:
    device.launch("tricks", kernel, (grid, 1, 1), (block, 1, 1), list(args))


# ------------------------------------------------------------------------------------------------ it runs kernels


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_every_block_runs_and_knows_where_it_is(make: Make, order: Order) -> None:
    device = make(order=order)
    count = 3 * 2 * 4 * 5 * 3 * 2
    with device.alloc(4 * count) as out:
        device.launch("tricks", "where", (3, 2, 4), (5, 3, 2), [out])
        assert np.array_equal(device.download(out, count, np.uint32), np.arange(count))


def test_arguments_arrive_as_they_are(make: Make) -> None:
    device = make()
    given = [
        *(np.bool_(True), np.uint8(200), np.int16(-3), np.uint32(2**32 - 1), np.int64(-(2**40)), np.uint64(2**52 + 1)),
        *(np.float32(0.1), np.float64(0.1)),
    ]
    with device.alloc(64) as out:
        run(device, "types", out, *given)
        assert device.download(out, 8, np.float64).tolist() == [float(value) for value in given]


@pytest.mark.parametrize("order", ORDERS)
def test_threads_wait_for_each_other_at_every_barrier(make: Make, order: Order) -> None:
    device = make(order=order)
    values = np.arange(64, dtype=np.float32)
    with device.upload(values) as source, device.alloc(values.nbytes) as target:
        run(device, "rotate", source, target, np.int32(5), block=64)
        assert np.array_equal(device.download(target, 64, np.float32), np.roll(values, -5))


def test_switching_by_ucontext_does_the_same(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SERVER_FLAGS", (*build.SERVER_FLAGS, "-DKERNELS_UCONTEXT"))
    device = make(order="shuffled")
    values = np.arange(64, dtype=np.float32)
    with device.upload(values) as source, device.alloc(values.nbytes) as target:
        run(device, "rotate", source, target, np.int32(5), block=64)
        assert np.array_equal(device.download(target, 64, np.float32), np.roll(values, -5))
        with pytest.raises(DeviceError, match=r"past_the_end.*heap-buffer-overflow, WRITE of size 1"):
            run(device, "past_the_end", target, np.int32(256))


def test_memory_keeps_what_is_written_and_fresh_memory_is_poisoned(make: Make) -> None:
    device = make()
    noise = np.random.default_rng(0).integers(0, 256, 3_000_001, np.uint8)
    with device.alloc(noise.nbytes) as buffer:
        assert (device.download(buffer, noise.shape, np.uint8) == device.poison).all()
        device.upload(noise[::-1], buffer)
        assert np.array_equal(device.download(buffer, noise.shape, np.uint8), noise[::-1])
        device.fill(buffer, 7)
        assert (device.download(buffer, noise.shape, np.uint8) == 7).all()


def test_shared_memory_is_poisoned_before_each_block(make: Make) -> None:
    device = make()
    with device.alloc(16) as out:
        run(device, "unwritten", out, grid=4)
        assert device.download(out, 4, np.uint32).tolist() == [0xCDCDCDCD] * 4


def test_float16_is_rounded_as_ieee_says(make: Make) -> None:
    device = make()
    every = np.arange(65536, dtype=np.uint16)
    exact = every.view(np.float16).astype(np.float32)
    finite = np.sort(exact[np.isfinite(exact)])
    between = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    edges = np.float32([65519.996, 65520, 1e30, 2**-25, 2**-26, np.inf, -np.inf, np.nan])
    random = np.random.default_rng(0).integers(0, 2**32, 1 << 18, np.uint32).view(np.float32)
    near = np.concatenate(
        [np.nextafter(between, -np.inf, dtype=np.float32), np.nextafter(between, np.inf, dtype=np.float32)]
    )
    given = np.concatenate([exact, between, near, edges, random])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = given.astype(np.float16)
    with device.upload(given) as source, device.alloc(expected.nbytes) as target:
        run(device, "halves", source, target, np.int32(len(given)), block=256, grid=-(-len(given) // 256))
        found = device.download(target, expected.shape, np.uint16)
    number = ~np.isnan(expected)
    assert np.array_equal(found[number], expected.view(np.uint16)[number])
    assert (found[~number] == 0x7FFF).all()
    with device.upload(every) as source, device.alloc(exact.nbytes) as target:
        run(device, "values", source, target, np.int32(len(every)), block=256, grid=256)
        assert np.array_equal(device.download(target, exact.shape, np.float32), exact, equal_nan=True)


# ------------------------------------------------------------------------------------------------ it counts


@pytest.mark.parametrize(
    ("stride", "sectors", "ways"),
    [(1, 4, 1), (2, 8, 2), (8, 32, 8), (16, 32, 16), (32, 32, 32), (33, 32, 1), (0, 1, 1)],
)
def test_a_stride_costs_sectors_and_ways(make: Make, stride: int, sectors: int, ways: int) -> None:
    device = make(count=True)
    with device.alloc(4 * 32 * 33) as source, device.alloc(128) as target:
        run(device, "strided", source, target, np.int32(stride), block=32)
    found = {(site.space, site.direction): site for site in device.take_counts()}
    read, written, broadcast = found["global", "read"], found["shared", "write"], found["shared", "read"]
    assert (read.requests, read.bytes, read.sectors) == (1, 128, sectors)
    assert (written.phases, written.wavefronts, written.max_ways) == (1, ways, ways)
    assert (broadcast.phases, broadcast.max_ways) == (1, 1)
    assert device.take_counts() == []


@pytest.mark.parametrize(("words", "sectors", "phases", "ways"), [(4, 16, 4, 1), (2, 8, 2, 2)])
def test_wide_accesses_are_served_by_parts_of_a_warp(
    make: Make, words: int, sectors: int, phases: int, ways: int
) -> None:
    """16 bytes at every third unit of 16: no conflict; 8 bytes at every second unit of 8: two lanes in a bank."""
    device = make(count=True)
    with device.alloc(512) as source:
        run(device, "wide", source, np.int32(words), block=32)
    shared, read = sorted(device.take_counts(), key=lambda each: each.space, reverse=True)
    assert (read.requests, read.sectors) == (1, sectors)
    assert (shared.requests, shared.phases, shared.wavefronts, shared.max_ways) == (1, phases, phases * ways, ways)


def test_nothing_is_counted_where_nobody_asked(make: Make) -> None:
    device = make()
    with device.alloc(4) as out:
        run(device, "where", out)
    assert device.take_counts() == []


# ------------------------------------------------------------------------------------------------ it refuses


@pytest.mark.parametrize(
    ("grid", "block", "fragment"),
    [
        ((0, 1, 1), (1, 1, 1), r"where: grid \(0, 1, 1\), expected three sizes from 1 to"),
        ((1, 65536, 1), (1, 1, 1), r"grid \(1, 65536, 1\)"),
        ((1, 1), (1, 1, 1), r"grid \(1, 1\), expected three"),
        ((1, 1, 1), (1, 1, 65), r"block \(1, 1, 65\)"),
        ((1, 1, 1), (64, 32, 1), r"has 2048 threads, expected at most 1024"),
    ],
)
def test_sizes_that_no_gpu_takes(make: Make, grid: Any, block: Any, fragment: str) -> None:
    device = make()
    with device.alloc(4) as out, pytest.raises(ValueError, match=fragment):
        device.launch("tricks", "where", grid, block, [out])


@pytest.mark.parametrize(
    ("kernel", "arguments", "fragment"),
    [
        ("nothing", (), "tricks.cu has no kernel 'nothing'; it has: where, types"),
        ("where", (), "where got 0 arguments, expected 1: out"),
        ("where", (np.int32(1),), "where: out got int32, expected a buffer, or an address as uint64"),
        ("too_large", (np.int64(1), np.uint64(0)), "too_large: a got int64, expected int32"),
        ("too_large", (1, np.uint64(0)), "too_large: a got int, expected int32"),
    ],
)
def test_arguments_that_do_not_fit(make: Make, kernel: str, arguments: tuple[Any, ...], fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        run(make(), kernel, *arguments)


def test_buffers_that_cannot_be_used(make: Make) -> None:
    device, other = make(), make()
    buffer = device.alloc(8)
    with pytest.raises(ValueError, match="too_large: a got a buffer, expected int32"):
        run(device, "too_large", buffer, buffer)
    with pytest.raises(ValueError, match="the buffer has 8 bytes, expected at least 16"):
        device.upload(np.zeros(16, np.uint8), buffer)
    with pytest.raises(ValueError, match="the buffer has 8 bytes, expected at least 9"):
        device.download(buffer, 9, np.uint8)
    with pytest.raises(ValueError, match="belongs to another device"):
        run(other, "where", buffer)
    with pytest.raises(ValueError, match="cannot fill with 256"):
        device.fill(buffer, 256)
    buffer.free()
    buffer.free()
    with pytest.raises(ValueError, match="the buffer of 8 bytes has been freed"):
        run(device, "where", buffer)
    with pytest.raises(ValueError, match="a buffer of 0 bytes"):
        device.alloc(0)


def test_more_memory_than_there_is(make: Make) -> None:
    device = make()
    with pytest.raises(DeviceError, match=f"out of memory: {2**50} bytes"):
        device.alloc(2**50)
    device.alloc(1)


def test_an_unknown_module_an_order_and_a_clock(make: Make) -> None:
    device = make()
    with pytest.raises(ValueError, match=r"no kernels called 'trick' in .*; there are: tricks"):
        device.launch("trick", "where", (1, 1, 1), (1, 1, 1), [])
    with pytest.raises(ValueError, match="got order 'sideways', expected forward, reverse or shuffled"):
        make(order="sideways")
    with pytest.raises(DeviceError, match="no clock of a GPU"):
        device.timed_ms(lambda stream: None)


def test_a_closed_device_says_so(make: Make) -> None:
    device = make()
    buffer = device.alloc(4)
    device.close()
    buffer.free()
    with pytest.raises(DeviceError, match="the device has been closed"):
        device.alloc(4)


# ------------------------------------------------------------------------------------------------ it is compiled


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "which", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs g\+\+ \(Debian: apt-get install g\+\+\)"):
        HostDevice()


def test_a_source_that_does_not_compile_is_one_line(make: Make, tmp_path: Path) -> None:
    (tmp_path / "broken.cu").write_text('extern "C" __global__ void broken(int a) {\n    b = a;\n}\n', encoding="utf-8")
    with pytest.raises(
        DeviceError, match=r"^g\+\+ cannot compile the host form: .*broken.cu:2:5: error: .*'?b.?'? was not"
    ):
        make(tmp_path).launch("broken", "broken", (1, 1, 1), (1, 1, 1), [np.int32(1)])


def test_a_parameter_that_numpy_has_not(make: Make, tmp_path: Path) -> None:
    (tmp_path / "odd.cu").write_text('extern "C" __global__ void odd(struct Point at) {}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="odd: parameter 'struct Point at' has a type that no NumPy scalar has"):
        make(tmp_path).launch("odd", "odd", (1, 1, 1), (1, 1, 1), [np.int32(1)])


def test_what_is_compiled_once_is_kept_until_a_source_changes(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "constant.cu"
    text = '#include "memory.cuh"\nextern "C" __global__ void constant(int* out) { store(out, 41); }\n'
    shutil.copy(SOURCES / "memory.cuh", tmp_path)
    source.write_text(text, encoding="utf-8")
    compiled = build.module(source, tmp_path)
    with monkeypatch.context() as without:
        without.setattr(build, "run_compiler", None)
        assert build.module(source, tmp_path) == compiled
    source.write_text(text.replace("41", "42"), encoding="utf-8")
    device = make(tmp_path)
    with device.alloc(4) as out:
        device.launch("constant", "constant", (1, 1, 1), (1, 1, 1), [out])
        assert device.download(out, 1, np.int32).tolist() == [42]
    assert build.module(source, tmp_path) != compiled


def test_a_cache_folder_that_cannot_be_one(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"^cannot keep the host form in .*: Not a directory; set SUT_CACHE_DIR to a"):
        make()
