"""Where made files are kept: compiled kernels, and all that the layers above make once."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

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
        status = each.stat()
        if not _is_trusted(status, each.lstat()):
            return f"{str(each)!r} belongs to another user"
        # In a sticky folder above, such as /tmp, nobody can rename what is ours.
        harmless = status.st_mode & stat.S_ISVTX and each not in {folder, folder.resolve()}
        if status.st_mode & _OTHERS_WRITE and not harmless:
            return f"others may write to {str(each)!r}"
    return None


def _open_inside(folder: Path) -> str | None:
    """Who besides us and root may write, or has written, what is in ``folder``; None: nobody."""
    # What others cannot reach may have any mode, as files have that a compiler makes under a umask of 002.
    others_enter = folder.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH)
    for parent, folders, files in os.walk(folder):
        for each in (Path(parent, name) for name in (*folders, *files)):
            try:
                status, own = each.stat(), each.lstat()
            except FileNotFoundError:
                continue  # another process was at work on it
            if not _is_trusted(status, own):
                return f"{str(each)!r} belongs to another user"
            if others_enter and status.st_mode & _OTHERS_WRITE:
                return f"others may write to {str(each)!r}"
    return None


def _is_trusted(*found: os.stat_result) -> bool:
    return {status.st_uid for status in found} <= {os.geteuid(), 0}
