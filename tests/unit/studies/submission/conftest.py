"""Runs of a closed submission, made once, with rules that they keep although they are short."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from sut.datasets.base import DataSet
from sut.mlperf import verify_audit
from sut.mlperf.tree import audits, judge, results
from tests.unit.studies.submission.loadgen_runs import ask_little, write_runs


def take_any_score(patch: pytest.MonkeyPatch) -> None:
    """Scores are not compared: they would be the machine's."""
    for name in ("_TOLERANCE", "_SHORT_TOLERANCE"):
        patch.setattr(verify_audit, name, 1e9)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        take_any_score(patch)
        return write_runs(tmp_path_factory.mktemp("submission"))


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME of one's own to plant faults in."""
    ask_little(monkeypatch, "resnet50")
    monkeypatch.setattr(DataSet, "is_imagenet", lambda self: self.truth is not None)
    take_any_score(monkeypatch)
    output = tmp_path / "output"
    shutil.copytree(made.parent.parent, output)
    return output / made.parent.name / made.name


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge takes what ``home`` has: short runs of few pictures."""
    monkeypatch.setattr(results, "_LEAST_S", 0.1)
    monkeypatch.setattr(audits, "score_bounds", lambda *_: (0.0, math.inf))
    monkeypatch.setattr(judge, "_judge_same", lambda tree, logs: None)  # several were begun in one second
