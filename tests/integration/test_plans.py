"""What is planned is what happens: settings are obeyed or refused, nothing is killed at work, reasons fit."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sut.mlperf.loadgen import settings_for
from sut.run.generation import Generated, generated
from tests.children import CHECKOUT, Finished, results, run_python, run_sut
from tests.distributions import plug_in, sleeper

TEST01 = "*.*.mode = 2\n*.*.accuracy_log_rng_seed = 720381539243781796\n*.*.accuracy_log_sampling_target = 4096\n"
TEST04 = "*.*.mode = 2\n*.*.performance_issue_same = 1\n*.*.performance_issue_same_index = 3\n"


def run(tmp_path: Path, *arguments: str | Path, **more: Any) -> tuple[Finished, dict[str, Any]]:
    child = run_sut("--backend", "null", *arguments, cwd=tmp_path, **more)
    [result] = results(tmp_path).values() or [{}]
    return child, result


def conf_of(tmp_path: Path, text: str, name: str = "user.conf") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_how_long_several_runs_take_in_all_is_told_first(tmp_path: Path) -> None:
    child = run_sut("--backend", "null", "--scenario", "SingleStream,Offline", "--time", "0.1", cwd=tmp_path)

    assert child.err.startswith("2 runs, about 8 s in all\n")


def test_an_invalid_server_run_names_a_rate(tmp_path: Path) -> None:
    plugins = sleeper(tmp_path / "plugins")
    conf = conf_of(tmp_path, "*.Server.min_query_count = 100\n")
    # Workers count as lanes beforehand, and have nothing to do here: that twice too much is asked is not foreseen.
    workers = ("--boundary", "jpeg", "--preprocess-workers", "3", "--max-batchsize", "1")
    asked = ("--scenario", "Server", "--qps", "200", "--max-latency", "0.06", "--time", "0.5", "--user_conf", conf)
    slept = {"SLEEP_BATCH_MS": "10", "SLEEP_SAMPLE_MS": "0"}

    child = run_sut("--backend", "sleeper", *asked, *workers, cwd=tmp_path, plugins=plugins, **slept)

    assert child.code == 4, child.err
    [reason] = results(tmp_path)["Server", "performance"]["invalid_reasons"]
    rate = re.search(r"--qps ([\d.]+) should pass on a quiet machine, and \./run_local\.sh tune ", reason)
    assert rate and float(rate[1]) <= 50, reason


def test_the_ceiling_is_what_is_answered_of_more_than_can_be(tmp_path: Path) -> None:
    child = run_sut("--config", CHECKOUT / "configs" / "ceiling.yaml", "--time", "0.1", cwd=tmp_path)

    assert child.code == 0, child.err
    by_scenario = results(tmp_path)
    assert {scenario for scenario, _ in by_scenario} == {"Server", "Offline"}
    server = by_scenario["Server", "performance"]
    assert server["metric"]["value"] < 0.9 * server["config"]["qps"]
    assert max(map(int, server["batch_sizes"])) == server["plan"]["max_batchsize"], "queries came one by one"


GENERATE = """
import json, os, sys
from pathlib import Path
import mlperf_loadgen as lg
from sut.mlperf.loadgen import settings_for

def resident(word):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(word)).split()[1])

scenario, changes, loaded = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
settings = settings_for("resnet50", scenario, "performance", [])
for name, value in changes.items():
    setattr(settings, name, value)
logs = lg.LogSettings()
logs.log_output.outdir = "."
before = resident("VmRSS:")

def issue(ids, indices):
    print(len(ids), resident("VmHWM:") - before, flush=True)
    if not sys.argv[4:]:
        os._exit(0)
    lg.QuerySamplesComplete([lg.QuerySampleResponse(each, 0, 0) for each in ids])

sut = lg.ConstructFastSUT(issue, lambda: None)
qsl = lg.ConstructQSL(loaded, loaded, lambda samples: None, lambda samples: None)
lg.StartTestWithLogSettings(sut, qsl, settings, logs, "")
os._exit(0)
"""
SHORT = {"min_duration_ms": 20, "min_query_count": 5}


@pytest.mark.parametrize(
    ("scenario", "changes"),
    [
        ("SingleStream", SHORT | {"single_stream_expected_latency_ns": 1_500_000}),
        ("SingleStream", {"min_duration_ms": 0, "min_query_count": 7}),
        ("MultiStream", SHORT | {"multi_stream_expected_latency_ns": 1_000_000}),
        ("MultiStream", SHORT | {"performance_issue_unique": True}),
        ("Server", {"min_duration_ms": 0, "min_query_count": 40, "server_target_qps": 1000.0}),
        ("Server", SHORT | {"performance_issue_unique": True, "server_target_qps": 1000.0}),
        ("Offline", SHORT | {"offline_expected_qps": 1000.0}),
        ("Offline", SHORT | {"performance_issue_unique": True, "performance_sample_count_override": 11}),
    ],
)
def test_loadgen_generates_what_is_planned(tmp_path: Path, scenario: str, changes: dict[str, Any]) -> None:
    script = conf_of(tmp_path, GENERATE, "generate.py")
    settings = settings_for("resnet50", scenario, "performance", [])
    for name, value in changes.items():
        setattr(settings, name, value)

    child = run_python(script, scenario, json.dumps(changes), "11", "to the end", cwd=tmp_path)

    assert child.code == 0, child.err
    log = (tmp_path / "mlperf_log_detail.txt").read_text()
    found = {key: int(value) for key, value in re.findall(r'"key": "(generated_\w+)", "value": (\d+)', log)}
    planned = generated(settings, scenario, settings.min_duration_ms / 1000, 11)
    assert (planned.queries, planned.per_query) == (
        found["generated_query_count"],
        found["generated_samples_per_query"],
    )


@pytest.mark.parametrize(
    ("scenario", "count"),
    [("SingleStream", 270_000), ("MultiStream", 70_000), ("Server", 250_000), ("Offline", 600_000)],
)
def test_the_memory_of_generated_queries_is_what_it_is_believed_to_be(
    tmp_path: Path, scenario: str, count: int
) -> None:
    script = conf_of(tmp_path, GENERATE, "generate.py")
    changes = f'{{"min_duration_ms": 0, "min_query_count": {count}, "server_target_qps": 1e6}}'

    child = run_python(script, scenario, changes, "1024", cwd=tmp_path)

    assert child.code == 0, child.err
    taken = int(child.out.split()[1])
    offline = scenario == "Offline"
    per_query = 8 if scenario == "MultiStream" else count if offline else 1
    believed = Generated(1 if offline else count, per_query, offline).nbytes
    assert 0.5 * believed < taken < 1.15 * believed


@pytest.mark.first(1)
@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
def test_what_does_not_fit_into_memory_is_refused_with_the_time_that_does(tmp_path: Path, scenario: str) -> None:
    child, result = run(tmp_path, "--scenario", scenario, "--time", "1000000", "--qps", "50000")

    assert child.code == 1, child.err
    assert re.search(r"error: .* GB of memory; half of what is free is .*--time \d+$", child.err, re.MULTILINE)
    assert result["samples"] == 0


IMPATIENT = "import sut.run.supervisor as s; s._WATCHDOG_S = 1.0"


@pytest.mark.slow
def test_a_run_is_not_stopped_while_loadgen_generates_its_queries(tmp_path: Path) -> None:
    # Generated for longer than the watchdog waits, and then ended at once.
    conf = conf_of(tmp_path, "*.*.min_query_count = 3000000\n*.*.max_query_count = 100\n")
    script = conf_of(tmp_path, f"{IMPATIENT}\nimport sys; from sut.__main__ import main; main()\n", "impatient.py")

    child = run_python(
        *(script, "run", "--backend", "null", "--scenario", "SingleStream", "--time", "1", "--user_conf", conf),
        *("--output", tmp_path / "output"),
        cwd=tmp_path,
    )

    assert child.code == 4, child.err
    [result] = results(tmp_path).values()
    assert result["samples"] == 100
    assert result["duration_s"] < 1
    assert result["invalid_reasons"][0].startswith("max_query_count 100 ended the run early")


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("text", "test", "settings"),
    [
        (TEST01, "TEST01", {"accuracy_log_sampling_target": 4096}),
        (TEST04, "TEST04", {"performance_issue_same_index": 3}),
        ("*.*.min_duration = 700\n", None, {"min_duration": 700}),
    ],
)
def test_the_result_says_which_audit_was_obeyed_and_the_plan_knows_it(
    tmp_path: Path, text: str, test: str | None, settings: dict[str, int]
) -> None:
    audit = conf_of(tmp_path, text, "audit.config")

    child, result = run(tmp_path, "--scenario", "SingleStream", "--time", "0.5", "--audit_conf", audit)

    assert child.code == 0, child.err
    assert (result["audit"]["file"], result["audit"]["test"]) == (str(audit), test)
    assert settings.items() <= result["audit"]["settings"].items()
    assert any(f"{audit} is obeyed" in note for note in result["notes"])
    assert any(rule.startswith("an audit (") for rule in result["rules_broken"])
    assert result["plan"]["seconds"] == pytest.approx(0.7 if test is None else 0.5, rel=0.01)
    log = (result["directory"] / "mlperf_log_detail.txt").read_text()
    for key, value in settings.items():
        assert re.search(rf'"effective_{key}(_ms)?", "value": {value},', log)


@pytest.mark.parametrize(
    ("line", "arguments", "fragment"),
    [
        ("*.*.accuracy_log_rng_sed = 1", [], "unknown key 'accuracy_log_rng_sed'"),
        ("*.*.mode = 2", ["--accuracy"], "mode 2 (performance) is not the run's (accuracy)"),
        ("*.*.performance_issue_same = 1\n*.*.performance_issue_same_index = 11", [], "one of the 11 samples"),
    ],
)
def test_an_audit_that_cannot_be_obeyed_is_refused(
    tmp_path: Path, line: str, arguments: list[str], fragment: str
) -> None:
    audit = conf_of(tmp_path, f"{line}\n", "audit.config")

    child, _ = run(tmp_path, "--scenario", "Offline", "--time", "0.5", "--audit_conf", audit, *arguments)

    assert child.code == 1, child.err
    assert fragment in child.err


def test_without_an_audit_and_without_a_quota_the_result_says_so(tmp_path: Path) -> None:
    child, result = run(tmp_path, "--scenario", "SingleStream", "--time", "0.5")

    assert child.code == 0, child.err
    assert result["audit"] is None


@pytest.fixture
def tenth_of_a_core() -> Iterator[Path]:
    """A cgroup (version 1) with a quota of a tenth of a core, which is less than a busy machine leaves."""
    folder = Path("/sys/fs/cgroup/cpu") / f"sut-test-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
        (folder / "cpu.cfs_quota_us").write_text("10000")
    except OSError:
        pytest.skip("no cgroup of version 1 can be made here")
    yield folder
    folder.rmdir()


@pytest.mark.slow
def test_a_quota_is_kept_to_and_what_it_did_is_told(tmp_path: Path, tenth_of_a_core: Path) -> None:
    inside = f"from pathlib import Path; Path('{tenth_of_a_core}/cgroup.procs').write_text('0')"
    code = f"{inside}\nimport sys; from sut.__main__ import main; main()\n"
    script = conf_of(tmp_path, code, "inside.py")

    child = run_python(
        *(script, "run", "--backend", "null", "--scenario", "Offline", "--time", "0.3", "--qps", "100000"),
        *("--output", tmp_path / "output"),
        cwd=tmp_path,
    )

    assert child.code in (0, 4), child.err
    [result] = results(tmp_path).values()
    assert result["system"]["cores"] == 1
    quota = result["cpu_quota"]
    assert quota["cores"] == 0.1
    assert 0.01 * quota["periods"] < quota["throttled_periods"] <= quota["periods"]
    told = f"the quota of 0.1 cores held the run back in {quota['throttled_periods']} of {quota['periods']} periods"
    assert told in result["notes"]
    assert told in result["rules_broken"]


def test_server_asked_for_too_much_is_stopped_and_told_what_would_fit(tmp_path: Path) -> None:
    child = run_sut(
        *("--backend", "simulated", "--scenario", "Server", "--qps", "100000", "--time", "200"), cwd=tmp_path
    )

    assert child.code == 4, child.err
    [result] = results(tmp_path).values()
    assert result["samples"] < 100_000  # of twenty million
    assert result["plan"]["queries"] < 100_000
    assert not any("past twice" in note or "leave it out" in note for note in result["notes"])
    [reason] = result["invalid_reasons"]
    assert reason.startswith("Server is asked at 100,000 queries/s, and this system answers about ")
    assert reason in result["plan"]["notes"]
    assert 10 < float(re.findall(r"--qps ([\d.]+) is a rate to begin with", reason)[0]) < 1000


@pytest.mark.first(1)
@pytest.mark.parametrize("scenario", ["SingleStream", "Server"])
def test_a_max_duration_that_ends_a_run_is_named_before_and_after(tmp_path: Path, scenario: str) -> None:
    conf = conf_of(tmp_path, "*.*.max_duration = 200\n")

    child, result = run(tmp_path, "--scenario", scenario, "--time", "1", "--qps", "1000", "--user_conf", conf)

    assert child.code == 4, child.err
    assert "max_duration 0.2 s ends this run" in " ".join(result["plan"]["notes"])
    assert result["plan"]["seconds"] == pytest.approx(0.2)
    [reason] = result["invalid_reasons"]
    assert reason.startswith("max_duration 0.2 s ended the run early")
    assert "--qps" not in reason
    assert "--time" not in reason


@pytest.mark.first(1)
@pytest.mark.parametrize("scenario", ["SingleStream", "Server"])
def test_unique_samples_are_the_one_reason_of_a_run_too_short(tmp_path: Path, scenario: str) -> None:
    conf = conf_of(tmp_path, "*.*.performance_issue_unique = 1\n")

    child, result = run(tmp_path, "--scenario", scenario, "--time", "0.5", "--user_conf", conf)

    assert child.code == 4, child.err
    [reason] = result["invalid_reasons"]
    assert reason.startswith("performance_issue_unique asks for each loaded sample once")


TIRING = """
import time

from backends.null import Null, NullRunner


class Tiring(Null):
    name = "tiring"

    def runner(self, place="host"):
        return TiringRunner()


class TiringRunner(NullRunner):
    calls = 0

    def infer(self, slot):
        self.calls += 1
        time.sleep(0.001 if self.calls < 200 else 0.02)
        return super().infer(slot)
"""


@pytest.mark.slow
def test_a_run_past_twice_its_plan_says_why_once(tmp_path: Path) -> None:
    conf = conf_of(tmp_path, "*.*.min_query_count = 300\n")

    child = run_sut(
        *("--backend", "tiring", "--scenario", "SingleStream", "--time", "0.6", "--user_conf", conf),
        cwd=tmp_path,
        plugins=plug_in(tmp_path / "plugins", "tiring", TIRING, "Tiring"),
    )

    assert child.code == 0, child.err
    [result] = results(tmp_path).values()
    [why] = [note for note in result["notes"] if note.startswith("past twice the planned ")]
    assert "samples/s are answered" in why
    assert "min_query_count 300 holds it" in why
    assert child.err.count("past twice the planned ") == 1
