"""What pictures turn out to be when they are loaded: how large they may unfold, which are equal, which turn dark."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from preprocess.parts.decode import MOST_BYTES, turns_dark
from preprocess.parts.header import COPIES
from sut.datasets.base import DataSet
from sut.datasets.sums import Sum, sum_of
from sut.process.cgroup import free_memory

MOST_EQUAL = 0.01
"""A larger share of pictures that are equal to others is no data set of MLPerf's: ImageNet has next to none."""


def most_bytes(threads: int) -> int:
    """Bytes that a picture may unfold to while so many threads decode one each, by the memory that is free now."""
    free = free_memory(Path("/"))
    return MOST_BYTES if free is None else min(MOST_BYTES, free // (threads * COPIES))


class Known(NamedTuple):
    """What is known of one picture: its sum, or where nobody knows it that of its tensor; whether it turns dark."""

    content: Sum
    dark: bool = False


class Seen:
    """What is known of the pictures of a data set that were loaded. Used by several threads, for different samples."""

    def __init__(self, dataset: DataSet) -> None:
        self._dataset = dataset
        self.known: dict[int, Known] = {}

    def read(self, index: int, data: bytes) -> None:
        """Take in a picture that was read and is known to be whole."""
        sums = self._dataset.sums  # which has been compared with it
        content = sums.by_name[self._dataset.files[index]] if sums else sum_of(data)
        self.known[index] = Known(content, turns_dark(data))

    def equal(self) -> list[str]:
        """How many are equal to others, by their content, where that is more than ``MOST_EQUAL``."""
        count, different = len(self.known), len({picture.content for picture in self.known.values()})
        if count - different <= MOST_EQUAL * count:
            return []
        share = 100 * (count - different) / count
        return [f"{count - different:,} of {count:,} pictures that were loaded are equal to others ({share:.3g} %)"]

    def notes(self) -> list[str]:
        """What a reader of the result must know of them."""
        dark = [index for index, picture in self.known.items() if picture.dark]
        if not dark:
            return self.equal()
        first = self._dataset.files[min(dark)]
        note = (
            f"{len(dark):,} pictures of 16 bits use 12 or fewer, such as {first}: OpenCV keeps the upper 8, so "
            "they are nearly black"
        )
        return [*self.equal(), note]
