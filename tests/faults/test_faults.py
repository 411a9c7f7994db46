"""The worst of the faults, and that a fault which is handled badly is seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.children import Finished
from tests.faults.catalogue import FAULTS, WORST
from tests.faults.harness import Fault, judge, run_fault

SAID = "error: SingleStream performance: the pen broke\n"
FAILED_RESULT = {"valid": False, "accuracy": None, "invalid_reasons": ["the pen broke"], "notes": []}
FAULT = Fault("a broken pen", "pens", (3,), at="sut.pen:write", do="1 / 0")
STRUCK = {"file": "pen.py", "line": 1, "message": "1 / 0", "in_run": True}
ENDED = Finished(3, "", SAID, 1.0, [], {Path("result.json"): FAILED_RESULT})


@pytest.mark.slow
@pytest.mark.parametrize("fault", WORST, ids=lambda fault: f"{fault.group}: {fault.name}")
def test_a_fault_loses_nothing_and_is_told(fault: Fault, tmp_path: Path) -> None:
    verdict = run_fault(fault, tmp_path / "run")
    if fault.at and not verdict.struck:  # on a busy machine a short watchdog is over before LoadGen has started
        verdict = run_fault(fault, tmp_path / "again")

    assert list(verdict.problems) == []


def test_there_are_faults_enough_and_none_twice() -> None:
    assert len(FAULTS) >= 150
    assert sum(fault.in_run and bool(fault.at) for fault in FAULTS) >= 80
    assert len(WORST) >= 30
    assert [name for name, count in Counter((fault.group, fault.name) for fault in FAULTS).items() if count > 1] == []


def test_a_fault_that_is_handled_well_is_no_problem() -> None:
    assert judge(FAULT, ENDED, STRUCK) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"code": 0}, "false VALID"),
        ({"results": {Path("result.json"): FAILED_RESULT | {"valid": True}}}, "false VALID"),
        ({"results": {Path("result.json"): FAILED_RESULT | {"accuracy": {"met": True}}}}, "false VALID"),
        ({"err": "Traceback (most recent call last):\n" + SAID}, "traceback"),
        ({"left": ["python -m sut.run.worker"]}, "orphan"),
        ({"results": {}}, "no result.json"),
        ({"code": 4}, "other"),
        ({"err": SAID + SAID}, "other"),
        ({"err": ""}, "other"),
    ],
)
def test_what_must_not_happen_is_seen(change: dict[str, Any], kind: str) -> None:
    assert kind in [problem for problem, _ in judge(FAULT, replace(ENDED, **change), STRUCK)]


def test_a_fault_that_did_not_strike_where_it_should_is_seen() -> None:
    assert judge(FAULT, ENDED, {}) == [("other", "it never struck")]
    assert judge(FAULT, ENDED, STRUCK | {"in_run": False}) == [("other", "struck with LoadGen not started")]
