"""Rehearsals with all their runs, interrupted and gone on with, and what the judge says of their trees."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from sut.mlperf.finding import Rule, Severity
from sut.mlperf.tree.judge import REHEARSAL, judge_tree
from sut.mlperf.tree.rules import TreeRule
from tests.children import Finished, python_started, run_python
from tests.unit.small_models import RECIPE_FILE, write_means

ROLES = ("performance", "accuracy", "TEST01", "TEST04")
LIMIT_S = 300.0
CONF = """\
*.SingleStream.target_latency = 0.005
*.MultiStream.target_latency = 0.02
*.Offline.target_qps = 600000
"""
RELAXED = {
    *(TreeRule.MIN_DURATION, TreeRule.LENGTH, TreeRule.COUNT, TreeRule.SAMPLES, TreeRule.PICTURES, TreeRule.TARGET),
    *(TreeRule.MODEL, TreeRule.RATIO, TreeRule.REHEARSAL),
}


@pytest.fixture
def quick(tmp_path: Path) -> list[str]:
    """A rehearsal of runs of half a second, of a model that answers at once.

    What LoadGen is told to expect is calibrated nowhere: however fast the machine turns out, a run has enough to ask.
    """
    write_means(tmp_path / "quick.onnx")
    (tmp_path / "quick.yaml").write_text(RECIPE_FILE)
    (tmp_path / "quick.conf").write_text(CONF)
    files = ["--model", "quick.onnx", "--recipe", "quick.yaml", "--user-conf", "quick.conf"]
    return ["--rehearse", *files, "--time", "0.5"]


def submit(cwd: Path, *arguments: str | Path) -> Finished:
    return run_python("-m", "sut", "submit", *arguments, cwd=cwd, timeout_s=LIMIT_S)


def logs(folder: Path) -> list[Path]:
    """The runs that LoadGen has ended below a folder."""
    return [path.parent for path in folder.rglob("mlperf_log_summary.txt") if path.stat().st_size]


def broken(tree: Path) -> set[Rule]:
    """The rules that a rehearsal's tree breaks, without doubts, and that an audit is failed for its score."""
    findings = [each for each in judge_tree(tree) if each.severity is not Severity.DOUBT]
    scores = {each.file for each in findings if each.rule is TreeRule.RATIO}
    return {each.rule for each in findings if not (each.rule is TreeRule.FAILED and each.file in scores)}


@pytest.mark.slow
def test_a_closed_rehearsal_of_three_scenarios_makes_twelve_runs(tmp_path: Path, quick: list[str]) -> None:
    output = tmp_path / "elsewhere" / "runs"
    with python_started("-m", "sut", "submit", output, *quick, cwd=tmp_path) as running:
        running.wait_until(lambda: len([*output.rglob("result.json")]) >= 2)
        running.signal(signal.SIGINT)
        interrupted = running.finish(LIMIT_S)

    assert interrupted.code == 130 and len(interrupted.errors) == 1
    assert not (tmp_path / "rehearsal").exists()

    done = submit(tmp_path, output, *quick, "--json")

    assert done.code == 0, done.err
    told = json.loads(done.out)
    made = {int(found) for found in re.findall(r"^run (\d+): ", done.err, re.MULTILINE)}
    kept = len(re.findall(r": kept, finished ", done.err))
    assert kept >= 2 and made == set(range(1, 13 - kept))
    assert told["runs"] == 12 == len([folder for folder in logs(output) if folder.name in ROLES])
    assert (told["rehearsal"], told["accepted"], len(told["audits"])) == (True, True, 6)
    assert {(each["scenario"], each["test"]) for each in told["audits"]} == {
        (scenario, test) for scenario in ("SingleStream", "MultiStream", "Offline") for test in ROLES[2:]
    }
    assert all(each["ratio"] > 0 for each in told["audits"])
    tree = tmp_path / "rehearsal"
    assert len(logs(tree)) == 12
    texts = [*tree.rglob("README.md")]
    assert len(texts) == 4 and all(each.read_text().startswith(REHEARSAL) for each in texts)
    assert TreeRule.REHEARSAL in broken(tree) <= RELAXED
    assert {each["rule"] for each in told["rows"] if each["severity"] != "doubt"} <= {*RELAXED, TreeRule.FAILED}

    again = submit(tmp_path, output, *quick)

    assert (again.code, again.err.count(": kept, finished ")) == (0, 12), again.err
    assert len(logs(tree)) == 12 and "run 1: " not in again.err

    judged = submit(tmp_path, "--check", "rehearsal")

    assert judged.code == 4
    assert judged.out.splitlines()[-1].startswith("rehearsal: a rehearsal, all else was accepted, ")
    assert "\nrelaxed, because it is a rehearsal:\n  it says of itself that it is a rehearsal " in f"\n{judged.out}"
    assert "submission" not in done.err + judged.out


@pytest.mark.slow
def test_an_open_rehearsal_of_the_demo_model_takes_one_scenario_and_its_tree_is_replaced(tmp_path: Path) -> None:
    one = ["--rehearse", "--time", "1", "--division", "open", "--scenario", "SingleStream"]
    done = submit(tmp_path, *one, "--output", "tree")

    assert done.code == 0, done.err
    assert "2 LoadGen runs: output/efficientnet-lite0/" in done.out
    assert "tree: a rehearsal, all else was accepted" in done.out
    assert not (tmp_path / "tree/closed").exists()
    assert TreeRule.REHEARSAL in broken(tmp_path / "tree") <= RELAXED - {TreeRule.MODEL, TreeRule.TARGET}

    mark = tmp_path / "tree/open/Rehearsal/results/mark"
    mark.mkdir()
    again = submit(tmp_path, *one, "--output", "tree", "--overwrite")

    assert (again.code, mark.exists()) == (0, False), again.err
    assert [path.name for path in (tmp_path / "tree/open").iterdir()] == ["Rehearsal"]

    (tmp_path / "tree/open/Rehearsal/src/efficientnet-lite0/README.md").write_text("Of a submission.\n")
    refused = submit(tmp_path, *one, "--output", "tree", "--overwrite")

    assert (refused.code, "is no rehearsal" in refused.error) == (1, True)
