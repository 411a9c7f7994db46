"""What each call of CUDA's API takes in a process that has made none before, for the naive and for the tiled transpose.

Two programs that differ in the kernel alone, each profiled once, differ in every call: in what a process pays once, in
what the first call of a kind pays for those after it, in chance, and in the kernel. Here each call is timed by itself,
in the order of such a program, so that the same call can be compared between kernels, and the first of a kind with the
second. A profiler can watch the same calls: this module, started as ``python -m kernels.lab.api ORDERS``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from kernels.compile import cubin
from kernels.compilers import architecture_for, find_compiler
from kernels.device import Device, DeviceError
from kernels.gpu import GpuDevice
from kernels.gpu_driver import Driver
from kernels.gpu_library import find_library
from kernels.transpose import MODULE, ImageVariant, launch_shape, transpose
from plugins.driver import installed_driver

SIDE = 4096
"""Rows and columns of the matrix, float32: each of its values has one of its own, up to 2^24."""
CALL, DONE = "(call)", "(done)"
START_UP = ("context", "module load", "function lookup")
ROWS = (
    *START_UP,
    "first malloc",
    "second malloc",
    "copy to GPU",
    *(f"{which} launch {until}" for which in ("first", "second") for until in (CALL, DONE)),
    "copy from GPU",
    "first free",
    "second free",
)
"""What is timed, in its order. A launch is timed twice from its beginning: until the call returns, and until the GPU
has run the kernel, so the first of the two is a part of the second."""
_WARM_UP = 3
_DTYPE = "float32"


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is to time. ``cuda`` is the driver's, ``cubin`` the file of the module for this GPU."""

    variant: ImageVariant
    index: int
    cuda: int
    cubin: str
    side: int


def prepare(device: GpuDevice, folder: Path, side: int) -> dict[ImageVariant, Orders]:
    """Put the module into ``folder``, compiled, and give the orders for each kernel."""
    cuda = installed_driver().major
    compiler = find_compiler(cuda, device.architecture)
    path = folder / f"{MODULE}.cubin"
    path.write_bytes(cubin(MODULE, architecture_for(device.architecture, compiler), compiler))
    return {variant: Orders(variant, device.index, cuda, str(path), side) for variant in get_args(ImageVariant)}


def carry_out(orders: Orders) -> dict[str, int]:
    """``measure`` in this process, through the library that runs the kernels everywhere else."""
    make, _ = find_library(orders.cuda)
    return measure(partial(make, orders.index), Path(orders.cubin).read_bytes(), orders.variant, orders.side)


def measure(
    make: Callable[[], Driver],
    code: bytes,
    variant: ImageVariant,
    side: int,
    now: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, int]:
    """Nanoseconds of each of ``ROWS``; ``make`` starts the driver and makes its context.

    All calls are made by one thread, on the default stream, and each is waited for before the next. The matrices lie in
    pageable memory that has been touched. Raises what the driver raises, and ``DeviceError`` for a wrong transpose.
    """
    source = np.arange(side * side, dtype=_DTYPE).reshape(side, side)
    target = np.full_like(source, -1)
    function, grid, block = launch_shape(side, side, _DTYPE, variant)
    took: dict[str, int] = {}

    def timed(row: str, call: Callable[[], Any]) -> Any:
        begin = now()
        made = call()
        took[row] = now() - begin
        return made

    driver: Driver = timed("context", make)
    module = timed("module load", partial(driver.load, code))
    kernel = timed("function lookup", partial(driver.function, module, function, "LLii"))
    addresses = [timed(f"{which} malloc", partial(driver.allocate, source.nbytes)) for which in ("first", "second")]

    def copy() -> None:
        driver.write(addresses[0], source, None)
        driver.synchronize(None)

    timed("copy to GPU", copy)
    args: list[np.generic] = [*map(np.uint64, addresses), np.int32(side), np.int32(side)]
    for which in ("first", "second"):
        begin = now()
        driver.start(kernel, grid, block, args, None)
        took[f"{which} launch {CALL}"] = now() - begin
        driver.synchronize(None)
        took[f"{which} launch {DONE}"] = now() - begin

    def copy_back() -> None:
        driver.read(addresses[1], target, None)
        driver.synchronize(None)

    timed("copy from GPU", copy_back)
    for which, address in zip(("first", "second"), addresses, strict=True):
        timed(f"{which} free", partial(driver.release, address))
    del kernel, module  # a module cannot be unloaded without its context
    driver.close()
    if not np.array_equal(target, source.T):
        raise DeviceError(f"{function} of {side} x {side} is wrong: see sut kernels check")
    return took


def kernel_ns(device: Device, side: int, passes: int) -> Mapping[ImageVariant, list[float | None]]:
    """What the GPU takes for each kernel, in ns between events, so many times, in turns. See ``Device.timed_ms``."""
    found: dict[ImageVariant, list[float | None]] = {variant: [] for variant in get_args(ImageVariant)}
    nbytes = side * side * np.dtype(_DTYPE).itemsize
    with device.alloc(nbytes) as source, device.alloc(nbytes) as target:
        device.fill(source, 0)
        for _ in range(_WARM_UP + passes):
            for variant, times in found.items():
                work = partial(transpose, device, source, target, side, side, _DTYPE, variant)
                took_ms = device.timed_ms(work)
                times.append(None if took_ms is None else 1e6 * took_ms)
    return {variant: times[_WARM_UP:] for variant, times in found.items()}


if __name__ == "__main__":
    carry_out(Orders(**json.loads(sys.argv[1])))
