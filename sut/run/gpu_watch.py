"""Looks at the GPUs of a run while it goes: once a second, in a thread of the process that watches the run.

Not of the one that is measured. A look that never returns, as at a GPU that fell off the bus, keeps nobody waiting. Has
not run on hardware yet.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from plugins.driver import cuda_gpus
from plugins.nvml import PACKAGE, GpuState, Nvml, NvmlGpu
from sut.errors import one_line
from sut.results.gpus import GpuUse

_EVERY_S = 1.0
_TICK_S = 0.2
_BEFORE_S = 2.0
"""How long a run waits for the look before it: a driver that nobody has open takes a while to start."""
_END_S = 1.0


class _Seen:
    """A GPU, and what was seen of it so far."""

    def __init__(self, number: int, uuid: str, gpu: NvmlGpu) -> None:
        self._number, self._uuid, self._gpu = number, uuid, gpu
        self._facts = gpu.facts()
        self._before = gpu.state()
        self._peak: int | None = None
        self._looks: list[GpuState] = []

    def look(self, running: bool) -> None:
        """Look once more; only what is seen while the run goes tells of its clocks."""
        now = self._gpu.state()
        if now.used_bytes is not None:
            self._peak = max(self._peak or 0, now.used_bytes)
        if running:
            self._looks.append(now)

    def use(self, in_time: bool) -> GpuUse:
        """All of it; the first look tells of what was before the run where it came ``in_time``."""
        looks, facts = list(self._looks), self._facts  # its thread may be at work
        clocks = [look.sm_mhz for look in looks if look.sm_mhz is not None]
        heat = [look.temperature_celsius for look in looks if look.temperature_celsius is not None]
        return GpuUse(
            device=f"cuda:{self._number}",
            uuid=self._uuid,
            name=facts.name,
            memory_bytes=facts.memory_bytes,
            highest_sm_mhz=facts.sm_mhz,
            power_limit_watts=facts.power_watts,
            before=self._before if in_time else None,
            looks=len(looks),
            peak_bytes=self._peak,
            lowest_sm_mhz=min(clocks, default=None),
            mean_sm_mhz=_mean(clocks),
            mean_memory_mhz=_mean([look.memory_mhz for look in looks]),
            mean_power_watts=_mean([look.power_watts for look in looks]),
            hottest_celsius=max(heat, default=None),
            slowed=Counter(reason for look in looks for reason in look.slowed_by or ()),
        )


class Watch:
    """Looks at GPUs, by CUDA's ``numbers``, for as long as its ``with`` lasts.

    ``running`` tells whether the run itself goes. Without numbers nothing is looked at, and nobody is asked.
    """

    def __init__(self, numbers: Sequence[int], running: Callable[[], bool]) -> None:
        self._numbers, self._running = numbers, running
        self._gpus: list[_Seen] = []
        self._trouble = "the driver does not answer"
        self._in_time = False
        self._seen_before, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Watch:
        if self._numbers:
            self._thread.start()
            self._in_time = self._seen_before.wait(_BEFORE_S)
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._numbers:
            self._thread.join(_END_S)

    def found(self) -> tuple[list[GpuUse] | None, list[str]]:
        """What was seen of the GPUs, None where nothing was; and what a reader must know of it."""
        if not self._numbers:
            return None, []
        if not self._gpus:
            return None, [f"the GPU's state is unknown: {self._trouble}"]
        gpus = [gpu.use(self._in_time) for gpu in self._gpus]
        return gpus, [warning for gpu in gpus for warning in gpu.warnings()]

    def _work(self) -> None:
        try:
            with Nvml() as nvml:
                known = dict(enumerate(cuda_gpus()))
                for number, cuda in ((each, known[each]) for each in self._numbers if each in known):
                    if (gpu := nvml.gpu(cuda.uuid)) is not None:
                        self._gpus.append(_Seen(number, cuda.uuid, gpu))
                self._trouble = "NVML does not know it"
                self._seen_before.set()
                self._follow()
        except ModuleNotFoundError as error:
            self._trouble = f"{one_line(error)}: pip install {PACKAGE}"
        except Exception as error:  # whatever it is, it is no reason to fail a run
            self._trouble = one_line(error)
        finally:
            self._seen_before.set()

    def _follow(self) -> None:
        """Look once a second, and as soon as the run begins."""
        looked_s, was_running = time.monotonic(), False
        while not self._over.wait(_TICK_S):
            running = self._running()
            if running == was_running and time.monotonic() - looked_s < _EVERY_S:
                continue
            looked_s, was_running = time.monotonic(), running
            for gpu in self._gpus:
                gpu.look(running)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
