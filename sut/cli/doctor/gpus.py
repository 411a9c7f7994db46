"""What ``sut doctor`` says of NVIDIA's driver and GPUs, and of what each library sees of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from json import loads
from pathlib import Path
from typing import Any

from plugins.driver import CudaGpu, Installed, cuda_gpus
from plugins.errors import DeviceNotFound
from plugins.nvml import GpuFacts, GpuState, Nvml, NvmlGpu
from sut.cli.doctor import seen
from sut.cli.doctor.installed import EXTRAS, Check, Status, getting, gpu_build, newest, version_of
from sut.process.cgroup import read_text
from sut.results.gpus import OTHERS_BYTES
from sut.results.machine import driver_gpus, nvidia_smi

_LIMIT_S = 60.0
_UNKNOWN = "unknown"
_PACKAGES = {
    "pycuda": ("pycuda",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "torch": ("torch",),
    "nvimgcodec": ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12"),
    "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
}
"""What brings the libraries that only a GPU makes work; where none of them is installed, nothing is looked at."""

_NONE = Check("nvidia", "devices", "absent", "none")
_COOLER = "wait until {0} is cooler or has more power: figures measured now are of a throttled GPU"

Said = Mapping[str, Any]
"""What ``seen.py`` printed of a library."""


def check_nvidia(root: Path, shown: Sequence[CudaGpu]) -> list[Check]:
    """The driver and all GPUs, through NVML; as far as nvidia-smi or /proc go where that does not work.

    ``shown`` are those that CUDA shows, by its numbers.
    """
    try:
        with Nvml() as nvml:
            rows = list(_nvml_rows(nvml, shown))
            return [Check("nvidia", "driver", "ok", nvml.driver or _UNKNOWN), *(rows or [_NONE])]
    except (ModuleNotFoundError, DeviceNotFound):
        return _without_nvml(root)


def shown_gpus(driver: Installed | str) -> list[CudaGpu]:
    """The GPUs that CUDA shows; none where it does not work."""
    try:
        return cuda_gpus() if isinstance(driver, Installed) else []
    except DeviceNotFound:
        return []


def _without_nvml(root: Path) -> list[Check]:
    driver = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", read_text(root / "proc/driver/nvidia/version"))
    number = driver[1] if driver else ""
    names = []
    for line in nvidia_smi():
        _, name, memory_mib, number = (part.strip() for part in line.split(","))
        names.append(f"{name}, {memory_mib} MiB")
    if not number:
        return [_no_driver(root)]
    # Their order is not CUDA's.
    devices = [Check("nvidia", "GPU", "ok", name) for name in names or driver_gpus(root)]
    return [Check("nvidia", "driver", "ok", number), *(devices or [_NONE])]


def _no_driver(root: Path) -> Check:
    hint = "install NVIDIA's driver, or start the container with --gpus all"
    theirs = (path for path in root.glob("sys/bus/pci/devices/*/vendor") if read_text(path).strip() == "0x10de")
    if any(read_text(path.with_name("class")).startswith("0x03") for path in theirs):  # a display controller
        return Check("nvidia", "driver", "warning", "no NVIDIA driver found, but a GPU is there", hint)
    return Check("nvidia", "driver", "absent", "no NVIDIA driver found", hint)


def _nvml_rows(nvml: Nvml, shown: Sequence[CudaGpu]) -> Iterator[Check]:
    for number, cuda in enumerate(shown):
        if (gpu := nvml.gpu(cuda.uuid)) is None:
            yield Check("nvidia", f"cuda:{number}", "warning", f"NVML does not know its UUID, {cuda.uuid}")
        else:
            yield from _gpu_rows(f"cuda:{number}", gpu, "sm_{}{}".format(*cuda.capability))
    hiding = os.environ.get("CUDA_VISIBLE_DEVICES")
    why = "CUDA does not show it" if hiding is None else f"hidden by CUDA_VISIBLE_DEVICES={hiding}"
    for uuid in set(nvml.uuids()) - {cuda.uuid for cuda in shown}:
        facts = gpu.facts() if (gpu := nvml.gpu(uuid)) is not None else None
        if facts is not None:
            found = "MIG divides it" if facts.mig else why
            yield Check("nvidia", "GPU", "absent", f"{facts.name}: {found}")


def _gpu_rows(name: str, gpu: NvmlGpu, architecture: str) -> Iterator[Check]:
    facts, state = gpu.facts(), gpu.state()

    def row(what: str, found: str, status: Status = "ok", hint: str = "") -> Check:
        return Check("nvidia", f"{name} {what}", "absent" if found == _UNKNOWN else status, found, hint)

    yield Check("nvidia", name, "ok", f"{facts.name}, {architecture}")
    shared = (state.used_bytes or 0) > OTHERS_BYTES
    hint = f"figures of {name} are not its own while others use it: nvidia-smi shows who" if shared else ""
    yield row("memory", _memory(facts, state), "warning" if shared else "ok", hint)
    yield row("clocks", _clocks(facts, state))
    yield row("power", _power(facts, state))
    slowed = state.slowed_by
    yield row("throttling", _throttling(slowed), "warning" if slowed else "ok", _COOLER.format(name) if slowed else "")
    yield row("JPEG engines", _jpeg(facts))
    if facts.mig:
        yield row("MIG", "one part of a GPU that is divided")


def _memory(facts: GpuFacts, state: GpuState) -> str:
    if facts.memory_bytes is None:
        return _UNKNOWN
    used = "" if state.used_bytes is None else f", {state.used_bytes / 2**30:.1f} in use"
    return f"{facts.memory_bytes / 2**30:.1f} GiB{used}"


def _clocks(facts: GpuFacts, state: GpuState) -> str:
    pairs = {"SM": (state.sm_mhz, facts.sm_mhz), "memory": (state.memory_mhz, facts.memory_mhz)}
    return ", ".join(f"{name} {_of(*pair, 'MHz')}" for name, pair in pairs.items() if any(pair)) or _UNKNOWN


def _power(facts: GpuFacts, state: GpuState) -> str:
    power, heat = (state.power_watts, facts.power_watts), state.temperature_celsius
    told = [_of(*power, "W")] if any(power) else []
    return ", ".join([*told, *([] if heat is None else [f"{heat} °C"])]) or _UNKNOWN


def _throttling(slowed: Sequence[str] | None) -> str:
    return _UNKNOWN if slowed is None else ", ".join(slowed) or "none"


def _jpeg(facts: GpuFacts) -> str:
    if facts.jpeg_engines is not None:
        return str(facts.jpeg_engines)
    return "yes; nvjpeg counts them" if facts.has_jpeg else _UNKNOWN


def _of(now: float | None, highest: float | None, unit: str) -> str:
    """``345 of 1,980 MHz``, with what is known."""
    return " of ".join(f"{value:,.0f}" if value is not None else "?" for value in (now, highest)) + f" {unit}"


def check_libraries(driver: Installed | str, gpus: Sequence[CudaGpu], said: Mapping[str, Said]) -> list[Check]:
    """What each library said. One that does not work, or sees fewer GPUs than CUDA, is worth a warning."""
    if isinstance(driver, str):
        return []
    cuda = newest(driver, gpus)
    commands = {
        "torch": gpu_build("torch", cuda),
        "cudnn": f"pip install nvidia-cudnn-cu{cuda}",
        "nvjpeg": getting(EXTRAS[cuda]),
    }
    return [_library(name, told, driver.gpus, commands.get(name, "")) for name, told in said.items()]


def _library(name: str, told: Said, gpus: int, command: str) -> Check:
    if "trouble" in told:
        # nvImageCodec brings nvJPEG, PyTorch its cuDNN; ONNX Runtime's CPU build needs none.
        missed = version_of("onnxruntime-gpu") if name == "cudnn" else name != "nvjpeg"
        return Check("libraries", name, "warning" if missed else "absent", told["trouble"], command)
    count, words = told["gpus"], told["words"]
    sees = "" if count is None else f"sees {count} of {gpus} GPUs; "
    if "no code for" in words or (count is not None and count < gpus):
        return Check("libraries", name, "warning", sees + words, command)
    return Check("libraries", name, "ok", sees + words)


def look_through_libraries(driver: Installed | str) -> dict[str, Said]:
    """What the libraries that are installed see, each in a process of its own, all at once; nothing without a GPU."""
    if isinstance(driver, str) or not driver.gpus:
        return {}
    names = [name for name in seen.LIBRARIES if name not in _PACKAGES or _installed(name)]
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(_ask, names), strict=True))


def _installed(name: str) -> str:
    return next((each for each in _PACKAGES[name] if version_of(each)), "")


def _ask(name: str) -> Said:
    """What a library sees; of one that crashes or does not end, that."""
    script = [sys.executable, "-P", str(seen.__file__), name]
    try:
        done = subprocess.run(script, capture_output=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"trouble": f"no answer within {_LIMIT_S:g} s"}
    # It may print more, whatever that is.
    for line in re.findall(rb'^{"library": .*}$', done.stdout, re.MULTILINE):
        said: Said = loads(line)
        return said
    code = done.returncode
    return {"trouble": f"crashes ({signal.Signals(-code).name})" if code < 0 else f"ends the process ({code})"}
