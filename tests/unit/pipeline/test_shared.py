"""What processes share: every number arrives as it was written, whatever was raised, and memory is there or refused."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.base import Geometry, Recipe
from sut.errors import RunError
from sut.pipeline import shared
from sut.pipeline.shared import DONE, JOB, MOST_JOBS, Layout, SharedRows, memory_for

RECIPE = Recipe(name="dot", size=5, fit="stretch", interpolation="linear")
STAGES = ("decode", "resize", "normalize")
LAYOUT = Layout.of(3, RECIPE, STAGES)
WHERE = Geometry(640, 480, 0.35, 0.47, -32.5, 8.25)


@pytest.fixture
def descriptor() -> int:
    return memory_for(LAYOUT)


def test_two_who_map_the_same_memory_see_the_same_rows(descriptor: int) -> None:
    one, other = SharedRows(LAYOUT, descriptor), SharedRows(LAYOUT, descriptor)
    one.storage[1] = np.arange(75).reshape(3, 5, 5)
    stamps = [10**18, 10**18 + 1, 2**62, 2**62 + 5]

    one.tell(1, 7, WHERE, stamps)

    assert (other.storage.shape, other.storage.dtype) == ((3, 3, 5, 5), np.float32)
    assert np.array_equal(other.storage[1].ravel(), np.arange(75)) and not other.storage[[0, 2]].any()
    assert other.told(1) == (7, None, WHERE, stamps)
    assert one.storage.flags.c_contiguous and one.storage.ctypes.data % 64 == 0


@given(
    st.text(min_size=1, max_size=40).filter(lambda kind: "\0" not in kind),
    st.text(max_size=2000),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_error_arrives(kind: str, text: str, number: int) -> None:
    rows = SharedRows(LAYOUT, memory_for(LAYOUT))

    rows.tell_failed(2, number, kind, text, (1, 2, 3, 4))

    found, error, _, stamps = rows.told(2)
    assert (found, stamps) == (number, [1, 2, 3, 4])
    assert error is not None and (error.kind == kind or not kind.isascii())
    assert str(error)[:500] == text[:500] or not text.isascii()


def test_a_long_error_is_cut_within_its_row() -> None:
    rows = SharedRows(LAYOUT, memory_for(LAYOUT))
    rows.tell(1, 1, WHERE, (1, 2, 3, 4))

    rows.tell_failed(0, 0, "ValueError", "é" * 10_000, (1, 2, 3, 4))

    assert rows.told(1) == (1, None, WHERE, [1, 2, 3, 4])
    error = rows.told(0)[1]
    assert error is not None and error.kind == "ValueError" and str(error).startswith("é" * 1000)


def test_messages_are_written_as_a_whole_and_no_writer_ever_waits() -> None:
    assert max(JOB.size, DONE.size) <= select.PIPE_BUF
    assert MOST_JOBS * JOB.size < 65536, "what Linux has for a pipe"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EFBIG])
def test_memory_that_cannot_be_had_is_refused_and_given_back(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(descriptor: int, offset: int, nbytes: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())

    with pytest.raises(RunError, match=rf"0 MiB that .* share cannot be had: {os.strerror(number)}; take a smaller"):
        memory_for(LAYOUT)

    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before


def test_more_than_is_free_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "free_memory", lambda root: 2**20)

    with pytest.raises(RunError, match=r"58 MiB that .* share are more than the 1 MiB that are free"):
        memory_for(Layout(100, (3, 224, 224), "float32", 4))
