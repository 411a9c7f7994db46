"""The judge of a submission to the network division: a whole one has no finding, each of its rules is broken alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sut.mlperf import official
from sut.mlperf.tree.judge import judge_tree
from sut.mlperf.tree.rules import TreeRule
from tests.unit.mlperf.tree import trees
from tests.unit.mlperf.tree.logs import DETAIL, ROLES
from tests.unit.mlperf.tree.trees import CLOSED, NETWORK, NETWORK_FIELDS, NETWORK_RESULTS, OPEN, OPEN_RESULTS, Folder

SYSTEM = f"{NETWORK}/systems/box.json"
OFFLINE, SERVER = f"{NETWORK_RESULTS}/Offline", f"{NETWORK_RESULTS}/Server"
LOGS = ("performance/run_1", "accuracy", "TEST01/performance/run_1", "TEST04/performance/run_1")
Change = Callable[[Folder], object]


def told(root: Path) -> list[tuple[object, str, str]]:
    return [(each.rule, each.file, each.field) for each in judge_tree(root)]


def test_a_whole_submission_has_no_finding(tmp_path: Path) -> None:
    trees.over_network(tmp_path)

    assert told(tmp_path) == []


@pytest.mark.parametrize("name", NETWORK_FIELDS)
def test_each_field_of_the_network_must_say_something(tmp_path: Path, name: str) -> None:
    assert {*NETWORK_FIELDS} == {official.IS_NETWORK, *official.SYSTEM_NETWORK_FIELDS}
    for value in (None, " "):
        trees.over_network(tmp_path).set(SYSTEM, **{name: value})

        assert told(tmp_path) == [(TreeRule.FIELD, SYSTEM, name)]


@pytest.mark.parametrize("folder", LOGS)
def test_each_log_must_have_the_name(tmp_path: Path, folder: str) -> None:
    trees.over_network(tmp_path).log(f"{SERVER}/{folder}", sut_name="PyFastSUT")

    assert told(tmp_path) == [(TreeRule.NETWORK, f"{SERVER}/{folder}/{DETAIL}", "sut_name")]


def of_the_edge(tree: Folder) -> None:
    trees.scenario(tree, f"{NETWORK_RESULTS}/SingleStream", "SingleStream", 4, ROLES, trees.named)


def inferred(tree: Folder) -> None:
    """Offline's logs are those of a run of SingleStream."""
    trees.scenario(tree, OFFLINE, "SingleStream", 4, ROLES, trees.named)


def of_yolo(tree: Folder) -> None:
    for path in (NETWORK_RESULTS, f"{NETWORK}/src/resnet50"):
        (tree.root / path).rename((tree.root / path).with_name("yolo-99"))


@pytest.mark.parametrize(
    ("change", "rule", "field"),
    [
        (of_the_edge, TreeRule.SCENARIOS, "folder"),
        (lambda tree: shutil.rmtree(tree.root / SERVER), TreeRule.SCENARIOS, "folder"),
        (inferred, TreeRule.SCENARIO, "effective_scenario"),
        (of_yolo, TreeRule.MODEL, "name"),
        (lambda tree: tree.set(SYSTEM, system_type="edge"), TreeRule.VALUE, "system_type"),
        (lambda tree: tree.set(SYSTEM, system_type="datacenter,edge"), TreeRule.VALUE, "system_type"),
        (lambda tree: tree.set(SYSTEM, is_network="false"), TreeRule.VALUE, "is_network"),
        (lambda tree: tree.set(SYSTEM, is_network=True), TreeRule.FIELD, "is_network"),
        (lambda tree: tree.set(SYSTEM, division="closed"), TreeRule.NAMES, "division"),
        (lambda tree: (tree.root / NETWORK / "calibration.md").unlink(), TreeRule.MISSING, "file"),
        (lambda tree: shutil.rmtree(tree.root / SERVER / "TEST04"), TreeRule.MISSING, "folder"),
    ],
)
def test_what_is_asked_of_it_is_asked(tmp_path: Path, change: Change, rule: TreeRule, field: str) -> None:
    change(trees.over_network(tmp_path))

    assert (rule, field) in {(rule, field) for rule, _, field in told(tmp_path)}


def test_the_closed_division_has_no_network(tmp_path: Path) -> None:
    system, tree = f"{CLOSED}/systems/box.json", trees.datacenter_edge(tmp_path)
    tree.log(f"{trees.RESULTS}/Server/accuracy", sut_name="Network SUT: a server")

    assert told(tmp_path) == [(TreeRule.NETWORK, f"{trees.RESULTS}/Server/accuracy/{DETAIL}", "sut_name")]

    tree = trees.datacenter_edge(tmp_path)
    tree.set(system, is_network="false")
    assert told(tmp_path) == []
    tree.set(system, **NETWORK_FIELDS)
    assert (TreeRule.VALUE, system, "is_network") in told(tmp_path)


def test_an_open_system_is_held_to_what_it_says(tmp_path: Path) -> None:
    tree = trees.open_division(tmp_path)
    tree.set(f"{OPEN}/systems/box.json", is_network="true")

    fields = {field for _, file, field in told(tmp_path) if file.endswith("box.json")}
    assert fields == {*official.SYSTEM_NETWORK_FIELDS}

    tree.set(f"{OPEN}/systems/box.json", **NETWORK_FIELDS)
    runs = [f"{OPEN_RESULTS}/Offline/{each}" for each in ("accuracy", "performance/run_1")]
    assert told(tmp_path) == [(TreeRule.NETWORK, f"{each}/{DETAIL}", "sut_name") for each in runs]
    for each in runs:
        tree.log(each, sut_name="Network SUT: a server")
    assert told(tmp_path) == []
