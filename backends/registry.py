"""Which backends there are: a table for our own, entry points for everybody else's."""

from __future__ import annotations

from backends.base import Backend
from plugins.extras import entries
from plugins.registry import load_class, plugged

GROUP = "sut.backends"

BACKENDS = {name: entry.target for name, entry in entries("backend").items()}


def names() -> list[str]:
    """Every backend that can be named, our own first."""
    return [*BACKENDS, *sorted(plugged(GROUP).keys() - BACKENDS.keys())]


def load(name: str) -> type[Backend]:
    """The class of a backend. Raises ``ValueError`` for an unknown name, with the nearest right one.

    Its runtime is imported by the class itself when a model is loaded, not here.
    """
    loaded: type[Backend] = load_class("backend", name, BACKENDS, GROUP, Backend)
    return loaded
