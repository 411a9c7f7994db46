"""Anybody's accuracy log: its score, or why it has none."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.mlperf.accuracy import truncated
from sut.mlperf.scoring import score_file
from sut.tasks.chance import near_chance
from sut.tasks.top1 import top1_score
from tests.unit.mlperf.test_accuracy import write_log
from tests.unit.tasks.test_top1 import CODES

COUNT = 40
LABELS = np.arange(COUNT, dtype=np.int32) * 25


def answered(labels: dict[int, int], dtype: str = "float32") -> list[tuple[int, str]]:
    return [(index, struct.pack(CODES[dtype], label).hex().upper()) for index, label in labels.items()]


def right(offset: int = 0) -> dict[int, int]:
    return {index: int(label) + offset for index, label in enumerate(LABELS)}


def told(folder: Path, **settings: object) -> None:
    """A detail log with these settings."""
    lines = [f":::MLLOG {json.dumps({'key': f'effective_{key}', 'value': value})}" for key, value in settings.items()]
    (folder / "mlperf_log_detail.txt").write_text("\n".join(lines) + "\n")


def scalar_score(entries: list[tuple[int, str]], labels: list[int], dtype: str) -> tuple[int, int]:
    """The same, one after the other: of each sample the first answer."""
    first: dict[int, int] = {}
    for index, data in entries:
        first.setdefault(index, int(struct.unpack(CODES[dtype], bytes.fromhex(data))[0]))
    return sum(first[index] == label for index, label in enumerate(labels)), len(labels)


@given(data=st.data(), dtype=st.sampled_from(sorted(CODES)), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_a_drawn_log_has_the_score_that_counting_one_by_one_has(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: str, share: float, seed: int
) -> None:
    labels = data.draw(st.lists(st.integers(0, 999), min_size=1, max_size=60))
    drawn = random.Random(seed)
    got = {i: each if drawn.random() < share else drawn.randint(-1, 999) for i, each in enumerate(labels)}
    entries = answered(got, dtype)
    entries += drawn.choices(entries, k=drawn.randint(0, 8))
    drawn.shuffle(entries)
    good, count = scalar_score(entries, labels, dtype)
    path = write_log(tmp_path_factory.mktemp("log"), *entries)

    if near_chance(top1_score(good, count), max(2, max(labels) + 1)):
        with pytest.raises(ValueError, match="near chance"):
            score_file(path, np.array(labels, np.int32))
    else:
        found = score_file(path, np.array(labels, np.int32))
        assert (found.score.good, found.score.count, found.score.value) == (good, count, good / count)
        assert found.dtype == dtype or (not any(got.values()) and dtype == "int32")


def test_a_folder_is_its_log_and_settings_beside_it_are_read(tmp_path: Path) -> None:
    write_log(tmp_path, *answered(right()))
    assert not score_file(tmp_path, LABELS).settings_known

    told(tmp_path, test_mode="AccuracyOnly", accuracy_log_sampling_target=0, accuracy_log_probability=0)
    assert score_file(tmp_path, LABELS).settings_known


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        (
            {"test_mode": "AccuracyOnly", "accuracy_log_sampling_target": 4096},
            "_sampling_target 4096; expected effective_test_mode",
        ),
        ({"test_mode": "AccuracyOnly", "accuracy_log_probability": 0.1}, "effective_accuracy_log_probability 0.1"),
        ({"test_mode": "AccuracyOnly", "accuracy_log_sampling_target": 10**400}, "_sampling_target 1000"),
        ({"test_mode": "PerformanceOnly"}, "has effective_test_mode PerformanceOnly; expected effective_test_mode"),
        ({}, "has effective_test_mode None"),
    ],
)
def test_a_log_that_an_audit_sampled_is_refused_by_its_settings(
    tmp_path: Path, settings: dict[str, Any], fragment: str
) -> None:
    told(tmp_path, **settings)

    with pytest.raises(ValueError) as caught:
        score_file(write_log(tmp_path, *answered(right())), LABELS)

    assert f"{tmp_path / 'mlperf_log_detail.txt'} has effective_" in str(caught.value)
    assert fragment in str(caught.value)


def test_a_log_in_which_every_sample_came_often_is_of_no_accuracy_run(tmp_path: Path) -> None:
    path = write_log(tmp_path, *answered(right()) * 3)

    with pytest.raises(ValueError, match=r"120 answers for 40 samples; .* as of an audit \(TEST01\)"):
        score_file(path, LABELS)

    told(tmp_path, test_mode="AccuracyOnly")
    assert score_file(path, LABELS).score.good == COUNT


WITHOUT = {index: label for index, label in right().items() if index not in (3, 5, 7, 30)}
FEW = {index: label for index, label in right().items() if index < 19}


@pytest.mark.parametrize(
    ("entries", "fragment"),
    [
        (
            answered(WITHOUT),
            "4 of 40 samples have no answer: 3, 5, 7, ...; expected one for each line of the list: is the",
        ),
        (
            answered(FEW),
            "21 of 40 samples have no answer: 19, 20, 21, ...; expected one for each line of the list: an audit",
        ),
        (answered({**right(), 40: 3}), "an answer for sample 40; the data set has 0 to 39; expected one for each line"),
        (answered({**right(), 10**400: 3}), "an answer for sample 1000"),
        ([*answered(right()), (3, "00000000")], "two different answers for sample 3: 00009642 and 00000000; the same"),
        (
            [*answered(WITHOUT), *((index, "") for index in (3, 5, 7, 30))],
            "4 of 40 answers are empty: samples 3, 5, 7, ...",
        ),
        (
            answered(right(1)),
            "top-1 of 0.000 % (0 of 40) is near chance: label offset or dtype? with -1 on each answer it",
        ),
        (
            answered(right(-1), "int32"),
            "label offset or dtype? with +1 on each answer it would be 100.000 %: mend that in",
        ),
        (
            answered(dict.fromkeys(range(COUNT), 7)),
            "no offset of 1 mends it, read as float32; is the list that of this run",
        ),
        (answered(right(100)), "are no labels from -1 to 999, such as sample 36's, 1000 as float32"),
    ],
)
def test_logs_that_are_refused(tmp_path: Path, entries: list[tuple[int, str]], fragment: str) -> None:
    path = write_log(tmp_path, *entries)

    with pytest.raises(ValueError) as caught:
        score_file(path, LABELS)

    assert str(caught.value).startswith(f"the accuracy log {path}")
    assert fragment in str(caught.value)


def test_a_truncated_log_is_named_as_such(tmp_path: Path) -> None:
    path = write_log(tmp_path, *answered(right()) * 6)
    path.write_bytes(truncated(path.read_bytes()))

    with pytest.raises(ValueError, match="is truncated, as a submission has it"):
        score_file(path, LABELS)


def test_three_pictures_are_too_few_to_call_it_guessing(tmp_path: Path) -> None:
    log = write_log(tmp_path, *answered({0: 1, 1: 1, 2: 1}))

    assert score_file(log, np.array([500, 0, 7], np.int32)).score == top1_score(0, 3, always=1.0)


def test_a_list_of_one_class_is_scored(tmp_path: Path) -> None:
    log = write_log(tmp_path, *answered({0: 0, 1: 0, 2: 0}))

    assert score_file(log, np.zeros(3, np.int32)).score.good == 3
