"""Preprocessors by name: a file here and a line of plugins/extras.txt, or an entry point ``sut.preprocessors``."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points

from plugins.driver import installed_driver
from plugins.errors import DeviceNotFound
from plugins.extras import entries
from preprocess.base import Preprocessor

ENTRY_POINTS = "sut.preprocessors"

PREPROCESSORS = {name: entry.target for name, entry in entries("preprocess").items()}


def names() -> list[str]:
    """Names that ``load`` takes, sorted: the ones of this project and those of installed packages."""
    return sorted({*PREPROCESSORS, *entry_points(group=ENTRY_POINTS).names})


def load(name: str) -> type[Preprocessor]:
    """Import the preprocessor ``name`` and return its class.

    Raises ``ValueError`` for an unknown name, with the nearest known one, and ``ModuleNotFoundError`` for what it needs
    and this machine lacks, with the command that installs it.
    """
    if name in PREPROCESSORS:
        target = PREPROCESSORS[name]
    else:
        found = entry_points(group=ENTRY_POINTS, name=name)
        if not found:
            raise ValueError(_unknown(name))
        target = next(iter(found)).value
    module, _, attribute = target.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        distribution = _distribution(missing)
        raise ModuleNotFoundError(
            f"the preprocessor {name} needs {distribution}: pip install {distribution}", name=error.name
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Preprocessor)):
        raise ValueError(f"the preprocessor {name} is {target}, expected a subclass of preprocess.base.Preprocessor")
    loaded.check_machine()
    return loaded


def _distribution(module: str) -> str:
    """What carries a module, where the two names differ. DALI's fits the CUDA of the driver, if there is one."""
    if module == "cv2":
        return "opencv-python-headless"
    if module != "nvidia":
        return module
    try:
        major = installed_driver().major
    except DeviceNotFound:
        major = None
    return "nvidia-dali-cuda120" if major == 12 else "nvidia-dali-cuda130"


def _unknown(name: str) -> str:
    """One line about a name that is not known: the nearest known one, then all of them."""
    known = names()
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown preprocessor {name!r}: {hint}known: {', '.join(known)}"
