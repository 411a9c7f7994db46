"""What a submission has of an audit: its run, and what the verification said of it."""

from __future__ import annotations

import math
import re

from sut.mlperf.accuracy import SCORE_FILE
from sut.mlperf.logs import ACCURACY, DETAIL, Detail
from sut.mlperf.metrics import METRICS
from sut.mlperf.official import Benchmark
from sut.mlperf.tree.accuracy import answers_left, judge_answers, judge_percent
from sut.mlperf.tree.layout import Tree
from sut.mlperf.tree.place import Place
from sut.mlperf.tree.results import Log, judge_performance
from sut.mlperf.tree.rules import TreeRule
from sut.mlperf.verify_audit import entries_expected, score_bounds

ACCURACY_VERDICT = "verify_accuracy.txt"
PERFORMANCE_VERDICT = "verify_performance.txt"
_PASSED = "TEST PASS"
_LINE = re.compile(r"^(.+?) = (\S+)\s*$", re.MULTILINE)
_NUMBERS = """
    num_acc_log_entries num_acc_log_duplicate_keys num_acc_log_data_mismatch num_perf_log_entries
    num_perf_log_qsl_idx_match num_perf_log_data_mismatch num_missing_qsl_idxs
"""
_SAMPLED = "num_perf_log_entries"
_TWO_DECIMALS = 0.00501


def judge_audit(tree: Tree, place: Place, test: str, reference: Log | None) -> Log | None:
    """Judges an audit of the run whose log is ``reference``."""
    folder = f"{place.path}/{test}"
    if not tree.has_folder(folder, f"a folder with {test}"):
        return None
    accurate = test == "TEST01"
    tree.only(folder, ("performance", PERFORMANCE_VERDICT, *(("accuracy", ACCURACY_VERDICT) if accurate else ())))
    log = judge_performance(tree, place, test, folder)
    _judge_scores(tree, f"{folder}/{PERFORMANCE_VERDICT}", test, reference, log)
    if reference is not None and log is not None and log.scenario == "Server":
        key = "effective_target_latency_ns"
        got, wanted = (each.detail.values[key] for each in (log, reference))
        if got != wanted:
            tree.add(TreeRule.BOUND, log.path, key, got, f"{wanted}, as the run's")
    if accurate:
        counts = _judge_counts(tree, verdict := f"{folder}/{ACCURACY_VERDICT}", place.benchmark.pictures)
        if counts and log is not None:
            _judge_number(tree, verdict, counts[_SAMPLED], log.detail)
        if tree.has_folder(f"{folder}/accuracy", "a folder with the sampled answers"):
            tree.only(f"{folder}/accuracy", (ACCURACY, SCORE_FILE))
            _judge_sampled(tree, place.benchmark, f"{folder}/accuracy", counts.get(_SAMPLED))
            _judge_equal(tree, f"{place.path}/accuracy/{ACCURACY}", f"{folder}/accuracy/{ACCURACY}")
    return log


def _judge_number(tree: Tree, path: str, got: float, detail: Detail) -> None:
    try:
        least, most = entries_expected(detail)
    except (ValueError, ArithmeticError):  # below 0, or beyond all numbers
        least, most = 0, 0
    if not least <= got <= most:
        tree.add(TreeRule.SAMPLED, path, _SAMPLED, f"{got:g}", f"{least} to {most} ({DETAIL})")


def _judge_sampled(tree: Tree, benchmark: Benchmark, folder: str, logged: float | None) -> None:
    """Judges the answers that TEST01 sampled; ``logged``: how many the verification saw."""
    path = f"{folder}/{SCORE_FILE}"
    if (text := tree.text(path)) is not None:
        judge_percent(tree, benchmark, path, text)
    sampled = judge_answers(tree, folder, text)
    if sampled is not None and logged not in (None, sampled.entries):
        path = f"{folder}/{ACCURACY}"
        tree.add(TreeRule.COUNTS, path, "entries", sampled.entries, f"{logged:g} ({ACCURACY_VERDICT})")


def _judge_equal(tree: Tree, path: str, sampled: str) -> None:
    """Judges answers that are left of both logs: where both were cut few are, of a small data set all."""
    given: dict[int, bytes] = {}
    for index, data in answers_left(tree.seen(path)):
        given.setdefault(index, data)
    for index, data in answers_left(tree.seen(sampled)):
        if given.get(index, data) != data:
            wanted = f"{given[index].decode()} ({path})"
            tree.add(TreeRule.ANSWERS, sampled, f"qsl_idx {index}", data.decode(), wanted)
            return


def _lines(tree: Tree, path: str, names: list[str]) -> tuple[dict[str, float], bool]:
    """The numbers in a verification's file by name, in lower case, and whether it passed.

    They are none where one of them is missing or no number.
    """
    if (text := tree.text(path)) is None:
        return {}, True
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
    passed = _PASSED in (line.strip() for line in text.splitlines())
    return found if len(found) == len(names) else {}, passed


def _failed(tree: Tree, path: str) -> None:
    tree.add(TreeRule.FAILED, path, "verdict", "no such line", f"a line '{_PASSED}'")


def _judge_counts(tree: Tree, path: str, pictures: int) -> dict[str, float]:
    counts, passed = _lines(tree, path, _NUMBERS.split())
    if not passed:
        _failed(tree, path)
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
    if (answered := entries - duplicates) != pictures:
        tree.add(TreeRule.PICTURES, path, "num_acc_log_entries", f"{answered:g} pictures", str(pictures))
    return counts


def _judge_scores(tree: Tree, path: str, test: str, reference: Log | None, log: Log | None) -> None:
    said, passed = _lines(tree, path, ["Reference score", "Test score"])
    if reference is None or log is None or reference.scenario != log.scenario or log.scenario not in METRICS:
        if not passed:
            _failed(tree, path)
        return
    _, key, higher = METRICS[log.scenario]
    run, audit = reference.detail.number(key) or 0.0, log.detail.number(key) or 0.0
    if said and not any(_agree(said, run, audit, unit) for unit in ((False,) if higher else (False, True))):
        got = f"{said['reference score']:g} and {said['test score']:g}"
        tree.add(TreeRule.SCORES, path, "Test score", got, f"{run:g} and {audit:g} ({DETAIL}, {key})")
    least, most = score_bounds(test, log.scenario, run)
    if not least <= audit <= most:
        tree.add(TreeRule.RATIO, path, "Test score", f"{audit:g}", f"{least:g} to {most:g}, for {run:g}")
    elif not passed:
        _failed(tree, path)


def _agree(said: dict[str, float], run: float, audit: float, as_rate: bool) -> bool:
    """Whether scores are those of the logs; MLCommons' script turns TEST04's latencies into rates, and takes rates from
    the summary, where they may have two decimals.
    """
    wanted = (1e9 / run, 1e9 / audit) if as_rate and run and audit else (run, audit)
    pairs = zip(said.values(), wanted, strict=True)
    return all(math.isclose(*pair, rel_tol=1e-9, abs_tol=_TWO_DECIMALS) for pair in pairs)
