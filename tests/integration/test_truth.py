"""What is told is true: the labels whatever the batches, the time of each stage, the seeds in every log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sut.config import SCENARIOS
from sut.datasets.demo import open_demo
from sut.mlperf.accuracy import read_accuracy_log
from sut.mlperf.logs import ACCURACY, DETAIL, OFFICIAL_SEEDS, Trace, read_detail, read_trace
from sut.pipeline.ledger import Ledger, LedgerShape
from sut.results.stages import LedgerError, Stages, join
from tests.children import CHECKOUT, results, run_python, run_sut
from tests.distributions import plug_in, sleeper

SWAPPED = """
from backends.base import Runner
from backends.onnxruntime import OnnxRuntime


class Swapped(OnnxRuntime):
    name = "swapped"

    def runner(self, place="host"):
        return SwappedRunner(super().runner())


class SwappedRunner(Runner):
    def __init__(self, real):
        self.slot = real.slot
        self.real = real

    def slot(self, n):
        raise NotImplementedError

    def infer(self, slot):
        outputs = self.real.infer(slot)
        if slot.n > 1:
            for rows in outputs.values():
                rows[[0, 1]] = rows[[1, 0]]
        return outputs
"""


def labels_in(directory: Path) -> dict[int, float]:
    """The label given to each sample, by its number in the data set."""
    answers = read_accuracy_log(directory / ACCURACY).answers
    return {index: float(np.frombuffer(answer, "<f4")[0]) for index, answer in sorted(answers.items())}


def right_labels() -> dict[int, float]:
    labels = open_demo().truth
    assert labels is not None
    return {index: float(label) for index, label in enumerate(labels)}


def right_in_all_scenarios(folder: Path) -> list[dict[str, Any]]:
    """The results of accuracy runs, one of each scenario, in which each label is right."""
    found = {scenario: results(folder)[scenario, "accuracy"] for scenario in SCENARIOS}
    assert {scenario: labels_in(result["directory"]) for scenario, result in found.items()} == dict.fromkeys(
        SCENARIOS, right_labels()
    )
    return [*found.values()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("max_batchsize", "lanes"),
    [
        (1, 1),
        (1, 2),
        (3, 1),
        (3, 2),
        (8, 1),
        (8, 2),
    ],
)
def test_labels_are_the_same_in_every_scenario_and_right(tmp_path: Path, max_batchsize: int, lanes: int) -> None:
    child = run_sut(
        *("--accuracy", "--scenario", "all", "--max-batchsize", str(max_batchsize), "--lanes", str(lanes)),
        cwd=tmp_path,
    )

    assert child.code == 0, child.err
    for result in right_in_all_scenarios(tmp_path):
        assert (result["accuracy"]["value"], result["accuracy"]["count"], result["valid"]) == (1.0, 11, None)
        assert max(map(int, result["batch_sizes"])) <= max_batchsize


@pytest.mark.first(1)
@pytest.mark.parametrize(("max_batchsize", "right"), [(8, False), (1, True)])
def test_two_rows_of_a_batch_that_change_places_are_noticed(tmp_path: Path, max_batchsize: int, right: bool) -> None:
    child = run_sut(
        *("--backend", "swapped", "--accuracy", "--scenario", "Offline", "--max-batchsize", str(max_batchsize)),
        cwd=tmp_path,
        plugins=plug_in(tmp_path / "plugins", "swapped", SWAPPED, "Swapped"),
    )

    assert child.code == 0, child.err
    result = results(tmp_path)["Offline", "accuracy"]
    assert (labels_in(result["directory"]) == right_labels()) is right
    assert result["accuracy"]["value"] == (1.0 if right else pytest.approx(7 / 11))


LATE_CLOCK = """
import sys
import time
from pathlib import Path

import mlperf_loadgen as lg

from sut import SUT, RunConfig
from sut.pipeline.ledger import Ledger, LedgerShape

READINGS = 8  # of the clock per query: one when it is issued, seven around its stages


class Clock:
    late = None
    readings = 0

    def __call__(self):
        now = time.time_ns()
        if self.readings % READINGS == self.late:
            time.sleep(0.003)
        self.readings += 1
        return now


clock = Clock()
with SUT(RunConfig(backend="null", scenario="SingleStream", dataset="demo"), clock=clock) as sut:
    for late in (None, *range(READINGS)):
        output = Path(f"late-{late}")
        output.mkdir()
        settings, logs = lg.TestSettings(), lg.LogSettings()
        settings.FromConfig("", "resnet50", "SingleStream", 0)
        settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
        settings.min_duration_ms, settings.min_query_count = 250, 64
        settings.single_stream_expected_latency_ns = 1_000_000
        logs.log_output.outdir = str(output)
        logs.enable_trace = True
        shape = LedgerShape.of(int(sys.argv[1]))
        memory = bytearray(shape.nbytes)
        sut.start(Ledger(shape, memory))
        clock.late, clock.readings = late, 0
        fast = lg.ConstructFastSUT(sut.issue, sut.flush)
        qsl = lg.ConstructQSL(sut.library.count, sut.library.performance_count, sut.library.load, sut.library.unload)
        lg.StartTestWithLogSettings(fast, qsl, settings, logs, "")
        lg.DestroyFastSUT(fast)
        lg.DestroyQSL(qsl)
        (output / "ledger").write_bytes(memory)
"""
LATE_SAMPLES = 2000
LATE_NS = 3_000_000
WHERE = {
    "late-None": [],
    "late-0": ["queue"],
    "late-1": ["preprocess"],
    "late-2": ["residual"],
    "late-3": ["infer"],
    "late-4": ["residual"],
    "late-5": ["postprocess"],
    "late-6": ["residual"],
    "late-7": ["complete"],
}
"""Which stage a pause after each reading of the clock belongs to; between two stages, to none."""


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoadGen runs with a pause of 3 ms after one reading of the clock, another one in each run."""
    folder = tmp_path_factory.mktemp("late")
    script = folder / "late_clock.py"
    script.write_text(LATE_CLOCK)
    child = run_python(script, str(LATE_SAMPLES), cwd=folder)
    assert child.code == 0, child.err
    return folder


def read_back(folder: Path) -> tuple[Ledger, Trace]:
    ledger = Ledger(LedgerShape.of(LATE_SAMPLES), bytearray((folder / "ledger").read_bytes()))
    return ledger, read_trace(folder)[0]


def test_a_pause_between_two_stamps_is_in_the_residual_and_nowhere_else(late: Path) -> None:
    runs: dict[str, Stages] = {name: join(*read_back(late / name)) for name in WHERE}

    always = {
        name: [stage for stage, values in stages.per_sample.items() if values.min() >= LATE_NS]
        for name, stages in runs.items()
    }
    usually = {
        name: [stage for stage, values in stages.per_sample.items() if np.median(values) >= LATE_NS / 2]
        for name, stages in runs.items()
    }
    assert always == WHERE
    assert usually == WHERE
    for stages in runs.values():
        assert len(stages.latency_ns) >= 64
        assert np.array_equal(sum(stages.per_sample.values()), stages.latency_ns)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_real_trace_shifted_by_one_sample_does_not_join(late: Path, shift: int) -> None:
    ledger, trace = read_back(late / "late-2")

    with pytest.raises(LedgerError):
        join(ledger, replace(trace, index=np.roll(trace.index, shift)))


def test_a_run_of_its_own_in_fifteen_lines(tmp_path: Path) -> None:
    script = CHECKOUT / "docs" / "examples" / "own_loadgen.py"

    child = run_python(script, cwd=tmp_path)

    assert child.code == 0, child.err
    assert "Result is : VALID" in child.out
    assert "Scenario : SingleStream" in child.out
    assert child.out.endswith("0 samples failed\n")
    detail = read_detail(tmp_path / "output" / "own_loadgen")
    assert detail.errors == ()
    assert {name: detail.values[f"effective_{name}"] for name in OFFICIAL_SEEDS} == OFFICIAL_SEEDS
    code = script.read_text().partition('"""\n\n')[2]
    assert len([line for line in code.splitlines() if line.strip() and "import " not in line]) <= 15


def test_both_scenarios_of_one_command_have_the_official_seeds(tmp_path: Path) -> None:
    child = run_sut(
        *("--backend", "sleeper", "--scenario", "SingleStream,Offline", "--time", "0.5"),
        cwd=tmp_path,
        plugins=sleeper(tmp_path / "plugins"),
        SLEEP_BATCH_MS="0",
        SLEEP_SAMPLE_MS="5",
    )

    assert child.code == 0, child.err
    found = results(tmp_path)
    assert set(found) == {("SingleStream", "performance"), ("Offline", "performance")}
    for result in found.values():
        text = (result["directory"] / DETAIL).read_text()
        for name, seed in OFFICIAL_SEEDS.items():
            assert f'"key": "requested_{name}", "value": {seed},' in text
            assert f'"key": "effective_{name}", "value": {seed},' in text
        assert '"is_error": true' not in text


FEW_QUERIES = """\
# Enough for the stages; too few for a verdict.
*.MultiStream.min_query_count = 20
*.Server.min_query_count = 60
"""
SAME_AS_LOADGEN = {
    "p50": "50.00", "p90": "90.00", "p95": "95.00", "p97": "97.00", "p99": "99.00", "p99_9": "99.90",
}  # fmt: skip


@pytest.mark.parametrize("backend", [pytest.param("onnxruntime", marks=pytest.mark.slow), "sleeper"])
def test_in_every_scenario_the_ledger_closes_and_percentiles_are_loadgens(tmp_path: Path, backend: str) -> None:
    conf = tmp_path / "few.conf"
    conf.write_text(FEW_QUERIES)

    child = run_sut(
        *("--backend", backend, "--scenario", "all", "--time", "1", "--user_conf", conf, "--set", "relax_server=true"),
        # MultiStream then has batches that end at different times.
        *("--max-batchsize", "3"),
        cwd=tmp_path,
        plugins=sleeper(tmp_path / "plugins"),
        SLEEP_BATCH_MS="4",
        SLEEP_SAMPLE_MS="1",
    )

    found = results(tmp_path)
    assert {scenario for scenario, _ in found} == set(SCENARIOS), child.err
    for result in found.values():
        check_stages(result)
        check_percentiles(result)


def check_stages(result: dict[str, Any]) -> None:
    means = {name: stage["mean"] for name, stage in result["stages_ns"].items()}
    assert list(means) == ["issue_delay", "queue", "preprocess", "infer", "postprocess", "complete", "residual"]
    # Another program's share of the machine lies in the residual of some samples: not of half of them.
    assert means["residual"] > -50_000, (result["scenario"], means)
    assert result["stages_ns"]["residual"]["p50"] < 300_000, (result["scenario"], means)
    assert result["recorded_samples"] == result["samples"]
    if result["scenario"] != "MultiStream":  # there latency_ns is the queries', not the samples'
        assert sum(means.values()) == pytest.approx(result["latency_ns"]["mean"], abs=len(means))


def check_percentiles(result: dict[str, Any]) -> None:
    values = read_detail(result["directory"]).values
    word = "percentile_per_query_latency_ns" if result["scenario"] == "MultiStream" else "percentile_latency_ns"
    theirs = {name: values[f"result_{share}_{word}"] for name, share in SAME_AS_LOADGEN.items()}
    assert {name: result["latency_ns"][name] for name in theirs} == theirs, result["scenario"]


ANOTHER_LOG = """
import os
import shutil
from pathlib import Path

from backends.null import Null


class AnotherLog(Null):
    name = "another_log"

    def close(self):  # LoadGen has written its logs by now, and they are not read yet
        super().close()
        if "ANOTHER_LOG" in os.environ:
            [place] = Path("output").rglob("mlperf_log_detail.txt")
            shutil.copy(os.environ["ANOTHER_LOG"], place)
"""
NEVER_IN_TIME = ("--time", "0.3", "--qps", "3000", "--max-latency", "0.000001")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a Server run and an Offline run have been, with the plug-in that can put their logs elsewhere."""
    folder = tmp_path_factory.mktemp("others")
    plugins = plug_in(folder / "plugins", "another_log", ANOTHER_LOG, "AnotherLog")
    arguments = ("--backend", "another_log", "--scenario", "Server,Offline", *NEVER_IN_TIME)
    child = run_sut(*arguments, cwd=folder, plugins=plugins)
    assert child.code == 4, child.err
    return folder


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("scenario", "mode", "other", "field"),
    [
        ("Server", "performance", "Offline", "effective_scenario: got Offline, expected Server"),
        ("Server", "performance", "Server", "LoadGen's log is another run's"),
        ("Offline", "accuracy", "Offline", "effective_test_mode: got PerformanceOnly, expected AccuracyOnly"),
    ],
)
def test_the_log_of_another_run_in_the_place_of_its_own_fails_a_run(
    tmp_path: Path, others: Path, scenario: str, mode: str, other: str, field: str
) -> None:
    child = run_sut(
        *("--backend", "another_log", "--scenario", scenario, *(NEVER_IN_TIME if mode == "performance" else ())),
        *(("--accuracy",) if mode == "accuracy" else ()),
        cwd=tmp_path,
        plugins=others / "plugins",
        ANOTHER_LOG=str(results(others)[other, "performance"]["directory"] / DETAIL),
    )

    result = results(tmp_path)[scenario, mode]
    assert child.code == 3, child.err
    assert field in child.err
    assert result["valid"] is False
    assert field in result["invalid_reasons"][0]
    assert result["first_error"] == result["invalid_reasons"][0]
    assert result["failed_samples"] == 0
    assert result["accuracy"] is None


ONE_ERROR_MORE = """
from pathlib import Path

from backends.null import Null


class OneErrorMore(Null):
    name = "one_error_more"

    def close(self):  # LoadGen has written its logs by now, and they are not read yet
        super().close()
        for place in Path("output").rglob("mlperf_log_detail.txt"):
            with place.open("a") as log:
                log.write(':::MLLOG {"key": "error_runtime", "value": "Attempted to complete a sample twice.", ')
                log.write('"metadata": {"is_error": true}}\\n')
"""


def test_an_error_that_loadgen_logs_makes_a_run_invalid_and_not_failed(tmp_path: Path) -> None:
    child = run_sut(
        *("--backend", "one_error_more", "--scenario", "SingleStream", "--time", "0.3"),
        cwd=tmp_path,
        plugins=plug_in(tmp_path / "plugins", "one_error_more", ONE_ERROR_MORE, "OneErrorMore"),
    )

    result = results(tmp_path)["SingleStream", "performance"]
    assert child.code == 4, child.err
    [reason] = result["invalid_reasons"]
    assert reason.startswith("LoadGen logged an error")
    assert "Attempted to complete a sample twice" in reason
    assert result["first_error"] is None


def test_what_an_audit_config_sets_is_not_held_against_a_run(tmp_path: Path) -> None:
    audit = tmp_path / "TEST04.config"
    audit.write_text("*.*.mode = 2\n*.*.performance_issue_same = 1\n*.*.min_query_count = 70\n")
    arguments = ("--scenario", "SingleStream", "--time", "0.3", "--audit_conf", audit)

    child = run_sut("--backend", "null", *arguments, cwd=tmp_path)

    assert child.code == 0, child.err
    result = results(tmp_path)["SingleStream", "performance"]
    assert read_detail(result["directory"]).number("requested_min_query_count") == 70
    assert result["invalid_reasons"] == []
