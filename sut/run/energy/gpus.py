"""The energy counters of NVIDIA's GPUs, by NVML. Has not run on hardware."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from plugins.driver import cuda_gpus
from plugins.nvml import PACKAGE, Nvml, NvmlGpu
from sut.errors import one_line
from sut.run.energy.meters import Kind


@contextmanager
def gpu_meters(gpus: Sequence[int]) -> Iterator[list[GpuCounter]]:
    """A meter for each GPU, by CUDA's number, while it lasts.

    Raises ``ValueError`` where NVML's package is not installed, or one of them has none: what the others use would be
    nobody's figure. What a driver does not do raises as NVML and CUDA do.
    """
    try:
        nvml = Nvml()
    except ModuleNotFoundError as error:
        raise ValueError(f"{one_line(error)}: pip install {PACKAGE}") from None
    with nvml:
        known = dict(enumerate(cuda_gpus()))
        found = []
        for number in gpus:
            gpu = nvml.gpu(known[number].uuid) if number in known else None
            if gpu is None:
                raise ValueError(f"NVML does not know cuda:{number}")
            found.append(GpuCounter(f"cuda:{number}", gpu))
        yield found


class GpuCounter:
    """A GPU's own counter; where it has none, its power, summed up between readings (trapezoids)."""

    kind: Kind = "gpu"

    def __init__(self, name: str, gpu: NvmlGpu, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ``ValueError`` for a GPU that tells neither."""
        self.name, self._gpu, self._clock = name, gpu, clock
        self._counts = gpu.joules() is not None
        self._last_w = 0.0 if self._counts else self._watts()
        self._last_s, self._joules = clock(), 0.0
        self._least = 0.0
        self.source = "nvml" if self._counts else "nvml_power"

    def joules(self) -> float:
        """Raises ``ValueError`` where the GPU does not tell any more, or counts from the start again."""
        if self._counts:
            found = self._gpu.joules()
            if found is None or found < self._least:
                raise ValueError(f"{self.name}: its energy counter {'fell' if found is not None else 'fell silent'}")
            self._least = found
            return found
        now_w, now_s = self._watts(), self._clock()
        self._joules += (now_w + self._last_w) / 2 * (now_s - self._last_s)
        self._last_w, self._last_s = now_w, now_s
        return self._joules

    def _watts(self) -> float:
        found = self._gpu.watts()
        if found is None:
            raise ValueError(f"{self.name} tells neither its energy nor its power")
        return found
