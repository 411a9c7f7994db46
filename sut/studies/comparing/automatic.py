"""What there is to compare for a model where nobody names it: all that works here, and why the rest does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import backends.registry
import preprocess.registry
from plugins.errors import DeviceNotFound
from sut.config import RunConfig
from sut.errors import SutError, one_line
from sut.models.preparation import check_format
from sut.models.registry import find_for
from sut.pipeline.loading import load_backend, load_preprocessor
from sut.studies.comparing.matrix import Cell, cells_of

T = TypeVar("T")

_NOT_REAL = ("null", "simulated")
"""Backends and preprocessors that compute nothing."""


@dataclass(slots=True)
class Available:
    """What can be tried, each kind's default first: backends with their precisions, preprocessors.

    ``absent`` is why others cannot, by name.
    """

    backends: dict[str, list[str]] = field(default_factory=dict)
    preprocessors: list[str] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def available(base: RunConfig) -> Available:
    """What is installed, for the device of ``base``, of what the user leaves open. No model is loaded."""
    found = Available()
    given = base.model_fields_set
    for name in [base.backend] if "backend" in given else _all(base.backend, backends.registry.names()):
        if (precisions := _tried(name, lambda name: _precisions(name, base), found)) is not None:
            found.backends[name] = [base.precision] if "precision" in given else precisions
    alone = "preprocess" in given or not base.times_preprocessing
    for name in [base.preprocess] if alone else _all(base.preprocess, preprocess.registry.names()):
        if _tried(name, load_preprocessor, found) is not None:
            found.preprocessors.append(name)
    return found


def _all(first: str, names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys((first, *names)) if name not in _NOT_REAL]


def _precisions(name: str, base: RunConfig) -> list[str]:
    backend = load_backend(name)
    backend.version()
    for device in base.devices:
        backend.check_device(device)
    if base.is_file:
        check_format(base, Path(base.model), backend)
    else:
        find_for(base.model, backend.reads)
    return list(backend.precisions_on(base.devices[0]))


def _tried(name: str, load: Callable[[str], T], found: Available) -> T | None:
    """What ``load`` gives for a name; None where it raises, which is then why the name is absent."""
    try:
        return load(name)
    except (SutError, ModuleNotFoundError, DeviceNotFound) as error:
        found.absent[name] = one_line(error)
    except Exception as error:  # another package's code may raise anything
        found.absent[name] = f"{type(error).__name__}: {one_line(error)}"
    return None


def cells_to_try(found: Available, base: RunConfig) -> list[Cell]:
    """Every backend in each of its precisions with every preprocessor."""
    axes: dict[str, list[Any]] = {
        "backend": list(found.backends),
        "precision": list(dict.fromkeys(each for precisions in found.backends.values() for each in precisions)),
        "preprocess": found.preprocessors,
    }
    return [each for each in cells_of(axes, base) if each.config.precision in found.backends[each.config.backend]]


def put_off(cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The cells with the first preprocessor, and all others, which can wait.

    What a preprocessor takes does not depend on what runs the model: the best with one is the best with another.
    """
    first = cells[0].config.preprocess
    now = [each for each in cells if each.config.preprocess == first]
    return now, [each for each in cells if each.config.preprocess != first]


def like(leader: Cell, cells: Sequence[Cell]) -> list[Cell]:
    """Those that differ from ``leader`` by the preprocessor only."""
    same = {key: value for key, value in leader.settings.items() if key != "preprocess"}
    return [each for each in cells if same.items() <= each.settings.items()]
