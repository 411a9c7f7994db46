"""Errors by phase, and the exit codes they become. Only the command line exits."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from plugins.packages import CHECKOUT, OWN_NAMES, REINSTALL, package_of
from sut.text import printable

_IMPORT = re.compile(r"(?:from|import)\s+(\w+)")


class ExitCode(IntEnum):
    """What the commands return; of several runs the worst, in the order 3, 2, 1, 4, 0."""

    OK = 0
    USAGE = 1
    """Wrong usage, config or input: nothing was run."""
    SETUP = 2
    """Something is not installed, or the device is not there."""
    FAILED = 3
    """A run failed."""
    INVALID = 4
    """It ran and is INVALID, or a set accuracy target was missed."""
    INTERRUPTED = 130


class SutError(Exception):
    """Base of what the user is told in one line: what was got, what was expected, what to do."""

    exit_code = ExitCode.FAILED


class InputError(SutError):
    """Wrong usage, config, model or data. Nothing was run."""

    exit_code = ExitCode.USAGE


class SetupError(SutError):
    """Something is not installed, or a device is not there."""

    exit_code = ExitCode.SETUP


class RunError(SutError):
    """A run failed."""


def error_of(code: int | None, text: str) -> SutError:
    """The error that another process has ended with, by its exit code."""
    kinds: dict[int | None, type[SutError]] = {ExitCode.USAGE: InputError, ExitCode.SETUP: SetupError}
    return kinds.get(code, RunError)(text)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises ``InputError`` where ``path``, which the user has chosen, cannot be written within the ``with``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason_of(error)}); choose another --output") from error


@contextmanager
def refusing(what: str, remedy: str = "") -> Iterator[None]:
    """Raises ``InputError`` for an ``OSError`` within the ``with``: ``what`` failed, why, and the ``remedy``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {reason_of(error)}{remedy}") from error


_TEXT_CHARACTERS = 1000
_LIST_ENTRIES = 20


def one_line(error: BaseException) -> str:
    """An exception as one line: its text, or its type where it has none.

    Line breaks of other people's messages become blanks; in ours, there are none but in names, which are escaped.
    """
    text = str(error) if isinstance(error, SutError) else " ".join(str(error).split())
    return cut(printable(text)) or type(error).__name__


def reason_of(error: Exception) -> str:
    """Why something failed, in one line: of an error of the system without its number and the file's name."""
    return getattr(error, "strerror", None) or one_line(error)


def cut(text: str) -> str:
    """A text of a thousand characters at the most: who wrote it may not have known an end."""
    if len(text) <= _TEXT_CHARACTERS:
        return text
    return f"{text[: _TEXT_CHARACTERS - 50]} ... and {len(text) - _TEXT_CHARACTERS + 50:,} more characters"


def cut_list(texts: list[str]) -> list[str]:
    """Twenty texts at the most, the last of which tells how many more there were."""
    kept = texts if len(texts) <= _LIST_ENTRIES else texts[: _LIST_ENTRIES - 1]
    more = [f"and {len(texts) - len(kept):,} more"] if len(texts) > len(kept) else []
    return [cut(text) for text in kept] + more


def short(value: float) -> str:
    """Four digits, without an exponent.

    >>> short(12345.6), short(38.214)
    ('12,346', '38.21')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def worst(codes: Iterable[int]) -> ExitCode:
    """The exit code of several runs.

    >>> worst([0, 4, 2])
    <ExitCode.SETUP: 2>
    """
    order = [ExitCode.INTERRUPTED, ExitCode.FAILED, ExitCode.SETUP, ExitCode.USAGE, ExitCode.INVALID, ExitCode.OK]
    return min((ExitCode(code) for code in codes), key=order.index, default=ExitCode.OK)


def broken_import(error: BaseException) -> str | None:
    """What to say of an error that one of our files met where it imports another package; None for any other error."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if any(Path(frame.filename).is_relative_to(CHECKOUT / name) for name in OWN_NAMES)
    ]
    found = _IMPORT.match(ours[-1].line or "") if ours else None
    if found is None or found[1] in sys.stdlib_module_names or found[1] in OWN_NAMES:
        return None
    package = package_of(found[1])
    return (
        f"the package {package} cannot be imported ({type(error).__name__}: {one_line(error)}); ./run_local.sh sets up "
        f"what is needed, ./run_local.sh doctor says more; to mend it: {REINSTALL} {package}"
    )
