"""The packages that this project stands on, by name and module, and the checkout that it runs from."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from plugins.extras import TABLE

MODULES = {each.name: each.module for entry in TABLE for each in entry.packages if each.module}
"""What the packages are imported as whose import takes no seconds, by their names; ONNX Runtime is tried later."""
SUBSTITUTES = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "onnxruntime": ("onnxruntime-gpu",),
    "tensorrt-rtx-cu13-bindings": ("tensorrt-cu13", "tensorrt-cu12"),
}
"""Distributions that bring the same module as a package of ours, or one that takes its place."""
CHECKOUT = Path(__file__).resolve().parents[1]
"""What lies beside this package: the folder that everything is run from, or is installed to."""
IS_CHECKOUT = (CHECKOUT / "setup.py").is_file()
OWN_NAMES = ("sut", "backends", "preprocess", "kernels", "plugins")
"""What of it is this project's."""
REINSTALL = "pip install --force-reinstall"


def package_of(module: str) -> str:
    """The package that a module comes with, which is mostly called alike."""
    return next((package for package, found in MODULES.items() if found == module), module)


def is_installed(module: str) -> bool:
    """Whether ``module`` is there to be imported, which it is not for this."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is not there
        return False


def beside(package: str) -> list[str]:
    """A package and its substitutes where more than one is in a folder, and they write the same module; else none."""
    found: dict[str, list[str]] = {}
    for name in (package, *SUBSTITUTES[package]):
        with suppress(PackageNotFoundError):
            found.setdefault(str(distribution(name).locate_file("")), []).append(name)
    return next((names for names in found.values() if len(names) > 1), [])
