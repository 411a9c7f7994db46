"""A run again: the settings that its result tells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sut.config import RUN_FILES, make_config
from sut.errors import InputError
from sut.results.collected import read_result
from sut.results.schema import Result

_NOT_REPEATED = ("output", "overwrite", "debug", *RUN_FILES)
"""Where results go, and how they are kept, is the new run's own."""


def read_repeated(path: Path) -> Result:
    """The result of the run that shall be repeated. Raises ``InputError`` where the file is none."""
    try:
        return read_result(path)
    except ValueError as error:
        raise InputError(f"--from {path}: {error}; name the result.json of a run") from error


def settings_of(path: Path, others: Sequence[str] = ()) -> dict[str, Any]:
    """What was asked of the run whose result this is, without what everybody gets; its scenario and mode too.

    Raises ``InputError`` where the file is no result, or one of a version with other settings, and where ``others`` are
    given, the options that describe a run too.
    """
    if others:
        raise InputError(f"--from and --{others[0]} both say what is run; give one of them")
    result = read_repeated(path)
    usual = make_config({}).model_dump(mode="json")
    if unknown := sorted(set(result.config) - set(usual)):
        raise InputError(
            f"--from {path}: setting '{unknown[0]}' is of another version, and unknown here; repeat the run with that "
            "version, or give its settings as flags"
        )
    asked = {name: value for name, value in result.config.items() if value != usual[name] and name not in _NOT_REPEATED}
    return {**asked, "scenario": result.scenario, "mode": result.mode}
