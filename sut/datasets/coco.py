"""COCO's layout and that of MLPerf's OpenImages: an annotation file beside the folder of its pictures.

And MLPerf's subset of COCO, for YOLO: the pictures of 2017's validation set whose licence lets MLCommons hand them out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sut.datasets.annotations import Annotations, read_annotations
from sut.datasets.base import DataSet
from sut.datasets.imagenet import check_files, check_root, entries_to_use
from sut.datasets.sums import read_sums

SAFE_LIST = "annotations/instances_val2017_safe.json"
"""What MLPerf's ``yolo/create_safe_annotations.py`` calls the annotations of its subset."""
SAFE_PICTURES = 1525
"""In that, by MLPerf's word."""
_SAFE_LICENCES = (
    *("creativecommons.org/licenses/by/", "creativecommons.org/licenses/by-sa/", "creativecommons.org/licenses/by-nd"),
    *("flickr.com/commons/usage", "www.usa.gov"),
)
"""What the address of a licence has in it that is kept, by the same script: attribution, share alike, no derivatives,
no known restrictions, works of the government."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a data set's annotations and pictures may lie, below its folder: the first that is there counts."""

    lists: tuple[str, ...]
    folders: tuple[str, ...]


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "coco": Layout(("annotations/instances_val2017.json", SAFE_LIST), ("val2017/", "val2017_safe/", "")),
        "openimages": Layout(("annotations/openimages-mlperf.json",), ("validation/data/", "")),
    }
)
"""By name, as MLPerf's reference harness has them."""


def open_coco(name: str, root: Path, list_file: Path | None, count: int | None, pictures: bool = True) -> DataSet:
    """Open a folder in one of ``LAYOUTS``; ``list_file`` names other annotations. ``truth`` is a ``BoxTruth``.

    Sample i is picture i of the annotations' ``images``. ``count`` keeps the first ones only; the whole file must be
    right all the same. Raises ``InputError`` for a folder, file or count that does not fit, and unless all ``pictures``
    that are used are there: MLPerf's reference leaves out those that are not, which shifts the others.
    """
    check_root(root, "expected the folder that holds the pictures and their annotations")
    path = list_file or list_of(name, root)
    annotations = read_annotations(path)
    used, listed = entries_to_use(count, len(annotations.names), str(path)), len(annotations.names)
    annotations = annotations.first(used)
    files = located(name, root, annotations)
    if pictures:
        check_files(root, [(file, f"images[{at}]") for at, file in enumerate(files)], path)
    sums = read_sums(path, files) if pictures else None
    return DataSet(name, root, files, annotations.truth, sums, annotations.truth.sizes, used == listed)


def list_of(name: str, root: Path) -> Path:
    """The annotations of a data set, or where they are expected."""
    lists = [root / each for each in LAYOUTS[name].lists]
    return next((path for path in lists if path.exists()), lists[0])


def located(name: str, root: Path, annotations: Annotations) -> tuple[str, ...]:
    """The pictures' paths below ``root``: in the first of the layout's folders that has the first, or is there."""
    folders = LAYOUTS[name].folders
    having = (folder for folder in folders if os.path.lexists(f"{root}/{folder}{annotations.names[0]}"))
    there = (folder for folder in folders if (root / folder).is_dir())
    folder = next(having, next(there, ""))
    return tuple(f"{folder}{each}" for each in annotations.names)


def safe_part(annotations: Annotations) -> dict[str, Any]:
    """The part of the annotations that is of MLPerf's subset, in its order.

    Pictures are kept by the ``url`` of their ``license``, an id in the file's ``licenses``.
    """
    content = annotations.content
    licences = content.get("licenses")
    safe = {
        _known(each.get("id"))
        for each in (licences if isinstance(licences, list) else ())
        if isinstance(each, dict) and any(part in str(each.get("url")).lower() for part in _SAFE_LICENCES)
    }
    images = [each for each in content["images"] if _known(each.get("license")) in safe - {None}]
    kept = {each["id"] for each in images}
    return {**content, "images": images, "annotations": [e for e in content["annotations"] if e["image_id"] in kept]}


def _known(licence: object) -> int | None:
    return licence if isinstance(licence, int) else None
