"""Sums of pictures: what tells that a file was changed, where a decoder cannot.

Of a damaged JPEG half the pixels may change without a warning. So a list can have a file of sums beside it, named like
it with ``.sums`` behind, a line for each picture: CRC-32, bytes, name. Each picture is checked whenever it is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from plugins.files import LARGE_BYTES, read_file
from sut.errors import InputError, reason_of

_HEAD = "# CRC-32, bytes and name of each picture; made by sut dataset"
_REMEDY = "put it back as it was or, if it is right as it is, write the sums again with ./run_local.sh dataset"


class Sum(NamedTuple):
    """What one file is known by."""

    size: int
    crc32: int


def sum_of(data: bytes) -> Sum:
    """The sum of a file's bytes."""
    return Sum(len(data), zlib.crc32(data))


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of a list's files by their names in it, and where they come from."""

    path: Path
    by_name: Mapping[str, Sum]

    def check(self, name: str, file: Path, data: bytes) -> None:
        """Raise ``InputError`` unless ``data``, which was read from ``file``, has the sum of ``name``."""
        expected, got = self.by_name[name], sum_of(data)
        if got != expected:
            raise InputError(
                f"{file} was changed: got {got.size} bytes with CRC-32 {got.crc32:08x}, expected {expected.size} with "
                f"{expected.crc32:08x} ({self.path}); {_REMEDY}"
            )


def sums_path(list_file: Path) -> Path:
    """Where the sums of a list's files are."""
    return list_file.with_name(f"{list_file.name}.sums")


def sums_text(by_name: Mapping[str, Sum]) -> str:
    """The text of a file of sums."""
    return "".join([_HEAD, "\n", *(f"{crc32:08x} {size} {name}\n" for name, (size, crc32) in by_name.items())])


def read_sums(list_file: Path, names: Iterable[str]) -> Sums | None:
    """The sums of the files ``names`` of a list; None where the list has none.

    Raises ``InputError`` for a file of sums that cannot be read or lacks one of the files.
    """
    path = sums_path(list_file)
    try:
        lines = read_file(path, LARGE_BYTES).decode("utf-8", "surrogateescape").split("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read the sums {path}: {reason_of(error)}") from error
    sums: dict[str, Sum] = {}
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line == _HEAD):
            continue
        try:
            crc32, size, name = line.split(" ", 2)
            sums[name] = Sum(int(size), int(crc32, 16))
        except ValueError:
            raise InputError(
                f"{path} line {number} is no 'CRC-32 bytes name'; write the sums again with ./run_local.sh dataset, or "
                "remove them"
            ) from None
    missing = [name for name in names if name not in sums]
    if missing:
        raise InputError(
            f"{path} does not fit its list {list_file}: it has no sums of {len(missing)} of its pictures, such as "
            f"{missing[0]!r}; write the sums again with ./run_local.sh dataset, or remove them"
        )
    return Sums(path, sums)
