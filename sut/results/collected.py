"""Results that lie about: every result.json below some folders, read with care, and what others left there."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import from_json

from plugins.files import SMALL_BYTES, read_file
from sut.errors import one_line
from sut.mlperf.logs import DETAIL
from sut.mlperf.reference_results import REFERENCE_FILE
from sut.results.consistency import contradictions
from sut.results.schema import COMPARISON, FILE, STUDY, Result
from sut.text import shortened

_MOST_BYTES = 16 * SMALL_BYTES
"""Of a result: its lists are cut, and what a person writes into its config is no more than ``SMALL_BYTES``."""
_EARLIER = re.compile(r".+\.\d{8}T\d{6}(-\d+)?")
"""Names that a run gives to what it finds in its place."""
_OTHERS = (REFERENCE_FILE, DETAIL)


@dataclass(frozen=True, slots=True)
class Found:
    """One result, and the file that it was read from."""

    path: Path
    result: Result


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is not shown, and why not."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Collected:
    """What lies below some folders, by path.

    ``others``: folders without a result.json that have the reference harness's results.json or a log of LoadGen's.
    ``earlier``: how many folders of earlier results were left out. ``comparisons`` and ``studies``: the files named
    compare.json and study.json.
    """

    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]
    others: tuple[Path, ...] = ()
    earlier: int = 0
    comparisons: tuple[Path, ...] = ()
    studies: tuple[Path, ...] = ()


def collect(paths: Sequence[Path], earlier: bool = False) -> Collected:
    """Every result.json below ``paths``, or named by them, each once; what is no sound result is skipped, never fatal.

    Folders behind links are looked into, those with a dot before their name are not; and without ``earlier`` neither
    are folders that a later run has renamed to ``<name>.<started>``, unless they are named themselves.
    """
    walk = _Walk(earlier)
    for path in paths:
        walk.visit(path)
    found: list[Found] = []
    for path in walk.results:
        try:
            found.append(Found(path, read_result(path)))
        except ValueError as error:
            walk.skipped.append(Skipped(path, one_line(error)))
    skipped = sorted(walk.skipped, key=lambda each: each.path)
    return Collected(
        tuple(sorted(found, key=lambda each: each.path)),
        tuple(skipped),
        tuple(sorted(walk.others)),
        walk.earlier,
        tuple(sorted(walk.comparisons)),
        tuple(sorted(walk.studies)),
    )


def read_result(path: Path) -> Result:
    """The result in a file. Raises ``ValueError`` with the reason, without the path, where it is not a sound one.

    That is a file of another kind, half of one, one of another schema, and one that somebody has edited: with a value
    of another type, a field that is unknown, or figures that contradict each other.
    """
    try:
        text = read_file(path, _MOST_BYTES)
        content = from_json(text, allow_inf_nan=False)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or one_line(error)})") from error
    except ValueError as error:
        raise ValueError(f"no whole JSON file: {one_line(error)}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema is None:
        raise ValueError("no result of a run: it has no 'schema'")
    if schema != 1 or isinstance(schema, bool):
        raise ValueError(
            f"it has schema {shortened(json.dumps(schema))}, expected 1; read it with the version that wrote it"
        )
    try:
        result = Result.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(_unfit(error)) from error
    try:
        contradiction = next(contradictions(result), None)
    except OverflowError:
        contradiction = "a number is beyond all bounds"
    if contradiction:
        raise ValueError(f"edited, or no run's: {contradiction}")
    return result


def _unfit(error: ValidationError) -> str:
    """The first value that does not fit, in words."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"unknown field '{shortened(name)}': it is edited, or of a newer version"
    if first["type"] == "missing":
        return f"no whole result: it has no '{name}'"
    return f"{shortened(name)}: {first['msg']}, got {shortened(repr(first['input']))}"


@dataclass(slots=True)
class _Walk:
    """Goes through folders, each once, and notes what lies there."""

    with_earlier: bool
    results: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    comparisons: list[Path] = field(default_factory=list)
    studies: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    earlier: int = 0
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def visit(self, path: Path) -> None:
        """A folder with all below it, or a file, whatever its name is."""
        below = [path]
        while below:
            folder = below.pop()
            with self._skipping(folder):
                if stat.S_ISDIR(folder.stat().st_mode):
                    below += self._enter(folder)
                elif folder.name in _OTHERS:
                    self.others.append(folder.parent)
                else:
                    self._result(folder)

    @contextmanager
    def _skipping(self, path: Path) -> Iterator[None]:
        """Skips what cannot be read within the ``with``."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            self.skipped.append(Skipped(path, f"cannot be read ({reason})"))

    def _enter(self, folder: Path) -> list[Path]:
        """Note what lies in a folder. Returns the folders in it that are to be entered."""
        if not self._is_new(folder):
            return []
        with os.scandir(folder) as entries:
            names = {entry.name: _leads_to_folder(entry) for entry in entries}
        if FILE in names:
            self._result(folder / FILE)
        elif any(name in names for name in _OTHERS):
            self.others.append(folder)
        if names.get(COMPARISON) is False:
            self.comparisons.append(folder / COMPARISON)
        if names.get(STUDY) is False:
            self.studies.append(folder / STUDY)
        inside = [name for name, is_folder in names.items() if is_folder and not name.startswith(".") and name != FILE]
        kept = [name for name in inside if self.with_earlier or not _EARLIER.fullmatch(name)]
        self.earlier += len(inside) - len(kept)
        return [folder / name for name in kept]

    def _result(self, path: Path) -> None:
        with self._skipping(path):
            if self._is_new(path):
                self.results.append(path)

    def _is_new(self, path: Path) -> bool:
        status = path.stat()
        before = len(self._seen)
        self._seen.add((status.st_dev, status.st_ino))
        return len(self._seen) > before


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
