"""A stand-in GPU whose calls take planted times and whose transposes turn; here, or as PyCUDA of another process."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kernels import compilers, gpu_stopwatch
from kernels.gpu_driver import Driver
from tests.kernels.fakes import FakeCompiler, FakeLibcuda, FakePyCuda, Gpu, Launch

SIDE = 64
"""Of a matrix that fits into the stand-in's memory twice."""
FAULT = "SUT_STAND_IN"
"""The variable that names a file, ``hangs`` or ``fails``: what a process does that is to time the tiled kernel."""


class Turning(Gpu):
    """One that does what a transpose would."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = _Launches(self)


class _Launches(list[Launch]):
    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self._gpu = gpu

    def append(self, launch: Launch) -> None:
        super().append(launch)
        source, target, rows, columns = map(int, launch.args)
        matrix = np.frombuffer(self._gpu.part(source, 4 * rows * columns), np.float32).reshape(rows, columns)
        self._gpu.part(target, 4 * rows * columns)[:] = matrix.T.tobytes()


class Planted(Turning):
    """One whose calls take time on its own clock: nanoseconds by the call's name and which of its kind it is."""

    def __init__(self, took_ns: Mapping[tuple[str, int], int]) -> None:
        super().__init__()
        self.now_ns = 0
        self._took_ns, self._counts = took_ns, Counter[str]()

    def take(self, name: str) -> None:
        self._counts[name] += 1
        self.now_ns += self._took_ns.get((name, self._counts[name]), 0)

    def call(self, name: str) -> None:
        self.take(name)
        super().call(name)

    def opened(self, make: Callable[[], Driver]) -> Driver:
        """What starts the driver, as a call of its own."""
        self.take("context")
        return make()


class _Faulty(Turning):
    def call(self, name: str) -> None:
        if name == "cuMemAlloc" and FAULT in os.environ and '"tiled"' in " ".join(sys.argv):
            fault = Path(os.environ[FAULT])
            fault.touch()
            if fault.name == "hangs":
                time.sleep(1000)
            raise self.error(name, "out of memory")
        super().call(name)


def install() -> None:
    """For ``sitecustomize.py``: a driver, PyCUDA and a compiler in this process, and a command that is soon done."""
    real, libcuda = ctypes.CDLL, FakeLibcuda()
    patched: Any = ctypes
    patched.CDLL = lambda name, *more: libcuda if name == "libcuda.so.1" else real(name, *more)
    compilers._installed = lambda: iter([FakeCompiler()])
    gpu_stopwatch.BALLAST_BYTES = 64
    package: Any = ModuleType("pycuda")
    package.VERSION_TEXT = "2025.1.2"
    package.driver = FakePyCuda(_Faulty())
    sys.modules |= {"pycuda": package, "pycuda.driver": package.driver}
    if "sut" in sys.orig_argv:
        from kernels.lab import api

        api.SIDE = SIDE
        from sut.studies import api_calls

        api_calls.PAIRS = 2
