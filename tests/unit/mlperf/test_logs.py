"""LoadGen's logs as text: whole, cut short, and by somebody else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from sut.mlperf.logs import DETAIL, OFFICIAL_SEEDS, TRACE, Detail, read_detail, read_trace
from tests.unit.loadgen_logs import SEEDS, entry, write_detail


def test_the_last_value_of_a_key_counts(tmp_path: Path) -> None:
    detail = write_detail(tmp_path, entry("result_validity", "INVALID"), entry("result_validity", "VALID"))

    assert detail.values == {"result_validity": "VALID"}
    assert detail.valid


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3.0), (2.5, 2.5), (0, 0.0), ("3", None), (True, None), (None, None), ([3], None)]
)
def test_only_a_number_is_a_number(tmp_path: Path, value: Any, number: float | None) -> None:
    assert write_detail(tmp_path, entry("key", value)).number("key") == number


def test_an_absent_key_is_no_number(tmp_path: Path) -> None:
    assert write_detail(tmp_path).number("key") is None


def test_seeds_keep_all_their_digits(tmp_path: Path) -> None:
    detail = write_detail(tmp_path, *SEEDS)

    assert detail.values == {f"effective_{name}": seed for name, seed in OFFICIAL_SEEDS.items()}


@pytest.mark.parametrize("line", [":::MLLOG {}\n", ":::MLLOG []\n", ":::MLLOG 7\n", ':::MLLOG {"key": "a"}\n'])
def test_a_line_that_is_no_entry_is_passed_over(tmp_path: Path, line: str) -> None:
    assert write_detail(tmp_path, entry("first", 1), line).values == {"first": 1}


def test_a_log_that_stops_within_a_line_gives_what_it_has(tmp_path: Path) -> None:
    detail = write_detail(tmp_path, "not a log line\n", entry("first", 1), entry("second", 2)[:-20])

    assert detail.values == {"first": 1}
    assert not detail.complete


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=DETAIL):
        read_detail(tmp_path)


@pytest.mark.parametrize(("last", "complete"), [("power_begin", False), ("power_end", True)])
def test_an_accuracy_log_ends_with_its_power_window(tmp_path: Path, last: str, complete: bool) -> None:
    detail = write_detail(tmp_path, entry("effective_test_mode", "AccuracyOnly"), entry(last, "01-01-2026 00:00:00"))

    assert detail.complete is complete


def sample(seq: int, query: int, index: int, delay: int, latency: int) -> str:
    """A sample's entry as it stands in a trace; the file as a whole is not JSON."""
    return (
        '{"name":"Sample","cat":"default","ph":"b","pid":1,"id":2,"ts":3.0,"args":{'
        f'"sample_seq":{seq},"query_seq":{query},"sample_idx":{index},"issue_start_ns":{delay},"complete_ns":{latency}'
        "}},\n"
    )


def write_trace(directory: Path, *lines: str) -> None:
    (directory / TRACE).write_text("".join(['{"traceEvents":[\n', *lines, '{"name":"LastTrace"}\n']))


def test_a_trace_is_read_in_order_of_issue_whatever_the_order_of_its_lines(tmp_path: Path) -> None:
    write_trace(tmp_path, sample(2, 1, 7, 30, 300), sample(0, 0, 5, -1, 100), sample(1, 0, 6, 20, 200))

    trace, query = read_trace(tmp_path)

    assert trace.index.tolist() == [5, 6, 7]
    assert trace.issue_delay_ns.tolist() == [-1, 20, 30]
    assert trace.latency_ns.tolist() == [100, 200, 300]
    assert query.tolist() == [0, 0, 1]


@pytest.mark.parametrize("numbers", [(0, 2), (1, 2), (0, 0), (0, 1, 1)])
def test_a_trace_with_a_gap_or_a_sample_twice_is_refused(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    write_trace(tmp_path, *(sample(number, 0, 0, 0, 1) for number in numbers))

    with pytest.raises(ValueError, match=f"its {len(numbers)} samples are not numbered"):
        read_trace(tmp_path)


def test_a_missing_and_an_empty_trace_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=TRACE):
        read_trace(tmp_path)
    (tmp_path / TRACE).touch()
    with pytest.raises(ValueError, match=TRACE):
        read_trace(tmp_path)


@pytest.mark.parametrize(
    ("begin", "end", "window"),
    [
        ("11-29-2026 22:28:12.106", "11-29-2026 22:28:15.393", (1795991292.106, 1795991295.393)),
        ("11-29-2026 22:28:12.106", None, None),
        ("11-29-2026 22:28:12.106", "11-29-2026 22:28:12.106", (1795991292.106, 1795991292.106)),
        ("11-29-2026 22:28:12.107", "11-29-2026 22:28:12.106", None),
        ("29-11-2026 22:28:12.106", "11-29-2026 22:28:15.393", None),
    ],
)
def test_the_window_of_power_is_in_utc(
    begin: str, end: str | None, window: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"power_begin": begin, "power_end": end}
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "JST-9")
        time.tzset()
        there = Detail(values, ()).power_window
    time.tzset()
    assert there == Detail(values, ()).power_window
    assert Detail(values, ()).power_window == (window and pytest.approx(window, abs=1e-4))
