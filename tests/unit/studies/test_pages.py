"""A study's file becomes a page, alone and among results; what is none is named and skipped."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sut.cli.console import BriefConsole
from sut.results.page.plots import Axis, curves, legend
from sut.results.page.study import Figure, Study
from sut.studies import pages
from sut.studies.pages import leave_study, read_studies


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """Of the command planted: a curve through its rows."""
    points = [(row["n"], row["ms"]) for row in content["rows"]]
    svg = curves(f"{key}-curve", "Waiting", {"a <way>": points}, Axis("at once"), Axis("ms"))
    return Study("Waiting", ["It waits & waits.", "More of it."], [Figure("All of it", svg, legend(["a <way>"]))])


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("planted_study")
    module.__dict__["study_of"] = study_of
    monkeypatch.setitem(sys.modules, "planted_study", module)
    monkeypatch.setitem(pages.READERS, "planted", "planted_study")


def test_a_study_leaves_its_file_and_a_page(tmp_path: Path) -> None:
    leave_study(tmp_path, "planted", {"rows": [{"n": 1, "ms": 5.0}, {"n": 64, "ms": 80.0}]}, BriefConsole())

    assert json.loads((tmp_path / "study.json").read_text())["command"] == "planted"
    page = (tmp_path / "report.html").read_text()
    for words in ("<title>Waiting", "It waits &amp; waits.", "More of it.", "a &lt;way&gt;: 64, 80", "swatch s0"):
        assert words in page


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"command": "other", "rows": []}, "it is not what a study writes"),
        ({"command": "planted", "schema": 2}, "it has schema 2, expected 1"),
        ({"command": "planted", "schema": 1, "rows": [{"n": 1}]}, "edited, or not written by sut planted: KeyError"),
        ({"command": "planted", "schema": 1, "rows": []}, "edited, or not written by sut planted: ValueError"),
        ([], "it is not what a study writes"),
    ],
)
def test_what_is_no_study_is_skipped_with_the_reason(tmp_path: Path, content: object, reason: str) -> None:
    (tmp_path / "study.json").write_text(json.dumps(content))

    found, [skipped] = read_studies([tmp_path / "study.json"])

    assert (found, reason in skipped.reason) == ([], True), skipped.reason


def test_an_axis_is_logarithmic_where_its_values_ask_for_it() -> None:
    svg = curves("k", "t", {"a": [(1, 1), (4096, 2)]}, Axis("at once"), Axis("ms"), marks={"knee": 16})

    assert "at once, logarithmic" in svg
    assert "ms, logarithmic" not in svg
    assert "knee: 16" in svg


def test_one_point_and_points_at_nothing_can_be_drawn() -> None:
    assert "circle" in curves("k", "t", {"a": [(5, 0)]}, Axis("x", log=True), Axis("y"), joined=False)
