"""Which audit a file is, and whether it fits the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.audit import audit_configs, read_audit, remove_stale

RESNET50 = official.BENCHMARKS["resnet50"]
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
        (TEST01.replace("4096", "64"), "TEST01"),
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


def test_of_a_detector_test01_logs_as_many_answers_as_mlperf_asks_of_it(tmp_path: Path) -> None:
    with audit_configs(tmp_path, ["TEST01"], official.BENCHMARKS["yolo-99"]) as paths:
        audit = read_audit(paths["TEST01"], "Offline", "performance")

    assert (audit.test, audit.settings) == ("TEST01", {**official.AUDITS["TEST01"], official.SAMPLED: 64})


def test_the_files_of_audits_are_there_only_meanwhile_and_are_what_loadgen_shall_obey(tmp_path: Path) -> None:
    try:
        with audit_configs(tmp_path, ["TEST01", "TEST04"], RESNET50) as paths:
            for test, path in paths.items():
                audit = read_audit(path, "MultiStream", "performance")
                assert path.is_absolute()
                assert (audit.test, audit.settings) == (test, dict(official.AUDITS[test]))
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_audit_has_left_is_removed_and_nothing_else_is(tmp_path: Path) -> None:
    users = [audit_of(tmp_path, TEST01), tmp_path / ".audit" / "audit.config"]
    with audit_configs(tmp_path, ["TEST04"], RESNET50) as paths:
        text = paths["TEST04"].read_text()
        users[1].write_text(TEST04)
        assert remove_stale(tmp_path) == []  # an audit is at work
    assert [path.read_text() for path in users] == [TEST01, TEST04]
    paths["TEST04"].write_text(text)

    assert remove_stale(tmp_path) == [paths["TEST04"]]
    assert remove_stale(tmp_path) == []
    assert sorted(tmp_path.rglob("*.config")) == sorted(users)
    assert remove_stale(tmp_path / "nothing") == []


def test_somebodys_file_in_the_place_of_one_is_refused_and_stays(tmp_path: Path) -> None:
    mine = tmp_path / ".audit" / "TEST04-audit.config"
    mine.parent.mkdir()
    mine.write_text(TEST04)

    with (
        pytest.raises(
            InputError, match=r"TEST04-audit\.config is not of sut audit, which needs its place; move it away"
        ),
        audit_configs(tmp_path, ["TEST01", "TEST04"], RESNET50),
    ):
        pass

    assert [path.name for path in mine.parent.iterdir()] == [mine.name] and mine.read_text() == TEST04


def test_two_audits_of_one_folder_are_not_at_work_at_once(tmp_path: Path) -> None:
    with audit_configs(tmp_path, ["TEST01"], RESNET50) as paths:
        with pytest.raises(InputError, match="another sut audit"), audit_configs(tmp_path, ["TEST04"], RESNET50):
            pass
        assert paths["TEST01"].exists()
