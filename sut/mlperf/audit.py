"""MLPerf's audits: what an audit.config makes LoadGen do, and whether that fits the run that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.userconf import Conf, read_conf

_MODES = {0: "accuracy and performance in one", 1: "accuracy", 2: "performance", 3: "find_peak"}
"""LoadGen's numbers for its modes, in the words of ``RunConfig.mode`` where there is one."""
_ASKED_BY = {
    "accuracy": "give --accuracy",
    "performance": "leave out --accuracy and --find-peak-performance",
    "find_peak": "give --find-peak-performance",
}


class Audit(BaseModel):
    """The audit.config that LoadGen obeyed: which of MLPerf's audits it is, if any, and what it sets."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

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
    test = next((name for name, wanted in official.AUDITS.items() if _told(wanted) == _told(settings)), None)
    return Audit(file=str(path), test=test, settings=settings)


def _told(settings: Mapping[str, float]) -> dict[str, float]:
    """The settings that are not LoadGen's own anyway."""
    return {key: value for key, value in settings.items() if value}


def _settings(conf: Conf, scenario: str) -> dict[str, int | float]:
    """What the file sets for a scenario. LoadGen looks it up for the model ``*``."""
    keys = dict.fromkeys(name.rsplit(".", 1)[1] for name in conf.values)
    texts = {key: text for key in keys if (text := conf.lookup("*", scenario, key)) is not None}
    return {key: int(text) if text.isdigit() else float(text) for key, text in texts.items()}
