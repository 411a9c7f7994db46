"""Plug-ins by name: a table for our own, entry points for everybody else's."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def suggest(got: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest right one, then all of them.

    >>> suggest("onnxruntme", ["null", "onnxruntime"])
    'did you mean onnxruntime? known: null, onnxruntime'
    """
    known = sorted(choices)
    return nearest(got, known) + "known: " + ", ".join(known)


def nearest(got: str, choices: Iterable[str]) -> str:
    """The choice that was meant, as a question; empty where none is near."""
    near = difflib.get_close_matches(got.lower(), choices, n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""


def plugged(group: str) -> dict[str, EntryPoint]:
    """What installed packages bring, by name: the entry points of ``group``."""
    return {point.name: point for point in entry_points(group=group)}


def find(kind: str, name: str, own: Iterable[str], others: Mapping[str, EntryPoint]) -> EntryPoint:
    """The one of ``others`` that is called ``name``; ``own`` are the names that there are besides.

    Raises ``ValueError`` for an unknown name, with the nearest right one.
    """
    if name not in others:
        raise ValueError(f"unknown {kind} {name!r}; {suggest(name, {*own, *others})}")
    return others[name]


def load_class(kind: str, name: str, own: Mapping[str, str], group: str, base: type[Any]) -> Any:
    """The class of a plug-in: one of ``own``, each written as an entry point is (``module:Class``), or of ``group``.

    Raises ``ValueError`` for an unknown name and for what is not derived from ``base``, and whatever importing raises.
    """
    point = EntryPoint(name, own[name], group) if name in own else find(kind, name, own, plugged(group))
    loaded = point.load()
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        expected = f"a class derived from {base.__module__}.{base.__name__}"
        raise ValueError(f"the {kind} {name} is {point.value}, expected {expected}")
    return loaded
