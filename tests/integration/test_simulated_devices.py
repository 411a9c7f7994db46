"""Simulated devices and preprocessing end to end: lanes scale over them, the ledger finds what was planted.

What they take is slept, so it costs no core, and is the same on any machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.children import results, run_sut

FOUR = "sim:0,sim:1,sim:2,sim:3"


def run(tmp_path: Path, scenario: str, *more: str, a_ms: float, b_ms: float, time_s: float = 1.0) -> dict[str, Any]:
    planted = ("--set", f"backend_options.a_ms={a_ms}", "--set", f"backend_options.b_ms={b_ms}")
    child = run_sut(
        *("--backend", "simulated", "--preprocess", "simulated", "--scenario", scenario, "--time", str(time_s)),
        *(*planted, *more),
        cwd=tmp_path,
    )
    assert child.code == 0, child.err
    [result] = results(tmp_path).values()
    assert result["valid"], result["invalid_reasons"]
    return result


@pytest.mark.timed
@pytest.mark.slow
def test_offline_scales_over_four_devices(tmp_path: Path) -> None:
    rates = {}
    for devices, chosen in ((1, ()), (4, ("--device", FOUR))):
        home = tmp_path / str(devices)
        home.mkdir()
        found = run(home, "Offline", "--lanes", str(devices), *chosen, a_ms=20, b_ms=5)
        rates[devices] = found["metric"]["value"]

    assert rates[1] <= 8 / 0.060
    assert rates[4] >= 3.5 * rates[1]


@pytest.mark.slow
def test_more_lanes_than_devices_win_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, "Offline", "--lanes", "4", a_ms=20, b_ms=5)

    assert found["metric"]["value"] <= 8 / 0.060
    assert found["attested"]["details"]["devices"] == "1"


def test_multi_stream_shares_its_query_among_the_lanes(tmp_path: Path) -> None:
    found = run(tmp_path, "MultiStream", "--lanes", "4", "--device", FOUR, a_ms=0, b_ms=1)

    assert set(found["batch_sizes"]) == {"2"}
    assert found["metric"]["value"] >= 2e6
    assert "MultiStream" not in " ".join(found["plan"]["notes"])


@pytest.mark.timed
@pytest.mark.first(1)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_ledger_finds_every_planted_stage(tmp_path: Path, workers: str) -> None:
    found = run(
        *(tmp_path, "Offline", "--boundary", "jpeg", "--preprocess-workers", workers, "--max-batchsize", "4"),
        *("--set", "backend_options.jitter=0"),
        a_ms=8,
        b_ms=2,
    )

    planted_ms = {"decode": 1.0, "resize": 0.5, "normalize": 0.25, "infer": (8 + 4 * 2) / 4}
    for name, planted in planted_ms.items():
        assert planted <= found["cost_ns"][name] / 1e6, name
        # Late by what a sleep is late, and by what zeroing the tensor takes longer than was planted for it; the median,
        # as another program may take the machine from some batches.
        samples = 1 if workers != "0" and name != "infer" else 4
        assert found["stages_ns"][name]["p50"] / samples / 1e6 <= 1.5 * planted + 0.3, name
    assert 0 <= found["stages_ns"]["residual"]["p50"] < 0.05 * found["latency_ns"]["p50"]


@pytest.mark.slow
def test_batching_by_deadline_keeps_more_in_time_than_first_in_first_out(tmp_path: Path) -> None:
    median = {}
    for batching in ("fifo", "deadline"):
        home = tmp_path / batching
        home.mkdir()
        run_sut(
            *("--backend", "simulated", "--scenario", "Server", "--qps", "200", "--max-latency", "0.03", "--time", "2"),
            *("--set", "backend_options.a_ms=2", "--set", "backend_options.b_ms=5", "--set", f"batching={batching}"),
            cwd=home,
        )
        [result] = results(home).values()
        median[batching] = result["latency_ns"]["p50"]
        assert result["failed_samples"] == 0
        assert result["samples"] >= 690

    # Above what the device can bear in the long run: in turn, everybody ends up late.
    assert median["deadline"] < median["fifo"] / 2
