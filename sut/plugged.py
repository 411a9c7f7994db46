"""What other packages bring besides backends and preprocessors: models, tasks, data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from typing import Any

from plugins.registry import find
from sut.errors import InputError, SetupError, one_line


def load_other(kind: str, name: str, own: Iterable[str], others: Mapping[str, EntryPoint]) -> tuple[Any, str]:
    """What the one of ``others`` called ``name`` stands for, and how messages call it.

    ``own`` are the names that there are besides. Raises ``InputError`` for an unknown name, ``SetupError`` for what
    cannot be loaded.
    """
    try:
        point = find(kind, name, own, others)
    except ValueError as error:
        raise InputError(str(error)) from error
    called = f"{kind} {point.name} ({point.value})"
    try:
        return point.load(), called
    except Exception as error:  # another package's code may raise anything
        raise SetupError(f"{called} cannot be loaded: {one_line(error)}") from error
