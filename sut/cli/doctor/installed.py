"""What ``sut doctor`` says of packages, compilers and the driver's CUDA, and which extra brings what is not there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from plugins.driver import CudaGpu, Installed, installed_driver
from plugins.errors import DeviceNotFound
from plugins.extras import TABLE, names, requirements
from plugins.packages import CHECKOUT, IS_CHECKOUT, MODULES, REINSTALL, SUBSTITUTES
from sut.errors import one_line

Status = Literal["ok", "missing", "warning", "absent"]

_LINES = [
    (each.name, entry) for entry in TABLE if entry.kind not in ("gpu", "instead", "dev") for each in entry.packages
]
PACKAGES = {name: entry for name, entry in _LINES if entry.set_up in ("always", "start")}
"""The packages that are missed where they are absent, by name; each with its line of the table."""
OPTIONAL = {name: entry for name, entry in _LINES if name not in PACKAGES}
"""Those that something asks for only when it is chosen."""
_ANY_CUDA = {"cupy": ("cupy", "pycuda")}
"""Distributions that do as well as those of the table, whatever the driver's CUDA is."""
_IMPORT_LIMIT_S = 120.0
_IMPORT_EACH = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        trouble = ""
    except BaseException as error:
        trouble = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    print(f"\\nimport-trouble {name} {trouble}", flush=True)
"""


def _cuda_of(extra: str) -> int | None:
    """The CUDA that an extra's name ends in."""
    found = re.search(r"cu(?:da)?(\d+)$", extra)
    return int(found[1]) if found else None


_KERNELS = [entry.extras[0] for entry in TABLE if (entry.kind, entry.name) == ("gpu", "cupy")]
EXTRAS = dict(sorted((_cuda_of(extra) or 0, extra) for extra in _KERNELS))
"""What kernels and preprocessors on a GPU take, by their CUDA, the oldest first."""
CUDAS = tuple(EXTRAS)
_OLDEST = {13: (7, 5)}
"""The compute capability below which a CUDA has neither a compiler nor libraries, as the release notes of 13.0 say."""
TOOLS = {
    "g++": ("kernels without a GPU (--device host)", "apt install g++ (Debian, Ubuntu)"),
    "nvcc": ("compiling kernels, in the place of NVRTC", ""),
}
"""Programs that are looked for on PATH: what for, and how to get them."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at.

    ``status`` is ``missing`` for what is required and not there, ``absent`` for what is optional and not there.
    ``hint`` is a command, or what to do in words; empty where there is nothing to do.
    """

    group: str
    name: str
    status: Status
    found: str
    hint: str = ""


def getting(extra: str = "") -> str:
    """The command that installs an extra of the table, or the project itself, for this Python and from any folder.

    >>> print(getting("numba").removeprefix(sys.executable).replace(str(CHECKOUT), "/checkout"))
     -m pip install -e '/checkout[numba]'
    """
    # What was installed from a checkout cannot tell where that is, but what its extras bring.
    what = ["-e", f"{CHECKOUT}[{extra}]" if extra else f"{CHECKOUT}"] if IS_CHECKOUT else requirements(extra)
    return shlex.join([sys.executable, "-m", "pip", "install", *what])


def version_of(distribution: str) -> str:
    """The version of an installed distribution, empty where there is none."""
    try:
        return str(version(distribution))
    except PackageNotFoundError:
        return ""


def check_packages() -> list[Check]:
    """The project's packages by their versions; most are imported, too, in another process."""
    checks = []
    packages = PACKAGES | OPTIONAL
    there = {name: found for name in packages if (found := version_of(name) or _versions(SUBSTITUTES.get(name, ())))}
    troubles = _import_troubles(MODULES[name] for name in there if name in MODULES)
    for name, entry in packages.items():
        found, hint = there.get(name, "not installed"), ""
        faults: tuple[Status, Status] = ("missing", "missing") if name in PACKAGES else ("warning", "absent")
        status: Status = "ok"
        if trouble := troubles.get(MODULES.get(name, "")):
            status, found, hint = faults[0], f"{found}, which cannot be imported: {trouble}", f"{REINSTALL} {name}"
        elif name not in there:
            status, hint = faults[1], getting(*entry.extras)
            found += f"; for: {entry.use}" if name in OPTIONAL else ""
        checks.append(Check("packages", name, status, found, hint))
    if version_of("onnxruntime") and version_of("onnxruntime-gpu"):
        hint = "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them"
        found_both = "both write the module onnxruntime; keep one"
        checks.append(Check("packages", "onnxruntime, onnxruntime-gpu", "warning", found_both, hint))
    return checks


def gpu_build(runtime: str, cuda: int) -> str:
    """The command for the build of a backend's runtime that a GPU needs."""
    lines = (entry for entry in TABLE if (entry.kind, entry.name) == ("instead", runtime))
    extras = [extra for entry in lines for extra in entry.extras if _cuda_of(extra) == cuda]
    return getting(extras[0]) if extras else f"{REINSTALL} {runtime}"


def driver_cuda() -> Installed | str:
    """The CUDA of the driver and its GPUs, or why that is not known, in one line."""
    try:
        return installed_driver()
    except DeviceNotFound as error:
        return one_line(error)


def check_cuda(driver: Installed | str, expected: bool, gpus: Sequence[CudaGpu] = ()) -> list[Check]:
    """The CUDA that the driver supports, and the extra for it and for all GPUs.

    Where a GPU is ``expected``, since the system shows one, a driver that does not start is worth a warning.
    """
    if isinstance(driver, str):
        return [Check("nvidia", "CUDA", "warning", "cannot be used", driver)] if expected else []
    found = f"{driver.major}.{driver.minor}"
    if driver.major < CUDAS[0]:
        return [Check("nvidia", "CUDA", "warning", f"{found}, at least {CUDAS[0]} is needed", "update the driver")]
    if not driver.gpus:
        return [Check("nvidia", "CUDA", "absent", f"{found}, but the driver shows no GPU")]
    cuda, oldest = newest(driver, gpus), min((gpu.capability for gpu in gpus), default=None)
    found += f"; its extra is {EXTRAS[cuda]}"
    if oldest is not None and cuda < newest(driver):
        found += ": newer ones have no code for sm_{}{}".format(*oldest)
    return [Check("nvidia", "CUDA", "ok", found)]


def check_gpu_packages(driver: Installed | str, gpus: Sequence[CudaGpu] = ()) -> list[Check]:
    """What the kernels and the decoders on a GPU need. Only where there is one that can be used are they missed."""
    usable = usable_cuda(driver, gpus)
    cuda = usable or CUDAS[-1]
    checks = []
    for name in names("gpu"):
        entries = (entry for entry in TABLE if (entry.kind, entry.name) == ("gpu", name))
        # By the oldest CUDA of a driver for it: an extra that names none is for the newest.
        lines = {_cuda_of(entry.extras[0]) or CUDAS[-1]: entry for entry in entries}
        fit = {each.name: line for line, entry in sorted(lines.items(), reverse=True) for each in entry.packages}
        fit |= dict.fromkeys(_ANY_CUDA.get(name, ()), 0)
        there = [each for each in fit if version_of(each)]
        line = lines[cuda]
        found = _versions(there) or f"not installed; for: {line.use}"
        status: Status = "ok" if there else "absent"
        hint = "" if there else getting(*line.extras)
        # What no extra for GPUs brings is not missed, but one that does not fit is told all the same.
        if usable and not (
            any(fit[each] <= cuda for each in there)
            or (name == "nvidia-cuda-nvrtc" and _has_compiler(cuda))
            or (not there and line.extras[0] not in EXTRAS.values())
        ):
            status, hint = "warning", getting(*line.extras)
            found += f"; CUDA {cuda} is the newest that works here" if there else ""
        checks.append(Check("packages", " or ".join(_ANY_CUDA.get(name, (name,))), status, found, hint))
    return checks


def check_tools() -> list[Check]:
    """Compilers on PATH."""
    return [
        Check("programs", name, "ok", found)
        if (found := shutil.which(name))
        else Check("programs", name, "absent", f"not on PATH; for: {use}", hint)
        for name, (use, hint) in TOOLS.items()
    ]


def _import_troubles(modules: Iterable[str]) -> dict[str, str]:
    """Why each of the modules that cannot be imported cannot; one that ends the process ends only that."""
    troubles: dict[str, str] = {}
    left = list(modules)
    while left:
        script = [sys.executable, "-P", "-c", _IMPORT_EACH, *left]
        try:
            said = subprocess.run(script, capture_output=True, text=True, timeout=_IMPORT_LIMIT_S, check=False).stdout
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
        for line in re.findall(r"^import-trouble (\S+) (.*)$", said, re.MULTILINE):
            troubles[line[0]] = line[1]
            left.remove(line[0])
        if left:
            troubles[left.pop(0)] = "it ends the process, or does not end"
    return {name: trouble for name, trouble in troubles.items() if trouble}


def _has_compiler(cuda: int) -> bool:
    """Whether a CUDA toolkit does what the wheel of NVRTC would."""
    from kernels.compilers import find_compiler

    try:
        find_compiler(cuda)
    except ModuleNotFoundError:
        return False
    return True


def usable_cuda(driver: Installed | str, gpus: Sequence[CudaGpu]) -> int | None:
    """The newest CUDA with an extra that runs here; None without a GPU, or with a driver that is too old."""
    if isinstance(driver, str) or not driver.gpus or driver.major < CUDAS[0]:
        return None
    return newest(driver, gpus)


def newest(driver: Installed, gpus: Sequence[CudaGpu] = ()) -> int:
    """The newest CUDA with an extra that a driver and all of its GPUs run; the oldest where there is none."""
    runs = (cuda for cuda in CUDAS if cuda <= driver.major)
    return max(
        (cuda for cuda in runs if all(gpu.capability >= _OLDEST.get(cuda, (0, 0)) for gpu in gpus)), default=CUDAS[0]
    )


def _versions(distributions: Iterable[str]) -> str:
    return ", ".join(f"{each} {found}" for each in distributions if (found := version_of(each)))
