"""The table of what is chosen by its name, ``extras.txt``: where each is, its packages, and what installs them.

Standard library only: setup.py and the set-up read it before anything is installed, the doctor when things are broken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).with_name("extras.txt")
_PACKAGE = re.compile(r"(([\w.-]+)\S*)(?: \(([\w.]+)\))?")
_CALLED = {"preprocess": "preprocessor", "precision": "--precision"}


@dataclass(frozen=True, slots=True)
class Package:
    """A requirement as pip reads it, the distribution it names, and what doctor imports of it, empty for nothing."""

    requirement: str
    name: str
    module: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table, which says what its columns are.

    ``target`` is the class of a plug-in as ``module:Class``, else empty. ``extras`` are all that it may need, whatever
    the machine has.
    """

    kind: str
    name: str
    target: str
    extras: tuple[str, ...]
    set_up: str
    packages: tuple[Package, ...]
    use: str


def read(path: Path = PATH) -> tuple[Entry, ...]:
    """The lines of a table, in its order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(_entry(line) for line in lines if line and not line.startswith("#"))


def _entry(line: str) -> Entry:
    columns, _, use = line.partition(" # ")
    # Columns at the end may be left out; one that holds nothing is a dash.
    words = ["" if word == "-" else word for word in columns.split(maxsplit=6)]
    kind, name, target, extras, set_up, _, packages = words + [""] * (7 - len(words))
    return Entry(
        kind,
        name,
        target,
        tuple(dict.fromkeys(word for word in re.split("[,/]", extras) if word not in ("", "-"))),
        set_up,
        tuple(Package(*found) for found in _PACKAGE.findall(packages)),
        use or f"{_CALLED.get(kind, kind)} {name}",
    )


TABLE = read()


def entries(kind: str) -> dict[str, Entry]:
    """The lines of a kind (``backend``, ``preprocess``, ``model``, ``precision``, ``score`` ...) by their names."""
    return {entry.name: entry for entry in TABLE if entry.kind == kind}


def names(kind: str) -> list[str]:
    """The names of a kind, in the table's order."""
    return list(entries(kind))


def packages(extra: str = "") -> list[Package]:
    """What an extra brings, or the project itself."""
    lines = (entry for entry in TABLE if (extra in entry.extras if extra else entry.set_up == "always"))
    return [package for entry in lines for package in entry.packages]


def requirements(extra: str = "") -> list[str]:
    """The same as pip reads it."""
    return [package.requirement for package in packages(extra)]
