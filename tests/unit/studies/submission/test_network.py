"""A submission to the network division: from runs whose logs have its name to a tree that the judge accepts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sut.datasets.base import DataSet
from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.logs import DETAIL, SUMMARY
from sut.results.schema import FILE
from sut.studies.submission.about import About
from sut.studies.submission.checks import faults
from sut.studies.submission.plan import plan
from sut.studies.submission.rehearse import about_rehearsal
from sut.studies.submission.runs import read_runs, scenarios_of
from sut.studies.submission.submission import judge, make_tree, refusals
from tests.unit.studies.submission.conftest import take_any_score
from tests.unit.studies.submission.finished_runs import about
from tests.unit.studies.submission.loadgen_runs import BEHIND_NETWORK, URL, ask_little, edit, put, write_runs

COUNTS = {"accelerators_per_node": "0", "number_of_nodes": "1"}
TOLD = {**about().fields, **dict.fromkeys(official.SYSTEM_NETWORK_FIELDS, "told"), **COUNTS}
NETWORK = about(division="network", fields=TOLD)


@pytest.fixture(scope="module")
def made_far(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        take_any_score(patch)
        return write_runs(tmp_path_factory.mktemp("network"), BEHIND_NETWORK)


@pytest.fixture
def far(made_far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME of runs against a server to plant faults in."""
    ask_little(monkeypatch, "resnet50")
    monkeypatch.setattr(DataSet, "is_imagenet", lambda self: self.truth is not None)
    take_any_score(monkeypatch)
    shutil.copytree(made_far.parent.parent, tmp_path / "output")
    return tmp_path / "output" / made_far.parent.name / made_far.name


def found(home: Path, asked: About = NETWORK) -> list[str]:
    return faults(read_runs([home], asked), asked, rehearsal=False)


@pytest.mark.usefixtures("short")
def test_runs_against_a_server_become_a_tree_that_the_judge_accepts(far: Path, tmp_path: Path) -> None:
    runs = read_runs([far], NETWORK)

    assert refusals(runs, NETWORK, is_rehearsal=False) == []
    files = make_tree(runs, NETWORK, tmp_path / "tree", is_rehearsal=False, overwrite=False)

    judged = judge(tmp_path / "tree")
    assert (judged.accepted, judged.findings) == (True, ())
    home = tmp_path / "tree/network/Org"
    assert sorted(path.name for path in (home / "results/box/resnet50").iterdir()) == ["Offline", "Server"]
    system = json.loads((home / "systems/box.json").read_text())
    assert (system["is_network"], system["system_type"], system["division"]) == ("true", "datacenter", "network")
    assert {system[name] for name in official.SYSTEM_NETWORK_FIELDS} == {"told"}
    assert len(runs.all()) == 8 and home / "calibration.md" in files
    assert f"SHA-256 {'ab' * 32}." in (home / "src/resnet50/README.md").read_text()


@pytest.mark.usefixtures("short")
def test_a_rehearsal_needs_nobody_to_tell_of_the_network(far: Path, tmp_path: Path) -> None:
    told = about_rehearsal("network")
    for result in far.rglob(FILE):
        edit(result.parent, rules_broken=lambda old: [*old, f"the server is on this very machine: {URL}"])
    runs = read_runs([far], told)

    assert refusals(runs, told, is_rehearsal=True) == []
    make_tree(runs, told, tmp_path / "tree", is_rehearsal=True, overwrite=False)

    judged = judge(tmp_path / "tree")
    assert (judged.accepted, judged.is_rehearsal, judged.findings) == (True, True, ())


def log_of_a_system_here(folder: Path) -> None:
    name = str(BEHIND_NETWORK.name)
    assert name in (folder / DETAIL).read_text()
    for log in (DETAIL, SUMMARY):  # of which that of an accuracy run has no name
        (folder / log).write_text((folder / log).read_text().replace(name, "PyFastSUT"))


@pytest.mark.parametrize(
    ("role", "change", "line"),
    [
        *((role, log_of_a_system_here, f"{role}/{DETAIL}, sut_name: got PyFastSUT, expected a name with 'Network SUT'")
          for role in ("performance", "accuracy", "TEST01", "TEST04")),
        ("performance", lambda folder: edit(folder, config=put(coalesce_queries=True)),
         "performance, rules_broken: queries are batched on LoadGen's side: coalesce_queries is on (which result.json"),
        ("accuracy", lambda folder: edit(folder, rules_broken=[f"the server is on this very machine: {URL}"]),
         "accuracy, rules_broken: the server is on this very machine: grpc://192.0.2.7:8001"),
        ("accuracy", lambda folder: edit(folder, attested=put(model="resnet50 2")),
         "accuracy, attested.model: got resnet50 2, expected resnet50 1"),
        ("TEST01", shutil.rmtree, "TEST01: there is no such run; make it: "),
    ],
)  # fmt: skip
def test_each_fault_is_told(far: Path, role: str, change: Callable[[Path], object], line: str) -> None:
    change(far / "Server" / role)

    assert f"Server {line}" in "\n".join(found(far))


def test_in_the_closed_division_none_of_them_counts(far: Path) -> None:
    closed = about(division="closed", system_type="datacenter,edge", scenarios=["Offline", "Server"])

    names = [line for line in found(far, closed) if "sut_name" in line]

    assert len(names) == 8
    assert all(line.endswith("expected a system without a network; or division network") for line in names)


def test_fields_of_the_network_that_nobody_tells_are_named(far: Path) -> None:
    untold = about(division="network", fields={**TOLD, "nic_sut": "", "network_rate": " "})

    told = refusals(read_runs([far], untold), untold, is_rehearsal=False)

    assert told == [f"fields.{name}: not told; tell it in the file" for name in ("network_rate", "nic_sut")]


def test_the_plan_has_the_datacenters_scenarios_by_the_networks_rules(far: Path) -> None:
    shutil.rmtree(far / "Server")

    steps = [each for each in plan([far], NETWORK, rehearsal=False) if each.scenario == "Server"]

    assert [each.role for each in steps] == ["performance", "accuracy", "TEST01", "TEST04"]
    assert "--rules network" in steps[0].command and f"--device {URL}" in steps[0].command


def test_a_benchmark_that_is_in_no_datacenter_is_refused() -> None:
    with pytest.raises(InputError, match="yolo-99 is not in MLPerf's datacenter suite, as the network division is"):
        scenarios_of(NETWORK, official.BENCHMARKS["yolo-99"])
