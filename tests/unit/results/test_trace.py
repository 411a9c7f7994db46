"""The trace of a run says what its ledger says, in the form that Perfetto reads, and never stands in the run's way."""

from __future__ import annotations

import errno
import gzip
import json
import shutil
from collections import Counter as Counts
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sut.config import RunConfig
from sut.errors import InputError
from sut.mlperf.logs import Detail
from sut.pipeline.ledger import STAMPS, Counter, Ledger, LedgerShape
from sut.results.stages import join
from sut.results.trace import MOST_EVENTS, MOST_SPANS, check_writable, trace_file, write_trace
from sut.run.outcome import Outcome, _Findings, _traced
from tests.children import results, run_sut

BEGIN_NS = 1_763_000_000_000_000_000
NEEDED = {
    "M": {"args"},
    "X": {"dur", "cat", "args"},
    "i": {"s", "cat", "args"},
    "C": {"args"},
    "b": {"id", "cat", "args"},
    "e": {"id", "cat"},
}
"""What events of each kind have beside the fields of all."""


def ns(microseconds: float) -> int:
    return round(1000 * microseconds)


def read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    found: dict[str, Any] = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    return found


def check_form(trace: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Every event is one of the format's; returns them by kind."""
    assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}
    found = defaultdict(list)
    for event in trace["traceEvents"]:
        assert set(event) == {"ph", "name", "ts", "pid", "tid"} | NEEDED[event["ph"]], event
        assert isinstance(event["name"], str) and isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert isinstance(event["ts"], int | float) and event.get("dur", 0) >= 0
        found[event["ph"]].append(event)
    named = {event["tid"]: event["args"]["name"] for event in found["M"] if event["name"] == "thread_name"}
    assert {event["tid"] for event in trace["traceEvents"]} <= set(named)
    assert len(trace["traceEvents"]) == trace["otherData"]["events"] <= MOST_EVENTS
    return found


def check_tracks(events: list[dict[str, Any]]) -> None:
    """No two stages of a track overlap."""
    tracks = defaultdict(list)
    for event in events:
        tracks[event["tid"]].append((ns(event["ts"]), ns(event["ts"]) + ns(event["dur"])))
    for spans in tracks.values():
        for (_, end), (begin, _) in pairwise(sorted(spans)):
            assert end <= begin


def check_spans(found: dict[str, list[dict[str, Any]]]) -> None:
    """Every span that begins ends once, later."""
    ends = {event["id"]: event["ts"] for event in found["e"]}
    assert len(ends) == len(found["e"]) == len(found["b"])
    assert all(ends[event["id"]] >= event["ts"] for event in found["b"])


def check_against_result(trace: dict[str, Any], result: dict[str, Any], workers: int) -> None:
    """A trace of a whole run has each batch once, with all stages, which take as long as the result says."""
    found = check_form(trace)
    check_tracks(found["X"])
    check_spans(found)
    durations: dict[str, int] = defaultdict(int)
    batches: dict[int, list[str]] = defaultdict(list)
    sizes = {}
    for event in found["X"]:
        durations[event["name"]] += ns(event["dur"]) * event["args"]["n"]
        if "batch" in event["args"]:
            batches[event["args"]["batch"]].append(event["name"])
            sizes[event["args"]["batch"]] = event["args"]["n"]
    samples = result["samples"]
    before = {"decode", "resize", "normalize"} if workers else set()
    stages = [name for name in result["cost_ns"] if name not in before]
    assert sorted(batches) == list(range(len(batches)))
    assert all(names == stages for names in batches.values())
    assert Counts(map(str, sizes.values())) == result["batch_sizes"]
    for name in result["cost_ns"]:
        assert durations[name] / samples == pytest.approx(result["stages_ns"][name]["mean"], abs=1)
    assert sum(event["args"]["n"] for event in found["i"]) == samples
    depths = [event["args"]["samples"] for event in found["C"] if event["name"] == "queue depth"]
    assert min(depths) >= 0 and depths[-1] == 0
    assert len(found["b"]) == min(samples, MOST_SPANS)
    latencies = {event["id"]: ns(event["ts"]) for event in found["e"]}
    spans = [latencies[event["id"]] - ns(event["ts"]) for event in found["b"]]
    if samples <= MOST_SPANS:
        mean = sum(spans) / samples
        assert result["scenario"] == "MultiStream" or mean == pytest.approx(result["latency_ns"]["mean"], abs=1)
    names = {event["args"]["name"] for event in found["M"] if event["name"] == "thread_name"}
    assert {f"preprocess worker {n}" for n in range(workers)} >= {n for n in names if n.startswith("preprocess")}
    assert any(name.startswith("preprocess") for name in names) == bool(workers)


def traced(tmp_path: Path, *scenarios: str, workers: int, lanes: int) -> None:
    child = run_sut(
        *("--backend", "simulated", "--preprocess", "simulated", "--boundary", "jpeg"),
        *("--scenario", ",".join(scenarios), "--time", "0.5", "--qps", "40", "--max-latency", "5"),
        *("--preprocess-workers", str(workers), "--lanes", str(lanes), "--trace", "t.json.gz"),
        *("--samples-per-query", "2", "--user_conf", str(tmp_path / "user.conf")),
        cwd=tmp_path,
    )

    assert child.code in (0, 4), child.err
    for scenario in scenarios:
        file = f"t.{scenario}.performance.json.gz" if len(scenarios) > 1 else "t.json.gz"
        trace, result = read(tmp_path / file), results(tmp_path)[scenario, "performance"]
        assert trace["otherData"]["scenario"] == scenario
        assert any(note.startswith(f"trace: {file} has all ") for note in result["notes"])
        assert result["config"]["trace"] == file
        check_against_result(trace, result, workers)


def test_the_trace_of_a_run_with_workers_is_its_ledger(tmp_path: Path) -> None:
    (tmp_path / "user.conf").write_text("*.Server.min_query_count = 30\n")
    traced(tmp_path, "Server", workers=2, lanes=2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_every_scenario_has_a_trace_of_its_own(workers: int, tmp_path: Path) -> None:
    (tmp_path / "user.conf").write_text("*.*.min_query_count = 30\n")
    traced(tmp_path, "SingleStream", "MultiStream", "Server", "Offline", workers=workers, lanes=2)


def recorded(count: int, failed_in_worker: int | None = None) -> Ledger:
    """One sample a batch on one of two lanes, each prepared by one of two workers; 10 us from call to call."""
    ledger = Ledger(LedgerShape.of(count, stages=("infer", "complete"), before=("decode",)))
    ledger.counters[Counter.RUN_START_SYSTEM_NS] = BEGIN_NS
    ledger.counters[[Counter.ISSUED, Counter.DONE, Counter.BATCHES]] = count
    for number in range(count):
        at = BEGIN_NS + 10_000 * number
        ledger.issue(number, [number % 7], at)
        if number == failed_in_worker:
            ledger.prepared(number, [at + 100, at + 100], number % 2)
            ledger.batch(number, [(number, 1)], 0, [at + 110, at + 110, at + 110, at + 900], 0)
            continue
        ledger.prepared(number, [at + 100, at + 3_000], number % 2)
        ledger.batch(number, [(number, 1)], 1, [at + 4_000, at + 9_000, at + 9_100, at + 9_200], number % 2)
    return ledger


def test_a_long_run_has_its_begin_in_the_trace_and_it_says_so(tmp_path: Path) -> None:
    ledger = recorded(30_000)

    note = write_trace(tmp_path / "t.json", {"scenario": "Server"}, ledger, join(ledger, None))

    trace = read(tmp_path / "t.json")
    found = check_form(trace)
    check_tracks(found["X"])
    batches = {event["args"]["batch"] for event in found["X"] if "batch" in event["args"]}
    assert batches == set(range(len(batches))), "the first ones, and all of each"
    assert 0.95 * MOST_EVENTS < trace["otherData"]["events"] <= MOST_EVENTS
    assert trace["otherData"]["window_s"] < trace["otherData"]["run_s"] == pytest.approx(0.3, abs=1e-4)
    assert trace["otherData"]["window_s"] == pytest.approx(10e-6 * len(batches), abs=20e-6)
    assert note.startswith(f"trace: {tmp_path / 't.json'} has the first 0.1") and "of the run" in note
    assert len(found["b"]) == MOST_SPANS


def test_times_and_arguments_are_the_ledgers(tmp_path: Path) -> None:
    ledger = recorded(3)

    write_trace(tmp_path / "t.json", {}, ledger, join(ledger, None))

    found = check_form(read(tmp_path / "t.json"))
    infer = [event for event in found["X"] if event["name"] == "infer"]
    assert [(event["ts"], event["dur"], event["tid"]) for event in infer] == [
        (4.0, 5.0, 10_000),
        (14.0, 5.0, 10_001),
        (24.0, 5.0, 10_000),
    ]
    assert infer[2]["args"] == {"batch": 2, "n": 1, "padded": 1, "indices": [2]}
    decode = next(event for event in found["X"] if event["name"] == "decode")
    assert (decode["ts"], decode["dur"], decode["tid"]) == (0.1, 2.9, 1_000)
    issue = found["i"][1]["args"]
    assert issue == {"first": 1, "n": 1, "issue_delay_us": None, "scheduled_us": None}, "no trace of LoadGen's"
    depths = [(event["ts"], event["args"]["samples"]) for event in found["C"] if event["name"] == "queue depth"]
    assert depths[:4] == [(0.0, 1), (0.1, 0), (10.0, 1), (10.1, 0)]
    ready = [(event["ts"], event["args"]["samples"]) for event in found["C"] if event["name"] == "ready samples"]
    assert ready[:2] == [(3.0, 1), (4.0, 0)]


def test_a_sample_that_a_worker_failed_to_prepare_is_on_the_workers_track(tmp_path: Path) -> None:
    ledger = recorded(4, failed_in_worker=3)

    write_trace(tmp_path / "t.json", {}, ledger, join(ledger, None))

    found = check_form(read(tmp_path / "t.json"))
    check_tracks(found["X"])
    assert {event["tid"] for event in found["X"] if event["args"].get("batch") == 3} == {1_001}


def test_of_a_run_without_an_answer_there_are_only_calls(tmp_path: Path) -> None:
    ledger = Ledger(LedgerShape.of(4))
    ledger.counters[Counter.RUN_START_SYSTEM_NS] = BEGIN_NS
    ledger.counters[Counter.ISSUED] = 2
    ledger.issue(0, [5, 6], BEGIN_NS + 1000)

    write_trace(tmp_path / "t.json", {}, ledger, join(ledger, None))

    found = check_form(read(tmp_path / "t.json"))
    assert [event["args"]["n"] for event in found["i"]] == [2]
    assert not found["X"] and not found["b"]


def test_a_loadgen_delay_moves_the_span_to_the_scheduled_time(tmp_path: Path) -> None:
    ledger = recorded(2)
    stages = join(ledger, None)
    stages.per_sample["issue_delay"] = np.array([0, 2_500], np.int64)
    stages.latency_ns[:] += stages.per_sample["issue_delay"]

    write_trace(tmp_path / "t.json", {}, ledger, stages)

    found = check_form(read(tmp_path / "t.json"))
    assert found["i"][1]["args"]["issue_delay_us"] == 2.5
    assert found["i"][1]["args"]["scheduled_us"] == found["b"][1]["ts"] == 7.5
    assert found["e"][1]["ts"] == (ledger.rows[1, STAMPS + 3] - BEGIN_NS) / 1000


@pytest.mark.parametrize(
    ("name", "several", "expected"),
    [
        ("t.json", False, "t.json"),
        ("t.json", True, "t.Server.accuracy.json"),
        ("a.b.json.gz", True, "a.b.Server.accuracy.json.gz"),
        ("t.gz", True, "t.Server.accuracy.gz"),
        ("t", True, "t.Server.accuracy"),
    ],
)
def test_each_run_has_a_file_of_its_own(name: str, several: bool, expected: str) -> None:
    assert trace_file(Path("folder", name), "Server", "accuracy", several) == Path("folder", expected)


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "t.json")
    check_writable(tmp_path / "file")
    for path, said in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none" / "t.json", "No such file or directory"),
        (tmp_path / "file" / "t.json", "Not a directory"),
        (Path("/dev/full"), "it is no regular file"),
    ):
        with pytest.raises(InputError, match=rf"^--trace {path}: cannot be written.*{said}.*; name a file"):
            check_writable(path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * 2**20))
    with pytest.raises(InputError, match="3 MiB free, 64 MiB needed; make room"):
        check_writable(tmp_path / "t.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing is left behind"


def test_a_run_is_not_started_for_a_trace_that_cannot_be_written(tmp_path: Path) -> None:
    child = run_sut("--backend", "simulated", "--trace", "none/t.json", "--time", "1", cwd=tmp_path)

    assert child.code == 1
    [line] = [line for line in child.err.splitlines() if line]
    assert line.startswith("error: --trace none/t.json: cannot be written: No such file or directory; name a file in a")
    assert not results(tmp_path)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("odd"), None])
def test_a_trace_that_cannot_be_written_any_more_is_a_note(
    error: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if error is not None:

        def fail(*arguments: Any) -> str:
            raise error

        monkeypatch.setattr("sut.run.outcome.write_trace", fail)
    ledger, path = recorded(2), tmp_path / "gone" / "t.json"
    outcome = Outcome(0.0, ledger=ledger)
    said = {None: "No such file or directory"}.get(error, str(getattr(error, "strerror", None) or error))

    note = _traced(RunConfig(), path, outcome, _Findings(Detail({}, ()), join(ledger, None)))

    assert note == f"trace: {path} was not written: {said}"
    nothing = _traced(RunConfig(), path, Outcome(0.0), _Findings(Detail({}, ())))
    assert nothing == f"trace: {path} was not written: there was nothing to trace yet"
