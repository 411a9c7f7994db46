"""The folders of runs: what they are called, how they are made anew and held, and how a result is written there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from tempfile import NamedTemporaryFile

from plugins.files import LARGE_BYTES, read_file
from sut.config import RunConfig
from sut.errors import InputError, RunError, one_line, writing
from sut.files import holding, write_text
from sut.mlperf.audit import Audit
from sut.mlperf.logs import TRACE
from sut.models.base import ModelSpec
from sut.results.schema import FILE
from sut.run.supervisor import WORKER_LOG

_NEEDED_BYTES = 64 * 2**20
"""Free disk without which no run is started: logs that end early would be found out only after the run."""
_RESERVE = ".reserve"
_RESERVED_BYTES = 64 * 2**10
"""Room that each run holds for its result, which is then written although the run has filled the disk."""

_NO_NAME = re.compile(r"[^\w.+-]")
"""What of a device's name is in no folder's: colons, and all of a URL but host and port."""
_LEVELS = 4
"""Folders below --output that lead to a run's results: of its model, configuration, scenario and mode."""


def result_home(config: RunConfig, spec: ModelSpec) -> Path:
    """The directory of all scenarios of one configuration, and of a model as it is run."""
    device = _NO_NAME.sub("", config.device.replace("://", "-").replace(",", "+"))
    digest = config.digest(repr(spec.recipe))
    words = [config.backend, device, config.preprocess, config.precision, config.boundary, digest]
    return config.output / spec.name / "-".join(words)


def run_folder(home: Path, scenario: str, mode: str, audit: Audit | None) -> Path:
    """The directory of one run in that of all of its configuration: by its mode, an audit's by the audit's name."""
    return home / scenario / (mode if audit is None else audit.test or "audit")


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold ``home`` for ourselves. Raises ``InputError`` if it cannot be written, or another run writes there."""
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=home, prefix=".probe.", buffering=0) as probe:
            probe.write(b"x" * 4096)
        free = shutil.disk_usage(home).free
    if free < _NEEDED_BYTES:
        raise InputError(
            f"{home}: {free / 2**20:.0f} MiB free, {_NEEDED_BYTES // 2**20} MiB needed for the logs; "
            "make room or choose another --output"
        )
    with holding(home, "another run is writing there; wait for it, or choose another --output"):
        yield


def fresh(directory: Path, overwrite: bool) -> Path:
    """An empty directory; one that is there is removed (``overwrite``) or renamed to ``<name>.<started>``."""
    below_output = (directory, *directory.parents)[:_LEVELS]
    if overwrite and (link := next((path for path in below_output if path.is_symlink()), None)):
        raise InputError(
            f"{link} is a link to {link.readlink()}, behind which --overwrite removes nothing; remove the link, or "
            "leave --overwrite out"
        )
    try:
        if overwrite and directory.is_dir():
            shutil.rmtree(directory)
        elif os.path.lexists(directory):
            directory.rename(_aside(directory))
        directory.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"{directory}: cannot be made anew ({error.strerror or error}); choose another --output"
        ) from error
    return directory


def _aside(directory: Path) -> Path:
    """A name beside ``directory`` that nothing has yet."""
    name = f"{directory.name}.{_started(directory)}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(aside for each in names if not os.path.lexists(aside := directory.with_name(each)))


def _started(directory: Path) -> str:
    """When the run in ``directory`` was started, as its result says; without one, when the directory was made."""
    try:
        started = datetime.fromisoformat(json.loads(read_file(directory / FILE, LARGE_BYTES))["started"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        started = datetime.fromtimestamp(directory.lstat().st_mtime, UTC)
    return started.strftime("%Y%m%dT%H%M%S")


def reserve(directory: Path) -> None:
    """Hold room for a run's result, which ``write_files`` frees. Raises ``OSError``."""
    # At random, because a file system that packs would need no room for zeros.
    (directory / _RESERVE).write_bytes(os.urandom(_RESERVED_BYTES))


def write_files(texts: Mapping[str, str], directory: Path, config: RunConfig) -> None:
    """Write the files of a result, by name. Raises ``RunError``."""
    with suppress(OSError):  # what stays is in nobody's way
        _tidy(directory, config)
    try:
        _restore(directory, config.output)
        for name, text in texts.items():
            write_text(directory / name, text)
    except OSError as error:
        raise RunError(f"{directory}: the result cannot be written: {one_line(error)}") from error


def _restore(directory: Path, top: Path) -> None:
    """Make a run's directory again where somebody has removed it, or put a file or a link in its place or above it."""
    below = [path for path in (directory, *directory.parents) if path.is_relative_to(top) and path != top]
    for path in (top, *reversed(below)):
        if os.path.lexists(path) and (not path.is_dir() or (path != top and path.is_symlink())):
            path.rename(_aside(path))
    directory.mkdir(parents=True, exist_ok=True)


def _tidy(directory: Path, config: RunConfig) -> None:
    """Make room: the trace is for the ledger, and large; it is kept for debugging. An empty worker log says nothing."""
    (directory / _RESERVE).unlink(missing_ok=True)
    if not config.debug:
        (directory / TRACE).unlink(missing_ok=True)
    log = directory / WORKER_LOG
    if log.exists() and log.stat().st_size == 0:
        log.unlink()
