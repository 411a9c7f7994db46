"""The page about the judge has its rules, and what it does not notice."""

from __future__ import annotations

import pytest

from tests.unit.mlperf.tree import unnoticed
from tests.unit.mlperf.tree.logs import DETAIL


def page() -> list[str]:
    return unnoticed.PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_has_all_rules() -> None:
    assert set(unnoticed.rules()) <= set(page())


def table() -> list[str]:
    start = page().index(unnoticed.NOT_NOTICED.splitlines()[0]) + 2
    return page()[start : page().index("", start)]


def test_what_is_not_noticed_of_files_fields_and_lines_is_in_the_page() -> None:
    """With python -m tests.unit.mlperf.tree.unnoticed it is up to date."""
    assert [row for row in table() if DETAIL not in row] == unnoticed.rows(unnoticed.unnoticed(logs=False))


@pytest.mark.slow
def test_what_is_not_noticed_of_logs_is_in_the_page() -> None:
    assert [row for row in table() if DETAIL in row] == unnoticed.rows(unnoticed.unnoticed(logs=True))
