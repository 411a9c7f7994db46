"""The tests of the tester: what the host form catches, in small kernels and planted in the real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.device import SOURCES, DeviceError
from kernels.host import HostDevice
from kernels.host.host_device import Order
from kernels.transpose import transpose

Make = Callable[..., HostDevice]
ORDERS: tuple[Order, ...] = ("forward", "reverse", "shuffled")


def run(device: HostDevice, kernel: str, *args: Any, block: int = 1, grid: int = 1) -> None:
    device.launch("tricks", kernel, (grid, 1, 1), (block, 1, 1), list(args))


# ------------------------------------------------------------------------------------------------ it catches


def caught(device: HostDevice, kernel: str, *args: Any, block: int = 1) -> str:
    with pytest.raises(DeviceError) as error:
        run(device, kernel, *args, block=block)
    message = str(error.value)
    assert "\n" not in message
    with pytest.raises(DeviceError) as again:
        device.alloc(1)
    assert str(again.value) == message
    return message


@pytest.mark.parametrize("at", [100, 101, 111, -1])
def test_a_write_outside_its_buffer(make: Make, at: int) -> None:
    device = make()
    message = caught(device, "past_the_end", device.alloc(100), np.int32(at))
    tricks = Path(__file__).with_name("tricks.cu").read_text(encoding="utf-8")
    line = tricks[: tricks.index("void past_the_end")].count("\n") + 1
    assert message.startswith(
        f"past_the_end, block (0, 0, 0) thread (0, 0, 0), tricks.cu line {line}: heap-buffer-over"
    )
    assert "WRITE of size 1" in message and "100-byte region" in message


def test_a_read_of_freed_memory(make: Make) -> None:
    device = make()
    buffer, out = device.alloc(100), device.alloc(1)
    address = np.uint64(buffer.address)
    buffer.free()
    assert "heap-use-after-free, READ of size 1" in caught(device, "read_one", address, out)


def test_an_address_of_nothing(make: Make) -> None:
    device = make()
    assert "SEGV" in caught(device, "read_one", np.uint64(64), device.alloc(1))


@pytest.mark.parametrize(
    ("kernel", "arguments", "block", "fragment"),
    [
        ("past_a_tile", (np.int32(9),), 1, "index 9 out of bounds for type 'int [8]'"),
        ("past_a_tile", (np.int32(8),), 1, "global-buffer-overflow, WRITE of size 4"),
        ("some_end", (), 32, "barrier divergence: 5 of 32 threads wait at line"),
        ("two_barriers", (), 32, "barrier divergence: threads of one block wait at line"),
    ],
)
def test_what_a_block_must_not_do(
    make: Make, kernel: str, arguments: tuple[Any, ...], block: int, fragment: str
) -> None:
    message = caught(make(), kernel, *arguments, block=block)
    assert message.startswith(f"{kernel}, block (0, 0, 0) thread (") and fragment in message


def test_what_cpp_leaves_undefined(make: Make) -> None:
    device = make()
    assert "signed integer overflow" in caught(device, "too_large", np.int32(2**31 - 1), device.alloc(4))
    device = make()
    assert "outside the range of representable values" in caught(device, "too_far", np.float32(1e10), device.alloc(4))
    device = make()
    assert "misaligned address" in caught(device, "sixteen_bytes", device.alloc(64), np.int32(1))


def test_a_kernel_without_an_end_is_ended(make: Make) -> None:
    device = make()
    device.alloc(4).close()  # its process has started
    device._limit_s = 1.0
    assert "no answer within 1 s to: launch" in caught(device, "endless", device.alloc(4))


@pytest.mark.parametrize(("order", "as_on_a_gpu"), [("forward", True), ("reverse", False), ("shuffled", False)])
def test_what_happens_to_work_in_one_order_does_not_in_another(make: Make, order: Order, as_on_a_gpu: bool) -> None:
    """A barrier is missing: each thread reads what the one before it has written, if that one came first."""
    device = make(order=order)
    values = np.arange(64, dtype=np.float32)
    with device.upload(values) as source, device.alloc(values.nbytes) as target:
        run(device, "neighbour", source, target, block=64)
        found = device.download(target, 64, np.float32)
    assert np.array_equal(found, np.maximum(values - 1, 0)) == as_on_a_gpu


# ----------------------------------------------------------------------- it catches faults planted in the real kernels


@pytest.fixture
def planted(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """A folder with a copy of one .cu file that has one place changed."""

    def change(name: str, old: str, new: str) -> Path:
        shutil.copy(SOURCES / "memory.cuh", tmp_path)
        text = (SOURCES / name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
        return tmp_path

    return change


def turned(device: HostDevice, matrix: NDArray[np.uint8], variant: str) -> NDArray[np.uint8]:
    rows, columns = matrix.shape
    with device.upload(matrix) as source, device.alloc(matrix.nbytes) as target:
        transpose(device, source, target, rows, columns, "uint8", variant)
        return device.download(target, (columns, rows), np.uint8)


MATRIX = np.random.default_rng(0).integers(0, 256, (70, 50), np.uint8)


@pytest.mark.parametrize(
    ("old", "new", "variant", "fragment"),
    [
        (
            "if (column < columns && row < rows)\n                        store_word",
            "store_word",
            "tiled",
            "WRITE of size",
        ),
        ("if (row >= rows || column >= columns)", "if (row > rows || column >= columns)", "naive", "READ of size 1"),
        ("if (at + i < length) word |=", "if (at + i <= length) word |=", "tiled", "READ of size 1"),
    ],
    ids=["no bounds", "off by one", "off by one in a word"],
)
def test_a_planted_access_out_of_bounds_is_caught(
    make: Make, planted: Callable[[str, str, str], Path], old: str, new: str, variant: str, fragment: str
) -> None:
    device = make(planted("transpose.cu", old, new))
    with pytest.raises(
        DeviceError, match=rf"^transpose_{variant}_u8, .* transpose.cu line \d+: heap-buffer-over.*{fragment}"
    ):
        turned(device, MATRIX[:, :49] if "word |=" in old else MATRIX, variant)


def test_a_removed_barrier_is_caught_in_every_order(make: Make, planted: Callable[[str, str, str], Path]) -> None:
    before = "        tiles.template read<false>(in, tile);\n"
    folder = planted("transpose.cu", f"{before}    __syncthreads();\n", before)
    wrong = [not np.array_equal(turned(make(folder, order=order), MATRIX, "tiled"), MATRIX.T) for order in ORDERS]
    assert wrong == [True] * len(ORDERS)


@pytest.mark.parametrize("comment", [True, False], ids=["before writing again", "before reading"])
def test_each_removed_barrier_of_a_loop_is_caught_in_every_order(
    make: Make, planted: Callable[[str, str, str], Path], comment: bool
) -> None:
    barrier = "        __syncthreads();  //" if comment else "        __syncthreads();\n"
    folder = planted("lab/study.cu", barrier, "        //" if comment else "")
    side = 48
    numbers = np.random.default_rng(0).integers(-9, 10, (2, side, side)).astype(np.float32)  # sums are exact
    for order in ORDERS:
        device = make(folder, order=order)
        a, b, c = device.upload(numbers[0]), device.upload(numbers[1]), device.alloc(4 * side * side)
        args = [a, b, c, *(np.int32(side),) * 3]
        device.launch("lab/study", "matmul_tiled_f32", (side // 16, side // 16, 1), (16, 16, 1), args)
        assert not np.array_equal(device.download(c, (side, side), np.float32), numbers[0] @ numbers[1])
