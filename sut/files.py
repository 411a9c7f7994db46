"""Files of ours: made once and kept in the cache folder, written whole, known by their digest."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import plugins.cache
from plugins.files import SMALL_BYTES, lock, open_file, read_file, whole_file
from sut.errors import InputError, one_line
from sut.text import Say

SUMS = "sha256sums"
"""Beside made files: their sums, as ``sha256sum`` writes them, under the hash of the key that they were made for."""
_LEFTOVER_AGE_S = 3600.0
_BLOCK_BYTES = 1 << 20


def cache_dir() -> Path:
    """The folder for made files, as ``plugins.cache`` has it. Raises ``InputError`` where no home folder is known."""
    try:
        return plugins.cache.cache_dir()
    except ValueError as error:
        raise InputError(one_line(error)) from error


def cached(name: str, key: str, make: Callable[[Path], None], say: Say, *, quietly: bool = False) -> Path:
    """The cached file for ``name`` and ``key``; where it is not there yet, ``make(path)`` writes it and ``say`` tells.

    ``key`` names everything the content depends on (the hash of the weights, the builder's version): another key is
    another file. Each file has a folder of its own, with whatever else ``make`` puts beside it and the sums of both,
    by which alone it is believed: what was damaged or exchanged is made again, and ``say`` tells that even if
    ``quietly``. The folder is made under a random name that nothing had before and then renamed, so it is there as a
    whole or not at all, whoever was killed; of two processes at once both make it and the first one's stays.

    Raises ``InputError`` where the cache folder cannot be written or the disk is full, and what ``make`` raises.
    """
    cache = cache_dir()
    digest = hashlib.sha256(key.encode()).hexdigest()
    folder = cache / f"{Path(name).stem}-{digest[:16]}"
    path = folder / name
    part = cache / f".{folder.name}.{secrets.token_hex(8)}.part"
    try:
        if _is_whole(path, digest):
            return path
        plugins.cache.make_private(cache)
        _remove_leftovers(cache, folder.name)
        if os.path.lexists(folder):
            say(f"making {name} again: {folder} is not as it was made")
        elif not quietly:
            say(f"making {name} once, as {path}")
        try:
            part.mkdir()
            make(part / name)
            _seal(part, digest)
            _put(part, path, digest)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise InputError(
            f"cannot keep {name} in the cache folder {cache}: {reason}; make room or set SUT_CACHE_DIR to another"
        ) from error
    return path


def _is_whole(path: Path, digest: str) -> bool:
    """Whether a made file and those beside it are as they were made, for this key."""
    try:
        first, *lines = read_file(path.parent / SUMS, SMALL_BYTES).decode().splitlines()
        sums = {name: found for found, _, name in (line.partition("  ") for line in lines)}
        if first != f"# {digest}" or path.name not in sums:
            return False
        return all(known_digest(path.with_name(name)) == found for name, found in sums.items())
    except (OSError, ValueError):
        return False


def _seal(part: Path, digest: str) -> None:
    """Write the sums, and bring everything to the disk."""
    sums = "".join(f"{sha256_of(file)}  {file.name}\n" for file in sorted(part.iterdir()))
    (part / SUMS).write_text(f"# {digest}\n{sums}", encoding="utf-8")
    for file in part.iterdir():
        with file.open("rb+") as written:
            os.fsync(written.fileno())


def _put(part: Path, path: Path, digest: str) -> None:
    """Put what was made in its place, unless another process was faster; one at a time, so that none takes it away."""
    folder = path.parent
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        lock(descriptor)
        if _is_whole(path, digest):
            return
        if os.path.lexists(folder):
            folder.rename(aside := part.with_suffix(".old.part"))
            part.rename(folder)
            _remove(aside)
        else:
            part.rename(folder)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Delete a file or a folder, as far as that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()


def _remove_leftovers(folder: Path, name: str) -> None:
    """Delete what killed processes left; younger ones may still be written by a living one."""
    for part in folder.glob(f".{name}.*.part"):
        with suppress(OSError):
            if time.time() - part.lstat().st_mtime > _LEFTOVER_AGE_S:
                _remove(part)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read now, in blocks."""
    return _read_digest(path, "sha256")


def known_digest(path: Path, algorithm: str = "sha256") -> str:
    """The same, by any algorithm of ``hashlib``, read once in this process for as long as the file is not touched."""
    status = path.stat()
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _digest_at(path, algorithm, stamp)


@lru_cache(maxsize=64)
def _digest_at(path: Path, algorithm: str, stamp: tuple[int, ...]) -> str:
    return _read_digest(path, algorithm)


def _read_digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    with open_file(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))  # a name may be any bytes
