"""Runs of a closed submission, made once, with rules that they keep although they are short."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sut.datasets.base import DataSet
from sut.mlperf import official, rules, verify_audit
from sut.studies.submission import one_run, plan
from tests.unit.studies.submission.loadgen_runs import PICTURES, write_runs


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
    for name, value in {"MIN_DURATION_S": 0.25, "PERFORMANCE_SAMPLES": PICTURES, "OFFLINE_SAMPLES": 500}.items():
        monkeypatch.setattr(official, name, value)
    for module in (rules, one_run, plan):
        monkeypatch.setattr(module, "IMAGENET_PICTURES", PICTURES)
    monkeypatch.setattr(DataSet, "is_imagenet", lambda self: self.truth is not None)
    take_any_score(monkeypatch)
    output = tmp_path / "output"
    shutil.copytree(made.parent.parent, output)
    return output / made.parent.name / made.name
