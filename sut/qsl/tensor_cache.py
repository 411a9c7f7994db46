"""The tensor cache: preprocessed samples on disk, so that the second start need not preprocess.

One file per data set folder, recipe, preprocessor and version of both, code included. It is a header block and one slot
per sample, in the data set's order:

    header:  magic, SHA-256 of the key, bytes of a row, CRC-32 of these
    slot:    record (see ``_RECORD``) in a block of its own, then the row, padded to whole blocks

A row belongs to a picture's *name, size, modification and change time*: that is what make and rsync go by, and it costs
one ``stat`` where a hash of the content would read every picture, which the cache is there to avoid. The change time,
which programs cannot set, also catches a file replaced by one of the same size and date.

Nothing here needs to be finished to be safe. A row is written before its record, and the record carries the CRC-32 of
the row and of itself: what a killed run, a power cut, a full disk or a second run left half-written does not match and
is made again. Two runs at once write the same bytes to the same places; where they do not, because a picture changed
between them, the checksum tells. A reader checks its own copy, never the file. Files only grow, so that no mapping ever
loses its pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterable
from dataclasses import asdict, astuple
from functools import partial
from inspect import getfile
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import preprocess
from plugins.cache import make_private
from plugins.files import lock, open_own, whole_file
from preprocess.base import Geometry, Preprocessor, Recipe
from sut.datasets.base import DataSet
from sut.datasets.sums import Sum
from sut.errors import InputError, refusing
from sut.files import cache_dir
from sut.qsl.pictures import Known
from sut.qsl.tensor_store import TensorStore

_MAGIC = b"SUT tensors 2\n\0\0"
_BLOCK = 4096
_HEADER = struct.Struct("<16s32sqI")
_IDENTITY = struct.Struct("<16sqqq")
"""Hash of the file's name; its size in bytes, modification and change time in ns."""
_RECORD = struct.Struct(f"<{_IDENTITY.size}s2q4dqI?II")
"""Identity, ``Geometry``, the picture's ``Sum``, whether it turns dark, CRC-32 of the row, CRC-32 of all before it."""
_SPARE_BYTES = 64 * 2**20
"""Left free on the disk: LoadGen's logs may go there too."""


def default_folder() -> Path:
    """Where tensors are cached unless the user says where."""
    return cache_dir() / "tensors"


class TensorCache(TensorStore):
    """The tensors of one data set, made by one preprocessor for one recipe, in one file that is memory-mapped."""

    def __init__(self, chosen: Path | None, dataset: DataSet, recipe: Recipe, preprocessor: type[Preprocessor]) -> None:
        """Open the file in the folder ``chosen``, or in ``default_folder``, which is made for us alone, or make it.

        Whatever is not right about a file that is there is replaced. Raises ``InputError`` where the folder or file
        cannot be written.
        """
        self._folder = folder = chosen or default_folder()
        remedy = "; make it a folder with room that can be written, choose another --cache_dir or leave out --cache"
        self._keeping = partial(refusing, f"cannot keep tensors in {folder}", remedy)
        self._dataset = dataset
        self._row_bytes = int(np.prod(recipe.sample_shape)) * np.dtype(recipe.dtype).itemsize
        self._slot_bytes = _BLOCK + -(-self._row_bytes // _BLOCK) * _BLOCK
        self._pending: dict[int, bytes] = {}
        key = _key(dataset, recipe, preprocessor)
        path = folder / f"{recipe.name}-{preprocessor.name}-{key.hex()[:16]}.tensors"
        self.name = f"the tensor cache {path}"
        head = _HEADER.pack(_MAGIC, key, self._row_bytes, 0)
        head = head[:-4] + struct.pack("<I", zlib.crc32(head[:-4]))
        size = _BLOCK + dataset.count * self._slot_bytes
        with self._keeping():
            if chosen:
                folder.mkdir(parents=True, exist_ok=True)
            else:
                make_private(folder)
            with open_own(folder / ".lock", os.O_CREAT) as held:  # while a file is made or grows
                lock(held.fileno())
                self._file = _open(path, head, size)
            self._map: NDArray[np.uint8] = np.memmap(self._file, np.uint8, "r", shape=(size,))

    def prepare(self, indices: Iterable[int]) -> None:
        """Raise ``InputError`` where the disk has no room for those of the samples that are not there yet."""
        needed = self._slot_bytes * sum(not self._has(index) for index in indices)
        free = shutil.disk_usage(self._folder).free
        if needed and needed + _SPARE_BYTES > free:
            raise InputError(
                f"{self._folder}: {free / 2**20:.0f} MiB free, {(needed + _SPARE_BYTES) / 2**20:.0f} MiB needed for "
                "the tensor cache; make room, choose another --cache_dir or leave out --cache"
            )

    def take(self, index: int, row: NDArray[Any]) -> tuple[Geometry, Known] | None:
        """See ``TensorStore``. Raises ``OSError`` for a picture that is not there any more."""
        identity = self._identity(index)
        if (found := self._find(index, identity)) is not None:
            geometry, picture, checksum = found
            start = self._slot(index) + _BLOCK
            copy = _bytes_of(row)
            copy[...] = self._map[start : start + self._row_bytes]
            if zlib.crc32(copy.data) == checksum:
                return geometry, picture
        self._pending[index] = identity
        return None

    def keep(self, index: int, row: NDArray[Any], geometry: Geometry, picture: Known) -> None:
        """See ``TensorStore``. The row goes first: a record without its row would be found out, but only by its CRC."""
        data = _bytes_of(row).data
        known = (*picture.content, picture.dark)
        record = _RECORD.pack(self._pending.pop(index), *astuple(geometry), *known, zlib.crc32(data), 0)
        record = record[:-4] + struct.pack("<I", zlib.crc32(record[:-4]))
        with self._keeping():
            self._write(data, self._slot(index) + _BLOCK)
            self._write(memoryview(record), self._slot(index))

    def close(self) -> None:
        """Close the file; its mapping goes with the object."""
        self._file.close()

    def _slot(self, index: int) -> int:
        return _BLOCK + index * self._slot_bytes

    def _has(self, index: int) -> bool:
        """Whether the sample has a record. A picture that cannot be found is for ``take`` to complain about."""
        try:
            return self._find(index, self._identity(index)) is not None
        except OSError:
            return False

    def _identity(self, index: int) -> bytes:
        name = self._dataset.files[index]
        status = os.stat(f"{self._dataset.root}/{name}")  # noqa: PTH116 - pathlib costs more than the call
        hashed = hashlib.blake2b(os.fsencode(name), digest_size=16).digest()
        return _IDENTITY.pack(hashed, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def _find(self, index: int, identity: bytes) -> tuple[Geometry, Known, int] | None:
        """Geometry, picture and checksum of a sample whose record is whole and that of ``identity``."""
        record = os.pread(self._file.fileno(), _RECORD.size, self._slot(index))
        if len(record) < _RECORD.size or not record.startswith(identity):
            return None
        _, width, height, scale_x, scale_y, left, top, size, crc32, dark, checksum, check = _RECORD.unpack(record)
        if zlib.crc32(record[:-4]) != check:
            return None
        return Geometry(width, height, scale_x, scale_y, left, top), Known(Sum(size, crc32), dark), checksum

    def _write(self, data: memoryview, at: int) -> None:
        """Write all of ``data``: through the descriptor, as a full disk kills whoever writes through a mapping."""
        while data:
            written = os.pwrite(self._file.fileno(), data, at)
            data, at = data[written:], at + written


def _bytes_of(row: NDArray[Any]) -> NDArray[np.uint8]:
    """The memory of a C-contiguous array, which is not copied."""
    return row.reshape(-1).view(np.uint8)


def _key(dataset: DataSet, recipe: Recipe, preprocessor: type[Preprocessor]) -> bytes:
    """What all tensors of a file have in common, hashed: 32 bytes."""
    facts = {
        "dataset": [dataset.name, os.fspath(dataset.root.resolve())],
        "recipe": asdict(recipe),
        "preprocessor": [preprocessor.name, preprocessor.version(), _code_digest(preprocessor)],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogateescape")).digest()


def _code_digest(preprocessor: type[Preprocessor]) -> str:
    """Hash of the code that makes the tensors: a corrected preprocessor must not be answered with its old results."""
    files = {*Path(preprocess.__path__[0]).rglob("*.py"), Path(getfile(preprocessor))}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _open(path: Path, head: bytes, size: int) -> FileIO:
    """The file for reading and writing, at least ``size`` bytes long; one with another head is replaced, not changed:
    somebody may have it mapped.
    """
    file = _with_head(path, head)
    if file is None:
        with whole_file(path) as made:
            made.write(head)
        file = open_own(path)
    try:
        if os.fstat(file.fileno()).st_size < size:
            file.truncate(size)
    except OSError:
        file.close()
        raise
    return file


def _with_head(path: Path, head: bytes) -> FileIO | None:
    """The file if it is one and starts with ``head``."""
    try:
        file = open_own(path)
    except OSError:
        return None
    if os.pread(file.fileno(), len(head), 0) == head:
        return file
    file.close()
    return None
