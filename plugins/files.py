"""Files that others may have had a hand in: read without waiting, written whole or not at all, known by sums."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

SMALL_BYTES = 2**20
"""More than any settings, list of settings or note that a person writes."""
LARGE_BYTES = 2**30
"""More than any picture, list of pictures or log."""
LOCK_LIMIT_S = 60.0
"""Longer than anybody who is alive and well holds a lock of ours."""

_LOCK_POLL_S = 0.02
_BLOCK_BYTES = 1 << 20
_KINDS = {
    stat.S_IFIFO: "Is a named pipe",
    stat.S_IFSOCK: "Is a socket",
    stat.S_IFCHR: "Is a device",
    stat.S_IFBLK: "Is a device",
}


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Raises ``OSError``, whose ``strerror`` says what it is, for anything else: a named pipe would wait for its writer,
    and some devices never end. Nothing but a regular file is opened for longer than it takes to find that out.
    """
    _check(os.stat(path), path)  # noqa: PTH116 - opening some devices has effects
    return os.fdopen(_opened(path, os.O_RDONLY), "rb")


def _opened(path: str | os.PathLike[str], flags: int) -> int:
    """A descriptor of a regular file. Raises ``OSError`` where something else stands there by now."""
    # Which must not keep us waiting either.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    try:
        _check(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_file(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """The content of a regular file. Raises ``OSError`` as ``open_file`` does, and for one of more than ``most_bytes``.

    ``ValueError`` for a path that no file can have (one with a NUL character) becomes ``OSError`` too.
    """
    try:
        with open_file(path) as file:
            data = file.read(most_bytes + 1) if os.fstat(file.fileno()).st_size <= most_bytes else None
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from error
    if data is None or len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"More than {most_bytes:,} bytes", os.fspath(path))
    return data


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


def open_own(path: Path, more_flags: int = 0) -> FileIO:
    """Open a file of ours for reading and writing, without changing it; no link is followed.

    Raises ``OSError`` where it is anything but a regular file.
    """
    return FileIO(_opened(path, os.O_RDWR | os.O_NOFOLLOW | more_flags), "r+b")


def lock(descriptor: int, *, wait: bool = True) -> None:
    """Lock an open file or folder for us alone. The kernel lets go of it when it is closed or its holder dies.

    Raises ``TimeoutError`` where somebody else holds it, if we ``wait`` for ``LOCK_LIMIT_S``: whoever may read it can.
    """
    limit_s = LOCK_LIMIT_S if wait else 0.0
    end = time.monotonic() + limit_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                said = f"Another process has held its lock for {limit_s:g} s"
                raise TimeoutError(errno.ETIMEDOUT, said) from None
            time.sleep(_LOCK_POLL_S)
        else:
            return


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder for us alone. Raises ``OSError`` where it cannot be read, and as ``lock`` does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, wait=wait)
        yield
    finally:
        os.close(descriptor)


def _check(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"{_KINDS.get(kind, 'Is something else')}, not a file", os.fspath(path))


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` where the ``with`` ends well: it is there whole or not at all.

    Of several writers at once the last one wins. What is at ``path`` is never written to, whatever it is.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """The same file, and those beside it, by a path for libraries that take no other than UTF-8.

    Where only the file's own name is not UTF-8, those beside it are not to be found from there.
    """
    if os.fsencode(path).decode(errors="replace") == os.fspath(path):
        yield path
        return
    with ExitStack() as stack:
        try:
            name = os.fsencode(path.name).decode()
        except UnicodeDecodeError:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            link = folder / f"file{path.suffix}"
            link.symlink_to(path.absolute())
            yield link
            return
        descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        yield Path(f"/proc/self/fd/{descriptor}") / name
