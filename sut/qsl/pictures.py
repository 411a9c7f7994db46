"""What pictures turn out to be: whole or damaged, how large they may unfold, which are equal, which turn dark."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from plugins.files import LARGE_BYTES, open_file, read_file
from preprocess.parts.decode import MOST_BYTES, check, decode, turns_dark
from preprocess.parts.header import COPIES, read_header
from sut.datasets.base import DataSet
from sut.datasets.imagenet import locate, picture_names
from sut.datasets.sums import Sum, sum_of
from sut.errors import one_line
from sut.process.cgroup import free_memory, usable_cores

MOST_EQUAL = 0.01
"""A larger share of pictures that are equal to others is no data set of MLPerf's: ImageNet has next to none."""
_CHUNK = 500
_MAY_TURN = re.compile(rb"Exif|eXIf|EXIF|\AII\*|\AMM\0|\A.{4}ftyp", re.DOTALL)
_SEARCHED = 65536
"""Bytes in which a JPEG's EXIF lies."""
_END_WITHIN = 64
"""A JPEG's end marker may be followed by a few bytes that writers pad with."""

Track = Callable[[Iterable[Any], int], Iterable[Any]]
"""Hands on so many chunks of work, and may show how far they are."""


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
        self._otherwise: dict[int, tuple[int, int]] = {}

    def read(self, index: int, data: bytes) -> None:
        """Take in a picture that was read and is known to be whole."""
        sums = self._dataset.sums  # which has been compared with it
        content = sums.by_name[self._dataset.files[index]] if sums else sum_of(data)
        self.known[index] = Known(content, turns_dark(data))
        sizes = self._dataset.sizes
        if sizes is not None and (size := size_of(data)) != sizes[index]:
            self._otherwise[index] = size

    def equal(self) -> list[str]:
        """How many are equal to others, by their content, where that is more than ``MOST_EQUAL``."""
        count, different = len(self.known), len({picture.content for picture in self.known.values()})
        if count - different <= MOST_EQUAL * count:
            return []
        share = 100 * (count - different) / count
        return [f"{count - different:,} of {count:,} pictures that were loaded are equal to others ({share:.3g} %)"]

    def notes(self) -> list[str]:
        """What a reader of the result must know of them."""
        return [*self.equal(), *self._dark(), *self._wrong_sizes()]

    def _dark(self) -> list[str]:
        dark = [index for index, picture in self.known.items() if picture.dark]
        if not dark:
            return []
        first = self._dataset.files[min(dark)]
        note = (
            f"{len(dark):,} pictures of 16 bits use 12 or fewer, such as {first}: OpenCV keeps the upper 8, so "
            "they are nearly black"
        )
        return [note]

    def _wrong_sizes(self) -> list[str]:
        if not self._otherwise or self._dataset.sizes is None:
            return []
        first = min(self._otherwise)
        (width, height), (said_width, said_height) = self._otherwise[first], self._dataset.sizes[first]
        return [
            f"{len(self._otherwise):,} pictures have another size than their annotations say, such as "
            f"{self._dataset.files[first]}, which is {width} x {height} and not {said_width} x {said_height}: boxes "
            "are scored in the wrong place"
        ]


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a whole picture as it is shown. Decodes it where EXIF may turn it."""
    header = read_header(data)
    if header is None or _MAY_TURN.search(data, 0, _SEARCHED):
        height, width = decode(data).shape[:2]
        return width, height
    return header.width, header.height


@dataclass(frozen=True, slots=True)
class Inspected:
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


def inspect_pictures(folder: Path, sums: bool, track: Track) -> Inspected:
    """Look for every picture and into each: not empty, readable, a JPEG from its first bytes to its last.

    With ``sums`` all bytes are read.
    """
    there = locate(folder)
    wanted = list(picture_names())
    files = {name: there[name] for name in wanted if name in there}
    damaged, taken = examine_all(folder, list(files.values()), sums, track)
    return Inspected(files, [name for name in wanted if name not in there], damaged, taken)


def examine_all(
    folder: Path,
    paths: Sequence[str],
    sums: bool,
    track: Track,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> tuple[dict[str, str], dict[str, Sum]]:
    """What is wrong with the damaged ones, and the sums of the others where they are wanted.

    Where ``sizes`` are given, so is a picture of another width and height; that is looked at where sums are wanted.
    """
    wanted = list(zip_longest(paths, sizes or ()))
    chunks = [wanted[at : at + _CHUNK] for at in range(0, len(wanted), _CHUNK)]
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="check") as pool:
        checked = pool.map(
            lambda chunk: [(path, _examine(f"{folder}/{path}", sums, size)) for path, size in chunk], chunks
        )
        found = [each for chunk in track(checked, len(chunks)) for each in chunk]
    damaged = {path: what for path, what in found if isinstance(what, str)}
    return damaged, {path: what for path, what in found if isinstance(what, Sum)}


def _examine(path: str, sums: bool, size: tuple[int, int] | None) -> str | Sum | None:
    """What is wrong with one picture, or its sum where that is wanted."""
    try:
        with open_file(path) as file:
            start = file.read(-1 if sums else 3)
            if not start:
                return "empty"
            file.seek(-min(_END_WITHIN, os.fstat(file.fileno()).st_size), os.SEEK_END)
            if not (start.startswith(b"\xff\xd8\xff") and b"\xff\xd9" in file.read()):
                check(read_file(path, LARGE_BYTES), most_bytes(usable_cores()))
            if not sums:
                return None
            if size is not None and (found := size_of(start)) != size:
                return f"is {found[0]} x {found[1]}, annotated as {size[0]} x {size[1]}"
            return sum_of(start)
    except OSError as error:
        return (error.strerror or one_line(error)).lower()
    except ValueError as error:
        return one_line(error)
