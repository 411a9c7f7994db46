"""Fast, ordinary and slow backends go through the same defaults: each scenario is VALID and lasts as planned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sut.mlperf.logs import read_detail
from tests.children import Finished, results, run_sut
from tests.distributions import sleeper

TIME_S = 2.0
BACKENDS = {"0.2 ms": (0.0, 0.2), "5 ms": (0.0, 5.0), "400 ms": (399.0, 1.0)}
"""Per backend what a batch takes and each of its samples, in ms. A slow one is slow per batch, as accelerators are."""
SERVER = {"0.2 ms": (400, 0.5), "5 ms": (90, 1), "400 ms": (16, 20)}
"""Per backend the queries per second it holds easily, and a latency bound in s."""

FEW_QUERIES = """\
# Early stopping at the median needs far fewer queries than at the 99th percentile.
*.MultiStream.target_latency_percentile = 50
*.MultiStream.min_query_count = 24
"""


def run(tmp_path: Path, backend: str, scenario: str, *more: str | Path) -> tuple[Finished, dict[str, Any]]:
    batch_ms, sample_ms = BACKENDS[backend]
    child = run_sut(
        *("--backend", "sleeper", "--scenario", scenario, "--time", str(TIME_S), *more),
        cwd=tmp_path,
        plugins=sleeper(tmp_path / "plugins"),
        timeout_s=600,
        SLEEP_BATCH_MS=str(batch_ms),
        SLEEP_SAMPLE_MS=str(sample_ms),
    )
    found = results(tmp_path)
    assert (scenario, "performance") in found, child.err
    return child, found[scenario, "performance"]


def printed_plan(child: Finished) -> tuple[int, float]:
    """Queries or samples, and seconds, of the plan on the screen."""
    match = re.search(r"plan: about ([\d,]+) (?:queries|samples), ([\d.]+) (s|min)$", child.err, re.MULTILINE)
    assert match, child.err
    return int(match[1].replace(",", "")), float(match[2]) * (60 if match[3] == "min" else 1)


def check(child: Finished, result: dict[str, Any]) -> None:
    assert (child.code, result["valid"], result["invalid_reasons"]) == (0, True, [])
    assert read_detail(result["directory"]).number("effective_min_duration_ms") == 1000 * TIME_S
    number, seconds = printed_plan(child)
    plan = result["plan"]
    # What is printed is rounded: to whole seconds, or to a tenth of a minute.
    assert seconds == pytest.approx(plan["seconds"], abs=0.51 if plan["seconds"] < 100 else 3.1)
    assert number == plan["samples" if result["scenario"] == "Offline" else "queries"]
    assert 0.8 * plan["seconds"] <= result["duration_s"] <= 2.5 * plan["seconds"]
    assert result["duration_s"] >= TIME_S


@pytest.mark.first(1)
@pytest.mark.parametrize("backend", BACKENDS)
def test_single_stream(tmp_path: Path, backend: str) -> None:
    child, result = run(tmp_path, backend, "SingleStream")

    check(child, result)
    assert result["metric"]["value"] >= 1e6 * sum(BACKENDS[backend])
    assert result["queries"] >= 64


@pytest.mark.first(1)
@pytest.mark.parametrize("backend", BACKENDS)
def test_server(tmp_path: Path, backend: str) -> None:
    qps, bound_s = SERVER[backend]

    child, result = run(tmp_path, backend, "Server", "--qps", str(qps), "--max-latency", str(bound_s))

    check(child, result)
    assert result["metric"]["value"] == pytest.approx(qps, rel=0.2)


@pytest.mark.first(1)
@pytest.mark.parametrize("backend", BACKENDS)
def test_offline(tmp_path: Path, backend: str) -> None:
    child, result = run(tmp_path, backend, "Offline")

    check(child, result)
    batch_ms, sample_ms = BACKENDS[backend]
    assert result["metric"]["value"] <= 8000 / (batch_ms + 8 * sample_ms)
    # LoadGen rounds its product down, and in another order.
    assert result["samples"] == pytest.approx(result["plan"]["samples"], abs=1)


@pytest.mark.first(1)
@pytest.mark.parametrize("backend", ["0.2 ms", "5 ms"])
def test_multi_stream(tmp_path: Path, backend: str) -> None:
    child, result = run(tmp_path, backend, "MultiStream")

    check(child, result)
    batch_ms, sample_ms = BACKENDS[backend]
    assert result["metric"]["value"] >= 1e6 * (batch_ms + 8 * sample_ms)
    assert result["queries"] >= 662


@pytest.mark.slow
def test_multi_stream_of_few_queries(tmp_path: Path) -> None:
    conf = tmp_path / "few.conf"
    conf.write_text(FEW_QUERIES)

    child, result = run(tmp_path, "400 ms", "MultiStream", "--user_conf", conf)

    check(child, result)
    assert result["queries"] == 24
