"""A plain folder of pictures: something to measure speed with, and no labels."""

from __future__ import annotations

import os
from pathlib import Path

from sut.datasets.base import DataSet
from sut.datasets.imagenet import check_root, entries_to_use
from sut.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""What counts as a picture, in upper or lower case."""


def open_folder(root: Path, count: int | None) -> DataSet:
    """All pictures in ``root`` and the folders below it, sorted by their path; ``count`` keeps the first of them.

    Files are told by their ending; hidden ones (their name starts with a dot) are left out, links to folders are not
    followed. What is inside the files is found out when they are loaded.

    Raises ``InputError`` for a folder that is not there or has no pictures, and for a count that does not fit.
    """
    check_root(root, "expected a folder that holds pictures")
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(folder, root)
        pictures = (name for name in names if name.lower().endswith(EXTENSIONS) and not name.startswith("."))
        found += [name if below == "." else f"{below}/{name}" for name in pictures]
    if not found:
        kinds = " ".join(extension[1:] for extension in EXTENSIONS)
        raise InputError(f"data set path {root} has no pictures; expected files of the kinds {kinds} in or below it")
    found.sort()
    used = entries_to_use(count, len(found), str(root))
    return DataSet(name="folder", root=root, files=tuple(found[:used]), truth=None)
