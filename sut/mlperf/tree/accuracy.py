"""What a submission has of an accuracy run: its logs, the score, and the answers, most of them cut out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from sut.mlperf.accuracy import (
    CUT,
    END_BYTES,
    SCORE_FILE,
    SCORE_LINES,
    WHOLE_BELOW,
    AccuracyLog,
    is_truncated,
    parse_accuracy_log,
)
from sut.mlperf.logs import ACCURACY, DETAIL, SUMMARY, Detail
from sut.mlperf.official import Benchmark
from sut.mlperf.tree.layout import Tree
from sut.mlperf.tree.place import Place
from sut.mlperf.tree.results import Log, judge_run
from sut.mlperf.tree.rules import TreeRule

_HASH = re.compile(r"^hash=([0-9a-f]{64})\s*$", re.MULTILINE)
_ENTRY = re.compile(rb'\{ "seq_id" : \d+, "qsl_idx" : \d+, "data" : "[0-9A-Fa-f]*"(, "token_count" : \d+)? \},?')
_ANSWER = re.compile(rb'"qsl_idx"\s*:\s*(\d{1,9})\s*,\s*"data"\s*:\s*"([0-9A-Fa-f]*)"')
_THREE_DECIMALS = 0.00051


def judge_accuracy(tree: Tree, place: Place) -> Log | None:
    """Judges a scenario's accuracy run."""
    folder = f"{place.path}/accuracy"
    if not tree.has_folder(folder, "a folder with the accuracy run"):
        return None
    tree.only(folder, (DETAIL, SUMMARY, ACCURACY, SCORE_FILE))
    log = judge_run(tree, place, "accuracy", folder)
    if log is not None and (log.scenario == place.scenario or log.inferred):
        _judge_pictures(tree, log.path, log.detail, place.benchmark.pictures)
    path = f"{folder}/{SCORE_FILE}"
    text = tree.text(path)
    total = None if text is None else _judge_score(tree, place, path, text)
    whole = judge_answers(tree, folder, text)
    if whole is not None and total is not None and len(whole.answers) != total:
        tree.add(TreeRule.SCORE, path, "total", total, f"{len(whole.answers)} ({ACCURACY})")
    return log


def _judge_pictures(tree: Tree, path: str, detail: Detail, pictures: int) -> None:
    for key in ("qsl_reported_total_count", "effective_accuracy_sample_count"):
        if detail.number(key) != pictures:
            tree.add(TreeRule.PICTURES, path, key, detail.values.get(key), str(pictures))
            return
    if detail.generated_samples < pictures:
        key = "generated_query_count"
        tree.add(TreeRule.PICTURES, path, key, f"{detail.generated_samples} samples", str(pictures))


def _judge_score(tree: Tree, place: Place, path: str, text: str) -> int | None:
    """Judges what stands in accuracy.txt beside the hash. Returns of how many pictures it is, if it says so."""
    benchmark = place.benchmark
    form, example = SCORE_LINES[benchmark.metric]
    lines = list(form.finditer(text))
    if len(lines) != 1:
        tree.add(TreeRule.FORM, path, "accuracy", f"{len(lines)} such lines", f"one line '{example}'")
        return None
    percent, least = judge_percent(tree, benchmark, path, text), 100 * benchmark.target
    if percent is not None and place.closed and percent < least:
        tree.add(TreeRule.TARGET, path, "accuracy", f"{percent:.4f}%", f"{least:.4f}% or more")
    if form.groups == 1:  # mAP is no part of a total
        return None
    total = int(lines[0][3])
    if total != benchmark.pictures:
        tree.add(TreeRule.PICTURES, path, "total", total, str(benchmark.pictures))
    return total


def judge_percent(tree: Tree, benchmark: Benchmark, path: str, text: str) -> float | None:
    """Judges whether the score in ``text`` is what it is made of, where there is one. Returns it, in percent."""
    if (line := SCORE_LINES[benchmark.metric][0].search(text)) is None:
        return None
    if line.re.groups == 1:
        if (percent := float(line[1])) <= 100:
            return percent
        tree.add(TreeRule.SCORE, path, "accuracy", line[0], "100% at the most")
        return None
    percent, good, total = float(line[1]), int(line[2]), int(line[3])
    if not good <= total or not total:
        tree.add(TreeRule.SCORE, path, "good", line[0], "no more than total, which is 1 or more")
    elif abs(percent - 100 * good / total) > _THREE_DECIMALS:
        tree.add(TreeRule.SCORE, path, "accuracy", line[0], f"{100 * good / total:.3f}%")
    else:
        return 100 * good / total
    return None


def answers_left(content: bytes) -> list[tuple[int, bytes]]:
    """Index and answer, as hexadecimal text, of what is left of a log of answers."""
    return [(int(index), data.lower()) for index, data in _ANSWER.findall(content)]


def judge_answers(tree: Tree, folder: str, text: str | None) -> AccuracyLog | None:
    """Judges the file of answers, and its hash in ``text``, that of accuracy.txt. Returns them where they are whole."""
    hashes = [] if text is None else _HASH.findall(text)
    if text is not None and len(hashes) != 1:
        said, wanted = f"{len(hashes)} such lines", f"one line 'hash=' with the SHA-256 of the whole {ACCURACY}"
        tree.add(TreeRule.FORM, f"{folder}/{SCORE_FILE}", "hash", said, wanted)
    path = f"{folder}/{ACCURACY}"
    if (answers := tree.read(path)) is None:
        return None
    large = len(answers) > WHOLE_BELOW
    if large:
        tree.add(TreeRule.TRUNCATION, path, "bytes", f"{len(answers):,}", f"at most {WHOLE_BELOW:,}")
    if is_truncated(answers):
        for name, said, wanted in () if large else _odd_ends(answers):
            tree.add(TreeRule.TRUNCATION, path, name, said, wanted)
        return None
    digest = hashlib.sha256(answers).hexdigest()
    if len(hashes) == 1 and hashes[0] != digest:
        tree.add(TreeRule.HASH, f"{folder}/{SCORE_FILE}", "hash", hashes[0], digest)
    try:
        return parse_accuracy_log(answers, tree.root / path)
    except ValueError as error:
        tree.add(TreeRule.FORM, path, "file", tree.why(path, error), "LoadGen's list of answers, or its two ends")
        return None


def _odd_ends(answers: bytes) -> Iterator[tuple[str, str, str]]:
    first, _, last = answers.partition(CUT)
    if (len(first), len(last)) != (END_BYTES, END_BYTES):
        yield "bytes", f"{len(first)} and {len(last)}", f"its first and last {END_BYTES}"
        return
    for name, lines in (("first bytes", first.split(b"\n")[:-1]), ("last bytes", last.split(b"\n")[1:])):
        bracket, entries = (lines[:1], lines[1:]) if name == "first bytes" else (lines[-2:], lines[:-2])
        wrong = [line for line in entries if not _ENTRY.fullmatch(line)]
        if b"".join(bracket) != (b"[" if name == "first bytes" else b"]") or wrong:
            said = (wrong or [b"".join(bracket)])[0].decode(errors="replace")
            yield name, said, "LoadGen's list of answers"
