"""The GPU report without a GPU: each part fails alone, and the page says why."""

from __future__ import annotations

import doctest
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_report", TOOLS / "gpu_report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_examples_hold(report: ModuleType) -> None:
    assert doctest.testmod(report).failed == 0
    assert doctest.testmod(report).attempted > 0


def test_the_page_lists_what_was_found(report: ModuleType) -> None:
    parts = {
        "gpu": {"ok": True, "found": {"gpus": [{"name": "X"}]}},
        "doctor": {"ok": True, "found": {"rows": [{"name": "numpy", "status": "ok", "found": "2.4"}]}},
    }

    page = report.markdown({"made": "now", "parts": parts})

    assert '- gpus: `[{"name": "X"}]`' in page
    assert "- numpy: ok, 2.4" in page


@pytest.mark.parametrize("part", ["imports", "doctor"])
def test_parts_that_need_no_gpu_run_here(report: ModuleType, part: str) -> None:
    found = report.run_part(part)

    assert found["ok"], found
    assert json.dumps(found)


def test_a_part_that_fails_says_why(report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "gpu_report.py"
    broken.write_text("import sys; print('no json'); sys.exit(7)")
    monkeypatch.setattr(report, "__file__", str(broken))

    found = report.run_part("imports")

    assert (found["ok"], "ended with 7" in found["why"]) == (False, True)


def test_a_machine_without_a_gpu_is_refused(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "run_part", lambda name: {"ok": False, "why": "no such program"})

    assert report.main([str(tmp_path / "out")]) == 2
    assert "error: no NVIDIA GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_with_a_gpu_every_part_is_in_the_report(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "run_part", lambda name: {"ok": name != "doctor", "why": "no", "found": {"a": 1}})

    assert report.main([str(tmp_path / "out")]) == 0
    assert set(json.loads((tmp_path / "out" / "report.json").read_text())["parts"]) == set(report.PARTS)
    assert "Did not run: no" in (tmp_path / "out" / "report.md").read_text()
