"""What a submission has of an audit: its run, and what the verification said of it."""

from __future__ import annotations

import math
import re

from sut.datasets.base import IMAGENET_PICTURES
from sut.mlperf.logs import ACCURACY, DETAIL, SUMMARY
from sut.mlperf.metrics import METRICS
from sut.mlperf.tree.accuracy import SCORE_FILE, judge_answers
from sut.mlperf.tree.layout import Tree
from sut.mlperf.tree.place import Place
from sut.mlperf.tree.results import Log, judge_run
from sut.mlperf.tree.rules import TreeRule

ACCURACY_VERDICT = "verify_accuracy.txt"
PERFORMANCE_VERDICT = "verify_performance.txt"
_PASSED = "TEST PASS"
_LINE = re.compile(r"^(.+?) = (\S+)\s*$", re.MULTILINE)
_NUMBERS = """
    num_acc_log_entries num_acc_log_duplicate_keys num_acc_log_data_mismatch num_perf_log_entries
    num_perf_log_qsl_idx_match num_perf_log_data_mismatch num_missing_qsl_idxs
"""
_ALLOWED = 0.10
_ALLOWED_QUICK = 0.20
_QUICK_NS = {"SingleStream": 200_000, "MultiStream": 1_600_000}
"""Latencies up to which TEST01's score may differ by more."""


def judge_audit(tree: Tree, place: Place, test: str, reference: Log | None) -> Log | None:
    """Judges an audit of the run whose log is ``reference``."""
    folder = f"{place.path}/{test}"
    if not tree.has_folder(folder, f"a folder with {test}"):
        return None
    accurate = test == "TEST01"
    tree.only(folder, ("performance", PERFORMANCE_VERDICT, *(("accuracy", ACCURACY_VERDICT) if accurate else ())))
    log = None
    if tree.has_folder(run := f"{folder}/performance", "a folder with run_1") and tree.has_folder(
        run := f"{run}/run_1", "a folder with LoadGen's logs"
    ):
        tree.only(f"{folder}/performance", ("run_1",))
        tree.only(run, (DETAIL, SUMMARY), TreeRule.STRAY)
        log = judge_run(tree, place, test, run)
    _judge_scores(tree, f"{folder}/{PERFORMANCE_VERDICT}", test, reference, log)
    if accurate:
        counts = _judge_counts(tree, f"{folder}/{ACCURACY_VERDICT}")
        if tree.has_folder(f"{folder}/accuracy", "a folder with the sampled answers"):
            tree.only(f"{folder}/accuracy", (ACCURACY, SCORE_FILE))
            text = tree.text(f"{folder}/accuracy/{SCORE_FILE}")
            answers = judge_answers(tree, f"{folder}/accuracy", text)
            logged = counts.get("num_perf_log_entries")
            if answers is not None and logged is not None and len(answers) != logged:
                path = f"{folder}/accuracy/{ACCURACY}"
                tree.add(TreeRule.COUNTS, path, "entries", len(answers), f"{logged:g} ({ACCURACY_VERDICT})")
    return log


def _lines(tree: Tree, path: str, names: list[str]) -> dict[str, float]:
    """The numbers in a verification's file by name, in lower case; empty where one is missing or none."""
    if (text := tree.text(path)) is None:
        return {}
    said = {name.strip().lower(): value for name, value in _LINE.findall(text)}
    found: dict[str, float] = {}
    for name in names:
        try:
            number = float(said.get(name.lower(), "nan"))
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0:
            tree.add(TreeRule.FORM, path, name, said.get(name.lower()), f"a line '{name} = ' and a number")
        else:
            found[name.lower()] = number
    if _PASSED not in (line.strip() for line in text.splitlines()):
        tree.add(TreeRule.FAILED, path, "verdict", "no such line", f"a line '{_PASSED}'")
    return found if len(found) == len(names) else {}


def _judge_counts(tree: Tree, path: str) -> dict[str, float]:
    counts = _lines(tree, path, _NUMBERS.split())
    if not counts:
        return {}
    entries, duplicates, contradicted, sampled, matched, mismatched, missing = counts.values()
    found = "num_perf_log_entries - num_missing_qsl_idxs"
    sums = [
        ("num_acc_log_duplicate_keys", duplicates, "fewer than num_acc_log_entries", duplicates < entries),
        ("num_acc_log_data_mismatch", contradicted, "at most num_acc_log_duplicate_keys", contradicted <= duplicates),
        ("num_perf_log_qsl_idx_match", matched, found, matched == sampled - missing),
        ("num_perf_log_data_mismatch", mismatched, "at most num_perf_log_qsl_idx_match", mismatched <= matched),
    ]
    for name, got, expected, holds in sums:
        if not holds:
            tree.add(TreeRule.COUNTS, path, name, f"{got:g}", expected)
    if all(holds for *_, holds in sums):
        for name, got, passes in (
            ("num_perf_log_data_mismatch", mismatched, mismatched == 0),
            ("num_missing_qsl_idxs", missing, missing == 0),
            ("num_perf_log_qsl_idx_match", matched, matched > 0),
        ):
            if not passes:
                tree.add(TreeRule.FAILED, path, name, f"{got:g}", "1 or more" if got == 0 else "0")
    if (pictures := entries - duplicates) != IMAGENET_PICTURES:
        tree.add(TreeRule.PICTURES, path, "num_acc_log_entries", f"{pictures:g} pictures", str(IMAGENET_PICTURES))
    return counts


def _judge_scores(tree: Tree, path: str, test: str, reference: Log | None, log: Log | None) -> None:
    said = _lines(tree, path, ["Reference score", "Test score"])
    if reference is None or log is None or reference.scenario != log.scenario or log.scenario not in METRICS:
        return
    _, key, higher = METRICS[log.scenario]
    run, audit = reference.detail.number(key), log.detail.number(key)
    if not run or not audit:
        return
    if said and not any(_agree(said, run, audit, unit) for unit in ((False,) if higher else (False, True))):
        got = f"{said['reference score']:g} and {said['test score']:g}"
        tree.add(TreeRule.SCORES, path, "Test score", got, f"{run:g} and {audit:g} ({DETAIL}, {key})")
    allowed = _ALLOWED_QUICK if test == "TEST01" and run <= _QUICK_NS.get(log.scenario, 0) else _ALLOWED
    better = audit / run if higher else run / audit
    # Of TEST01 the score itself is compared, of TEST04 how much work was done in a time.
    broken = abs(audit / run - 1) > allowed if test == "TEST01" else better > 1 + allowed
    if broken:
        wanted = f"{run:g}, {'give or take' if test == 'TEST01' else 'or better by at most'} {100 * allowed:g} %"
        tree.add(TreeRule.RATIO, path, "Test score", f"{audit:g}", wanted)


def _agree(said: dict[str, float], run: float, audit: float, as_rate: bool) -> bool:
    """Whether scores are those of the logs; MLCommons' script turns TEST04's latencies into rates."""
    wanted = (1e9 / run, 1e9 / audit) if as_rate else (run, audit)
    return all(math.isclose(*pair, rel_tol=1e-5) for pair in zip(said.values(), wanted, strict=True))
