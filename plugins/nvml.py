"""What NVIDIA's driver says of a GPU's state, through NVML: the package nvidia-ml-py, which need not be there.

Nothing is asked of CUDA, and no context is made: a GPU is found by the UUID that CUDA has for it, see
``plugins/driver.py``. What this driver, this GPU or a MIG part of it does not tell is None. Has not run on hardware.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from plugins.base import Closing
from plugins.errors import DeviceNotFound

PACKAGE = "nvidia-ml-py"
SLOWING = {
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x200: "board_limit",
    0x400: "reliability",
}
"""Why a GPU's clocks are lower than they could be, by the bits of NvmlClocksEventReasons in nvml.h."""
_NOT_SLOWING = 0x1 | 0x2 | 0x100
"""Nothing to do, application clocks, display clocks: how somebody wants it."""
_SM, _MEMORY = 1, 2
"""NVML_CLOCK_SM and NVML_CLOCK_MEM of nvml.h."""
_CHIP = 0
"""NVML_TEMPERATURE_GPU."""
_MEMORY_V2 = 0x2000028
"""nvmlMemory_v2. In the first version what the driver keeps for itself counts as used."""


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What a GPU is, or a MIG part of one, and what it is allowed."""

    name: str
    memory_bytes: int | None
    sm_mhz: int | None
    """The highest clock of the multiprocessors."""
    memory_mhz: int | None
    power_watts: float | None
    """The limit that is enforced."""
    has_jpeg: bool | None
    """Whether there is a JPEG engine."""
    jpeg_engines: int | None
    """How many; NVML tells it of MIG parts alone."""
    mig: bool | None
    """Whether the whole GPU is divided."""


@dataclass(frozen=True, slots=True)
class GpuState:
    """A GPU at one moment. Null is what it does not tell."""

    # For whoever reads it from a file.
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    used_bytes: int | None
    """Of its memory, by all processes; without what the driver keeps for itself."""
    sm_mhz: int | None
    """Clock of the multiprocessors."""
    memory_mhz: int | None
    """Clock of the memory."""
    power_watts: float | None
    """What it draws."""
    temperature_celsius: int | None
    """Of the chip."""
    slowed_by: tuple[str, ...] | None
    """Why its clocks are low, in NVML's words; not that it has nothing to do, nor that somebody set them."""


class Nvml(Closing):
    """NVML, from here to ``close``.

    Raises ``ModuleNotFoundError`` where nvidia-ml-py is not installed, and ``DeviceNotFound`` where it does not start.
    """

    def __init__(self) -> None:
        try:
            self._library: Any = importlib.import_module("pynvml")
            self._library.nvmlInit()
        except ModuleNotFoundError:
            raise ModuleNotFoundError(f"{PACKAGE} is not installed", name="pynvml") from None
        except Exception as error:  # another package of that name may raise what it likes
            raise DeviceNotFound(f"NVML does not start: {error}") from error
        self.driver = str(self._ask("nvmlSystemGetDriverVersion") or "")
        """The driver's version."""

    def close(self) -> None:
        self._ask("nvmlShutdown")

    def uuids(self) -> list[str]:
        """All whole GPUs, also those that CUDA does not show here; without ``GPU-``."""
        handles = (self._ask("nvmlDeviceGetHandleByIndex", i) for i in range(self._ask("nvmlDeviceGetCount") or 0))
        found = (self._ask("nvmlDeviceGetUUID", handle) for handle in handles if handle is not None)
        return [str(each).removeprefix("GPU-") for each in found if each]

    def gpu(self, uuid: str) -> NvmlGpu | None:
        """A GPU, or a MIG part of one; None where NVML does not know it."""
        for kind in ("GPU", "MIG"):
            if (handle := self._ask("nvmlDeviceGetHandleByUUID", f"{kind}-{uuid}")) is not None:
                return NvmlGpu(self._library, handle)
        return None

    def _ask(self, name: str, *arguments: object) -> Any:
        return _ask(self._library, name, *arguments)


class NvmlGpu:
    """One GPU of an open NVML."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle
        whole = self._ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
        # A MIG part has memory of its own, but neither clocks nor a power limit.
        self._whole = handle if whole is None else whole

    def facts(self) -> GpuFacts:
        """What does not change in a run."""
        is_part = self._whole is not self._handle
        attributes = self._ask("nvmlDeviceGetAttributes") if is_part else None
        mig = self._ask_whole("nvmlDeviceGetMigMode")
        return GpuFacts(
            name=str(self._ask("nvmlDeviceGetName") or "unknown"),
            memory_bytes=self._memory("total"),
            sm_mhz=self._ask_whole("nvmlDeviceGetMaxClockInfo", _SM),
            memory_mhz=self._ask_whole("nvmlDeviceGetMaxClockInfo", _MEMORY),
            power_watts=_watts(self._ask_whole("nvmlDeviceGetEnforcedPowerLimit")),
            has_jpeg=None if self._ask_whole("nvmlDeviceGetJpgUtilization") is None else True,
            jpeg_engines=None if attributes is None else int(attributes.sharedJpegCount),
            mig=None if mig is None else bool(mig[0]),
        )

    def state(self) -> GpuState:
        """What it is like now."""
        # Names of before CUDA 13 come second: drivers of CUDA 12 may know no others.
        reasons = self._ask_whole("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            reasons = self._ask_whole("nvmlDeviceGetCurrentClocksThrottleReasons")
        temperature = self._ask_whole("nvmlDeviceGetTemperatureV", _CHIP)
        if temperature is None:
            temperature = self._ask_whole("nvmlDeviceGetTemperature", _CHIP)
        return GpuState(
            used_bytes=self._memory("used"),
            sm_mhz=self._ask_whole("nvmlDeviceGetClockInfo", _SM),
            memory_mhz=self._ask_whole("nvmlDeviceGetClockInfo", _MEMORY),
            power_watts=_watts(self._ask_whole("nvmlDeviceGetPowerUsage")),
            temperature_celsius=temperature,
            slowed_by=None if reasons is None else slowing(reasons),
        )

    def joules(self) -> float | None:
        """What the whole GPU has used since the driver was loaded; Volta and later count it. Not of a MIG part: others
        share the chip.
        """
        if self._whole is not self._handle:
            return None
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000

    def watts(self) -> float | None:
        """What the whole GPU draws; not of a MIG part either."""
        return None if self._whole is not self._handle else _watts(self._ask("nvmlDeviceGetPowerUsage"))

    def _memory(self, which: str) -> int | None:
        memory = self._ask("nvmlDeviceGetMemoryInfo", _MEMORY_V2)
        return None if memory is None else int(getattr(memory, which))

    def _ask(self, name: str, *arguments: object) -> Any:
        return _ask(self._library, name, self._handle, *arguments)

    def _ask_whole(self, name: str, *arguments: object) -> Any:
        return _ask(self._library, name, self._whole, *arguments)


def slowing(reasons: int) -> tuple[str, ...]:
    """The reasons among NVML's bits that slow a GPU down.

    >>> slowing(0x1 | 0x4 | 0x4000)
    ('sw_power_cap', '0x4000')
    """
    bits = (1 << shift for shift in range(reasons.bit_length()))
    return tuple(SLOWING.get(bit, hex(bit)) for bit in bits if reasons & bit & ~_NOT_SLOWING)


def _ask(library: Any, name: str, *arguments: object) -> Any:
    """What a function of pynvml returns; None where it, the driver or the GPU does not know that."""
    try:
        return getattr(library, name)(*arguments)
    except (AttributeError, library.NVMLError):
        return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
