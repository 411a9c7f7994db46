"""Preprocessors by name: a file here and a line of plugins/extras.txt, or an entry point ``sut.preprocessors``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugins.driver import installed_driver
from plugins.errors import DeviceNotFound
from plugins.extras import entries
from plugins.packages import package_of
from plugins.registry import load_class, plugged
from preprocess.base import Preprocessor

GROUP = "sut.preprocessors"

PREPROCESSORS = {name: entry.target for name, entry in entries("preprocess").items()}


def names() -> list[str]:
    """Names that ``load`` takes, sorted: the ones of this project and those of installed packages."""
    return sorted({*PREPROCESSORS, *plugged(GROUP)})


def load(name: str, options: Mapping[str, Any] = {}) -> type[Preprocessor]:
    """Import the preprocessor ``name`` and return its class.

    Raises ``ValueError`` for an unknown name, with the nearest known one, and for what is wrong with ``options``; then
    ``ModuleNotFoundError`` for what it needs and this machine lacks, with the command that installs it.
    """
    try:
        loaded: type[Preprocessor] = load_class("preprocessor", name, PREPROCESSORS, GROUP, Preprocessor)
    except ModuleNotFoundError as error:
        distribution = _distribution((error.name or name).partition(".")[0])
        raise ModuleNotFoundError(
            f"the preprocessor {name} needs {distribution}: pip install {distribution}", name=error.name
        ) from error
    loaded.read_options(options)
    loaded.check_machine()
    return loaded


def _distribution(module: str) -> str:
    """What carries a module, where the two names differ. DALI's fits the CUDA of the driver, if there is one."""
    if module != "nvidia":
        return package_of(module)
    try:
        major = installed_driver().major
    except DeviceNotFound:
        major = None
    return "nvidia-dali-cuda120" if major == 12 else "nvidia-dali-cuda130"
