"""``sut sweep`` end to end on planted devices that sleep: what was planted is found; interrupted, resumed, refused."""

from __future__ import annotations

import itertools
import json
import math
import signal
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.children import Finished, python_started, results, run_python, run_sut

SIMULATED = ("--backend", "simulated", "--preprocess", "simulated")
WORKERS = 2
"""That decode for all devices."""


def sweep(*arguments: str | Path, cwd: Path) -> Finished:
    command = ("-m", "sut", "sweep", *SIMULATED, "--output", "out", *arguments)
    return run_python(*command, cwd=cwd, timeout_s=600, SUT_CACHE_DIR=str(cwd / "cache"))


def planted(**options: float) -> list[str]:
    return [
        word
        for name, value in options.items()
        for word in ("--set", f"{'backend' if name in ('a_ms', 'b_ms') else 'preprocess'}_options.{name}={value}")
    ]


def told(child: Finished) -> dict[str, Any]:
    assert child.code == 0, child.err
    report: dict[str, Any] = json.loads(child.out)
    assert (report["schema"], report["command"]) == (1, "sweep")
    return report


def kept(cwd: Path) -> list[dict[str, Any]]:
    [path] = cwd.glob("out/*/sweep-*/points.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def most(devices: int, infer_s: float, decode_s: float) -> float:
    """Samples per second that so many devices can infer and ``WORKERS`` decode; ``decode_s`` 0: it takes no time."""
    return min(devices / infer_s, WORKERS / decode_s if decode_s else math.inf)


def test_a_sweep_goes_on_where_it_was_and_says_what_it_found(tmp_path: Path) -> None:
    few = ("--rates", "none", "--seconds", "0.2", "--latency", "1000", *planted(a_ms=20, b_ms=1))

    first = sweep("--concurrency", "1,2", *few, cwd=tmp_path)
    assert first.code == 0, first.err
    assert max(map(len, first.out.splitlines()[:-1])) <= 80
    before = kept(tmp_path)
    # Nothing is left to be measured: not even a process is started for it.
    report = told(sweep("--concurrency", "1..2", *few, "--json", cwd=tmp_path))

    assert [row["concurrency"] for row in before] == [1, 2] and kept(tmp_path) == before
    assert report["rows"] == before
    assert report["outcome"]["limiting_stage"] == "infer" and report["outcome"]["highest_concurrency"] == 2
    [written] = tmp_path.glob("out/*/sweep-*/study.json")
    kept_study = json.loads(written.read_text())
    assert kept_study["system"]["cores"] and kept_study == {**report, "system": kept_study["system"]}
    page = written.with_name("report.html").read_text()
    assert "efficientnet-lite0 on simulated: how much it can be asked" in page
    assert "Throughput of the closed loop" in page and report["words"][0] in page
    assert "plateau: " in first.out and "best under 1000 ms: " in first.out


@pytest.mark.slow
def test_ctrl_c_ends_it_and_keeps_what_was_measured(tmp_path: Path) -> None:
    arguments = ("--output", "out", "--seconds", "0.2", "--concurrency", "1,2,4096", *planted(a_ms=50, b_ms=50))

    with python_started("-m", "sut", "sweep", *SIMULATED, *arguments, cwd=tmp_path) as running:
        running.wait_until(lambda: [*tmp_path.glob("out/*/sweep-*/points.jsonl")] and len(kept(tmp_path)) == 2)
        running.signal(signal.SIGINT)
        child = running.finish()

    assert child.code == 130 and child.seconds < 10 and child.left == []
    assert "points kept: 2" in child.err


@pytest.mark.timed
@pytest.mark.slow
def test_the_planted_truth_is_found(tmp_path: Path) -> None:
    a_ms, b_ms, batch = 120.0, 20.0, 8
    system = ("--max-batchsize", str(batch), "--latency", "2000", *planted(a_ms=a_ms, b_ms=b_ms), "--json")

    found = told(sweep("--concurrency", "1..64", "--rates", "none", "--seconds", "4", *system, cwd=tmp_path))
    # No rate of the open loop is held against what was planted, so that each may be short.
    opened = told(sweep("--concurrency", "1,16", "--seconds", "1", *system, cwd=tmp_path))

    outcome, rows = found["outcome"], found["rows"]
    top = 1000 * batch / (a_ms + batch * b_ms)
    assert outcome["plateau_samples_per_second"] == pytest.approx(top, rel=0.05)
    knee = 0.95 * top * a_ms / (1000 - 0.95 * top * b_ms)
    assert outcome["knee_concurrency"] == pytest.approx(knee, rel=0.10)
    assert outcome["decline_concurrency"] is None or outcome["decline"]["verdict"] == "open"
    for row in (each for each in rows if each["part"] == "closed" and each["concurrency"] <= batch):
        took_ms = a_ms + row["concurrency"] * b_ms
        assert row["stages_ns"]["infer"] / 1e6 == pytest.approx(took_ms, rel=0.05)
    outcome = opened["outcome"]
    assert outcome["zero_load"]["p50_ns"] / 1e6 == pytest.approx(a_ms + b_ms, rel=0.05)
    rates = [point["rate"] for point in outcome["rate_p99"]]
    assert len(rates) == 8 and outcome["highest_rate"] in rates and outcome["safe_rate"] <= outcome["highest_rate"]


@pytest.mark.timed
@pytest.mark.slow
def test_a_planted_decode_limit_is_named(tmp_path: Path) -> None:
    times = planted(a_ms=20, b_ms=5, decode_ms=200, resize_ms=0, normalize_ms=0)
    arguments = ("--boundary", "jpeg", "--preprocess-workers", "2", "--rates", "none", "--seconds", "4")

    found = told(sweep(*arguments, "--concurrency", "1..32", *times, "--json", cwd=tmp_path))

    assert found["outcome"]["limiting_stage"] == "decode"
    assert found["outcome"]["plateau_samples_per_second"] == pytest.approx(2 / 0.2, rel=0.05)


@pytest.mark.timed
@pytest.mark.slow
def test_devices_scale_until_decoding_limits(tmp_path: Path) -> None:
    """No system does more than 2 % above what was planted, and decoding is what limits, on any machine.

    A busy machine ends each sleep some ms late, which is up to 5 % of what was planted here, and now and then holds all
    of a system up: so the floor is 5 % for the median of the systems of a way, and of a number of devices, and 10 % for
    each. By how long devices and workers were busy as measured, late ends included, the medians are within 2 %.
    """
    infer_ms, decode_ms, per_megapixel_ms = 200.0, 270.0, 27.0
    decoding = planted(decode_ms=decode_ms, decode_ms_per_megapixel=per_megapixel_ms, resize_ms=0, normalize_ms=0)
    system = ("--lanes", "1", "--max-batchsize", "1", "--preprocess-workers", str(WORKERS))

    found = told(
        sweep(
            *("--devices", "1..4", "--seconds", "4", "--json"),
            *(*system, *planted(a_ms=infer_ms, b_ms=0), *decoding),
            cwd=tmp_path,
        )
    )

    pixels = {"medium": 500 * 375, "large": 3564 * 2880}
    decode_s = {size: (decode_ms + per_megapixel_ms * each / 1e6) / 1e3 for size, each in pixels.items()}
    ways = ("CPU preprocessing", "GPU preprocessing", "inference only")
    systems = [(row["way"], row["pictures"], row["devices"]) for row in found["rows"]]
    assert sorted(systems) == sorted(itertools.product(ways, pixels, range(1, 5)))
    of_planted, of_measured = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for system, row in zip(systems, found["rows"], strict=True):
        way, size, devices = system
        planted_rate = most(devices, infer_ms / 1e3, decode_s[size] if way == ways[0] else 0)
        assert 0.9 * planted_rate <= row["samples_per_second"] <= 1.02 * planted_rate, system
        measured_rate = most(devices, row["cost_ns"]["infer"] / 1e9, row["cost_ns"].get("decode", 0) / 1e9)
        for each in (way, f"{devices} devices"):
            of_planted[each].append(row["samples_per_second"] / planted_rate)
            of_measured[each].append(row["samples_per_second"] / measured_rate)
    for each in of_planted:
        assert statistics.median(of_planted[each]) >= 0.95, each
        assert statistics.median(of_measured[each]) >= 0.98, each
    for size, each in decode_s.items():
        cores = found["outcome"]["cores_per_device"][size]
        assert cores["ratio"] == pytest.approx(each * 1e3 / infer_ms, rel=0.05)
        assert cores["low"] <= cores["ratio"] <= cores["high"] and cores["pairs"] == 4
        assert any(word.startswith(f"{size} pictures: cores per device = I / P = ") for word in found["words"])
        assert found["outcome"]["limits"][size]["limiting_stage"] == "decode"
        assert any(f"{size} pictures, preprocessed on the CPU: with 4 devices and " in word for word in found["words"])


@pytest.mark.timed
@pytest.mark.slow
def test_the_plateau_is_offlines_rate(tmp_path: Path) -> None:
    device = planted(a_ms=120, b_ms=20)
    rest = ("--lanes", "2", "--set", "backend_options.devices=2", "--max-batchsize", "4", *device)

    found = told(sweep("--concurrency", "16,32,64", "--rates", "none", "--seconds", "4", *rest, "--json", cwd=tmp_path))
    child = run_sut(*SIMULATED, "--scenario", "Offline", "--time", "6", *rest, cwd=tmp_path)

    assert child.code == 0, child.err
    [result] = results(tmp_path).values()
    plateau = found["outcome"]["plateau_samples_per_second"]
    assert plateau == pytest.approx(result["samples_per_second"], rel=0.05)
