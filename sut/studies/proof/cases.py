"""What ``sut kernels check`` goes through in this version, told without a GPU and without compiling anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.device import Device, Dim3
from kernels.lab.check import check


class _Silent(Device):
    """Takes what it is given, and does nothing: all of its memory is zeros."""

    name = architecture = "none"

    def __init__(self) -> None:
        self._next = 1 << 20

    def allocate(self, nbytes: int) -> int:
        self._next += -(-nbytes // 512) * 512
        return self._next

    def release(self, address: int) -> None:
        pass

    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        pass

    def read(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        array.fill(0)

    def clear(self, address: int, nbytes: int, byte: int, stream: int | None) -> None:
        pass

    def start(
        self, module: str, function: str, grid: Dim3, block: Dim3, args: Sequence[np.generic], stream: int | None
    ) -> None:
        pass

    def new_stream(self) -> int:
        return 0

    def synchronize(self, stream: int | None = None) -> None:
        pass

    def timed_ms(self, work: Callable[[int], None]) -> float | None:
        return None

    def close(self) -> None:
        pass


@cache
def case_counts() -> Counter[str]:
    """How many cases each kernel has by its name, dtype and layout, as a report counts them."""
    with _Silent() as device:
        rows = check(device, lambda pixels, place, *others: np.zeros((place.size, place.size, 3), np.uint8))
        return Counter(f"{row.kernel} {row.dtype} {row.layout}" for row in rows)
