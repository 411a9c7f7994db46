"""Data sets by the names users know them by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from plugins.registry import plugged
from sut.datasets.albums import ALBUMS, open_albums
from sut.datasets.base import DataSet
from sut.datasets.coco import LAYOUTS, list_of, open_coco
from sut.datasets.demo import DEMO, open_demo
from sut.datasets.folder import open_folder
from sut.datasets.imagenet import CLASSES, LIST_NAME, entries_to_use, open_imagenet
from sut.datasets.rectangles import RECTANGLES, open_rectangles
from sut.datasets.sums import read_sums
from sut.errors import InputError, SetupError
from sut.plugged import load_other

GROUP = "sut.datasets"
"""Entry points of other packages: ``opener(path, list_file, count) -> DataSet``, each argument None if not given."""

IMAGENET_NAMES = ("imagenet", "imagenet_mobilenet", "imagenet_pytorch")
"""MLPerf's reference harness has a name per preprocessing; the files are the same, and here the model knows it."""
_OURS = {DEMO: "imagenet", RECTANGLES: "coco", ALBUMS: "folder"}
"""Those that come with the project, and what a folder of the kind is called."""


def open_dataset(
    name: str | None,
    path: Path | None,
    list_file: Path | None,
    count: int | None,
    pictures: bool = True,
    classes: int = CLASSES,
    layout: str = "imagenet",
    usual: str = DEMO,
) -> DataSet:
    """Open a data set.

    Without a name, a path means ``layout``, or of those with annotations that whose file it has, and no path ``usual``.
    ``list_file`` replaces ``val_map.txt`` or the annotations; ``count`` keeps the first entries. What comes with the
    project takes neither path nor list, a plain folder takes no list. Without ``pictures`` the list alone is needed:
    something else stands in for the files. ImageNet's labels are 0 to ``classes - 1``. Sums that the list has are
    checked whenever a picture is read.

    Raises ``InputError`` for a name, path, list, file of sums or count that does not fit, ``SetupError`` for an entry
    point that cannot be loaded.
    """
    if name is None:
        name = usual if path is None and list_file is None else layout
        if name in LAYOUTS and path is not None:
            name = next((each for each in LAYOUTS if list_of(each, path).exists()), name)
        if (
            name == "imagenet"
            and path is not None
            and list_file is None
            and path.is_dir()
            and not (path / LIST_NAME).exists()
        ):
            raise InputError(
                f"there is no list {path / LIST_NAME}; for pictures without labels add --dataset folder, for "
                f"ImageNet's validation pictures write the list with: ./run_local.sh dataset imagenet {path}"
            )
    if name in _OURS:
        return _open_ours(name, path, list_file, count)
    if name == "folder" or name in IMAGENET_NAMES or name in LAYOUTS:
        if path is None:
            raise InputError(f"data set {name} has no path; give --dataset-path DIR or set DATA_DIR")
        if name in LAYOUTS:
            return open_coco(name, path, list_file, count, pictures)
        if name != "folder":
            listed = open_imagenet(path, list_file, count, classes, pictures)
            return replace(listed, sums=read_sums(list_file or path / LIST_NAME, listed.files)) if pictures else listed
        if list_file is not None:
            raise InputError(f"data set folder takes all pictures in {path}, got {list_file}; use --dataset imagenet")
        return open_folder(path, count)
    opener, called = load_other("data set", name, (*_OURS, "folder", *IMAGENET_NAMES, *LAYOUTS), plugged(GROUP))
    dataset = opener(path, list_file, count)
    if not isinstance(dataset, DataSet):
        raise SetupError(f"{called} gave a {type(dataset).__name__}, expected a DataSet")
    return dataset


def _open_ours(name: str, path: Path | None, list_file: Path | None, count: int | None) -> DataSet:
    if path is not None or list_file is not None:
        raise InputError(
            f"data set {name} comes with the project, got {path or list_file}; use --dataset {_OURS[name]} for it"
        )
    if name == RECTANGLES:
        return open_rectangles(count)
    if name == ALBUMS:
        return open_albums(count)
    demo = open_demo()
    used = entries_to_use(count, demo.count, "the demo data set")
    return replace(demo, files=demo.files[:used], truth=demo.truth[:used])
