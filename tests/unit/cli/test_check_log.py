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
    ("changes", "code", "severity"),
    [
        ({}, ExitCode.OK, None),
        ({"effective_max_duration_ms": 7}, ExitCode.OK, "doubt"),
        ({"effective_qsl_rng_seed": 7}, ExitCode.INVALID, "invalid"),
        ({"result_samples_per_second": 7.0}, ExitCode.INVALID, "impossible"),
    ],
)
def test_only_doubts_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], code: ExitCode, severity: str | None
) -> None:
    folder = log(tmp_path / "run", **changes)

    assert check_log([folder]) == code
    lines = capsys.readouterr().out.splitlines()
    if severity is None:
        assert lines == ["1 log, 0 findings"]
    else:
        [line, last] = lines
        field = next(iter(changes)).removeprefix("effective_qsl").removeprefix("_")
        assert line.startswith(f"{severity}: {folder / DETAIL}: ") and f"{field}: got 7" in line
        assert last == "1 log, 1 finding"


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
