"""The accuracy log: what LoadGen writes is read, and nothing else."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.mlperf.accuracy import (
    AccuracyLog,
    Answered,
    accuracy_file,
    is_truncated,
    log_sha256,
    logged_sum,
    read_accuracy_log,
    truncated,
)
from sut.tasks.top1 import top1_score


def write_log(folder: Path, *entries: tuple[int, str]) -> Path:
    """A log in LoadGen's own form."""
    lines = [f'{{ "seq_id" : {i}, "qsl_idx" : {index}, "data" : "{data}"}}' for i, (index, data) in enumerate(entries)]
    path = folder / "mlperf_log_accuracy.json"
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    return path


def test_answers_by_index_in_the_order_of_the_log(tmp_path: Path) -> None:
    log = read_accuracy_log(write_log(tmp_path, (7, "00004041"), (0, "0000803F"), (3, "")))

    assert list(log.answers.items()) == [(7, b"\0\0@A"), (0, b"\0\0\x80?"), (3, b"")]


def test_a_sample_twice_with_one_answer_counts_once(tmp_path: Path) -> None:
    path = write_log(tmp_path, (7, "0000404a"), (0, "0000803f"), (7, "0000404A"))

    assert read_accuracy_log(path) == AccuracyLog({7: b"\0\0@J", 0: b"\0\0\x80?"}, {})


def test_of_two_answers_to_a_sample_the_first_counts_and_the_other_is_told(tmp_path: Path) -> None:
    log = read_accuracy_log(write_log(tmp_path, (1, "00004041"), (7, "00004041"), (7, "0000803f"), (1, "00004041")))

    assert log == AccuracyLog({1: b"\0\0@A", 7: b"\0\0@A"}, {7: b"\0\0\x80?"})


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[\n]\n", "holds no answers"),
        ('[\n{ "seq_id" : 0, "qsl_idx" : 3, "data" : "00004041"},\n', "is cut off or not JSON"),
        ('[\n{ "seq_id" : 0, "qsl_idx" : 3, "da', "is cut off or not JSON"),
        ("accuracy=76.456%", "is cut off or not JSON"),
        ("\x00\xff", "is cut off or not JSON"),
        ("[" * 100_000, "is cut off or not JSON"),
        ('{"qsl_idx": 3}', "holds a JSON dict; expected a list"),
        ('[{"qsl_idx": 0, "qsl_idx": 1, "data": ""}]', "an entry has a key twice, of qsl_idx, data"),
        ("[3]", "entry 0: got '3'"),
        ('[{"qsl_idx": 3}]', "expected an object with qsl_idx and data"),
        ('[{"qsl_idx": 0, "data": ""}, {"data": ""}]', "entry 1: got"),
        ('[{"qsl_idx": -1, "data": ""}]', "qsl_idx is -1"),
        ('[{"qsl_idx": true, "data": ""}]', "qsl_idx is True"),
        ('[{"qsl_idx": 1.0, "data": ""}]', "qsl_idx is 1.0"),
        ('[{"qsl_idx": 1, "data": "0"}]', "data is '0'; expected hexadecimal"),
        ('[{"qsl_idx": 1, "data": "xyz0"}]', "data is 'xyz0'"),
        ('[{"qsl_idx": 1, "data": 12}]', "data is 12"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, fragment: str) -> None:
    path = tmp_path / "log.json"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(ValueError) as caught:
        read_accuracy_log(path)

    assert fragment in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the accuracy log .*none\.json: No such file"):
        read_accuracy_log(tmp_path / "none.json")


@given(st.dictionaries(st.integers(0, 10**6), st.binary(max_size=60)).filter(bool), st.integers(1, 8))
def test_a_written_log_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, answers: dict[int, bytes], padding: int
) -> None:
    entries: list[dict[str, Any]] = [{"qsl_idx": index, "data": data.hex()} for index, data in answers.items()]
    path = tmp_path_factory.mktemp("log") / "log.json"
    path.write_text(json.dumps(entries + entries[:padding]))

    assert read_accuracy_log(path) == AccuracyLog(answers, {})


def test_fifty_thousand_answers_are_read_quickly(tmp_path: Path) -> None:
    path = write_log(tmp_path, *((index, "00004041") for index in range(50_000)))

    start = time.process_time()
    answers = read_accuracy_log(path).answers

    assert time.process_time() - start < 2
    assert len(answers) == 50_000


@pytest.mark.parametrize(
    ("good", "count", "line"),
    [
        (38228, 50000, "accuracy=76.456%, good=38228, total=50000"),
        (11, 11, "accuracy=100.000%, good=11, total=11"),
        (0, 3, "accuracy=0.000%, good=0, total=3"),
        (2, 3, "accuracy=66.667%, good=2, total=3"),
    ],
)
def test_the_line_of_the_official_script(good: int, count: int, line: str) -> None:
    assert top1_score(good, count).text == line


def test_the_sum_of_what_was_answered_is_that_of_its_log_in_any_order_and_of_no_other(tmp_path: Path) -> None:
    told: list[list[int]] = []
    answered = Answered(lambda ids, payloads: told.append(list(ids)) or 0)
    issue = answered.issuing(lambda ids, indices: None)
    issue([11, 12, 13], [0, 1, 2])
    answered.complete([13, 11], np.array([7, 5], "<f4"))
    answered.complete([12], [np.float32(6).tobytes()])
    entries = [{"qsl_idx": index, "data": np.float32(label).tobytes().hex()} for index, label in enumerate((5, 6, 7))]
    path = tmp_path / "log.json"

    path.write_text(json.dumps(entries))
    assert logged_sum(path) == answered.sum
    assert told == [[13, 11], [12]]

    for other in ([*entries[:2], {**entries[2], "data": entries[0]["data"]}], entries[:2], [*entries, entries[0]]):
        path.write_text(json.dumps(other))
        assert logged_sum(path) != answered.sum


SCORE = top1_score(38228, 50000)


def a_log(size: int) -> bytes:
    """So many bytes, no two hundred of which are like others."""
    return "".join(f'{{ "seq_id" : {number}, "qsl_idx" : {number} }},\n' for number in range(size)).encode()[:size]


def test_a_large_log_keeps_its_two_ends() -> None:
    log = a_log(10240)

    assert truncated(log) == log[:4096] + b"\n\n...\n\n" + log[-4096:]


@given(st.integers(0, 30_000))
def test_truncated_twice_is_truncated_once_and_small_enough(size: int) -> None:
    once = truncated(a_log(size))

    assert truncated(once) == once
    assert len(once) < 10240
    assert is_truncated(once) is (size >= 10240)
    assert once == a_log(size) or size >= 10240


def test_the_file_has_the_line_and_the_hash_of_the_whole_log() -> None:
    log = a_log(30_000)

    lines = accuracy_file(SCORE.text, log_sha256(log)).split("\n")

    assert lines == ["accuracy=76.456%, good=38228, total=50000", f"hash={hashlib.sha256(log).hexdigest()}", ""]


def test_what_is_truncated_has_no_hash() -> None:
    with pytest.raises(ValueError, match="is truncated; expected the whole one"):
        log_sha256(truncated(a_log(10240)))
