"""Where made files are kept, and how: compiled kernels, and all that the layers above make once."""

from __future__ import annotations

import atexit
import hashlib
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from plugins.files import SMALL_BYTES, known_digest, locked, read_file, sha256_of

SUMS = "sha256sums"
"""Beside made files: their sums, as ``sha256sum`` writes them, under the hash of the key that they were made for."""
_LEFTOVER_AGE_S = 3600.0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_dir() -> Path:
    """The folder for made files: $SUT_CACHE_DIR, else loadgen-sut in $XDG_CACHE_HOME, else in ~/.cache.

    As the XDG base directory specification says, a relative $XDG_CACHE_HOME does not count. The folder need not exist.
    Raises ``ValueError`` where the home folder is needed and not known.
    """
    try:
        if chosen := os.environ.get("SUT_CACHE_DIR"):
            return Path(chosen).expanduser().absolute()
        shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (shared if shared.is_absolute() else Path.home() / ".cache") / "loadgen-sut"
    except RuntimeError as error:
        raise ValueError(f"no cache folder: {error}; set SUT_CACHE_DIR to a folder") from error


def make_private(folder: Path) -> None:
    """Make the cache folder or one in it, and those above it that are not there yet, each for us alone (mode 0700).

    Raises ``OSError``.
    """
    for each in (*reversed(folder.parents), folder):
        if not each.exists():
            each.mkdir(0o700, exist_ok=True)


def entry(
    cache: Path,
    name: str,
    key: str,
    make: Callable[[Path], None],
    say: Callable[[str], None] = lambda text: None,
    *,
    quietly: bool = False,
) -> Path:
    """The file ``name`` for ``key`` in ``cache``; where it is not there, ``make(path)`` writes it and ``say`` tells.

    ``key`` names everything the content depends on (the hash of the weights, the builder's version): another key is
    another file. Each file has a folder of its own, with whatever else ``make`` puts beside it and the sums of both,
    by which alone it is believed: what was damaged or exchanged is made again, and ``say`` tells that even if
    ``quietly``. The folder is made under a random name that nothing had before and then renamed, so it is there as a
    whole or not at all, whoever was killed; of two processes at once both make it and the first one's stays.

    Raises ``OSError`` where ``cache`` cannot be written or the disk is full, and what ``make`` raises.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()
    folder = cache / f"{Path(name).stem}-{digest[:16]}"
    path = folder / name
    if _is_whole(path, digest):
        return path
    make_private(cache)
    _remove_leftovers(cache, folder.name)
    if os.path.lexists(folder):
        say(f"making {name} again: {folder} is not as it was made")
    elif not quietly:
        say(f"making {name} once, as {path}")
    part = cache / f".{folder.name}.{secrets.token_hex(8)}.part"
    try:
        part.mkdir()
        make(part / name)
        _seal(part, digest)
        _put(part, path, digest)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def forget(path: Path) -> None:
    """Delete an ``entry`` that is as it was made and is no good all the same: it will be made again."""
    with locked(path.parent.parent):
        _remove(path.parent)


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
    with locked(folder.parent):
        if _is_whole(path, digest):
            return
        if os.path.lexists(folder):
            folder.rename(aside := part.with_suffix(".old.part"))
            part.rename(folder)
            _remove(aside)
        else:
            part.rename(folder)


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


def code_dir(name: str) -> Path | None:
    """The folder ``name`` in the cache folder, made for us alone, for what is executed as it is found there.

    None, which is said once in one line, where somebody else could have written into it or into what is there. Raises
    ``OSError`` where it cannot be made, and ``ValueError`` as ``cache_dir`` does.
    """
    folder = cache_dir() / name
    make_private(folder)
    if trouble := _open_to_others(folder) or _open_inside(folder):
        _say(
            f"no code is kept in {str(folder)!r}: {trouble}; make it yours alone (chmod go-w), or set SUT_CACHE_DIR to "
            "another folder"
        )
        return None
    return folder


@cache
def _say(text: str) -> None:
    print(text, file=sys.stderr)


@cache
def private_dir() -> Path:
    """A folder of this process alone, gone when it ends: for code that can be kept no longer."""
    folder = Path(mkdtemp(prefix="loadgen-sut-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _open_to_others(folder: Path) -> str | None:
    """Who besides us and root may put something into ``folder``, or another folder in its place; None: nobody."""
    for each in dict.fromkeys((folder, *folder.parents, *folder.resolve().parents, folder.resolve())):
        # In a sticky folder above, such as /tmp, nobody can rename what is ours.
        harmless = each.stat().st_mode & stat.S_ISVTX and each not in {folder, folder.resolve()}
        if trouble := _trouble(each, not harmless):
            return trouble
    return None


def _open_inside(folder: Path) -> str | None:
    """Who besides us and root may write, or has written, what is in ``folder``; None: nobody."""
    # What others cannot reach may have any mode, as files have that a compiler makes under a umask of 002.
    others_enter = folder.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH)
    for parent, folders, files in os.walk(folder):
        for each in (Path(parent, name) for name in (*folders, *files)):
            with suppress(FileNotFoundError):  # another process was at work on it
                if trouble := _trouble(each, bool(others_enter)):
                    return trouble
    return None


def _trouble(path: Path, others_reach: bool) -> str | None:
    """Who besides us and root owns it or, where others reach it, may write to it; None: nobody."""
    status = path.stat()
    if not {status.st_uid, path.lstat().st_uid} <= {os.geteuid(), 0}:
        return f"{str(path)!r} belongs to another user"
    return f"others may write to {str(path)!r}" if others_reach and status.st_mode & _OTHERS_WRITE else None
