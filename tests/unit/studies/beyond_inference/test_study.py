"""A study of claims on planted parts: what is planned, kept, left out and gone on with; its file and page."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sut.cli.console import BriefConsole
from sut.config import make_config
from sut.errors import ExitCode, InputError, RunError, SetupError
from sut.results.page.page import make_page
from sut.studies.beyond_inference import study as studies
from sut.studies.beyond_inference.lab import Found, Lab, Part, round_of_line
from sut.studies.beyond_inference.page import study_of
from sut.studies.beyond_inference.report import code_of_study, told_of
from sut.studies.beyond_inference.study import FILE, Study, claims_of, parts_of
from sut.studies.claims import Claim, at_least, compared, values
from sut.studies.kept import Kept
from sut.studies.ladder.rungs import DEFAULT, read_ladder

HEADER = {"machine": "planted"}


@dataclass
class Machine:
    """What parts are asked for, in order, and what happens to them: by part and number what is raised instead."""

    asked: list[tuple[str, int]] = field(default_factory=list)
    raises: dict[tuple[str, int], BaseException] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def measure(self, lab: Lab, number: int, name: str) -> Found:
        self.asked.append((name, number))
        if (name, number) in self.raises:
            raise self.raises[name, number]
        return Found({"one": [1.0], "two": [2.0]}, parity={"opencv": "the same"})

    def why_not(self, lab: Lab, name: str) -> str | None:
        return self.absent.get(name)

    def part(self, name: str, seconds: float, at_once: bool = False) -> Part:
        return Part(partial(self.measure, name=name), seconds, at_once, (partial(self.why_not, name=name),))


def claim(name: str) -> Claim:
    def judge(figures: Any) -> Any:
        return at_least(2, compared(values(figures, name, "one"), values(figures, name, "two")))

    return Claim(name, name[-1], f"{name} is twice as much", "2 x", (name,), judge, f"show {name}")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(studies, "CLAIMS", [claim("a1"), claim("b2"), claim("c3")])
    parts = {"a1": found.part("a1", 10), "b2": found.part("b2", 20), "c3": found.part("c3", 100, at_once=True)}
    monkeypatch.setattr(studies, "PARTS", parts)
    return found


@pytest.fixture
def opened(machine: Machine, tmp_path: Path) -> Callable[..., Study]:
    ladder, _ = read_ladder(DEFAULT)

    def open_(rounds: int = 2, figures: str | None = None) -> Study:
        base = make_config({"output": tmp_path, "boundary": "jpeg"})
        lab = Lab(base, ladder, base, False, rounds, tmp_path, BriefConsole())
        claims = claims_of(figures)
        kept = Kept.read(tmp_path / FILE, HEADER, round_of_line, "a study", overwrite=False)
        return Study(lab, claims, parts_of(claims), kept, "a model", "random")

    return open_


def go(study: Study, budget_s: float = 1000) -> list[str]:
    told: list[str] = []
    study.go(study.plan(budget_s), budget_s, told.append)
    return told


def verdicts(study: Study) -> dict[str, str]:
    return {row["claim"]: row["verdict"] for row in told_of(study, 1000)["rows"]}


def test_parts_are_measured_by_turns_there_and_back_again(opened: Callable[..., Study], machine: Machine) -> None:
    study = opened(rounds=2)

    assert study.plan(1000) == {"a1": 20, "b2": 40, "c3": 100}
    assert len(go(study)) == 5 and code_of_study(study) == ExitCode.OK
    assert machine.asked == [("a1", 1), ("b2", 1), ("c3", 1), ("b2", 2), ("a1", 2)]
    assert study.figures()["a1"] == {"one": [1.0, 1.0], "two": [2.0, 2.0]}
    assert study.figures()["c3"] == {"one": [1.0], "two": [2.0]}


def test_what_does_not_fit_in_whole_is_left_out_and_what_is_shorter_is_not(
    opened: Callable[..., Study], machine: Machine
) -> None:
    study = opened(rounds=2)

    assert study.plan(75) == {"a1": 20, "b2": 40}
    go(study, 75)
    row = told_of(study, 75)["rows"][2]
    assert row["verdict"] == "not measured yet" and "it takes about 1.7 min" in row["reason"]


def test_a_budget_in_which_nothing_fits_is_wrong_and_says_what_would(opened: Callable[..., Study]) -> None:
    with pytest.raises(InputError, match="--budget of 15 s: the shortest part, a1, takes about 20 s"):
        opened(rounds=2).plan(15)


def test_one_that_is_spent_ends_what_was_planned(
    opened: Callable[..., Study], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(rounds=2)
    chosen = study.plan(1000)
    spent = iter(range(0, 10_000, 300))
    monkeypatch.setattr(Study, "spent_s", property(lambda self: next(spent)))

    study.go(chosen, 1000, lambda text: None)
    assert machine.asked == [("a1", 1), ("b2", 1)]  # each of a look is later than the last
    assert "the budget was spent before round 1" in study.left_out["c3"]


def test_an_interrupted_one_goes_on_behind_what_is_kept(opened: Callable[..., Study], machine: Machine) -> None:
    machine.raises["b2", 2] = KeyboardInterrupt()
    first = opened(rounds=2)
    with pytest.raises(KeyboardInterrupt):
        go(first)
    assert verdicts(first) == dict.fromkeys(("a1", "b2", "c3"), "cannot be told")

    machine.raises.clear()
    machine.asked.clear()
    again = opened(rounds=4)
    go(again)
    assert machine.asked == [("b2", 2), ("a1", 2), ("a1", 3), ("b2", 3), ("b2", 4), ("a1", 4)]
    assert verdicts(again) == {"a1": "holds", "b2": "holds", "c3": "cannot be told"}

    machine.asked.clear()
    done = opened(rounds=4)
    assert (done.plan(1), go(done), machine.asked, code_of_study(done)) == ({}, [], [], ExitCode.OK)


@pytest.mark.parametrize(
    ("error", "code", "verdict"),
    [
        (RunError("it broke"), ExitCode.FAILED, "not measured yet"),
        (InputError("it cannot be"), ExitCode.USAGE, "not measured yet"),
        (SetupError("not installed"), ExitCode.OK, "cannot be tested here"),
        (ModuleNotFoundError("not installed"), ExitCode.OK, "cannot be tested here"),
        (studies.UntestableError("nothing to see"), ExitCode.OK, "cannot be tested here"),
    ],
)
def test_a_part_that_fails_or_cannot_be_says_why_and_the_others_go_on(
    error: Exception, code: ExitCode, verdict: str, opened: Callable[..., Study], machine: Machine
) -> None:
    machine.raises["a1", 1] = error
    study = opened(rounds=4)
    told = go(study)

    assert code_of_study(study) == code and machine.asked.count(("b2", 4)) == 1 and ("a1", 2) not in machine.asked
    assert told[0] == f"a1, round 1 of 4: {error}"
    row = told_of(study, 1000)["rows"][0]
    assert (row["verdict"], row["reason"], row["ours"]) == (verdict, str(error), None)


def test_one_that_fails_later_keeps_the_verdict_of_its_rounds(opened: Callable[..., Study], machine: Machine) -> None:
    machine.raises["a1", 5] = RunError("it broke")
    study = opened(rounds=6)
    go(study)

    assert verdicts(study)["a1"] == "holds" and code_of_study(study) == ExitCode.FAILED


def test_where_nothing_can_be_measured_something_is_missing(opened: Callable[..., Study], machine: Machine) -> None:
    machine.absent = dict.fromkeys(("a1", "b2", "c3"), "there is no GPU")
    study = opened()

    assert go(study) == [] and machine.asked == [] and code_of_study(study) == ExitCode.SETUP
    assert verdicts(study) == dict.fromkeys(("a1", "b2", "c3"), "cannot be tested here")
    [why] = [each for each in told_of(study, 1000)["words"] if each.startswith("cannot be tested here")]
    assert why == "cannot be tested here: a1, b2, c3: there is no GPU"


def test_figures_name_the_claims(opened: Callable[..., Study], machine: Machine) -> None:
    study = opened(figures="2, 3")
    assert [each.key for each in study.claims] == ["b2", "c3"] and [*study.parts] == ["b2", "c3"]
    with pytest.raises(InputError, match="no claim of a figure '7'; expected 1, 2, 3"):
        claims_of("1,7")


def test_the_page_leads_with_what_was_measured_here(opened: Callable[..., Study], machine: Machine) -> None:
    machine.absent = {"b2": "there is <no> GPU"}
    study = opened(rounds=4)
    go(study)

    told = told_of(study, 1000)
    page = make_page([], studies=[study_of(told, "s0")])
    lead = page.index("of 3 claims 1 hold, 0 do not, 1 cannot be told, 1 are not measured")
    assert "Measured on " in page and lead < page.index("a1 is twice as much") < page.index("b2 is twice as much")
    assert "there is &lt;no&gt; GPU" in page and "2 x (2 to 2)" in page and "./run_local.sh show b2" in page
    assert "Parity of opencv: the same." in page and "the weights are random" in page.lower()
    assert page.index("Measured here: a verdict") < page.index("Not measured here, and why")


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"dataset": "demo"}, "generates the paper's sizes of pictures; leave dataset out"),
        ({"slowdown": {"infer": 2.0}}, "measures the system as it is"),
        ({"preprocess": "cuda"}, "--preprocess cuda is on the GPU; name what preprocesses on the CPU"),
        ({"power_log": "none.csv"}, "power log none.csv: no such file"),
        ({"mode": "accuracy"}, "leave out --accuracy"),
    ],
)
def test_what_cannot_be_studied_is_refused(settings: dict[str, Any], fragment: str) -> None:
    opening = studies.open_study([make_config(settings)], [], None, 4, BriefConsole())

    with pytest.raises(InputError, match=re.escape(fragment)):
        opening.__enter__()
