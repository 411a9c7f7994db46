"""What is shown of work before the runs, and of what a reduced precision costs."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from sut.cli import console
from sut.cli.console import Console, Watcher
from sut.config import make_config
from sut.results.schema import Agreement, Metric, Result
from sut.results.wording import agreement_lines

SAID = "97.4 % same labels (95 % interval 96.2 to 98.2 %) on 1,000 crops of 11 pictures"


def result(precision: str, words: str | None, **config: Any) -> Result:
    """A result of which only precision, config and agreement matter."""
    agreement = None
    if words is not None:
        agreement = Agreement(value=0.974, low=0.962, high=0.982, count=1000, source="", words=words)
    return Result.model_construct(
        precision=precision, config=config, agreement=agreement, notes=config.get("notes", [])
    )


@pytest.mark.parametrize(
    ("precision", "fold", "line"),
    [
        ("int8", False, f"int8 against fp32: {SAID}"),
        ("bf16", True, f"bf16, folded, against fp32: {SAID}"),
        ("fp32", True, f"fp32, folded, against fp32: {SAID}"),
    ],
)
def test_what_a_precision_costs_is_shown_once(precision: str, fold: bool, line: str) -> None:
    two = [result(precision, SAID, fold=fold, scenario=name) for name in ("Offline", "Server")]

    assert agreement_lines(two) == [line]


WHY_NOT = "the labels are not compared with fp32: --agreement 0"


@pytest.mark.parametrize(
    ("precision", "more", "lines"),
    [
        ("fp32", {}, []),
        ("int8", {"notes": ["another", WHY_NOT]}, [f"int8: {WHY_NOT}"]),
        ("fp32", {"notes": [WHY_NOT], "fold": True}, [f"fp32, folded: {WHY_NOT}"]),
        ("int8", {}, ["int8: the labels are not compared with fp32"]),
    ],
)
def test_a_precision_without_its_agreement_is_shown_with_why(
    precision: str, more: dict[str, Any], lines: list[str]
) -> None:
    assert agreement_lines([result(precision, None, **more)]) == lines


def test_a_second_model_in_a_reduced_precision_is_shown_with_what_is_not_known() -> None:
    line = "int8 of the second model: its labels against fp32's are not known"

    assert agreement_lines([result("fp32", None, identify="a", identify_precision="int8")]) == [line]
    assert agreement_lines([result("fp32", None, identify="a", identify_precision="fp32")]) == []
    both = agreement_lines([result("bf16", SAID, identify="a", identify_precision="int8", notes=[line])])
    assert both == [f"bf16 against fp32: {SAID}", line]


def test_different_agreements_are_all_shown() -> None:
    found = agreement_lines([result("int8", SAID), result("fp32", None), result("bf16", "other words")])

    assert found == [f"int8 against fp32: {SAID}", "bf16 against fp32: other words"]


def table(*results: Result) -> list[str]:
    """What is printed of results where there is no terminal, but for where the files are."""
    with redirect_stdout(io.StringIO()) as text:
        Console().summary(results, Path("output"))
    *lines, files = text.getvalue().splitlines()
    assert files == "files: output"
    return [line.rstrip() for line in lines]


def of_scenario(scenario: str, metric: str, value: float, **more: Any) -> Result:
    """A result of which only the figures matter."""
    figure = Metric(name=metric, value=value, higher_is_better=False)
    latency = {"p50": 2_480_000, "p90": 2_660_000, "p99": 3_450_000}
    words = {"schema": 1, "model": "m", "weights": None, "recipe": {}, "backend": "null", "device": "cpu", "samples": 9}
    rest = {"preprocess": "opencv", "precision": "fp32", "boundary": "tensor", "mode": "performance", "config": {}}
    judged = {"valid": True, "invalid_reasons": [], "failed_samples": 0, "started": "", "latency_ns": latency}
    return Result(**words, **rest, **judged, scenario=scenario, metric=figure, **more)


def test_an_estimate_of_a_percentile_is_told_from_the_percentile() -> None:
    single = of_scenario("SingleStream", "early_stopping_p90_latency_ns", 2_678_000)
    offline = of_scenario("Offline", "samples_per_second", 355.2)

    _, first, second, note = table(single, offline)

    assert first.split()[2:7] == ["2.678", "ms", "p90*", "2.48", "2.66"]
    assert second.split()[2:4] == ["355.2", "samples/s"]
    assert note.startswith("* LoadGen's early-stopping estimate")
    assert len(table(offline)) == 2


def test_what_is_not_official_is_one_line_below_the_table() -> None:
    rules = ["min_duration 3 s < 600 s", "data set demo has 11 pictures, not ImageNet's 50000", "1467 samples < 24576"]
    results = [of_scenario(name, "samples_per_second", 1.0, rules_broken=rules) for name in ("Offline", "Server")]

    assert table(*results)[3:] == ["not official: 3 rules broken (short run, few pictures, ...), see rules_broken"]


def screen(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    shown = Console()
    shown.err = RichConsole(file=text, force_terminal=terminal, width=80, highlight=False, _environ={})
    return shown, text


def test_work_that_goes_on_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, text = screen(terminal=False)
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)

    with shown.working("preparing the model") as step:
        for done in range(1, 13):
            now += 1
            step(1000 * done, 12_000)

    assert text.getvalue().splitlines() == [
        "preparing the model: 5,000 of 12,000",
        "preparing the model: 10,000 of 12,000",
    ]


def test_a_moment_in_which_loadgen_generates_queries_is_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, text = screen(terminal=False)
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    watcher = Watcher(make_config({}), shown)

    for left_s in (0.2, 30.0):
        now += 10
        watcher.generating(left_s)

    assert text.getvalue() == "SingleStream performance: LoadGen generates its queries, 30 s left\n"


def test_work_on_a_terminal_is_a_bar_that_goes_away() -> None:
    shown, text = screen(terminal=True)

    with shown.working("preparing the model") as step:
        step(30, 60)
        [task] = step.__self__._bar.tasks  # type: ignore[attr-defined]
        assert (task.description, task.completed, task.total) == ("preparing the model", 30, 60)
        assert not task.finished
        step(60, 60)
        assert task.finished

    assert step.__self__._bar.live.is_started is False  # type: ignore[attr-defined]
    assert "preparing the model" in text.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_work_without_a_step_shows_nothing(terminal: bool) -> None:
    shown, text = screen(terminal=terminal)

    with shown.working("comparing labels"):
        pass

    assert text.getvalue() == ""
