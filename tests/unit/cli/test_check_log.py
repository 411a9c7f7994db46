"""``sut check-log``: a line per finding, a last line that counts, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sut.cli.commands.check_log import check_log
from sut.errors import ExitCode
from sut.mlperf.logs import DETAIL
from tests.unit.loadgen_logs import performance, write

MS = 1_000_000


def log(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    write(folder, performance("Offline", [MS * number for number in range(1, 101)]) | changes)
    return folder


@pytest.mark.parametrize(
    ("key", "field", "code", "severity"),
    [
        ("effective_max_duration_ms", "effective_max_duration_ms", ExitCode.OK, "doubt"),
        ("effective_qsl_rng_seed", "qsl_rng_seed", ExitCode.INVALID, "invalid"),
        ("result_samples_per_second", "result_samples_per_second", ExitCode.INVALID, "impossible"),
    ],
)
def test_a_finding_is_a_line_and_only_doubts_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, field: str, code: ExitCode, severity: str
) -> None:
    folder = log(tmp_path / "run", **{key: 7})

    assert check_log([folder]) == code
    [line, last] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{severity}: {folder / DETAIL}: {field}: got 7, expected ")
    assert last == "1 log, 1 finding"


def test_a_sound_log_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_log([log(tmp_path / "run")]) == ExitCode.OK
    assert capsys.readouterr().out == "1 log, 0 findings\n"


def test_json_has_a_row_per_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = log(tmp_path / "run", result_samples_per_second=7.0)

    check_log([folder], as_json=True)

    told = json.loads(capsys.readouterr().out)
    [row] = told["rows"]
    assert (told["command"], told["logs"], told["unread"]) == ("check-log", 1, [])
    assert list(row) == ["severity", "rule", "file", "field", "got", "expected"]
    assert (row["severity"], row["file"], row["got"]) == ("impossible", str(folder / DETAIL), "7.0")


def test_what_cannot_be_read_is_named_and_the_rest_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = log(tmp_path / "run", result_samples_per_second=7.0)
    (tmp_path / "empty").mkdir()

    assert check_log([tmp_path / "nowhere", tmp_path / "empty", folder]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "1 log, 1 finding"
    assert [name in line for name, line in zip(("nowhere", "empty"), err.splitlines(), strict=True)] == [True, True]
