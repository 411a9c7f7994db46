"""System shared memory that clients on this host register: tensors are read and written there, not sent."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sut.errors import reason_of
from sut.serve.refused import INVALID, TOO_LARGE, UNKNOWN, Refused

_FOLDER = Path("/dev/shm")
_KEY = re.compile(r"/?[\w.-]{1,200}")
_MOST = 4096


@dataclass(frozen=True, slots=True)
class Region:
    """So many bytes of the object ``key``, from ``offset`` on, which is open as ``file``."""

    key: str
    offset: int
    size: int
    file: int


class Regions:
    """Those that are registered, by name.

    They are read and written as files, not mapped: a client that cuts its memory short gets an error, where a mapping
    would end this process.
    """

    def __init__(self, most_bytes: int) -> None:
        """``most_bytes``: of one tensor; a region may have any size, as it may be empty inside."""
        self._most_bytes = most_bytes
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Open one. Raises ``Refused`` for a name that is taken, and an object that is not there or too small."""
        if name in self._regions:
            raise Refused(INVALID, f"shared memory region '{name}' is registered already")
        if len(self._regions) >= _MOST:
            raise Refused(INVALID, f"{_MOST:,} regions are registered; unregister some")
        if not _KEY.fullmatch(key) or key.strip("/") in (".", ".."):
            raise Refused(INVALID, f"shared memory key '{key}': expected the name of an object of shm_open")
        try:
            file = os.open(_FOLDER / key.removeprefix("/"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise Refused(INVALID, f"shared memory key '{key}': {reason_of(error)}") from error
        there = os.fstat(file).st_size
        if offset < 0 or size <= 0 or offset + size > there:
            os.close(file)
            raise Refused(INVALID, f"shared memory '{key}' has {there:,} bytes, asked for {size:,} from {offset:,}")
        self._regions[name] = Region(key, offset, size, file)

    def unregister(self, name: str = "") -> None:
        """Forget one, or all of them where none is named."""
        for each in [name] if name else [*self._regions]:
            if (region := self._regions.pop(each, None)) is not None:
                os.close(region.file)

    def status(self, name: str = "") -> dict[str, dict[str, Any]]:
        """What is registered under a name, or at all."""
        if name and name not in self._regions:
            raise Refused(UNKNOWN, f"shared memory region '{name}' is not registered")
        return {
            each: {"name": each, "key": region.key, "offset": region.offset, "byte_size": region.size}
            for each, region in self._regions.items()
            if name in ("", each)
        }

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Bytes of a region. Raises ``Refused`` where it does not have so many."""
        region = self._within(name, offset, size)
        if size > self._most_bytes:
            raise Refused(TOO_LARGE, f"a tensor has {size:,} bytes, expected {self._most_bytes:,} at the most")
        found = os.pread(region.file, size, region.offset + offset)
        if len(found) != size:
            raise Refused(
                INVALID, f"shared memory region '{name}' has become shorter: {len(found):,} of {size:,} bytes"
            )
        return found

    def write(self, name: str, offset: int, size: int, raw: bytes) -> None:
        """Put an output where there is room of ``size`` bytes for it."""
        region = self._within(name, offset, size)
        if len(raw) > size:
            raise Refused(INVALID, f"an output has {len(raw):,} bytes, and {size:,} were left for it in '{name}'")
        at = region.offset + offset
        if at + len(raw) > os.fstat(region.file).st_size:
            raise Refused(INVALID, f"shared memory region '{name}' has become shorter")
        try:
            os.pwrite(region.file, raw, at)
        except OSError as error:  # there is no memory left
            raise Refused(INVALID, f"shared memory region '{name}' cannot be written: {reason_of(error)}") from error

    def _within(self, name: str, offset: int, size: int) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise Refused(UNKNOWN, f"shared memory region '{name}' is not registered")
        if offset < 0 or size < 0 or offset + size > region.size:
            raise Refused(INVALID, f"shared memory region '{name}' has {region.size:,} bytes, not {offset + size:,}")
        return region
