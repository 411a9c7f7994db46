"""Answers as labels: which type their bytes are in, and what is no label in any."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.tasks.top1 import MOST_CLASSES, answers_as_labels

CODES = {"float32": "<f", "int32": "<i", "int64": "<q"}


def written(dtype: str, *labels: float) -> dict[int, bytes]:
    return {index: struct.pack(CODES[dtype], label) for index, label in enumerate(labels)}


@given(st.sampled_from(sorted(CODES)), st.lists(st.integers(-1, MOST_CLASSES - 1), min_size=1).filter(any))
def test_the_type_is_told_by_the_bytes_for_every_label_but_zero(dtype: str, labels: list[int]) -> None:
    found = answers_as_labels(written(dtype, *labels), MOST_CLASSES)

    assert (found.values.tolist(), found.dtype) == (labels, dtype)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_zeros_alone_are_in_the_type_that_was_said(dtype: str) -> None:
    assert answers_as_labels(written("int32", 0, 0), 1000, dtype).dtype == dtype
    assert answers_as_labels(written("int32", 0, 0), 1000).dtype == "float32"


@pytest.mark.parametrize(
    ("answers", "dtype", "fragment"),
    [
        (written("float32", 1, 2), "int32", "the answers are float32 (4 bytes each), got --dtype int32"),
        (written("int32", 1, 2), "float32", "the answers are int32"),
        (written("int64", 1, 2), "float32", "the answers are int64 (8 bytes each), got --dtype float32"),
        (written("float32", 0, 2), "int64", "the answers are float32"),
        (written("float32", 3, 6.5), None, "1 of 2 answers are no labels from -1 to 999, such as sample 1's, 6.5 as"),
        (written("float32", 3, float("nan")), None, "sample 1's, nan as float32 or 2143289344 as int32: label offset"),
        (written("float32", 3, float("inf")), None, "inf as float32"),
        (
            written("float32", 1000, 3, 1000),
            None,
            "2 of 3 answers are no labels from -1 to 999, such as sample 0's, 1000",
        ),
        (written("int32", 3, -2), None, "sample 1's, nan as float32 or -2 as int32"),
        (written("int64", 3, 2**62), None, "sample 1's, 4611686018427387904 as int64"),
        ({**written("int32", 3, 4), 2: struct.pack("<f", 5)}, None, "1 of 3 answers are no labels from -1 to 999"),
        ({0: b"\x01\x00\xa0\x7f", 1: b"\xff" * 4}, None, "1 of 2 answers"),
        (
            {4: b"", 2: b"\0" * 4, 9: b"", 7: b"", 8: b""},
            None,
            "4 of 5 answers are empty: samples 4, 9, 7, ...; a sample",
        ),
        (
            {4: b"\0" * 4, 2: b"\0" * 8},
            None,
            "sample 4 has an answer of 4 bytes, sample 2 one of 8; expected one label",
        ),
        ({4: b"\0" * 28, 2: b"\0" * 28}, None, "answers have 28 bytes each; expected a label in float32, int32, int64"),
    ],
)
def test_what_is_no_label(answers: dict[int, bytes], dtype: str | None, fragment: str) -> None:
    with warnings.catch_warnings(), pytest.raises(ValueError) as caught:
        warnings.simplefilter("error")
        answers_as_labels(answers, 1000, dtype)

    assert fragment in str(caught.value)


def test_background_and_minus_zero_are_labels() -> None:
    assert answers_as_labels(written("float32", -1, -0.0), 1000).values.tolist() == [-1, 0]
    assert answers_as_labels(written("int32", -1), 1000).values.dtype == np.int64
