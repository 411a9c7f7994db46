"""What is inside the clock at each boundary, fused and staged, and that the ledger says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sut.mlperf.accuracy import read_accuracy_log
from sut.mlperf.logs import ACCURACY, TRACE
from tests.children import CHECKOUT, Finished, results, run_sut
from tests.distributions import write_distribution

PLUGIN = '''
import os
import time

import numpy as np

from backends.base import Attestation, Backend, Runner, Slot, TensorSpec
from preprocess.opencv import OpenCV


class Instant(Backend):
    """Takes pictures, answers class 0 after half a millisecond: slow enough to be traced."""

    name = "instant"
    inputs = (TensorSpec("images", "float32", (None, 3, 224, 224), "NCHW"),)
    outputs = (TensorSpec("label", "int64", (None,), "N"),)

    @classmethod
    def load(cls, model, device, lanes, threads, options=None):
        return cls()

    @classmethod
    def version(cls):
        return "1"

    def runner(self, place="host"):
        return InstantRunner()

    def attest(self):
        return Attestation("cpu", "", "none", "fp32")


class InstantRunner(Runner):
    def slot(self, n):
        return Slot(n, {"images": np.empty((n, 3, 224, 224), np.float32)})

    def infer(self, slot):
        time.sleep(0.0005)
        return {"label": np.zeros(slot.n, np.int64)}


class Counting(OpenCV):
    """Writes down when each picture was decoded."""

    name = "counting"

    def run(self, encoded, target, mark):
        now = time.time_ns()
        with open(os.environ["DECODED_LOG"], "a") as log:
            log.write(f"{now}\\\\n" * len(encoded))
        return super().run(encoded, target, mark)


class SlowDecode(OpenCV):
    """Takes 20 ms longer to decode a picture."""

    name = "slow-decode"

    def run(self, encoded, target, mark):
        time.sleep(0.02 * len(encoded))
        return super().run(encoded, target, mark)


class Failing(OpenCV):
    """Cannot decode the last demo photo, which warm-up does not look at."""

    name = "failing"

    def run(self, encoded, target, mark):
        if any(len(data) == int(os.environ["FAIL_BYTES"]) for data in encoded):
            raise ValueError("will not decode this")
        return super().run(encoded, target, mark)
'''.replace("\\\\n", "\\n")

PARITY_PICTURES = 8  # which each run decodes before the clock to measure its preprocessor against the oracle
FUSED = ()
STAGED = ("--preprocess-workers", "2")


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    classes = {"counting": "Counting", "slow-decode": "SlowDecode", "failing": "Failing"}
    points = {
        "sut.backends": {"instant": "boundary_plugins:Instant"},
        "sut.preprocessors": {name: f"boundary_plugins:{kind}" for name, kind in classes.items()},
    }
    write_distribution(folder, "boundary-plugins", points)
    (folder / "boundary_plugins.py").write_text(PLUGIN)
    return folder


def run(tmp_path: Path, plugins: Path, *arguments: str, **environment: str) -> Finished:
    common = ("--backend", "instant", "--time", "0.3", "--max-latency", "10")
    return run_sut(*common, *arguments, cwd=tmp_path, plugins=plugins, **environment)


def clock_ns(directory: Path) -> tuple[float, float]:
    """When LoadGen scheduled the first sample and got the last answer, ns of the system clock, from its trace."""
    text = (directory / TRACE).read_text()
    [origin_us] = re.findall(r'"otherData":\{\s*"ts":([0-9.]+)', text)
    samples = re.findall(r'"ph":"b".*?"ts":([0-9.]+),.*?"complete_ns":(\d+)', text)
    begins = [float(origin_us) * 1e3 + float(at_us) * 1e3 for at_us, _ in samples]
    return min(begins), max(begin + int(took) for begin, (_, took) in zip(begins, samples, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("way", [FUSED, STAGED], ids=["fused", "staged"])
@pytest.mark.parametrize("scenario", ["SingleStream", "Server", "Offline"])
def test_at_jpeg_every_sample_is_decoded_inside_the_clock(
    tmp_path: Path, plugins: Path, scenario: str, way: tuple[str, ...]
) -> None:
    log = tmp_path / "decoded"

    child = run(
        *(tmp_path, plugins, "--preprocess", "counting", "--boundary", "jpeg", "--scenario", scenario, "--debug"),
        *("--qps", "200", *way),
        DECODED_LOG=str(log),
    )

    assert child.code in (0, 4), child.err  # an Offline run this short may be too short
    [result] = results(tmp_path).values()
    begin, end = clock_ns(result["directory"])
    # LoadGen prints its origin to the millisecond's fraction; a sample cannot be decoded before it was issued.
    inside = [at for at in map(int, log.read_text().split()) if begin - 1e5 <= at <= end]
    assert len(inside) == result["samples"] > 0


@pytest.mark.first(1)
@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_at_tensor_none_is(tmp_path: Path, plugins: Path, scenario: str) -> None:
    log = tmp_path / "decoded"

    child = run(
        *(tmp_path, plugins, "--preprocess", "counting", "--boundary", "tensor", "--scenario", scenario, "--debug"),
        DECODED_LOG=str(log),
    )

    assert child.code in (0, 4), child.err
    [result] = results(tmp_path).values()
    begin, _ = clock_ns(result["directory"])
    decoded = list(map(int, log.read_text().split()))
    assert len(decoded) == 11 + PARITY_PICTURES
    assert max(decoded) < begin


@pytest.mark.first(1)
@pytest.mark.parametrize("way", [FUSED, STAGED], ids=["fused", "staged"])
@pytest.mark.parametrize("scenario", ["SingleStream", pytest.param("Server", marks=pytest.mark.slow)])
def test_a_slow_decoder_shows_in_decode_and_nowhere_else(
    tmp_path: Path, plugins: Path, scenario: str, way: tuple[str, ...]
) -> None:
    child = run(
        *(tmp_path, plugins, "--preprocess", "slow-decode", "--boundary", "jpeg", "--scenario", scenario),
        *("--qps", "8", "--set", "max_batchsize=1", "--user_conf", str(few_queries(tmp_path)), *way),
    )

    [result] = results(tmp_path).values()
    assert result["samples"] > 0, child.err
    medians = {stage: times["p50"] / 1e6 for stage, times in result["stages_ns"].items()}
    assert medians.pop("decode") >= 20
    assert max(medians.values()) < 10, medians
    assert ("channel" in medians) is (way is STAGED)


def few_queries(tmp_path: Path) -> Path:
    """A user.conf with which Server issues 40 queries: enough for medians."""
    path = tmp_path / "few.conf"
    path.write_text("*.Server.min_query_count = 40\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["pixels", "jpeg"])
@pytest.mark.parametrize("way", [FUSED, STAGED], ids=["fused", "staged"])
def test_the_stages_add_up_in_every_scenario(
    tmp_path: Path, plugins: Path, boundary: str, way: tuple[str, ...]
) -> None:
    child = run(tmp_path, plugins, "--boundary", boundary, "--scenario", "all", "--qps", "200", *way)

    found = results(tmp_path)
    assert len(found) == 4, child.err
    for (scenario, _), result in found.items():
        means = {stage: times["mean"] for stage, times in result["stages_ns"].items()}
        assert ("decode" in means) is (boundary == "jpeg")
        assert {"queue", "resize", "normalize", "infer", "postprocess", "complete"} <= set(means)
        assert result["failed_samples"] == 0
        if scenario != "MultiStream":  # whose latency_ns is per query, its stages per sample
            assert sum(means.values()) == pytest.approx(result["latency_ns"]["mean"], rel=0.001, abs=50)
        # What another program takes of the machine lies between two stamps of some samples, never before them.
        assert means["residual"] > -50_000, (scenario, means)
        assert result["stages_ns"]["residual"]["p50"] < 1_000_000, (scenario, means)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "3"])
def test_labels_are_the_same_staged(tmp_path: Path, workers: str) -> None:
    child = run_sut(
        *("--boundary", "jpeg", "--preprocess-workers", workers, "--lanes", "2", "--max-batchsize", "3"),
        *("--accuracy", "--scenario", "all"),
        cwd=tmp_path,
    )

    assert child.code == 0, child.err
    found = results(tmp_path)
    assert {result["accuracy"]["value"] for result in found.values()} == {1.0}
    answers: list[Any] = [
        {index: np.frombuffer(data, "<f4")[0] for index, data in read_accuracy_log(path / ACCURACY).answers.items()}
        for path in (result["directory"] for result in found.values())
    ]
    assert len(answers) == 4
    assert all(each == answers[0] for each in answers)


@pytest.mark.first(1)
@pytest.mark.parametrize("way", [FUSED, STAGED], ids=["fused", "staged"])
@pytest.mark.parametrize("scenario", ["SingleStream", pytest.param("MultiStream", marks=pytest.mark.slow), "Offline"])
def test_a_picture_that_fails_inside_the_clock_fails_the_run(
    tmp_path: Path, plugins: Path, scenario: str, way: tuple[str, ...]
) -> None:
    last = CHECKOUT / "sut" / "datasets" / "demo_photos" / "palace.jpg"

    child = run(
        *(tmp_path, plugins, "--preprocess", "failing", "--boundary", "jpeg", "--scenario", scenario, *way),
        FAIL_BYTES=str(last.stat().st_size),
    )

    assert child.code == 3, child.err
    [result] = results(tmp_path).values()
    # Calibrating a staged Offline run asks for more samples than the first batch, and meets the picture already there.
    assert result["failed_samples"] > 0 or "before the run" in result["invalid_reasons"][0]
    assert result["valid"] is False
    assert "will not decode this" in child.err


def test_workers_have_no_effect_on_ready_tensors_and_it_is_said(tmp_path: Path, plugins: Path) -> None:
    child = run(tmp_path, plugins, "--boundary", "tensor", "--preprocess-workers", "2")

    assert child.code == 0, child.err
    assert "--preprocess-workers has no effect at the boundary tensor" in child.err
