"""Which audit a file is, and whether it fits the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sut.errors import InputError
from sut.mlperf.audit import read_audit

TEST01 = "*.*.mode = 2\n*.*.accuracy_log_rng_seed = 720381539243781796\n*.*.accuracy_log_sampling_target = 4096\n"
TEST04 = "*.*.mode = 2\n*.*.performance_issue_same = 1\n*.*.performance_issue_same_index = 3\n"


def audit_of(folder: Path, text: str) -> Path:
    path = folder / "audit.config"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "test"),
    [
        (TEST01, "TEST01"),
        (TEST01.replace("*.*", "*.Offline"), "TEST01"),
        (TEST01.replace("4096", "100"), None),
        (TEST01.replace("720381539243781796", "720381539243781797"), None),
        (TEST04, "TEST04"),
        (TEST04 + "*.*.performance_issue_unique = 0\n", "TEST04"),
        (TEST04 + "*.*.min_duration = 1000\n", None),
        ("# nothing\n", None),
    ],
)
def test_an_audit_is_known_by_all_that_it_sets(tmp_path: Path, text: str, test: str | None) -> None:
    path = audit_of(tmp_path, text)

    audit = read_audit(path, "Offline", "performance")

    assert (audit.test, audit.file) == (test, str(path))
    assert len(audit.settings) == text.count("=")


def test_settings_for_another_scenario_are_not_obeyed(tmp_path: Path) -> None:
    path = audit_of(tmp_path, "*.Server.mode = 1\n*.*.min_query_count = 5\n*.Offline.min_query_count = 7\n")

    assert read_audit(path, "Offline", "performance").settings == {"min_query_count": 7}


@pytest.mark.parametrize(
    ("number", "mode", "remedy"),
    [
        (1, "performance", "give --accuracy"),
        (2, "accuracy", "leave out --accuracy"),
        (2, "find_peak", "leave out --accuracy and --find-peak-performance"),
        (3, "performance", "give --find-peak-performance"),
        (0, "performance", "no run does that"),
    ],
)
def test_a_mode_that_is_not_the_runs_is_refused(tmp_path: Path, number: int, mode: str, remedy: str) -> None:
    path = audit_of(tmp_path, f"*.*.mode = {number}\n")

    with pytest.raises(InputError, match=remedy):
        read_audit(path, "Offline", mode)


def test_the_runs_own_mode_is_none_of_its_business(tmp_path: Path) -> None:
    for number, mode in ((1, "accuracy"), (2, "performance"), (3, "find_peak")):
        assert read_audit(audit_of(tmp_path, f"*.*.mode = {number}\n"), "Server", mode).settings == {"mode": number}
