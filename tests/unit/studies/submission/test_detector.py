"""A submission of MLPerf's detector: judged by its accuracy runs, which are of the very same file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sut.datasets.base import DataSet
from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.logs import ACCURACY
from sut.mlperf.tree.rules import TreeRule
from sut.models.registry import MODELS
from sut.results.schema import FILE
from sut.studies.audits import audit
from sut.studies.submission import one_run
from sut.studies.submission.checks import faults
from sut.studies.submission.plan import plan
from sut.studies.submission.runs import read_runs
from sut.studies.submission.submission import judge, make_tree
from sut.tasks import registry
from sut.tasks.base import Score
from tests.unit.studies.submission.conftest import take_any_score
from tests.unit.studies.submission.finished_runs import about
from tests.unit.studies.submission.loadgen_runs import ABOUT, PICTURES, YOLO, ask_little, edit, put, write_runs

RESULTS = "tree/closed/Org/results/box/yolo-99"


class Detection:
    """Stands for the task: finds what is scored."""

    layout = "coco"

    @classmethod
    def score(cls, answers: Mapping[int, bytes], truth: Any, whole: bool = True) -> Score:
        right = all(answer == YOLO.answers[index] for index, answer in answers.items())
        return YOLO.score if right else Score("mAP", 0.5, "mAP=50.000%", PICTURES)


@pytest.fixture(scope="module")
def made_yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        take_any_score(patch)
        return write_runs(tmp_path_factory.mktemp("yolo"), YOLO)


@pytest.fixture
def yolo(made_yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME of a detector's runs to plant faults in."""
    ask_little(monkeypatch, "yolo-99")
    take_any_score(monkeypatch)
    monkeypatch.setitem(registry.TASKS, "detection", Detection)  # type: ignore[arg-type]
    data = DataSet("coco", Path(), ("picture",) * PICTURES, ())
    monkeypatch.setattr(one_run, "_opened", lambda *settings: data if settings[-1] == "coco" else None)
    shutil.copytree(made_yolo.parent.parent, tmp_path / "output")
    return tmp_path / "output" / made_yolo.parent.name / made_yolo.name


def found(home: Path) -> list[str]:
    return faults(read_runs([home], ABOUT), ABOUT, rehearsal=False)


@pytest.mark.usefixtures("short")
def test_a_detectors_runs_become_a_tree_that_the_judge_accepts(yolo: Path, tmp_path: Path) -> None:
    runs = read_runs([yolo], ABOUT)

    assert found(yolo) == []
    fields = {**about().fields, "accelerators_per_node": "0", "number_of_nodes": "1"}
    files = make_tree(runs, about(fields=fields), tmp_path / "tree", is_rehearsal=False, overwrite=False)

    judged = judge(tmp_path / "tree")
    assert (judged.accepted, judged.findings) == (True, ())
    assert len(runs.all()) == 9 and not [path for path in files if "TEST04" in path.parts]
    offline = tmp_path / RESULTS / "Offline"
    assert (offline / "accuracy/accuracy.txt").read_text().startswith("mAP=60.000%\nhash=")
    assert "\nyolo.Offline.target_qps = 2000\n" in (offline / "user.conf").read_text()
    assert "mAP=60.000%" in (offline / "README.md").read_text()
    source = (tmp_path / "tree/closed/Org/src/yolo-99/README.md").read_text()
    assert "the submitter's own export" in source and "COCO's val2017" in source and "ImageNet" not in source


def test_a_performance_run_without_its_accuracy_run_is_refused_in_a_line(yolo: Path) -> None:
    shutil.rmtree(yolo / "Offline/accuracy")

    [line] = found(yolo)

    assert line.startswith("Offline accuracy: there is no such run; make it: ./run_local.sh --model yolo-99 ")


def test_an_accuracy_run_of_another_export_is_refused_in_a_line(yolo: Path) -> None:
    edit(yolo / "Offline/accuracy", model_sha256="cd" * 32, loaded_sha256={"yolo-99.onnx": "cd" * 32})

    [line] = found(yolo)

    assert line == (f"Offline accuracy, model_sha256: got {'cd' * 32}, expected {'ab' * 32} (SingleStream performance)")


def test_the_target_is_that_of_the_models_own_benchmark(yolo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_little(monkeypatch, "yolo-99", target=0.61)

    assert found(yolo) == [
        f"{scenario} accuracy, accuracy.value: got 60.000 %, expected 61.0000 % or more" for scenario in official.EDGE
    ]


def test_its_log_is_scored_again_as_boxes(yolo: Path) -> None:
    path = yolo / "MultiStream/accuracy" / ACCURACY
    path.write_text(path.read_text().replace("0000803F", "0000004F"))

    lines = found(yolo)

    assert lines[0].startswith(f"MultiStream accuracy/{FILE}, accuracy.value: got 0.6 of 24, expected 0.5 of 24")
    assert {line.partition(",")[0] for line in lines[1:]} <= {
        f"MultiStream TEST01/{ACCURACY}",
        "MultiStream TEST01/verify_accuracy.txt",
        "MultiStream TEST01",
    }


def test_the_audit_of_an_image_classifier_is_none_of_a_detectors(yolo: Path) -> None:
    edit(yolo / "Offline/TEST01", audit=lambda old: {**old, "test": "TEST04"})

    [line] = found(yolo)

    assert line.startswith("Offline TEST01: there is no such run; make it: ./run_local.sh audit ")


@pytest.mark.usefixtures("short")
def test_a_rehearsal_of_another_detector_is_judged_as_one(
    yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_little(monkeypatch, "yolo-95")
    monkeypatch.setitem(MODELS, "planted", replace(YOLO.spec, name="planted"))
    another = "model planted is not MLPerf's yolo-95"
    for folder in (path.parent for path in yolo.glob(f"*/*/{FILE}")):
        edit(folder, model="planted", config=put(model="planted"), rules_broken=lambda old: [*old, another])
    runs = read_runs([yolo], ABOUT)

    told = {line.partition(", ")[2] for line in faults(runs, ABOUT, rehearsal=False)}
    assert {line for line in told if not line.endswith("where it lies")} == {f"rules_broken: {another}"}
    make_tree(runs, about(), tmp_path / "tree", is_rehearsal=True, overwrite=False)

    judged = judge(tmp_path / "tree")
    assert {each.rule for each in judged.relaxed} == {TreeRule.MODEL, TreeRule.REHEARSAL}
    assert {each.field for each in judged.findings} == {"number_of_nodes", "accelerators_per_node"}  # told as "told"
    [command] = {step.command for step in plan([yolo], ABOUT, rehearsal=False)[:1]}
    assert "--model yolo-95" in command


def test_an_audit_that_the_benchmark_has_not_is_refused(yolo: Path) -> None:
    console: Any = None  # nothing is told before

    with pytest.raises(InputError, match="MLPerf's yolo-99 has no TEST04; leave it out: TEST01"):
        audit(yolo, console, "sut audit", tests=("TEST04",))


def test_the_plan_is_of_its_own_runs(yolo: Path) -> None:
    steps = plan([yolo], ABOUT, rehearsal=False)

    assert [(step.scenario, step.role) for step in steps[:-1]] == [
        (scenario, role) for scenario in official.EDGE for role in ("performance", "accuracy", "TEST01")
    ]
    shutil.rmtree(yolo / "Offline")
    steps = plan([yolo], ABOUT, rehearsal=False)
    [command] = [step.command for step in steps if step.role == "performance" and step.done is None]
    assert "--model yolo-99" in command and "--rules closed" in command
    assert json.loads((yolo / "SingleStream/performance" / FILE).read_text())["loadgen_model"] == "yolo"
