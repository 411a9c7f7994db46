"""What keeps runs from being a submission: nothing of sound ones, and of each planted fault exactly its line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sut.config import make_config
from sut.mlperf import official, verify_audit
from sut.mlperf.doubts import Doubt
from sut.mlperf.finding import Finding as LogFinding
from sut.mlperf.logs import ACCURACY, DETAIL, SUMMARY
from sut.mlperf.short import IN_SHORT
from sut.models.registry import MODELS
from sut.results.collected import read_result
from sut.results.schema import FILE
from sut.run.folders import result_home
from sut.studies.proof.finding import Finding
from sut.studies.submission import fault, one_run
from sut.studies.submission.about import About
from sut.studies.submission.checks import _NO_DATA, faults, relaxed, warnings
from sut.studies.submission.runs import ROLES, read_runs
from tests.unit.studies.submission.loadgen_runs import ABOUT, PICTURES, ask_little, edit, put

OPEN = ABOUT.model_copy(update={"division": "open"})
INFERRED = ABOUT.model_copy(update={"inferred": {"MultiStream": "SingleStream", "Offline": "SingleStream"}})
ONE_WRONG = ("00003041", "0000803F")
"""The label 11, which is wrong, and 1, which is that of picture 21, as the accuracy log has them."""


THROTTLED = {
    "device": "cuda:0", "uuid": "GPU-1", "name": "one", "memory_bytes": None, "highest_sm_mhz": None,
    "power_limit_watts": None, "before": None, "looks": 10, "slowed": {"thermal": 3},
}  # fmt: skip


def found(home: Path, about: About = ABOUT, rehearsal: bool = False) -> list[str]:
    return faults(read_runs([home], about), about, rehearsal)


def heads(lines: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines]


def fields(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: edit(folder, **changes)


def rewrite(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text()[: (folder / name).stat().st_size // 2])


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def interrupted(folder: Path) -> None:
    cut(DETAIL)(folder)
    edit(
        folder,
        valid=False,
        invalid_reasons=["interrupted after 3.1 s, 2718 samples"],
        accuracy=None,
        rules_broken=["the run did not come to its end"],
    )


def test_sound_runs_have_no_fault_and_nothing_to_relax_or_to_warn_of(home: Path) -> None:
    runs = read_runs([home], ABOUT)

    assert faults(runs, ABOUT, rehearsal=False) == relaxed(runs, ABOUT) == warnings(runs) == []


PLANTED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "not VALID": (
        "Offline/performance",
        fields(valid=False, invalid_reasons=["the samples were done before 600 s were over"]),
        "Offline performance, valid: got false (the samples were done before 600 s were over)",
    ),
    "failed": (
        "Offline/performance",
        fields(valid=False, invalid_reasons=["2 samples failed"], failed_samples=2, first_error="7.jpeg: no picture"),
        "Offline performance, failed_samples: got 2 (2 samples failed)",
    ),
    "interrupted": (
        "Offline/accuracy",
        interrupted,
        "Offline accuracy, valid: got false (interrupted after 3.1 s, 2718 samples)",
    ),
    "a rule": (
        "Offline/performance",
        fields(rules_broken=["min_duration 2 s < 600 s"]),
        "Offline performance, rules_broken: min_duration 2 s",
    ),
    "an audit's rule": (
        "Offline/TEST04",
        fields(rules_broken=["an audit (TEST04) is no result", "random weights"]),
        "Offline TEST04, rules_broken: random weights",
    ),
    "a wrong calibration list": (
        "Offline/TEST04",
        fields(rules_broken=["int8 is not known to be calibrated on MLCommons' list (--rules closed)"]),
        "Offline TEST04, rules_broken: int8 is not known to be calibrated",
    ),
    "a clock that was set": (
        "MultiStream/TEST01",
        fields(clock_change_ns=-5_000_000_000),
        "MultiStream TEST01, clock_change_ns: got a clock that was set by -5,000 ms",
    ),
    "no score": ("MultiStream/accuracy", fields(accuracy=None), "MultiStream accuracy, accuracy: got nothing"),
    "accuracy.txt of another run": (
        "MultiStream/accuracy",
        rewrite("accuracy.txt", "good=20", "good=21"),
        "MultiStream accuracy/accuracy.txt, accuracy: got accuracy=83.333%, good=21",
    ),
    "no accuracy.txt": (
        "MultiStream/accuracy",
        without("accuracy.txt"),
        "MultiStream accuracy/accuracy.txt, content: got No such file",
    ),
    "a hash that does not fit": (
        "MultiStream/accuracy",
        rewrite("accuracy.txt", "\n", f"\nhash={'0' * 64}\n"),
        f"MultiStream accuracy/accuracy.txt, hash: got {'0' * 64}",
    ),
    "a truncated accuracy log": (
        "MultiStream/accuracy",
        rewrite(ACCURACY, '"qsl_idx"', '\n\n...\n\n"qsl_idx"'),
        f"MultiStream accuracy/{ACCURACY}, content: got a log that was truncated",
    ),
    "a cut accuracy log": (
        "MultiStream/accuracy",
        cut(ACCURACY),
        f"MultiStream accuracy/{ACCURACY}, content: got the accuracy log",
    ),
    "a log without an end": (
        "SingleStream/performance",
        cut(DETAIL),
        f"SingleStream performance/{DETAIL}, num_errors: got nothing",
    ),
    "a log that is gone": (
        "SingleStream/performance",
        without(SUMMARY),
        f"SingleStream performance/{SUMMARY}, content: got No such file",
    ),
    "another metric": (
        "Offline/performance",
        fields(metric=lambda old: {**old, "value": old["value"] * 1.01}),
        "Offline performance/result.json, metric.value: got",
    ),
    "other counts": (
        "SingleStream/TEST04",
        rewrite(SUMMARY, "samples_per_query : 1", "samples_per_query : 2"),
        f"SingleStream TEST04/{SUMMARY}, samples_per_query: got 2",
    ),
    "another round's seed": (
        "SingleStream/performance",
        lambda at: [rewrite(name, "2747215439041700203", "2747215439041700204")(at) for name in (DETAIL, SUMMARY)],
        f"SingleStream performance/{DETAIL}, sample_index_rng_seed: got 2747215439041700204",
    ),
    "another model": (
        "Offline/accuracy",
        fields(model_sha256="cd" * 32, loaded_sha256={"resnet50.onnx": "cd" * 32}),
        f"Offline accuracy, model_sha256: got {'cd' * 32}",
    ),
    "an INT8 file that was made anew": (
        "Offline/accuracy",
        fields(loaded_sha256={"resnet50.onnx": "cd" * 32, "resnet50.bin": "ef" * 32}),
        "Offline accuracy, loaded_sha256: got",
    ),
    "another machine": (
        "Offline/TEST04",
        fields(system=put(cores=4)),
        "Offline TEST04, system: got another machine (usable cores: 4 and 2)",
    ),
    "another version": (
        "Offline/TEST04",
        fields(versions=put(**{"loadgen-vision-sut": "0.1.0+g1234567"})),
        "Offline TEST04, versions: got loadgen-vision-sut 0.1.0+g1234567",
    ),
    "another provider": (
        "Offline/TEST04",
        fields(attested=put(provider="CUDAExecutionProvider")),
        "Offline TEST04, attested.provider: got CUDAExecutionProvider",
    ),
    "an audit that was not verified": (
        "Offline/TEST04",
        without("verify_performance.txt"),
        "Offline TEST04/verify_performance.txt, content: got No such file",
    ),
    "an audit of another run": (
        "Offline/TEST04",
        rewrite("verify_performance.txt", "Reference score = ", "Reference score = 1"),
        "Offline TEST04/verify_performance.txt, Reference score: got Reference score = 1",
    ),
    "an audit that is failed": (
        "Offline/TEST01",
        rewrite("verify_accuracy.txt", "TEST PASS", "TEST FAIL"),
        "Offline TEST01/verify_accuracy.txt, TEST PASS: got TEST FAIL",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_has_its_line(home: Path, name: str) -> None:
    where, change, line = PLANTED[name]
    change(home / where)

    [only] = found(home)

    assert only.startswith(line)


def test_what_an_audit_has_logged_and_scored_must_be_there(home: Path) -> None:
    cut(ACCURACY)(home / "Offline/TEST01")
    without("accuracy.txt")(home / "SingleStream/TEST01")

    assert heads(found(home)) == ["SingleStream TEST01/accuracy.txt, content", f"Offline TEST01/{ACCURACY}, content"]


def test_of_several_faults_all_are_told(home: Path) -> None:
    several = {where: (change, line) for where, change, line in PLANTED.values()}  # the last of each place
    for where, (change, _) in several.items():
        change(home / where)

    lines = found(home)

    for _, line in several.values():
        assert [each for each in lines if each.startswith(line)], line
    assert len(lines) == len(several)


def test_a_rule_that_was_taken_out_of_a_result_is_found_by_its_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "MIN_DURATION_S", 600)

    lines = found(home)

    assert len(lines) == 9
    assert lines[0] == (
        "SingleStream performance, rules_broken: min_duration 0.25 s < 600 s (which result.json leaves out)"
    )
    [line] = relaxed(read_runs([home], ABOUT), ABOUT)
    assert line == "9 runs, rules_broken: min_duration 0.25 s < 600 s (which result.json leaves out)"
    assert found(home, rehearsal=True) == []
    assert len(found(home, OPEN)) == 3


def test_of_a_data_set_that_is_gone_only_the_list_is_not_looked_at(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_run, "_opened", lambda *settings: None)
    assert found(home) == []
    [warning] = warnings(read_runs([home], ABOUT))
    assert warning.endswith("TEST04, notes: " + _NO_DATA)

    ask_little(monkeypatch, "resnet50", performance_samples=PICTURES + 1)

    assert len(found(home)) == 9


def test_an_answer_that_was_altered_makes_another_score_and_no_audit_of_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_run, "_SHOWN", 3)
    rewrite(ACCURACY, *ONE_WRONG)(home / "MultiStream/accuracy")

    lines = found(home)

    fields = [f"accuracy/{FILE}, accuracy.value", *[f"TEST01/{ACCURACY}, sample 2"] * 3, "TEST01: and 1 more"]
    for line, field in zip(lines, [*fields, "TEST01/verify_accuracy.txt, num_perf_log_data_mismatch"], strict=True):
        assert line.startswith(f"MultiStream {field}")


def test_a_score_below_the_target_is_relaxed_in_a_rehearsal_and_not_asked_for_in_open(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_little(monkeypatch, "resnet50", target=0.9)

    lines = found(home)

    assert heads(lines) == [f"{scenario} accuracy, accuracy.value" for scenario in official.EDGE]
    assert lines[0].endswith("got 83.333 %, expected 90.0000 % or more")
    assert found(home, rehearsal=True) == found(home, OPEN) == []


def test_a_rehearsal_relaxes_an_audits_score_and_not_its_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TOLERANCE", "_SHORT_TOLERANCE"):
        monkeypatch.setattr(verify_audit, name, -1 + 1e-9)  # no score would do, however disturbed a run was
    rewrite(ACCURACY, *ONE_WRONG)(home / "Offline/TEST01")

    refused, passed = found(home, rehearsal=True), relaxed(read_runs([home], ABOUT), ABOUT)

    assert f"Offline TEST01/{ACCURACY}, sample 20" in heads(refused)
    assert not [line for line in refused if "the score is not" in line]
    assert len([line for line in passed if "the score is not" in line]) == 6


def test_what_is_relaxed_are_rules_by_their_names() -> None:
    assert {*IN_SHORT.values(), fault.ACCURACY, fault.SCORE} >= {*fault.REHEARSED, *fault.OPEN}


@pytest.mark.parametrize(
    ("rule", "in_rehearsal", "in_open"),
    [
        ("min_duration 10 s < 600 s", False, True),
        ("data set demo has 11 pictures, not ImageNet's 50000", False, True),
        ("model efficientnet-lite0 is not MLPerf's resnet50", False, False),
        ("model resnet50 is mine.onnx with the SHA-256 abcd..., not MLPerf's file", False, False),
        ("11000 samples < 24576", False, True),
        ("70 queries < 662", False, True),
        ("performance_sample_count 11 < 1024", False, True),
        ("int8 is not known to be calibrated on MLCommons' list (--rules closed)", True, False),
        ("random weights", True, True),
        ("Server latency bound 150 ms > 15 ms", True, True),
        ("the list of data set imagenet is not ImageNet's: names, labels or their order differ", True, True),
        ("answers depend on what was asked before: the model has a batch norm in training mode", True, True),
        ("answers depend on the batch: 3 of 40 labels differ", True, True),
        ("the null backend runs no model", True, True),
        ("the backend mine is not this project's own", True, True),
        ("FindPeakPerformance is a search, not a result", True, True),
        ("at the boundary device the input has already arrived where MLPerf's clock starts", True, True),
        ("Server rate is a quarter of the calibrated one, not the highest", True, True),
        ("an audit (TEST04) is no result", True, True),
        ("slowdown stretches stages on purpose: infer x 2", True, True),
        ("the run did not come to its end", True, True),
        ("the quota of 1.5 cores held the run back in 400 of 600 periods", False, False),
    ],
)
def test_what_a_rehearsal_and_the_open_division_let_pass(
    home: Path, rule: str, in_rehearsal: bool, in_open: bool
) -> None:
    edit(home / "Offline/performance", rules_broken=[rule])

    refused = [bool(found(home, rehearsal=True)), bool(found(home, OPEN))]

    assert refused == [in_rehearsal, in_open]


def test_what_is_missing_is_told_with_what_makes_it(home: Path) -> None:
    shutil.rmtree(home / "Offline/accuracy")
    shutil.rmtree(home / "MultiStream/TEST04")

    audit, accuracy = found(home)

    audits = f"./run_local.sh audit {home} --test TEST04 --scenario MultiStream"
    assert audit == f"MultiStream TEST04: there is no such run; make it: {audits}"
    assert accuracy.startswith("Offline accuracy: there is no such run; make it: ./run_local.sh --model resnet50 ")
    assert accuracy.endswith(" --scenario Offline --accuracy") and "--rules closed" in accuracy
    assert "output --rehearse --model resnet50 --dataset-path " in found(home, rehearsal=True)[1]


def test_a_scenario_that_was_not_run_is_missed_in_closed_and_in_open_only_if_asked_for(home: Path) -> None:
    shutil.rmtree(home / "Offline")

    assert heads(found(home)) == [f"Offline {role}" for role in ROLES]
    assert found(home, OPEN) == []
    asked = OPEN.model_copy(update={"scenarios": ("Offline", "SingleStream")})
    assert heads(found(home, asked)) == ["Offline performance", "Offline accuracy"]


def test_open_asks_for_no_audits_but_for_both_modes(home: Path) -> None:
    for name in ("SingleStream/TEST01", "Offline/TEST04", "Offline/performance"):
        shutil.rmtree(home / name)

    [line] = found(home, OPEN)

    assert line.startswith("Offline performance: there is no such run")
    assert line.endswith("or leave it out: name the others in 'scenarios'")


def test_closed_asks_for_all_of_its_scenarios_whatever_is_named(home: Path) -> None:
    [line] = found(home, ABOUT.model_copy(update={"scenarios": ("SingleStream",)}))

    assert line == "scenarios, edge: got SingleStream, expected SingleStream, MultiStream, Offline"


def test_two_scenarios_of_one_run_are_refused_unless_inferred(home: Path) -> None:
    for role in ROLES:
        for name in (DETAIL, SUMMARY, ACCURACY):
            shutil.copy(home / "SingleStream" / role / name, home / "MultiStream" / role / name)

    doubled = [line for line in found(home) if ", content: got the log of " in line]

    assert heads(doubled) == [f"MultiStream {role}/{DETAIL}, content" for role in ROLES]
    assert doubled[0].startswith(f"MultiStream performance/{DETAIL}, content: got the log of SingleStream performance")
    assert found(home, INFERRED) == []


def test_what_is_inferred_needs_no_runs_but_those_it_is_inferred_from(home: Path) -> None:
    for scenario in ("MultiStream", "Offline"):
        shutil.rmtree(home / scenario)

    assert found(home, INFERRED) == []
    wrong = ABOUT.model_copy(update={"inferred": {"Offline": "MultiStream"}})
    assert heads(found(home, wrong)) == [f"MultiStream {role}" for role in ROLES]
    alone = OPEN.model_copy(update={"inferred": {"Offline": "MultiStream"}})
    assert heads(found(home, alone)) == ["MultiStream performance", "MultiStream accuracy"]


def test_runs_of_another_configuration_are_told_setting_by_setting(home: Path, tmp_path: Path) -> None:
    for role in ROLES:
        edit(home / "Offline" / role, config=put(threads=2, qps=100.0))
    config = make_config(read_result(home / "Offline/performance" / FILE).config)
    other = result_home(config.model_copy(update={"output": tmp_path / "output"}), MODELS[official.MODEL])
    other.mkdir()
    (home / "Offline").rename(other / "Offline")

    lines = faults(read_runs([home, other], ABOUT), ABOUT, rehearsal=False)

    assert heads(lines) == [f"Offline {role}, config.threads" for role in ROLES]
    assert lines[0].endswith("got 2, expected nothing (SingleStream performance)")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("backend_version", {"backend_version": "0.1"}),
        ("device_name", {"device_name": "another"}),
        ("attested.provider", {"attested": put(provider="another")}),
        ("attested.precision", {"attested": put(precision="another")}),
    ],
)
def test_runs_that_were_served_by_something_else_are_told_apart(home: Path, field: str, change: dict[str, Any]) -> None:
    edit(home / "Offline/performance", **change)

    assert [line for line in found(home) if line.startswith(f"Offline performance, {field}: got ")]


def test_what_may_count_all_the_same_is_a_warning(home: Path) -> None:
    noisy = {"others_share": 0.5, "own_wait_share": 0.0, "steal_share": 0.0}
    edit(home / "SingleStream/performance", quiet=noisy, notes=["11 samples were greyscale"], clock_change_ns=None)
    edit(home / "SingleStream/accuracy", notes=["11 samples were greyscale"], gpus=[THROTTLED])
    edit(home / "Offline/accuracy", quiet=None)
    for result in home.rglob(FILE):
        edit(result.parent, versions=put(**{"loadgen-vision-sut": "0.1.0+g40f23a4-dirty"}))
    runs = read_runs([home], ABOUT)

    quiet, clock, gpu, unknown, note, dirty = warnings(runs)

    assert faults(runs, ABOUT, rehearsal=False) == []
    assert quiet.startswith("SingleStream performance, quiet: not quiet: others used 50 % of the cores")
    assert clock.startswith("SingleStream performance, clock_change_ns: ")
    assert gpu.startswith("SingleStream accuracy, gpus: cuda:0 was throttled: thermal at 3 of 10 looks")
    assert unknown == "Offline accuracy, quiet: nothing is known of what else ran"
    assert note == "SingleStream performance, SingleStream accuracy, notes: 11 samples were greyscale"
    assert "0.1.0+g40f23a4-dirty is no commit" in dirty


def test_what_is_odd_about_a_log_is_a_warning_and_no_fault(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = LogFinding(Doubt.FLOOR, DETAIL, "result_min_latency_ns", "10.3 ms", "no wait of 10 ms")
    monkeypatch.setattr(one_run, "judge_log", lambda *_: [odd])
    runs = read_runs([home], ABOUT)

    assert faults(runs, ABOUT, rehearsal=False) == []
    assert warnings(runs) == [f"{run.name}: {odd}" for run in runs.all()]


def test_that_an_audit_obeyed_its_settings_is_no_news(home: Path) -> None:
    result = read_result(home / "SingleStream/TEST01" / FILE)
    assert result.audit is not None
    edit(home / "SingleStream/TEST01", notes=[result.audit.words])

    assert warnings(read_runs([home], ABOUT)) == []


def test_what_is_judged_here_with_any_data_set_is_told_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [("accuracy.txt", "accuracy"), (FILE, "accuracy.value"), (FILE, "rules_broken"), (ACCURACY, "answers")]

    def judge(folder: Path, name: str, notes: list[str]) -> tuple[None, list[Finding]]:
        return None, [Finding(f"{name}/{file}", field, "1", "2") for file, field in told]

    monkeypatch.setattr(one_run, "judge", judge)

    # In performance mode LoadGen logs no answers: nothing here looks at that.
    answers = [f"{each} {role}/{ACCURACY}, answers" for each in official.EDGE for role in ROLES if role != "accuracy"]
    assert heads(found(home)) == answers


def test_a_log_that_is_a_pipe_or_no_text_is_named(home: Path) -> None:
    folder = home / "Offline/performance"
    (folder / DETAIL).unlink()
    os.mkfifo(folder / DETAIL)
    (home / "Offline/TEST04" / DETAIL).write_bytes(b"\xff\x00" * 1000)
    (home / "Offline/TEST01/verify_accuracy.txt").unlink()
    (home / "Offline/TEST01/verify_accuracy.txt").mkdir()

    lines = found(home)

    assert heads(lines) == [
        f"Offline performance/{DETAIL}, content",
        f"Offline TEST04/{DETAIL}, content",
    ]
