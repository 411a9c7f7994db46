"""MLPerf's audits: what an audit.config makes LoadGen do, whether that fits the run, and the files of our own."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from plugins.files import SMALL_BYTES, locked, read_file
from sut.errors import InputError, writing
from sut.files import holding, write_text
from sut.mlperf import official
from sut.mlperf.official import Benchmark
from sut.mlperf.userconf import Conf, read_conf
from sut.process.signals import undisturbed

_MODES = {0: "accuracy and performance in one", 1: "accuracy", 2: "performance", 3: "find_peak"}
"""LoadGen's numbers for its modes, in the words of ``RunConfig.mode`` where there is one."""
_ASKED_BY = {
    "accuracy": "give --accuracy",
    "performance": "leave out --accuracy and --find-peak-performance",
    "find_peak": "give --find-peak-performance",
}

_FOLDER = ".audit"
"""In the folder of a configuration, not of a run, which a later run renames."""
_MARK = "# Written by sut audit, which removes it when its runs are done."
"""First line of every audit.config of ours; any other file is somebody's, and stays."""


class Audit(BaseModel):
    """The audit.config that LoadGen obeyed: which of MLPerf's audits it is, if any, and what it sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """Where it was."""
    test: str | None
    """``TEST01`` or ``TEST04``; None where it is none of MLPerf's."""
    settings: Mapping[str, int | float]
    """What it sets for this scenario."""

    @property
    def words(self) -> str:
        """All of it in one line."""
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{self.file} is obeyed, {self.test or 'no audit of MLPerf'}: {settings or 'it sets nothing'}"


def read_audit(path: Path, scenario: str, mode: str) -> Audit:
    """The audit that a run of ``scenario`` in ``mode`` obeys.

    Raises ``InputError`` for what LoadGen would ignore, and for a mode that is not the run's: LoadGen would obey it,
    and what was planned and reported would be another run.
    """
    settings = _settings(read_conf(path, "audit"), scenario)
    theirs = settings.get("mode")
    if theirs is not None and (name := _MODES[int(theirs)]) != mode:
        remedy = _ASKED_BY.get(name, "no run does that: set one of them")
        raise InputError(f"{path}: its mode {theirs} ({name}) is not the run's ({mode}), and would win; {remedy}")
    told = _told(settings)
    tests = {test for each in official.BENCHMARKS.values() for test in each.audits if _told(each.audit(test)) == told}
    return Audit(file=str(path), test=next(iter(tests), None), settings=settings)


def _told(settings: Mapping[str, float]) -> dict[str, float]:
    """The settings that are not LoadGen's own anyway."""
    return {key: value for key, value in settings.items() if value}


def _settings(conf: Conf, scenario: str) -> dict[str, int | float]:
    """What the file sets for a scenario. LoadGen looks it up for the model ``*``."""
    keys = dict.fromkeys(name.rsplit(".", 1)[1] for name in conf.values)
    texts = {key: text for key in keys if (text := conf.lookup("*", scenario, key)) is not None}
    return {key: int(text) if text.isdigit() else float(text) for key, text in texts.items()}


@contextmanager
def audit_configs(home: Path, tests: Sequence[str], benchmark: Benchmark) -> Iterator[dict[str, Path]]:
    """The audit.config of each of a benchmark's ``tests``, below ``home``, for LoadGen to read within the ``with``.

    However that ends they are removed; only where this process is killed they stay, see ``remove_stale``. Raises
    ``InputError`` where they cannot be written, or another process has some there.
    """
    folder = home / _FOLDER
    with holding(folder, "another sut audit is running these; wait for it"):
        paths = {test: (folder / f"{test}-audit.config").absolute() for test in tests}
        try:
            for test, path in paths.items():
                if os.path.lexists(path) and not _is_ours(path):
                    raise InputError(f"{path} is not of sut audit, which needs its place; move it away")
                with writing(path):
                    write_text(path, _text(benchmark.audit(test)))
            yield paths
        finally:
            with undisturbed():
                _removed(folder)


def remove_stale(home: Path) -> list[Path]:
    """Remove what an audit of ``home`` that was killed has left behind. Returns the files."""
    folder = home / _FOLDER
    if not folder.is_dir():
        return []
    try:
        with locked(folder, wait=False):
            return _removed(folder)
    except OSError:  # an audit is at work with it
        return []


def _text(settings: Mapping[str, int]) -> str:
    lines = (f"*.*.{key} = {value}" for key, value in settings.items())
    return "\n".join([_MARK, *lines]) + "\n"


def _is_ours(path: Path) -> bool:
    try:
        return read_file(path, SMALL_BYTES).startswith(_MARK.encode())
    except OSError:
        return False


def _removed(folder: Path) -> list[Path]:
    """The files of ours that were in a folder; it goes too, unless somebody has put something there."""
    found = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            with suppress(OSError):
                if _is_ours(path):
                    path.unlink()
                    found.append(path)
        folder.rmdir()
    return found
