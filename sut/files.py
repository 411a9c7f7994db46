"""What ``plugins`` does for files and the cache folder, with the errors that a user gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import plugins.cache
from plugins.files import locked, whole_file
from sut.errors import InputError, one_line, refusing, writing
from sut.text import Say


def cache_dir() -> Path:
    """The folder for made files, as ``plugins.cache`` has it. Raises ``InputError`` where no home folder is known."""
    try:
        return plugins.cache.cache_dir()
    except ValueError as error:
        raise InputError(one_line(error)) from error


def cached(name: str, key: str, make: Callable[[Path], None], say: Say, *, quietly: bool = False) -> Path:
    """The entry of the cache folder, as ``plugins.cache`` has it.

    Raises ``InputError`` where the cache folder cannot be written or the disk is full, and what ``make`` raises.
    """
    cache = cache_dir()
    with refusing(f"cannot keep {name} in the cache folder {cache}", "; make room or set SUT_CACHE_DIR to another"):
        return plugins.cache.entry(cache, name, key, make, say, quietly=quietly)


@contextmanager
def holding(folder: Path, busy: str) -> Iterator[None]:
    """Make a folder and hold it for ourselves. Raises ``InputError``, which says ``busy``, where somebody else does."""
    with ExitStack() as stack:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(folder, wait=False))
            except TimeoutError:
                raise InputError(f"{folder}: {busy}") from None
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))  # a name may be any bytes
