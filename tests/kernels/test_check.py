"""The check of all kernels notices what it is there to notice; that they pass is in ``test_kernels_command.py``."""

import numpy as np
import pytest

from kernels.device import Buffer
from kernels.host import HostDevice
from kernels.lab.check import STRIP_BYTES, check_resize, write_guarded
from kernels.normalize import Output
from kernels.placement import Place
from preprocess.oracle import resize_fit


@pytest.mark.slow
def test_a_level_more_than_the_truth_is_noticed(host: HostDevice) -> None:
    def wrong(pixels: np.ndarray, place: Place, interpolation: str, pad_level: int) -> np.ndarray:
        levels = resize_fit(pixels, place, interpolation, pad_level)
        levels[3, 4, 1] ^= 1
        return levels

    rows = list(check_resize(host, wrong, np.random.default_rng(0)))
    assert rows
    assert not any(row.ok for row in rows)
    assert min(row.largest_difference for row in rows) > 0


OUTPUT = Output(size=2, dtype="uint8", stride_bytes=16)  # samples of 12 bytes, 4 between them


def part(target: Buffer, begin: int, end: int) -> Buffer:
    return Buffer(target.device, target.address + begin, end - begin)


@pytest.mark.parametrize(
    ("writes", "clean"),
    [
        (((0, 12), (16, 28)), True),
        (((0, 11), (16, 28)), False),
        (((0, 12), (17, 28)), False),
        (((0, 13), (16, 28)), False),
        (((0, 28),), False),
        (((-1, 12), (16, 28)), False),
        (((0, 12), (16, 29)), False),
        (((0, 12), (16, 28), (-STRIP_BYTES, 1 - STRIP_BYTES)), False),
    ],
)
def test_a_byte_too_few_or_too_many_is_noticed(host: HostDevice, writes: tuple, clean: bool) -> None:
    def work(target: Buffer) -> None:
        for begin, end in writes:
            host.fill(part(target, begin, end), 9)

    assert write_guarded(host, OUTPUT, 2, work).clean is clean


def test_results_that_change_from_run_to_run_are_noticed(host: HostDevice) -> None:
    random = np.random.default_rng(0)

    def work(target: Buffer) -> None:
        for begin in (0, 16):
            host.upload(random.integers(0, 256, 12, np.uint8), part(target, begin, begin + 12))

    assert not write_guarded(host, OUTPUT, 2, work).clean
