"""What commands print: one JSON object, or tables that fit and lines that scripts can read."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from rich.console import RenderableType

from sut.cli.emit import emit, grid, prose

LONG = "/a/long/path" * 20


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_json_is_one_object_on_a_line_and_no_table_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    def table() -> Iterator[RenderableType]:
        raise AssertionError
        yield ""

    emit("try", [{"path": "caf\udce9\n"}], table(), as_json=True, outcome="done")

    out = capsys.readouterr().out
    assert out.count("\n") == 1
    told = json.loads(out)
    assert told == {"schema": 1, "command": "try", "rows": [{"path": "caf\\xe9\n"}], "outcome": "done"}
    assert list(told)[:3] == ["schema", "command", "rows"]


def test_a_line_is_whole_however_long_and_prose_is_folded(capsys: pytest.CaptureFixture[str]) -> None:
    emit("try", [], [LONG, prose("word " * 40), "\x1b[2J"], as_json=False)

    first, *folded, last = capsys.readouterr().out.splitlines()
    assert (first, last) == (LONG, "\\x1b[2J")
    assert len(folded) == 3 and max(map(len, folded)) <= 80


def test_a_table_fits_and_cuts_no_name_nor_figure(capsys: pytest.CaptureFixture[str]) -> None:
    table = grid(("cell", "<name", ">p99 ms"), [[LONG, "[onnx]", "1.5"], ["\x07", "b", "10.25"]])

    emit("try", [], [table], as_json=False)

    heading, *lines, last = capsys.readouterr().out.splitlines()
    assert max(map(len, (heading, *lines, last))) <= 80
    assert heading.split() == ["cell", "name", "p99", "ms"]
    assert lines[0].split()[1:] == ["[onnx]", "1.5"] and last.split() == ["\\x07", "b", "10.25"]
    assert lines[0].rindex("5") == last.rindex("5") == heading.rindex("s")
    assert "".join(line.split()[0] for line in lines) == LONG
