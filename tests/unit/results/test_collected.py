"""Results below folders: which are found, which are skipped and why, and what cannot be together in one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sut.results.collected import collect, read_result
from sut.results.schema import Accuracy, Agreement, Metric, Result
from tests.unit.results.test_results import a_result

LATENCY_NS = {"min": 10, "p50": 20, "p90": 30, "p99": 40, "max": 50_000_000, "mean": 25}


def traced(scenario: str, metric: str, value: float, **changes: Any) -> Result:
    """A VALID run of 24 samples in 2 s whose ``latency_ns`` is LoadGen's."""
    higher = metric.endswith("second")
    return a_result(
        scenario=scenario,
        metric=Metric(name=metric, value=value, higher_is_better=higher),
        plan={"trace": True},
        latency_ns=LATENCY_NS,
        **changes,
    )


def put(folder: Path, result: Result | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "result.json"
    path.write_text((result or a_result()).to_json())
    return path


def edited(folder: Path, edit: Callable[[dict[str, Any]], object], result: Result | None = None) -> Path:
    path = put(folder, result)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_every_result_below_folders_and_those_named_are_found_once_by_path(tmp_path: Path) -> None:
    below = [put(tmp_path / "b" / "Server" / "performance"), put(tmp_path / "a")]
    named = put(tmp_path / "elsewhere").rename(tmp_path / "old.json")

    collected = collect([named, tmp_path / "b", tmp_path / "a", tmp_path / "b" / "Server"])

    assert [each.path for each in collected.found] == [below[1], below[0], named]
    assert all(each.result == a_result() for each in collected.found)
    assert collected.skipped == ()


STAGES_NS = {name: {"mean": 12, "middle": 10, "tail": 21} for name in ("infer", "residual")}


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"stages_ns": {**STAGES_NS, "infer": {"mean": 12, "middle": 10, "tail": 2}}}, "stages_ns have tail 23"),
        ({"stages_ns": {**STAGES_NS, "infer": {"mean": 12, "middle": 30, "tail": 21}}}, "stages_ns have middle 40"),
        ({"batch_sizes": {"8": 4}}, "batch_sizes are of 32 samples, recorded_samples are 24"),
        ({"failed_samples": -1}, "failed_samples is -1"),
        ({"cost_ns": {"infer": -5}}, "cost_ns.infer is -5"),
        (
            {"cost_ns": {"infer": 0}},
            "cost_ns.infer is 0, but 1.5 to 12 by the mean of its stage and batches of up to 8",
        ),
        ({"cost_ns": {"infer": 14}}, "cost_ns.infer is 14, but 1.5 to 12 "),
        ({"cpu_seconds_per_sample": -0.1}, "cpu_seconds_per_sample is -0.1"),
        ({"agreement": {"value": 0.9}}, "agreement 0.9 is no share of 1000 in its own interval"),
        ({"agreement": {"value": 0.9995}}, "agreement 0.9995 is no share of 1000 in its own interval"),
    ],
)
def test_what_a_page_tells_first_is_not_edited_either(tmp_path: Path, edit: dict[str, Any], reason: str) -> None:
    agreement = {"value": 0.992, "low": 0.985, "high": 0.996, "count": 1000, "source": "crops", "words": "same"}
    whole = {
        "latency_ns": LATENCY_NS | {"p80": 29, "mean": 24},
        "stages_ns": STAGES_NS,
        "cost_ns": {"infer": 2, "residual": 12},
        "batch_sizes": {"8": 3},
        "recorded_samples": 24,
        "agreement": Agreement(**agreement),
    }
    read_result(put(tmp_path / "sound", a_result(**whole)))
    if "agreement" in edit:
        edit = {"agreement": agreement | edit["agreement"]}

    with pytest.raises(ValueError, match=f"^edited, or no run's: {reason}"):
        read_result(edited(tmp_path, lambda content: content.update(edit), a_result(**whole)))


def test_what_a_clock_that_was_set_makes_of_a_cost_is_not_edited(tmp_path: Path) -> None:
    failed = {"valid": False, "invalid_reasons": ["the clock was set"], "cost_ns": {"complete": -5_000_000_000}}

    read_result(put(tmp_path / "set", a_result(**failed, clock_change_ns=-5_000_000_000)))
    with pytest.raises(ValueError, match="complete is -5000000000"):
        read_result(put(tmp_path / "edited", a_result(**failed, clock_change_ns=900_000)))


def test_a_link_to_a_folder_is_followed_and_one_that_leads_back_ends(tmp_path: Path) -> None:
    put(tmp_path / "real" / "Offline")
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "model").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "shown")
    (tmp_path / "real" / "itself").symlink_to(tmp_path / "real" / "itself")

    collected = collect([tmp_path / "shown"])

    assert [each.path for each in collected.found] == [tmp_path / "shown" / "model" / "Offline" / "result.json"]
    assert collected.skipped == ()


def test_earlier_results_are_left_out_unless_asked_for_or_named(tmp_path: Path) -> None:
    now = put(tmp_path / "performance")
    before = put(tmp_path / "performance.20260101T000000")
    again = put(tmp_path / "performance.20260101T000000-2")
    put(tmp_path / ".hidden")

    without, everything = collect([tmp_path]), collect([tmp_path], earlier=True)

    assert ([each.path for each in without.found], without.earlier) == ([now], 2)
    assert ([each.path for each in everything.found], everything.earlier) == ([now, before, again], 0)
    assert [each.path for each in collect([before.parent]).found] == [before]


def test_comparisons_are_found_where_results_are_looked_for(tmp_path: Path) -> None:
    for folder in ("now", "now.20260101T000000", ".git", "other", "named/compare.json"):
        (tmp_path / folder).mkdir(parents=True)
    put(tmp_path / "now")
    for folder in ("now", "now.20260101T000000", ".git", "other"):
        (tmp_path / folder / "compare.json").touch()

    collected = collect([tmp_path, tmp_path / "now"])

    assert collected.comparisons == (tmp_path / "now" / "compare.json", tmp_path / "other" / "compare.json")
    assert (len(collected.found), collected.earlier, collected.others) == (1, 1, ())


def test_what_others_left_is_found_where_no_result_of_ours_is(tmp_path: Path) -> None:
    for name in ("ours", "reference", "logs", "named"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").touch()
    put(tmp_path / "ours")
    (tmp_path / "logs" / "results.json").rename(tmp_path / "logs" / "mlperf_log_detail.txt")

    collected = collect([*(tmp_path / name for name in ("ours", "reference", "logs")), tmp_path / "named/results.json"])

    assert len(collected.found) == 1
    assert collected.others == tuple(tmp_path / name for name in ("logs", "named", "reference"))


def test_a_result_of_the_first_version_is_read(tmp_path: Path) -> None:
    later = (
        "recipe",
        "agreement",
        "output",
        "answers",
        "clock_change_ns",
        "audit",
        "cpu_quota",
        "loaded_sha256",
        "quiet",
    )

    path = edited(tmp_path, lambda content: [content.pop(name, None) for name in later])

    assert read_result(path).model == "resnet50"


BROKEN = {
    "half": (lambda text: text[: len(text) // 2], "no whole JSON file: EOF while parsing"),
    "empty": (lambda text: b"", "no whole JSON file: EOF while parsing"),
    "no UTF-8": (lambda text: text.replace(b"resnet50", b"resnet\xff"), "no whole JSON file"),
    "not a number": (lambda text: text.replace(b"12.5", b"NaN"), "no whole JSON file"),
    "too large a number": (lambda text: text.replace(b"12.5", b"1e999"), "inf is no figure"),
    "too many digits": (lambda text: text.replace(b'"samples": 24', b'"samples": 1' + b"0" * 400), "beyond all bounds"),
    "nested": (lambda text: b"[" * 100_000, "no whole JSON file: recursion limit"),
    "a list": (lambda text: b"[1]", "no result of a run: it has no 'schema'"),
    "something else": (lambda text: b'{"new": 1}', "no result of a run: it has no 'schema'"),
    "another schema": (
        lambda text: text.replace(b'"schema": 1', b'"schema": 2'),
        "it has schema 2, expected 1; read it with the version that wrote it",
    ),
    "true for 1": (lambda text: text.replace(b'"schema": 1', b'"schema": true'), "it has schema true, expected 1"),
    "a word for 1": (lambda text: text.replace(b'"schema": 1', b'"schema": "1"'), 'it has schema "1", expected 1'),
    "an endless name": (
        lambda text: text.replace(b'"scenario": "', b'"scenario": "' + b"x" * 5000),
        "edited, or no run's: there is no scenario 'xxx",
    ),
    "less": (lambda text: b'{"schema": 1, "model": "resnet50"}', "no whole result: it has no '"),
    "a word for a number": (
        lambda text: text.replace(b'"samples": 24', b'"samples": "24"'),
        "samples: Input should be a valid integer, got '24'",
    ),
    "a word for a number within": (lambda text: text.replace(b"12.5", b'"12.5"'), "metric.value: Input should be"),
    "a field more": (
        lambda text: text.replace(b'"model":', b'"[red]fast": 1, "model":'),
        "unknown field '[red]fast': it is edited, or of a newer version",
    ),
    "huge": (lambda text: text + b" " * 2**24, "cannot be read (More than"),
}  # fmt: skip


@pytest.mark.parametrize(("break_it", "reason"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_sound_result_is_skipped_with_the_reason_and_the_rest_is_read(
    tmp_path: Path, break_it: Callable[[bytes], bytes], reason: str
) -> None:
    broken, sound = put(tmp_path / "broken"), put(tmp_path / "sound")
    broken.write_bytes(break_it(broken.read_bytes()))

    collected = collect([tmp_path])

    assert [each.path for each in collected.found] == [sound]
    [skipped] = collected.skipped
    assert skipped.path == broken
    assert skipped.reason.startswith(reason) or reason in skipped.reason
    assert skipped.reason.isprintable()
    assert len(skipped.reason) < 300


def test_what_cannot_be_read_is_skipped_without_waiting_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = put(tmp_path / "sound")
    (tmp_path / "closed").mkdir()
    (tmp_path / "folder" / "result.json").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "result.json")
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "result.json").symlink_to("nowhere")
    scandir = os.scandir

    def guarded(path: Path) -> Iterator[os.DirEntry[str]]:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)

    collected = collect([tmp_path, tmp_path / "none"])

    assert [each.path for each in collected.found] == [sound]
    assert {str(each.path.relative_to(tmp_path)): each.reason for each in collected.skipped} == {
        "closed": "cannot be read (Permission denied)",
        "folder/result.json": "cannot be read (Is a directory)",
        "lost/result.json": "cannot be read (No such file or directory)",
        "none": "cannot be read (No such file or directory)",
        "pipe/result.json": "cannot be read (Is a named pipe, not a file)",
    }


AGREES = {
    "Server": traced("Server", "completed_samples_per_second", 23 / 1.999),
    "Offline": traced("Offline", "samples_per_second", 480.0),
    "SingleStream": traced("SingleStream", "early_stopping_p90_latency_ns", 30.0),
    "a failed run": a_result(valid=False, invalid_reasons=["it hung"], first_error="it hung", samples=0, queries=None,
                             metric=None, samples_per_second=None, queries_per_second=None, latency_ns={}),
    "accuracy": a_result(mode="accuracy", valid=None, metric=None,
                         accuracy=Accuracy(name="top1", value=38228 / 50000, count=50000)),
    "official": a_result(rules_compliant=True, duration_s=599.99, samples_per_second=24 / 599.99,
                         queries_per_second=24 / 599.99),
    "official, by a clock that was set back": a_result(rules_compliant=True, clock_change_ns=-599 * 10**9),
    "stages": traced("Offline", "samples_per_second", 480.0,
                     stages_ns={"infer": {"mean": 30}, "residual": {"mean": -4}}),
}  # fmt: skip

CONTRADICTS: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "a better rate": ("Server", lambda c: c.update(samples_per_second=120.0), "samples_per_second is 120.0"),
    "a rate of nothing": ("a failed run", lambda c: c.update(samples_per_second=1.0), "samples_per_second is 1.0"),
    "fewer queries": ("Server", lambda c: c.update(queries=23), "queries_per_second is 12.0, but queries 23"),
    "a better metric": ("Server", lambda c: c["metric"].update(value=12.5), "the metric is 12.5, but"),
    "a better metric offline": ("Offline", lambda c: c["metric"].update(value=481.0), "the metric is 481, but"),
    "an impossible latency": ("SingleStream", lambda c: c["metric"].update(value=9.0), "the metric is 9, but 10 to 5"),
    "another metric": ("Server", lambda c: c["metric"].update(name="samples_per_second"), "not the metric of Server"),
    "a better p99": ("Offline", lambda c: c["latency_ns"].update(p99=29), "percentiles of latency_ns are not in order"),
    "a mean out of place": ("Offline", lambda c: c["latency_ns"].update(mean=9), "the mean of latency_ns is 9"),
    "faster inference": ("stages", lambda c: c["stages_ns"]["infer"].update(mean=20), "stages_ns have the mean 16"),
    "a better accuracy": ("accuracy", lambda c: c["accuracy"].update(value=0.76457), "accuracy 0.76457 is no share"),
    "more than all right": ("accuracy", lambda c: c["accuracy"].update(value=2.0), "accuracy 2.0 is no share"),
    "made valid": ("a failed run", lambda c: c.update(valid=True), "valid is True, with 1 invalid_reasons"),
    "made valid with care": ("a failed run", lambda c: c.update(valid=True, invalid_reasons=[]), "although it failed"),
    "no verdict": ("Server", lambda c: c.update(valid=None), "valid is None in mode performance"),
    "made official": ("Server", lambda c: c.update(rules_compliant=True, rules_broken=["short"]), "rules_compliant is"),
    "made official in 2 s": ("Server", lambda c: c.update(rules_compliant=True), "with duration_s 2.0 of"),
    "another backend": ("Server", lambda c: c.update(config={"backend": "tvm"}), "backend is 'null', but 'tvm' in its"),
    "another scenario": ("Server", lambda c: c.update(scenario="Sorcerer"), "there is no scenario 'Sorcerer'"),
}  # fmt: skip


@pytest.mark.parametrize("result", AGREES.values(), ids=AGREES)
def test_a_result_that_agrees_with_itself_is_read(tmp_path: Path, result: Result) -> None:
    assert read_result(put(tmp_path, result)) == result


@pytest.mark.parametrize(("name", "edit", "reason"), CONTRADICTS.values(), ids=CONTRADICTS)
def test_an_edited_figure_contradicts_the_others(
    tmp_path: Path, name: str, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    path = edited(tmp_path, edit, AGREES[name])

    with pytest.raises(ValueError, match="edited, or no run's") as refused:
        read_result(path)

    assert reason in str(refused.value)
