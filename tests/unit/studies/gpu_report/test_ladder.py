"""The part of the GPU report that climbs the ladder: what it asks of ``sut study ladder``, and what it makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from sut.cli import study_ladder
from sut.cli.commands import study
from sut.config import RunConfig
from sut.errors import ExitCode
from sut.studies.gpu_report import ladder as module
from sut.studies.gpu_report.page import markdown
from sut.studies.gpu_report.parts import PARTS
from sut.studies.gpu_report.schema import PartEnd, Report
from sut.studies.ladder.rungs import ON_GPU, Ladder, read_ladder
from tests.unit.studies.test_ladder import every, step_of, told


def test_the_command_climbs_the_ladder_of_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[Ladder, RunConfig, int]] = []

    def run_ladder(found: Ladder, base: RunConfig, rounds: int, *others: object) -> tuple[dict[str, Any], ExitCode]:
        asked.append((found, base, rounds))
        return {**told(step_of("a", every(10))), "words": []}, ExitCode.OK

    monkeypatch.setattr(study_ladder, "run_ladder", run_ladder)
    monkeypatch.setattr(study_ladder, "emit", lambda *arguments, **more: None)
    monkeypatch.setattr(study_ladder, "leave_study", lambda *arguments: None)
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path))
    app = typer.Typer()
    study.register(app)

    def told_by(*words: str) -> tuple[int, dict[str, Any], str]:
        with pytest.raises(SystemExit) as ended:
            typer.main.get_command(app)(list(words))
        assert ended.value.code == 0
        return 0, {**told(step_of("a", every(10))), "words": []}, ""

    monkeypatch.setattr(module, "told_by", told_by)
    module.ladder()

    [(found, base, rounds)] = asked
    assert found == read_ladder(ON_GPU)[0]
    assert (base.device, base.model, base.weights, rounds) == ("cuda", "vit-b", "random", 4)


def found_of(monkeypatch: pytest.MonkeyPatch, *steps: Any) -> dict[str, Any]:
    rows: Sequence[Any] = steps
    answer = {**told(*rows), "words": ["b has the most throughput"]}
    monkeypatch.setattr(module, "told_by", lambda *words: (3, answer, ""))
    return module.ladder()


def test_a_rung_that_failed_is_wrong_and_one_that_cannot_run_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    failed, absent = step_of("b", {}, "it broke"), step_of("c", {}, "DALI is not installed")
    failed.failed = True

    found = found_of(monkeypatch, step_of("a", every(10)), failed, absent, step_of("d", every(30)))

    assert found["wrong"] == [{"of": "b", "why": "it broke"}]
    assert [row["reason"] for row in found["table"]] == [None, "it broke", "DALI is not installed", None]
    last = found["table"][-1]
    assert (last["first"], last["against_first"]) == ("a", pytest.approx(3))
    assert last["against_first_low"] < 3 < last["against_first_high"]
    part = PartEnd(ok=True, found=found, took_s=200, limit_s=PARTS["ladder"].limit_s)
    row = {"target": "none"}
    parts = {"ladder": part}
    page = markdown(
        Report(schema=3, made="now", versions={}, machine={}, gpu=[], budget_s=None, targets=[row], parts=parts)
    )
    assert "## ladder" in page and "DALI is not installed" in page
