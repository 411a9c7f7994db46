"""Whole trees: what MLCommons' own tools let through, inferred results, many submitters, and what lies in the way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sut.mlperf.check_log import LogRule
from sut.mlperf.finding import Severity
from sut.mlperf.logs import KNOWN_SEEDS, OFFICIAL_SEEDS
from sut.mlperf.tree.judge import REHEARSAL, judge_tree
from sut.mlperf.tree.rules import TreeRule
from tests.unit.mlperf.tree import trees
from tests.unit.mlperf.tree.logs import DETAIL, ROLES, SUMMARY
from tests.unit.mlperf.tree.trees import ANSWERS, CLOSED, OPEN, OPEN_RESULTS, RESULTS, Folder

SINGLE, MULTI, OFFLINE = (f"{RESULTS}/{name}" for name in ("SingleStream", "MultiStream", "Offline"))
RUN = "performance/run_1"


def an_invalid_run(tree: Folder) -> None:
    ending = {"early_stopping_met": False, "early_stopping_latency_ms": 0, "result_query_count": 600}
    tree.log(f"{MULTI}/{RUN}", result_validity="INVALID", result_min_queries_met=False, **ending)


def errors_of_loadgen(tree: Folder) -> None:
    line = ':::MLLOG {"key": "error_runtime", "value": "Ending early", "metadata": {"is_error": true}}\n'
    path = f"{MULTI}/{RUN}/{DETAIL}"
    tree.write(path, line + (tree.root / path).read_text())


def without_a_summary(tree: Folder) -> None:
    (tree.root / MULTI / RUN / SUMMARY).unlink()


def labels_compared_by_their_first_byte(tree: Folder) -> None:
    """All that TEST01 sampled are wrong; float32 labels have two zeros in front, and the verification saw no more."""
    path = tree.root / SINGLE / f"TEST01/accuracy/{ANSWERS}"
    path.write_text(path.read_text().replace("00002743", "0000A242"))


def a_run_of_all_samples_for_test04(tree: Folder) -> None:
    tree.log(f"{MULTI}/TEST04/{RUN}", effective_performance_issue_same=False, requested_performance_issue_same=False)


def a_short_run_that_was_set_to_600_s(tree: Folder) -> None:
    short = {"power_end": "11-20-2026 04:21:00.000", "result_min_duration_met": False, "result_validity": "INVALID"}
    tree.log(f"{MULTI}/{RUN}", **short)


def an_open_run_of_few_samples(tree: Folder) -> None:
    few = {"effective_samples_per_query": 24000, "generated_samples_per_query": 24000}
    shutil.rmtree(tree.root / "closed")
    trees.open_division(tree.root)
    tree.log(f"{OPEN_RESULTS}/Offline/{RUN}", **few, result_samples_per_second=36.3636)


def no_submitter(tree: Folder) -> None:
    shutil.rmtree(tree.root / CLOSED)


def no_system(tree: Folder) -> None:
    shutil.rmtree(tree.root / CLOSED / "results/box")


def no_model(tree: Folder) -> None:
    shutil.rmtree(tree.root / RESULTS)


@pytest.mark.parametrize(
    ("change", "words", "field"),
    [
        (an_invalid_run, "not VALID", "result_validity"),
        (errors_of_loadgen, "LoadGen logged an error", "error_runtime"),
        (without_a_summary, "missing", "file"),
        (labels_compared_by_their_first_byte, "is not the accuracy run's", "qsl_idx 0"),
        (a_run_of_all_samples_for_test04, "not run with the audit's settings", "effective_performance_issue_same"),
        (a_short_run_that_was_set_to_600_s, "shorter than MLPerf asks for", "power_end"),
        (an_open_run_of_few_samples, "the number of samples", "generated_samples_per_query"),
        (no_submitter, "missing", "folder"),
        (no_system, "missing", "folder"),
        (no_model, "missing", "folder"),
    ],
)  # fmt: skip
def test_what_the_official_tools_let_through_is_refused(
    tmp_path: Path, change: Callable[[Folder], None], words: str, field: str
) -> None:
    change(trees.closed_edge(tmp_path))

    found = [finding for finding in judge_tree(tmp_path) if words in finding.rule and finding.field == field]

    assert len(found) == 1
    assert found[0].severity is not Severity.DOUBT


@pytest.mark.parametrize("role", ["performance/run_1", "accuracy", "TEST01/performance/run_1"])
def test_the_seeds_of_another_round_are_not_this_ones(tmp_path: Path, role: str) -> None:
    former = next(seeds for seeds in KNOWN_SEEDS if seeds != OFFICIAL_SEEDS)
    seeds = {f"{prefix}_{name}": seed for prefix in ("requested", "effective") for name, seed in former.items()}
    trees.closed_edge(tmp_path).log(f"{SINGLE}/{role}", **seeds)

    found = judge_tree(tmp_path)

    assert {(each.rule, each.file) for each in found} == {(LogRule.SEED, f"{SINGLE}/{role}/{DETAIL}")}


def test_results_may_be_inferred_on_the_edge_and_are_named(tmp_path: Path) -> None:
    trees.closed_edge(tmp_path)
    for scenario in (MULTI, OFFLINE):
        shutil.rmtree(tmp_path / scenario)
        shutil.copytree(tmp_path / SINGLE, tmp_path / scenario)

    found = judge_tree(tmp_path)

    assert {finding.rule for finding in found} == {TreeRule.INFERRED}
    assert [finding.file for finding in found] == sorted(
        f"{scenario}/{folder}/{DETAIL}"
        for scenario in (MULTI, OFFLINE)
        for folder in (RUN, "accuracy", f"TEST01/{RUN}", f"TEST04/{RUN}")
    )
    assert {finding.severity for finding in found} == {Severity.DOUBT}


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [(OFFLINE, SINGLE, "edge"), (MULTI, SINGLE, "edge"), (OFFLINE, MULTI, "edge"), (SINGLE, OFFLINE, "datacenter")],
)
def test_one_run_in_the_place_of_two_is_refused_else(tmp_path: Path, source: str, target: str, kind: str) -> None:
    trees.closed_edge(tmp_path).set(f"{CLOSED}/systems/box.json", system_type=kind)
    shutil.rmtree(tmp_path / target / RUN)
    shutil.copytree(tmp_path / source / RUN, tmp_path / target / RUN)

    rules = {finding.rule for finding in judge_tree(tmp_path)}

    assert {TreeRule.SCENARIO, TreeRule.SAME} <= rules
    assert TreeRule.INFERRED not in rules


def test_a_log_that_is_inferred_stands_for_no_audit(tmp_path: Path) -> None:
    trees.closed_edge(tmp_path)
    shutil.rmtree(tmp_path / OFFLINE / "TEST04" / RUN)
    shutil.copytree(tmp_path / SINGLE / RUN, tmp_path / OFFLINE / "TEST04" / RUN)

    assert TreeRule.SAME in {finding.rule for finding in judge_tree(tmp_path)}


def test_submitters_systems_models_and_divisions_stand_side_by_side(tmp_path: Path) -> None:
    tree = trees.closed_edge(tmp_path)
    trees.open_division(tmp_path)
    for number, name in enumerate(("mobilenet-v1", "efficientnet-lite0")):
        trees.system(tree, "closed/Another", "closed", "edge", name, f"system-{number}")
        for each, scenario in enumerate(trees.EDGE):
            folder = f"closed/Another/results/system-{number}/{name}/{scenario}"
            trees.scenario(tree, folder, scenario, 10 + 10 * number + each, ROLES)
    tree.write("closed/Another/calibration.md", "None.\n")

    assert judge_tree(tmp_path) == []


def test_a_rehearsal_is_named_once_and_judged_as_ever(tmp_path: Path) -> None:
    tree = trees.closed_edge(tmp_path)
    for path in tmp_path.rglob("README.md"):
        path.write_text(f"{REHEARSAL}\n")
    tree.set(f"{CLOSED}/systems/box.json", sw_notes=REHEARSAL, cooling="")

    found = judge_tree(tmp_path)

    assert [finding.rule for finding in found] == [TreeRule.REHEARSAL, TreeRule.FIELD]


def test_findings_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    tree = trees.closed_edge(tmp_path)
    for path in (f"{SINGLE}/README.md", f"{CLOSED}/calibration.md", f"{MULTI}/user.conf"):
        (tree.root / path).unlink()

    found = [finding.file for finding in judge_tree(tmp_path)]

    assert found == [f"{CLOSED}/calibration.md", f"{MULTI}/user.conf", f"{SINGLE}/README.md"]


def test_what_stands_in_the_place_of_a_file_is_named_once_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    trees.closed_edge(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for number, path in enumerate(files):
        path.unlink()
        if number % 2:
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")

    found = judge_tree(tmp_path)

    assert sorted(finding.file for finding in found) == sorted(str(path.relative_to(tmp_path)) for path in files)
    assert {finding.rule for finding in found} == {TreeRule.KIND, TreeRule.LINK}


def test_folders_in_the_place_of_files_are_named(tmp_path: Path) -> None:
    tree = trees.closed_edge(tmp_path)
    for path in (f"{SINGLE}/README.md", f"{SINGLE}/{RUN}/{DETAIL}"):
        (tree.root / path).unlink()
        (tree.root / path).mkdir()

    assert [finding.rule for finding in judge_tree(tmp_path)] == [TreeRule.FORM] * 2


def test_a_whole_accuracy_log_is_judged_by_its_hash_and_its_pictures(tmp_path: Path) -> None:
    """As in a rehearsal, whose data set is small: all but the number of pictures holds."""
    tree = trees.open_division(tmp_path)
    folder = f"{OPEN_RESULTS}/Offline/accuracy"
    whole = json.dumps([{"seq_id": each, "qsl_idx": each, "data": "00002743"} for each in range(24)])
    small = {"qsl_reported_total_count": 24, "effective_accuracy_sample_count": 24, "generated_samples_per_query": 24}
    tree.log(folder, **small, effective_samples_per_query=24)
    digest = hashlib.sha256(whole.encode()).hexdigest()
    for name, content in ((ANSWERS, whole), ("accuracy.txt", f"accuracy=50.000%, good=12, total=24\nhash={digest}\n")):
        tree.write(f"{folder}/{name}", content)

    assert {finding.rule for finding in judge_tree(tmp_path)} == {TreeRule.PICTURES}

    tree.replace(f"{folder}/accuracy.txt", "good=12, total=24", "good=13, total=26")
    tree.replace(f"{folder}/{ANSWERS}", "00002743", "00002843")

    assert {finding.rule for finding in judge_tree(tmp_path)} == {TreeRule.PICTURES, TreeRule.HASH, TreeRule.SCORE}


@pytest.mark.parametrize("folder", ["src", "systems", "results"])
def test_an_empty_part_is_named_and_the_others_are_judged(tmp_path: Path, folder: str) -> None:
    tree = trees.open_division(tmp_path)
    shutil.rmtree(tmp_path / OPEN / folder)
    tree.write(f"{OPEN}/model_mapping.json", "[")

    files = {finding.file for finding in judge_tree(tmp_path)}

    assert {f"{OPEN}/{folder}", f"{OPEN}/model_mapping.json"} <= files


NASTY = {
    "zeros": b"\0" * 100,
    "no text": b"\xff\xfe" * 50,
    "brackets": b"[" * 100_000,
    "a long number": b"9" * 5000,
    "null": b"null",
    "odd values": b'{"division": [], "submitter": {}, "status": 1e999, "system_type": NaN, "number_of_nodes": -1}',
    "a score": b"accuracy=" + b"9" * 5000 + b"%, good=" + b"9" * 5000 + b", total=" + b"9" * 5000,
    "verdicts": b"num_acc_log_entries = nan\nReference score = -1e999\nTest score = x\nTEST PASS\n",
    "answers": b'[{"seq_id": 0, "qsl_idx": ' + b"9" * 5000 + b', "data": "0"}]',
    "entries": b"".join(
        b':::MLLOG {"key": "%s", "value": %s}\n' % (key, value)
        for key in (b"effective_scenario", b"effective_test_mode", b"num_errors", b"power_end", b"result_query_count")
        for value in (b"[]", b"{}", b"1e999", b"9" * 400)
    ),
}


@pytest.mark.parametrize("content", NASTY.values(), ids=NASTY)
def test_whatever_a_file_holds_is_a_finding_and_no_more(tmp_path: Path, content: bytes) -> None:
    trees.open_division(tmp_path)
    trees.closed_edge(tmp_path)
    shutil.rmtree(tmp_path / MULTI)
    shutil.rmtree(tmp_path / OFFLINE)
    sound = judge_tree(tmp_path)

    for path in [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".md"]:
        before = path.read_bytes()
        path.write_bytes(content)
        found = judge_tree(tmp_path)
        path.write_bytes(before)
        assert found != sound or path.name in ("user.conf", SUMMARY)
        assert [each for each in found if len(each.got) > 500 or not each.got.isprintable()] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"effective_target_qps": 1e308},
        {"effective_accuracy_log_sampling_target": -4096},
        {"effective_samples_per_query": -1, "generated_samples_per_query": -1},
        {"effective_min_duration_ms": 10**400},
        {"result_query_count": 0, "generated_query_count": 0},
        {"result_qps_with_loadgen_overhead": 0, "early_stopping_latency_ss": 0},
    ],
)
def test_numbers_that_no_run_has_are_findings(tmp_path: Path, changes: dict[str, object]) -> None:
    tree = trees.closed_edge(tmp_path)
    for folder in (RUN, f"TEST01/{RUN}", "accuracy"):
        tree.log(f"{SINGLE}/{folder}", **changes)

    assert judge_tree(tmp_path)
