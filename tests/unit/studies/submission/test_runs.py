"""Which results a submission is made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sut.errors import InputError
from sut.mlperf import official
from sut.results.schema import FILE
from sut.studies.submission.runs import ROLES, read_runs, roles_of, scenarios_of
from tests.unit.studies.submission.loadgen_runs import ABOUT, edit

OPEN = ABOUT.model_copy(update={"division": "open"})


def test_runs_are_sorted_by_scenario_and_role_in_mlperfs_order(home: Path) -> None:
    runs = read_runs([home], ABOUT)

    assert runs.home == home
    assert {scenario: tuple(entry.runs) for scenario, entry in runs.entries.items()} == {
        scenario: ROLES for scenario in official.EDGE
    }
    assert [run.folder for run in runs.all()] == [home / each / role for each in official.EDGE for role in ROLES]


def test_they_may_be_named_one_by_one(home: Path) -> None:
    folders = [home / "Offline", home / "SingleStream/performance", home / "SingleStream/accuracy"]

    assert [run.name for run in read_runs(folders, OPEN).all()] == [
        "SingleStream performance", "SingleStream accuracy", "Offline performance", "Offline accuracy"
    ]  # fmt: skip


def test_what_is_inferred_is_the_other_scenarios_and_is_told_once(home: Path) -> None:
    about = ABOUT.model_copy(update={"inferred": {"Offline": "SingleStream"}})

    runs = read_runs([home], about)

    assert runs.entries["Offline"].inferred_from == "SingleStream"
    assert runs.entries["Offline"].runs is runs.entries["SingleStream"].runs
    assert len(runs.all()) == 8


def test_what_is_not_asked_for_is_left_out(home: Path) -> None:
    edit(home / "MultiStream/TEST04", audit=lambda old: {**old, "test": None})
    (home / "SingleStream/accuracy").rename(home / "SingleStream/accuracy.20261128T084013")

    runs = read_runs([home], ABOUT.model_copy(update={"scenarios": ("SingleStream", "MultiStream")}))

    assert [run.name for run in runs.all() if run.name.startswith("S")] == [
        f"SingleStream {role}" for role in ROLES if role != "accuracy"
    ]
    assert [run.name for run in runs.all() if run.name.startswith("M")] == [f"MultiStream {role}" for role in ROLES[:3]]


def test_a_run_that_was_renamed_counts_if_it_is_named(home: Path) -> None:
    (home / "Offline/accuracy").rename(home / "Offline/accuracy.20261128T084013")

    found = read_runs([home, home / "Offline/accuracy.20261128T084013"], ABOUT)

    assert found.entries["Offline"].runs["accuracy"].folder.name == "accuracy.20261128T084013"


def test_of_two_runs_for_one_place_it_is_asked_which(home: Path) -> None:
    shutil.copytree(home / "Offline", home.parent / "other" / "Offline")
    edit(home.parent / "other/Offline/performance", started="2026-11-28T08:40:13+00:00")

    with pytest.raises(InputError, match="two runs for one place; which one counts") as caught:
        read_runs([home.parent], OPEN)

    told = str(caught.value)
    assert f"{home.parent / 'other/Offline/performance'} of 2026-11-28T08:40:13+00:00" in told
    assert f"{home / 'Offline/performance'} of " in told
    assert "Offline accuracy: " in told


def test_results_that_cannot_be_read_are_all_named(home: Path) -> None:
    (home / "Offline/accuracy" / FILE).write_text("{")
    edit(home / "Offline/performance", samples="many")

    with pytest.raises(InputError) as caught:
        read_runs([home], ABOUT)

    assert f"{home / 'Offline/accuracy' / FILE}: no whole JSON file" in str(caught.value)
    assert f"{home / 'Offline/performance' / FILE}: samples: " in str(caught.value)


def test_where_nothing_was_run_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no result of a run that this submission asks for"):
        read_runs([tmp_path], ABOUT)
    with pytest.raises(InputError, match="nowhere: cannot be read"):
        read_runs([tmp_path / "nowhere"], ABOUT)


@pytest.mark.parametrize(
    ("name", "scenarios", "audits"),
    [
        ("resnet50", (*official.EDGE, "Server"), ("TEST01", "TEST04")),
        ("yolo-95", official.EDGE, ("TEST01",)),
        ("yolo-99", official.EDGE, ("TEST01",)),
        ("retinanet", (*official.EDGE, "Server"), ("TEST01",)),
    ],
)
def test_what_is_asked_is_what_the_benchmark_has(
    name: str, scenarios: tuple[str, ...], audits: tuple[str, ...]
) -> None:
    benchmark, anywhere = official.BENCHMARKS[name], ABOUT.model_copy(update={"system_type": "datacenter,edge"})

    assert scenarios_of(ABOUT, benchmark) == official.EDGE
    assert scenarios_of(anywhere, benchmark) == scenarios
    assert roles_of(ABOUT, benchmark) == ("performance", "accuracy", *audits)
