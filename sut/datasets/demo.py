"""The demo photos: eleven pictures of plain ImageNet classes that come with the project."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from sut.datasets.base import DataSet
from sut.datasets.sums import read_sums

DEMO = "demo"
"""The data set's name."""
PHOTOS = Path(__file__).with_name("demo_photos")


def open_demo() -> DataSet:
    """The demo photos in the order of their table ``SOURCES.csv``, with their ImageNet labels (0 to 999) and sums."""
    table_file = PHOTOS / "SOURCES.csv"
    with table_file.open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    labels = np.array([int(row["imagenet_class"]) for row in rows], dtype=np.int32)
    files = tuple(row["file"] for row in rows)
    return DataSet(name=DEMO, root=PHOTOS, files=files, truth=labels, sums=read_sums(table_file, files))
