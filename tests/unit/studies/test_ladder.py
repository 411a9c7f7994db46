"""A ladder's file, what is made of its rungs, and what they say, without a system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sut.cli.console import BriefConsole
from sut.cli.emit import print_parts
from sut.cli.study_ladder import parts_of
from sut.config import RunConfig
from sut.errors import InputError, RunError, SetupError
from sut.run.timing import Pace
from sut.studies.driving.driven import Driven, Ready
from sut.studies.driving.loads import Closed
from sut.studies.ladder import climb, rungs
from sut.studies.ladder.climb import Climb, Round, Step
from sut.studies.ladder.page import study_of
from sut.studies.ladder.report import PAPER, rows_of, words_of
from sut.studies.ladder.rungs import DEFAULT, ON_GPU, Ladder, Rung, check_rungs, read_ladder

BASE = RunConfig(scenario="Server", boundary="jpeg", backend="simulated", preprocess="simulated")


def ladder_of(*more: Mapping[str, Any]) -> Ladder:
    return Ladder(rungs=[Rung(**each) for each in more])


@pytest.mark.parametrize("path", [DEFAULT, ON_GPU])
def test_the_ladders_that_come_along_have_the_papers_seven_rungs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rungs, "load_backend", lambda name: None)
    monkeypatch.setattr(rungs, "load_preprocessor", lambda name, options: None)

    found, settings = read_ladder(path)

    assert [rung.name for rung in found.rungs] == [
        *("one-by-one decode", "batched decode", "GPU decode", "faster runtime, overlap", "dynamic batching"),
        *("tuned", "compiled low precision"),
        *(["behind a server"] if path.stem == "ladder" else []),
    ]
    assert (settings["model"], settings["weights"], found.pictures) == ("vit-b", "random", "medium")
    check_rungs(found, RunConfig(**settings, boundary="jpeg", scenario="Server"))
    changed = [found.settings_of(rung) for rung in found.rungs]
    assert [each["preprocess"] for each in changed[:3]] == ["opencv", "dali", "cuda"]
    assert changed[3]["backend"] != changed[0]["backend"] and changed[3]["max_batchsize"] == 1
    assert changed[4]["max_batchsize"] > 1 and found.rungs[5].search
    assert changed[6]["precision"] in ("int8", "fp16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: vit-b", "it has no rungs, expected a list"),
        ("rungs: []", "rungs: List should have at least 1 item"),
        ("rungs: [{name: a}, {name: a}]", "two rungs are called 'a'"),
        ("rungs: [{name: a, like: b}, {name: b}]", "rung 'a' is like 'b', expected the name of a rung before it"),
        ("rungs: [{name: a, setings: {}}]", "rungs.0.setings: Extra inputs are not permitted"),
        ("rungs: [{name: a, search: {lanes: 2}}]", "rungs.0.search.lanes: Input should be a valid list, got '2'"),
        ("rungs: [{name: a}]\nconcurrency: 0", "concurrency: Input should be greater than or equal to 1, got '0'"),
        ("rungs: [{name: a}]\nrungs: []", "the key 'rungs' stands twice"),
        ("[1]", "got list, expected 'setting: value' lines"),
    ],
)
def test_a_file_that_is_no_ladder_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ladder.yaml"
    path.write_text(text)

    with pytest.raises(InputError) as raised:
        read_ladder(path)

    assert message in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("rung", "message"),
    [
        ({"settings": {"lane": 2}}, "rung 'a': unknown setting 'lane'; did you mean lanes"),
        ({"settings": {"lanes": 0}}, "rung 'a': lanes: "),
        ({"settings": {"backend": "nobody"}}, "rung 'a': unknown backend 'nobody'"),
        ({"search": {"lanes": ["many"]}}, "rung 'a': lanes: "),
        ({"settings": {"model": "resnet50"}}, "rung 'a': 'model' is the same on all rungs"),
        ({"settings": {"count": 3}}, "rung 'a': 'count' is the same on all rungs"),
    ],
)
def test_what_no_machine_could_run_is_refused_with_the_rungs_name(rung: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        check_rungs(ladder_of({"name": "a", **rung}), BASE)
    assert str(raised.value).startswith(message)


def test_what_is_not_installed_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise SetupError("not here")

    monkeypatch.setattr(rungs, "load_backend", missing)
    check_rungs(ladder_of({"name": "a"}), BASE)


def test_a_rung_begins_with_the_settings_of_the_one_it_is_like() -> None:
    found = ladder_of(
        {"name": "a", "settings": {"lanes": 1, "threads": 1}},
        {"name": "b", "like": "a", "settings": {"lanes": 2}, "search": {"max_batchsize": [4]}},
        {"name": "c", "like": "b", "settings": {"threads": 2}},
    )

    assert found.settings_of(found.rungs[2]) == {"lanes": 2, "threads": 2}
    tuned = found.settings_of(found.rungs[2], {"b": {"max_batchsize": 4, "lanes": 3}})
    assert tuned == {"lanes": 3, "threads": 2, "max_batchsize": 4}


# ---- climbing, with a system that only tells its rate


def measured(rate: float, latencies_ns: Sequence[int] = (5_000_000,), ok: bool = True) -> Round:
    ready = Ready(Pace(1, 1), lanes=1, threads=1, max_batchsize=4, workers=0, cores=2, parity=None)
    error = None if ok else "it broke"
    driven = Driven(0, Closed(8), 1.0, len(latencies_ns), 0, error, rate, {4: 2, 2: 1}, {}, 0.0, None, Path("none"))
    return Round(ready, driven, np.array(latencies_ns, np.int64))


Climbing = Callable[..., tuple[list[Step], list[str]]]


@pytest.fixture
def climbed(monkeypatch: pytest.MonkeyPatch) -> Climbing:
    """Climbs with rates by lanes, and tells the order; lanes 9 cannot be had, lanes 8 fail when they are driven."""

    def assemble(config: RunConfig, *others: object) -> Any:
        if config.lanes == 9:
            raise SetupError("there are no nine lanes")
        return SimpleNamespace(config=config)

    def go(found: Ladder, rounds: int | None, budget_s: float = 60.0) -> tuple[list[Step], list[str]]:
        order: list[str] = []

        def drive(self: Climb, parts: Any) -> Round:
            lanes, batch = parts.config.lanes, parts.config.max_batchsize or 1
            order.append(f"{lanes}x{batch}")
            if lanes == 8:
                raise RunError("it broke")
            return measured(10.0 * lanes * batch)

        monkeypatch.setattr(Climb, "_drive", drive)
        monkeypatch.setattr(climb, "assemble", assemble)
        climbing = Climb(found, BASE, BriefConsole())
        climbing.go(rounds, budget_s)
        return climbing.steps, order

    return go


def test_rungs_are_measured_there_and_back_again_and_what_cannot_is_a_step_with_its_reason(climbed: Climbing) -> None:
    found = ladder_of(*({"name": f"lanes {n}", "settings": {"lanes": n}} for n in (1, 9, 8, 2)))

    steps, order = climbed(found, 2)

    assert order == ["1x1", "8x1", "2x1", "2x1", "1x1"]
    assert [(step.reason, step.failed, sorted(step.rounds)) for step in steps] == [
        (None, False, [1, 2]),
        ("there are no nine lanes", False, []),
        ("it broke", True, []),
        (None, False, [1, 2]),
    ]


def test_a_search_finds_the_best_and_those_above_begin_with_it(climbed: Climbing) -> None:
    found = ladder_of(
        {"name": "a", "settings": {"lanes": 1, "max_batchsize": 2}},
        {"name": "tuned", "like": "a", "search": {"lanes": [1, 8, 2], "max_batchsize": [1, 4]}},
        {"name": "above", "like": "tuned", "settings": {"threads": 1}},
    )

    steps, order = climbed(found, 1)

    assert order[:5] == ["1x2", "1x1", "1x4", "8x1", "8x4"] and order[-3:] == ["1x2", "2x4", "2x4"]
    assert steps[1].found == {"lanes": 2, "max_batchsize": 4} and steps[1].settings == steps[1].found
    assert steps[1].tried["unchanged"] == 20.0 and len(steps[1].tried) == 5, "the two that broke are not among them"
    assert steps[2].settings == {"lanes": 2, "max_batchsize": 4, "threads": 1}


def test_where_nothing_of_a_search_runs_the_rung_is_a_step_with_a_reason(climbed: Climbing) -> None:
    found = ladder_of({"name": "a", "settings": {"lanes": 8}, "search": {"max_batchsize": [2]}})
    [step], _ = climbed(found, 1)
    assert (step.reason, step.rounds) == ("none of the candidates of its search runs", {})


def test_the_budget_ends_it_and_says_what_was_not_reached(climbed: Climbing, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10_000, 10))
    monkeypatch.setattr(climb.time, "monotonic", lambda: float(next(now)))
    found = ladder_of(*({"name": f"lanes {n}", "settings": {"lanes": n}} for n in (1, 2, 3)))

    steps, order = climbed(found, None, budget_s=35.0)

    assert order == ["1x1"]
    assert [step.reason for step in steps[1:]] == ["not reached: give a longer --budget"] * 2


# ---- what it says


def step_of(name: str, rates: Mapping[int, float], reason: str | None = None, latency_ns: int = 5_000_000) -> Step:
    rounds = {number: measured(rate, (latency_ns, 2 * latency_ns)) for number, rate in rates.items()}
    return Step(Rung(name=name), {"lanes": 1}, rounds=rounds, reason=reason)


def every(rate: float, rounds: int = 6) -> dict[int, float]:
    return {number: rate * (1 + 0.001 * (number % 3)) for number in range(1, rounds + 1)}


def told(*steps: Step, weights: str = "random") -> dict[str, Any]:
    more = {"model": "vit-b", "weights": weights, "concurrency": 8, "seconds": 5.0, "least": 12}
    return {"command": "study ladder", "rows": rows_of(steps), **more}


def test_each_rung_is_held_against_the_first_and_the_nearest_below_that_ran() -> None:
    rows = told(step_of("a", every(10)), step_of("gone", {}, "no GPU"), step_of("b", every(20), latency_ns=2_500_000))[
        "rows"
    ]

    assert [row["rung"] for row in rows] == [1, 2, 3]
    assert rows[0]["against_first"] is None and rows[0]["before"] is None
    assert (rows[1]["reason"], rows[1]["samples_per_second"], rows[1]["against_before"]) == ("no GPU", None, None)
    assert (rows[2]["first"], rows[2]["before"]) == ("a", "a")
    for name in ("against_first", "against_before", "p99_against_first", "p99_against_before"):
        assert rows[2][name]["ratio"] == pytest.approx(2) and rows[2][name]["verdict"] == "better"
    assert rows[2]["p50_ns"] == 3_750_000 and rows[2]["samples"] == 12
    assert rows[2]["mean_batch"] == pytest.approx(10 / 3)


def test_only_rounds_of_both_are_pairs() -> None:
    rows = told(step_of("a", every(10)), step_of("b", {2: 20.0}))["rows"]
    assert (rows[1]["against_first"]["pairs"], rows[1]["rounds"]) == (1, 1)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([step_of("a", every(10)), step_of("b", every(20))], "b has the most throughput: 20.02 samples/s, p99 10 ms"),
        ([step_of("a", every(20)), step_of("b", every(10))], "the first rung, a, has the most throughput"),
        (
            [step_of("a", {1: 10.0}), step_of("b", {1: 20.0})],
            "b had the most throughput, 20 samples/s, p99 9.95 ms, but",
        ),
        ([step_of("a", {1: 10.0}), step_of("b", {}, "no")], "only a runs here: 10 samples/s"),
        ([step_of("a", {}, "no")], "no rung runs here"),
    ],
)
def test_the_first_sentence_decides_as_far_as_the_rounds_tell(steps: list[Step], words: str) -> None:
    assert next(iter(words_of(told(*steps)))).startswith(words)


def test_what_a_reader_must_know_is_said() -> None:
    tuned = step_of("tuned", every(20))
    tuned.tried, tuned.found = {"unchanged": 9.0, "lanes=2": 19.0}, {"lanes": 2}
    all_words = list(words_of(told(step_of("a", every(10)), step_of("gone", {}, "no GPU"), tuned)))

    assert "gone does not run here: no GPU" in all_words
    assert any(words.startswith("tuned against a: 2 x (") for words in all_words)
    assert "tuned: lanes=2, found here by a search of 2 candidates, once each" in all_words
    assert any("random weights: speed only" in words for words in all_words)
    assert all_words[-1] == PAPER and "3.7 x, not the 8 x" in PAPER
    trained = told(step_of("a", every(10)), step_of("b", every(20)), weights="trained")
    trained["rows"][1]["settings"] = {"precision": "int8"}
    assert any("another precision may answer otherwise" in words for words in words_of(trained))


def test_a_page_and_a_table_show_every_rung(capsys: pytest.CaptureFixture[str]) -> None:
    content = told(step_of("a", every(10)), step_of("gone", {}, "no GPU"), step_of("b", {1: 20.0}))

    study = study_of(content, "s0")

    assert [figure.svg.count("<circle") for figure in study.figures] == [2, 2]
    [table] = study.tables
    assert [cell.said for cell in table.first.cells] == [("1 a",), ("2 gone",), ("3 b",)]
    assert table.first.cells[1].small == ("no GPU",)
    assert study.sentences[-1].startswith('The figures of "Beyond Inference"')
    assert study_of(told(step_of("gone", {}, "no GPU")), "s0").figures == []

    print_parts(parts_of({**content, "words": []}))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and [line[:3] for line in lines[-3:]] == ["1 a", "2 g", "3 b"]
    assert "2 x" in lines[-1] and lines[-2].split()[2:] == ["-"] * 5
