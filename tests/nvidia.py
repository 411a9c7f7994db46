"""Stand-ins for NVIDIA's driver: its two libraries in C, for processes, and nvidia-ml-py's module, for tests in one.

They answer as NVIDIA's documents say, nothing here says that a GPU does. There are two GPUs, which CUDA and NVML count
in opposite orders.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from plugins.driver import CudaGpu

FIRST, SECOND = (str(uuid.UUID(int=number)) for number in (0xA, 0xB))
"""By CUDA's numbers, which are NVML's 1 and 0."""
CUDA = [CudaGpu(FIRST, (9, 0)), CudaGpu(SECOND, (7, 5))]

# What CUDA_VISIBLE_DEVICES is to the real one, SHOWN is here: how many.
_SOURCE = r"""
#include <stdlib.h>
#include <string.h>
static const char *names[] = {"Fake 75", "Fake 90"};
static int used;
static int number(const char *name, int otherwise) { char *text = getenv(name); return text ? atoi(text) : otherwise; }

int cuInit(unsigned flags) { return number("CU_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = number("CUDA", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = number("SHOWN", 2); return 0; }
int cuDeviceGet(int *gpu, int ordinal) { *gpu = ordinal + 40; return 0; }
int cuDeviceGetUuid_v2(unsigned char uuid[16], int gpu) {
    memset(uuid, 0, 16); uuid[15] = gpu - 40 + 0xa; return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int gpu) {
    *value = attribute == 75 ? (gpu == 40 ? 9 : 7) : attribute == 76 ? (gpu == 40 ? 0 : 5) : -1; return 0;
}
int cuGetErrorString(int code, const char **text) { *text = "driver / library mismatch"; return 0; }

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "not supported"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "580.1", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, long *gpu) { *gpu = 75 + index * 15; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, long *gpu) {
    *gpu = uuid[strlen(uuid) - 1] == 'a' ? 90 : 75; return strncmp(uuid, "GPU-", 4) ? 6 : 0;
}
int nvmlDeviceGetUUID(long gpu, char *text, unsigned size) {
    strncpy(text, "GPU-00000000-0000-0000-0000-00000000000a", size); text[39] = gpu == 90 ? 'a' : 'b'; return 0;
}
int nvmlDeviceGetName(long gpu, char *text, unsigned size) { strncpy(text, names[gpu == 90], size); return 0; }
int nvmlDeviceGetMemoryInfo_v2(long gpu, Memory *memory) {
    if (memory->version != 0x2000028) return 2;
    memory->total = 16ull << 30; memory->used = (unsigned long long)used++ << 20; return 0;
}
int nvmlDeviceGetMaxClockInfo(long gpu, int kind, unsigned *mhz) { *mhz = kind == 1 ? 1980 : 2619; return 0; }
int nvmlDeviceGetClockInfo(long gpu, int kind, unsigned *mhz) { *mhz = kind == 1 ? 1410 : 2619; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(long gpu, unsigned *milliwatts) { *milliwatts = 700000; return 0; }
int nvmlDeviceGetPowerUsage(long gpu, unsigned *milliwatts) { *milliwatts = 69500; return 0; }
int nvmlDeviceGetTemperature(long gpu, int sensor, unsigned *celsius) { *celsius = 31; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(long gpu, unsigned long long *reasons) {
    *reasons = number("REASONS", 1); return 0;
}
int nvmlDeviceGetJpgUtilization(long gpu, unsigned *share, unsigned *us) { *share = *us = 0; return gpu == 90 ? 0 : 3; }
"""


def variables(folder: Path, **settings: str) -> dict[str, str]:
    """Environment of a process that finds the libraries, which are built for it: with CUDA 13.0 and NVML.

    ``settings``: CUDA, the driver's; CU_INIT, the error that it starts with; SHOWN, how many GPUs CUDA shows; REASONS,
    NVML's bits for throttling.
    """
    source = folder / "driver.c"
    source.write_text(_SOURCE)
    for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
        command = ["g++", "-x", "c", "-w", "-shared", "-fPIC", "-o", str(folder / library), str(source)]
        subprocess.run(command, check=True, timeout=60)
    found = os.pathsep.join(filter(None, (str(folder), os.environ.get("LD_LIBRARY_PATH", ""))))
    return {"LD_LIBRARY_PATH": found, **settings}


class FakeNvml(ModuleType):
    """nvidia-ml-py's module. A GPU's handle is its UUID; what it has no answer for, it does not support.

    ``answers`` are by handle, and by the function without ``nvmlDeviceGet`` and what is asked of it; a list has one for
    each time that it is asked, and the last for ever.
    """

    class NVMLError(Exception):
        """What all of them are."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.answers = {f"GPU-{FIRST}": answers(), f"GPU-{SECOND}": answers(name="Fake 75")}
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.answers)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return list(self.answers)[::-1][index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.answers:
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def ask(handle: str, *asked: int) -> Any:
            assert self.open, "NVML is not open"
            known = self.answers[handle].get(" ".join([name.removeprefix("nvmlDeviceGet"), *map(str, asked)]))
            if known is None:
                raise self.NVMLError("not supported")
            if isinstance(known, list):
                return known.pop(0) if len(known) > 1 else known[0]
            return known() if callable(known) else known

        return ask


def answers(name: str = "Fake 90", used: int = 0, **more: Any) -> dict[str, Any]:
    """What a GPU of 16 GiB answers that works; ``more`` are as functions are called."""
    return {
        "Name": name,
        "MemoryInfo 33554472": SimpleNamespace(total=2**34, used=used),
        "MaxClockInfo 1": 1980,
        "MaxClockInfo 2": 2619,
        "ClockInfo 1": 1410,
        "ClockInfo 2": 2619,
        "EnforcedPowerLimit": 700_000,
        "PowerUsage": 69_500,
        "TemperatureV 0": 31,
        "CurrentClocksEventReasons": 1,
        **more,
    }
