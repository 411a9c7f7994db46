"""The judge of submissions: good trees have no finding, and what breaks one rule has that one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from sut.mlperf.finding import Finding, Rule
from sut.mlperf.tree.judge import REHEARSAL, judge_tree
from sut.mlperf.tree.rules import TreeRule
from tests.unit.mlperf.tree import trees
from tests.unit.mlperf.tree.logs import DETAIL, ROLES, SUMMARY, performance
from tests.unit.mlperf.tree.trees import ANSWERS, CLOSED, OPEN, OPEN_RESULTS, RESULTS, Folder

SYSTEM = f"{CLOSED}/systems/box.json"
SRC = f"{CLOSED}/src/resnet50"
SINGLE, MULTI, OFFLINE, SERVER = (f"{RESULTS}/{name}" for name in ("SingleStream", "MultiStream", "Offline", "Server"))
RUN = "performance/run_1"
LATER = datetime(2026, 11, 27)
Change = Callable[[Folder], object]


def named(value: object) -> str:
    return getattr(value, "name", "")


def told(found: list[Finding]) -> list[tuple[Rule, str, str]]:
    return [(finding.rule, finding.file, finding.field) for finding in found]


@pytest.mark.parametrize("make", [trees.closed_edge, trees.datacenter_edge, trees.yolo_edge, trees.open_division])
def test_a_whole_submission_has_no_finding(tmp_path: Path, make: Callable[[Path], Folder]) -> None:
    make(tmp_path)

    assert judge_tree(tmp_path) == []


def test_where_there_is_no_tree_it_says_so(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "holds neither closed nor open nor network"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ValueError, match=said):
            judge_tree(path)


def link(tree: Folder) -> None:
    (tree.root / SRC / "model.py").symlink_to("README.md")


def too_deep(tree: Folder) -> None:
    """Folders below each other, until a path has no name any more that the system takes."""
    folder = os.open(tree.root / SRC, os.O_RDONLY)
    for _ in range(21):
        os.mkdir("d" * 200, dir_fd=folder)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)


def too_large(tree: Folder) -> None:
    with (tree.root / SRC / "weights").open("wb") as file:
        file.truncate(50 * 2**20 + 1)


def model_of(name: str) -> Change:
    def change(tree: Folder) -> None:
        (tree.root / RESULTS).rename(tree.root / RESULTS.replace("resnet50", name))
        (tree.root / SRC).rename(tree.root / CLOSED / "src" / name)

    return change


def few_answers(tree: Folder) -> None:
    """TEST01's log says that 40 answers were to be sampled: so few that they are not cut, with the hash of others."""
    lines = [{"seq_id": each, "qsl_idx": each, "data": "00002743"} for each in range(40)]
    tree.write(f"{SINGLE}/TEST01/accuracy/{ANSWERS}", json.dumps(lines))
    sampled(40)(tree)
    tree.log(f"{SINGLE}/TEST01/{RUN}", effective_target_qps=22000)


def sampled(count: int) -> Change:
    def change(tree: Folder) -> None:
        for name in ("entries", "qsl_idx_match"):
            tree.replace(COUNTS, f"num_perf_log_{name} = 1239", f"num_perf_log_{name} = {count}")

    return change


def audit_quicker(test: str, steps: int) -> Change:
    def change(tree: Folder) -> None:
        entries = performance("SingleStream", test, LATER, steps)
        trees.write_log(tree, f"{SINGLE}/{test}/{RUN}", entries)
        text = (tree.root / f"{SINGLE}/{test}/verify_performance.txt").read_text().splitlines()
        text[-2] = f"Test score = {entries['early_stopping_latency_ss']}"
        tree.write(f"{SINGLE}/{test}/verify_performance.txt", "\n".join(text))

    return change


def few_samples(tree: Folder) -> None:
    changes = {"effective_samples_per_query": 24000, "generated_samples_per_query": 24000}
    tree.log(f"{OPEN_RESULTS}/Offline/{RUN}", **changes, result_samples_per_second=36.3636)


def of_four(tree: Folder) -> None:
    keys = ("effective_samples_per_query", "generated_samples_per_query", "requested_multi_stream_samples_per_query")
    tree.log(f"{MULTI}/{RUN}", **dict.fromkeys(keys, 4))


def set_server(folder: str, bound_ns: int) -> Change:
    changes = {f"{prefix}_target_latency_ns": bound_ns for prefix in ("effective", "requested_server")}
    return lambda tree: tree.log(folder, **changes)


def late_bound(tree: Folder) -> None:
    for folder in ("performance", "TEST01/performance", "TEST04/performance"):
        set_server(f"{SERVER}/{folder}/run_1", 20_000_000)(tree)
    tree.replace(f"{SERVER}/user.conf", "target_latency = 15", "target_latency = 20")


def copied(source: str, target: str) -> Change:
    def change(tree: Folder) -> None:
        for name in (DETAIL, SUMMARY):
            shutil.copy(tree.root / source / name, tree.root / target / name)

    return change


def another(scenario: str, folder: str) -> Change:
    """A run of its own, of that scenario."""
    return lambda tree: trees.write_log(tree, folder, performance(scenario, "performance", LATER))


def few_of_yolo(tree: Folder) -> None:
    few = {"effective_samples_per_query": 1524, "generated_samples_per_query": 1524}
    tree.log(f"{trees.YOLO}/Offline/{RUN}", **few, result_samples_per_second=float(f"{1524 / 660:.6g}"))


def a_server(tree: Folder) -> None:
    tree.write(f"{trees.YOLO}/Server/README.md", "1")


def model_of_yolo(name: str) -> Change:
    def change(tree: Folder) -> None:
        (tree.root / trees.YOLO).rename(tree.root / f"{CLOSED}/results/box" / name)
        (tree.root / CLOSED / "src/yolo-99").rename(tree.root / CLOSED / "src" / name)

    return change


def write(path: str, content: str | bytes) -> Change:
    return lambda tree: tree.write(path, content)


def append(path: str, more: bytes) -> Change:
    return lambda tree: tree.write(path, (tree.root / path).read_bytes() + more)


def replace(path: str, old: str, new: str) -> Change:
    return lambda tree: tree.replace(path, old, new)


def fields(path: str, **values: object) -> Change:
    return lambda tree: tree.set(path, **values)


def log(folder: str, **values: object) -> Change:
    return lambda tree: tree.log(folder, **values)


def remove(path: str) -> Change:
    def change(tree: Folder) -> None:
        if (tree.root / path).is_dir():
            shutil.rmtree(tree.root / path)
        else:
            (tree.root / path).unlink()

    return change


SCORE = f"{SINGLE}/accuracy/accuracy.txt"
GOOD_SCORE = "accuracy=76.456%, good=38228"
COUNTS = f"{SINGLE}/TEST01/verify_accuracy.txt"
SCORES = f"{OFFLINE}/TEST01/verify_performance.txt"
OPEN_LOG = f"{OPEN_RESULTS}/Offline/{RUN}"

Case = tuple[TreeRule, Change, str, str]


def logged(rule: TreeRule, folder: str, **values: object) -> Case:
    """A log with other entries, the first of which is found."""
    return rule, log(folder, **values), f"{folder}/{DETAIL}", next(iter(values))


def set_to(folder: str, name: str, value: object) -> Change:
    """Another setting, as it was asked for and as it came into effect."""
    return log(folder, **{f"{prefix}_{name}": value for prefix in ("effective", "requested")})


def asked(rule: TreeRule, folder: str, name: str, value: object) -> Case:
    """A log with another setting."""
    return rule, set_to(folder, name, value), f"{folder}/{DETAIL}", f"effective_{name}"


def said(rule: TreeRule, path: str, old: str, new: str, field: str) -> Case:
    """A file with another line."""
    return rule, replace(path, old, new), path, field


CASES: list[Case] = [
    (TreeRule.LINK, link, f"{SRC}/model.py", "kind"),
    (TreeRule.KIND, lambda tree: os.mkfifo(tree.root / SRC / "pipe"), f"{SRC}/pipe", "kind"),
    (TreeRule.NAME, write(f"{SRC}/my model.py", "1"), f"{SRC}/my model.py", "name"),
    (TreeRule.NAME, write(f"{SRC}/.gitignore", "1"), f"{SRC}/.gitignore", "name"),
    (TreeRule.NAME, write(f"{SRC}/caf\udce9", "1"), f"{SRC}/caf\\xe9", "name"),
    (TreeRule.UNREADABLE, too_deep, "", "folder"),
    (TreeRule.LARGE, too_large, f"{SRC}/weights", "bytes"),
    (TreeRule.MISSING, remove(f"{CLOSED}/calibration.md"), f"{CLOSED}/calibration.md", "file"),
    (TreeRule.MISSING, remove(f"{CLOSED}/src"), f"{CLOSED}/src", "folder"),
    (TreeRule.MISSING, remove(f"{SINGLE}/TEST04"), f"{SINGLE}/TEST04", "folder"),
    (TreeRule.MISSING, remove(f"{SINGLE}/{RUN}/{SUMMARY}"), f"{SINGLE}/{RUN}/{SUMMARY}", "file"),
    (TreeRule.EMPTY, write(f"{SINGLE}/README.md", "\n"), f"{SINGLE}/README.md", "file"),
    (TreeRule.STRAY, write(f"{SINGLE}/TEST01/{RUN}/{ANSWERS}", "[]"), f"{SINGLE}/TEST01/{RUN}/{ANSWERS}", "name"),
    (TreeRule.STRAY, write(f"{RESULTS}/notes/README.md", "1"), f"{RESULTS}/notes", "name"),
    (TreeRule.EXTRA, write("README.md", "1"), "README.md", "name"),
    (TreeRule.EXTRA, write(f"{CLOSED}/systems/other.json", "{}"), f"{CLOSED}/systems/other.json", "name"),
    (TreeRule.EXTRA, write(f"{SINGLE}/performance/run_2/{DETAIL}", "1"), f"{SINGLE}/performance/run_2", "name"),
    (TreeRule.FORM, write(f"{SINGLE}/measurements.json", "[]"), f"{SINGLE}/measurements.json", "file"),
    (TreeRule.FORM, write(f"{SINGLE}/user.conf", b"\xff"), f"{SINGLE}/user.conf", "file"),
    (TreeRule.FORM, append(f"{SINGLE}/{RUN}/{DETAIL}", b"\xff\n"), f"{SINGLE}/{RUN}/{DETAIL}", "file"),
    (TreeRule.FORM, append(f"{SINGLE}/{RUN}/{SUMMARY}", b"\xff\n"), f"{SINGLE}/{RUN}/{SUMMARY}", "file"),
    said(TreeRule.FORM, SCORE, "hash=", "sum=", "hash"),
    said(TreeRule.FORM, COUNTS, "num_missing_qsl_idxs = 0\n", "", "num_missing_qsl_idxs"),
    (TreeRule.FIELD, fields(SYSTEM, cooling=" "), SYSTEM, "cooling"),
    (TreeRule.FIELD, fields(SYSTEM, accelerators_per_node=0), SYSTEM, "accelerators_per_node"),
    (TreeRule.FIELD, fields(SYSTEM, hw_notes=None), SYSTEM, "hw_notes"),
    (TreeRule.FIELD, fields(f"{SINGLE}/measurements.json", retraining=""), f"{SINGLE}/measurements.json", "retraining"),
    (TreeRule.VALUE, fields(SYSTEM, status="sold"), SYSTEM, "status"),
    (TreeRule.VALUE, fields(SYSTEM, system_type="datacenter"), SYSTEM, "system_type"),
    (TreeRule.VALUE, fields(SYSTEM, accelerators_per_node="N/A"), SYSTEM, "accelerators_per_node"),
    (TreeRule.NAMES, fields(SYSTEM, submitter="example"), SYSTEM, "submitter"),
    (TreeRule.NAMES, fields(SYSTEM, division="open"), SYSTEM, "division"),
    (TreeRule.MODEL, model_of("own-net"), f"{CLOSED}/results/box/own-net", "name"),
    (TreeRule.SCENARIOS, remove(MULTI), RESULTS, "folder"),
    (TreeRule.SCENARIOS, lambda tree: trees.scenario(tree, SERVER, "Server", 9, ROLES), RESULTS, "folder"),
    (TreeRule.SCENARIOS, fields(SYSTEM, system_type="datacenter,edge"), RESULTS, "folder"),
    (TreeRule.REHEARSAL, write(f"{SINGLE}/README.md", f"# {REHEARSAL}\n"), f"{SINGLE}/README.md", "text"),
    (TreeRule.REHEARSAL, fields(SYSTEM, sw_notes=f"a note. {REHEARSAL}."), SYSTEM, "sw_notes"),
    (TreeRule.SCENARIO, another("Offline", f"{MULTI}/{RUN}"), f"{MULTI}/{RUN}/{DETAIL}", "effective_scenario"),
    (TreeRule.INFERRED, copied(f"{SINGLE}/{RUN}", f"{OFFLINE}/{RUN}"), f"{OFFLINE}/{RUN}/{DETAIL}",
     "effective_scenario"),
    (TreeRule.SAME, log(f"{MULTI}/{RUN}", power_begin="11-20-2026 00:20:00.000"), f"{SINGLE}/{RUN}/{DETAIL}",
     "power_begin"),
    asked(TreeRule.MIN_DURATION, f"{MULTI}/{RUN}", "min_duration_ms", 590000),
    logged(TreeRule.LENGTH, f"{MULTI}/{RUN}", power_end="11-20-2026 04:21:00.000"),
    (TreeRule.COUNT, of_four, f"{MULTI}/{RUN}/{DETAIL}", "effective_samples_per_query"),
    logged(TreeRule.SAMPLES, f"{MULTI}/{RUN}", effective_performance_sample_count=512),
    logged(TreeRule.PERCENTILE, f"{MULTI}/{RUN}", effective_target_latency_percentile=0.9),
    asked(TreeRule.ROLE, f"{MULTI}/TEST01/{RUN}", "performance_issue_same", True),
    asked(TreeRule.ROLE, f"{MULTI}/{RUN}", "sample_concatenate_permutation", True),
    logged(TreeRule.ENTRY, f"{MULTI}/{RUN}", effective_qsl_rng_seed=None),
    logged(TreeRule.ENTRY, f"{SINGLE}/accuracy", test_datetime=""),
    logged(TreeRule.ERRORS, f"{MULTI}/{RUN}", num_errors=2),
    said(TreeRule.CONF, f"{OFFLINE}/user.conf", "250", "300", "target_qps"),
    said(TreeRule.CONF, f"{MULTI}/user.conf", "10", "12", "target_latency"),
    logged(TreeRule.PICTURES, f"{SINGLE}/accuracy", effective_accuracy_sample_count=828),
    said(TreeRule.PICTURES, SCORE, f"{GOOD_SCORE}, total=50000", "accuracy=78.019%, good=646, total=828", "total"),
    said(TreeRule.SCORE, SCORE, "76.456", "86.456", "accuracy"),
    said(TreeRule.TARGET, SCORE, GOOD_SCORE, "accuracy=75.694%, good=37847", "accuracy"),
    (TreeRule.HASH, few_answers, f"{SINGLE}/TEST01/accuracy/accuracy.txt", "hash"),
    (TreeRule.TRUNCATION, write(f"{SINGLE}/accuracy/{ANSWERS}", b"[" + b" " * 10240 + b"\n\n...\n\n]"),
     f"{SINGLE}/accuracy/{ANSWERS}", "bytes"),
    said(TreeRule.FAILED, COUNTS, "TEST PASS", "TEST FAIL", "verdict"),
    said(TreeRule.FAILED, COUNTS, "mismatch = 0\nnum_m", "mismatch = 1239\nnum_m", "num_perf_log_data_mismatch"),
    (TreeRule.SAMPLED, sampled(900), COUNTS, "num_perf_log_entries"),
    said(TreeRule.ANSWERS, f"{SINGLE}/TEST01/accuracy/{ANSWERS}", "00002743", "0000A242", "qsl_idx 0"),
    said(TreeRule.COUNTS, COUNTS, "idx_match = 1239", "idx_match = 1238", "num_perf_log_qsl_idx_match"),
    said(TreeRule.SCORES, SCORES, "Reference score = 250.0", "Reference score = 260.0", "Test score"),
    (TreeRule.RATIO, audit_quicker("TEST04", 60), f"{SINGLE}/TEST04/verify_performance.txt", "Test score"),
    (TreeRule.RATIO, audit_quicker("TEST01", 60), f"{SINGLE}/TEST01/verify_performance.txt", "Test score"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "change", "file", "field"), CASES, ids=named)
def test_a_tree_that_breaks_one_rule_has_that_finding_alone(
    tmp_path: Path, rule: TreeRule, change: Change, file: str, field: str
) -> None:
    change(trees.closed_edge(tmp_path))

    [finding] = judge_tree(tmp_path)

    assert (finding.rule, finding.field) == (rule, field)
    assert finding.file == file or not file
    assert finding.severity is rule.severity and finding.expected


OTHERS: list[tuple[TreeRule, Callable[[Path], Folder], Change, str, str]] = [
    (TreeRule.BOUND, trees.datacenter_edge, set_server(f"{SERVER}/TEST01/{RUN}", 14_000_000),
     f"{SERVER}/TEST01/{RUN}/{DETAIL}", "effective_target_latency_ns"),
    (TreeRule.COUNT, trees.open_division, few_samples, f"{OPEN_LOG}/{DETAIL}", "generated_samples_per_query"),
    (TreeRule.MODEL, trees.open_division, remove(f"{OPEN}/model_mapping.json"), OPEN_RESULTS, "name"),
    (TreeRule.VALUE, trees.open_division, fields(f"{OPEN}/model_mapping.json", **{"own-net": "bert"}),
     f"{OPEN}/model_mapping.json", "own-net"),
    (TreeRule.SCENARIOS, trees.open_division, remove(f"{OPEN_RESULTS}/Offline"), OPEN_RESULTS, "folder"),
    (TreeRule.NETWORK, trees.over_network, log(f"{trees.NETWORK_RESULTS}/Server/{RUN}", sut_name="PyFastSUT"),
     f"{trees.NETWORK_RESULTS}/Server/{RUN}/{DETAIL}", "sut_name"),
    (TreeRule.EXTRA, trees.open_division, write(f"{OPEN_RESULTS}/Offline/TEST01/README.md", "1"),
     f"{OPEN_RESULTS}/Offline/TEST01", "name"),
    (TreeRule.MIN_DURATION, trees.open_division, set_to(OPEN_LOG, "min_duration_ms", 590000),
     f"{OPEN_LOG}/{DETAIL}", "effective_min_duration_ms"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "make", "change", "file", "field"), OTHERS, ids=named)
def test_so_has_one_of_another_kind(
    tmp_path: Path, rule: TreeRule, make: Callable[[Path], Folder], change: Change, file: str, field: str
) -> None:
    change(make(tmp_path))

    assert told(judge_tree(tmp_path)) == [(rule, file, field)]


YOLO = f"{trees.YOLO}/SingleStream"
DETECTORS: list[tuple[TreeRule, Change, str, str]] = [
    (TreeRule.EXTRA, write(f"{YOLO}/TEST04/verify_performance.txt", "1"), f"{YOLO}/TEST04", "name"),
    (TreeRule.MISSING, remove(f"{YOLO}/TEST01"), f"{YOLO}/TEST01", "folder"),
    asked(TreeRule.ROLE, f"{YOLO}/TEST01/{RUN}", "accuracy_log_sampling_target", 4096),
    said(TreeRule.TARGET, f"{YOLO}/accuracy/accuracy.txt", "53.412", "52.865", "accuracy"),
    said(TreeRule.SCORE, f"{YOLO}/accuracy/accuracy.txt", "53.412", "153.412", "accuracy"),
    said(TreeRule.FORM, f"{YOLO}/accuracy/accuracy.txt", "mAP=53.412%", "accuracy=76.456%, good=38228, total=50000",
         "accuracy"),
    logged(TreeRule.SAMPLES, f"{YOLO}/{RUN}", effective_performance_sample_count=63),
    logged(TreeRule.PICTURES, f"{YOLO}/accuracy", effective_accuracy_sample_count=1524),
    said(TreeRule.PICTURES, f"{YOLO}/TEST01/verify_accuracy.txt", "1525", "1524", "num_acc_log_entries"),
    (
        TreeRule.PICTURES,
        replace(f"{YOLO}/TEST01/verify_accuracy.txt", "duplicate_keys = 0", "duplicate_keys = 1"),
        f"{YOLO}/TEST01/verify_accuracy.txt",
        "num_acc_log_entries",
    ),
    (TreeRule.COUNT, few_of_yolo, f"{trees.YOLO}/Offline/{RUN}/{DETAIL}", "generated_samples_per_query"),
    (TreeRule.STRAY, a_server, f"{trees.YOLO}/Server", "name"),
    (TreeRule.MODEL, model_of_yolo("retinanet"), f"{CLOSED}/results/box/retinanet", "name"),
]  # fmt: skip


FOLLOWED = (TreeRule.MODEL, TreeRule.ROLE, TreeRule.COUNT)
"""What makes other files fit no longer, too."""


@pytest.mark.parametrize(("rule", "change", "file", "field"), DETECTORS, ids=named)
def test_so_has_a_detectors(tmp_path: Path, rule: TreeRule, change: Change, file: str, field: str) -> None:
    change(trees.yolo_edge(tmp_path))

    assert (rule, file, field) in told(found := judge_tree(tmp_path))
    assert rule in FOLLOWED or len(found) == 1


def test_of_yolo_95_less_is_asked(tmp_path: Path) -> None:
    tree = trees.yolo_edge(tmp_path)
    tree.replace(f"{YOLO}/accuracy/accuracy.txt", "53.412", "50.731")
    for path in (f"{CLOSED}/results/box", f"{CLOSED}/src"):
        (tmp_path / path / "yolo-99").rename(tmp_path / path / "yolo-95")

    assert judge_tree(tmp_path) == []


def test_a_bound_that_is_too_high_is_named_in_each_run(tmp_path: Path) -> None:
    late_bound(trees.datacenter_edge(tmp_path))

    found = judge_tree(tmp_path)

    folders = ("TEST01/performance", "TEST04/performance", "performance")
    assert [finding.file for finding in found] == [f"{SERVER}/{folder}/run_1/{DETAIL}" for folder in folders]
    assert {finding.rule for finding in found} == {TreeRule.BOUND}


def test_each_rule_has_a_tree_that_breaks_only_it() -> None:
    assert {case[0] for case in (*CASES, *OTHERS)} == {*TreeRule}
