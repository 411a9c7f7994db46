"""Which backends there are: a table for our own, entry points for everybody else's."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points

from backends.base import Backend
from plugins.extras import entries

GROUP = "sut.backends"

BACKENDS = {name: entry.target for name, entry in entries("backend").items()}


def names() -> list[str]:
    """Every backend that can be named, our own first."""
    own = list(BACKENDS)
    return own + sorted({point.name for point in entry_points(group=GROUP)} - set(own))


def load(name: str) -> type[Backend]:
    """The class of a backend. Raises ``ValueError`` for an unknown name, with the nearest right one.

    Its runtime is imported by the class itself when a model is loaded, not here.
    """
    if target := BACKENDS.get(name):
        module, _, attribute = target.partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
    else:
        found = [point for point in entry_points(group=GROUP) if point.name == name]
        if not found:
            near = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"unknown backend '{name}'; {hint}known: {', '.join(names())}")
        loaded = found[0].load()
    if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
        raise ValueError(f"backend '{name}' is {loaded!r}, expected a class derived from backends.base.Backend")
    return loaded
