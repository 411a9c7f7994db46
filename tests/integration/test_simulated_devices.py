"""Simulated devices and preprocessing end to end: lanes scale over them, the ledger finds what was planted.

What they take is slept, so it costs no core, and is the same on any machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.children import results, run_sut

CORES = os.sched_getaffinity(0)
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
    found = {}
    for device in ("sim:0", FOUR):
        home = tmp_path / device
        home.mkdir()
        found[device] = run(home, "Offline", "--device", device, a_ms=80, b_ms=10, time_s=5)

    one, four = found["sim:0"], found[FOUR]
    assert one["metric"]["value"] <= 8 / 0.160
    assert four["metric"]["value"] >= 3.9 * one["metric"]["value"]
    assert (one["scaling"], one["plan"]["lanes"], four["plan"]["lanes"]) == (None, 1, 4)
    assert four["scaling"]["units"] == FOUR.split(",")
    assert four["scaling"]["efficiency"] == pytest.approx(1, rel=0.02)
    assert four["scaling"]["one_samples_per_second"] == pytest.approx(8 / 0.160, rel=0.02)
    assert four["scaling"]["limited_by"] == "infer"


@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("lanes", [3, 4])
def test_lanes_that_share_a_device_scale_as_devices_do(tmp_path: Path, lanes: int) -> None:
    arguments = ("--device", "sim:0,sim:1", "--lanes", str(lanes), "--max-batchsize", "1")

    found = run(tmp_path, "Offline", *arguments, a_ms=200, b_ms=0, time_s=4)["scaling"]

    for of, planted in (("one", 1 / 0.200), ("all", 2 / 0.200)):
        assert found[f"{of}_samples_per_second"] == pytest.approx(planted, rel=0.02), of
    assert found["efficiency"] == pytest.approx(1, rel=0.02)


@pytest.mark.timed
@pytest.mark.slow
def test_a_decoder_that_four_devices_share_is_named(tmp_path: Path) -> None:
    """The rates' floor is 5 % below what was planted: a busy machine ends each sleep some ms late, so both are slower.

    The efficiency is of pairs measured by turns, which are late alike.
    """
    decoding = {"decode_ms": 200, "resize_ms": 0, "normalize_ms": 0}
    planted = [word for name, ms in decoding.items() for word in ("--set", f"preprocess_options.{name}={ms}")]
    arguments = ("--boundary", "jpeg", "--preprocess-workers", "2", "--max-batchsize", "1", "--device", FOUR, *planted)

    found = run(tmp_path, "Offline", *arguments, a_ms=200, b_ms=0, time_s=4)["scaling"]

    assert found["limited_by"] == "decode"
    for of, planted in (("one", 1 / 0.200), ("all", 2 / 0.200)):
        assert 0.95 * planted <= found[f"{of}_samples_per_second"] <= 1.02 * planted, of
    assert found["efficiency"] == pytest.approx(0.5, rel=0.02)


@pytest.mark.first(3)
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--affinity", "lanes=0-8000"), 2, "is not there; it may use"),
        (("--device", "sim:0,sim:0"), 1, "device: the device sim:0 is there twice; name each once, got 'sim:0,sim:0'"),
        (("--device", "sim:0,sim:16"), 1, "unknown device 'sim:16'"),
        (("--device", "sim:0,cuda:1"), 2, "the simulated backend has cpu, or sim:0 to sim:15, got device 'cuda:1'"),
        (("--affinity", "lanes"), 1, "affinity: a core set is empty; expected cores or NUMA nodes by stage: lanes=0-3"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    child = run_sut("--backend", "simulated", "--scenario", "Offline", "--time", "1", *arguments, cwd=tmp_path)

    [line] = [line for line in child.err.splitlines() if line.startswith("error: ")]
    assert (child.code, said in line, results(tmp_path)) == (code, True, {}), child.err


def test_in_single_stream_one_device_works_and_every_thread_is_where_it_was_asked_to_be(tmp_path: Path) -> None:
    first, last = min(CORES), max(CORES)
    asked = ("--affinity", f"lanes={first},loadgen={last},preprocess={last}", "--device", "sim:0,sim:1", "--lanes", "1")

    found = run(tmp_path, "SingleStream", *asked, a_ms=5, b_ms=0, time_s=0.5)

    assert (found["scaling"], found["plan"]["lanes"]) == (None, 2)
    assert found["thread_cores"]["MainThread"] == str(first), "LoadGen's thread is the lane's"
    notes = " ".join(found["plan"]["notes"])
    for said in (
        "sim:1 has no effect in SingleStream: one query at a time",
        "--lanes 1 has no effect with 2 devices",
        "--affinity preprocess has no effect without --preprocess-workers",
        "--affinity loadgen has no effect in SingleStream",
    ):
        assert said in notes


@pytest.mark.first(1)
@pytest.mark.parametrize("workers", ["2", "0"])
def test_lanes_workers_and_loadgen_stay_on_their_cores(tmp_path: Path, workers: str) -> None:
    first, last = min(CORES), max(CORES)
    asked = ("--affinity", f"lanes={first},loadgen={last},preprocess={last}", "--device", "sim:0,sim:1")

    found = run(
        *(tmp_path, "Offline", "--boundary", "jpeg", "--preprocess-workers", workers, "--max-batchsize", "1", *asked),
        a_ms=5,
        b_ms=0,
        time_s=0.5,
    )

    cores = found["thread_cores"]
    assert (cores["MainThread"], cores["lane-0"], cores["lane-1"]) == (str(last), str(first), str(first))
    assert {name for name in cores if name.startswith("preprocess-")} == {
        f"preprocess-{n}" for n in range(int(workers))
    }
    assert all(cores[name] == str(last) for name in cores if name.startswith("preprocess-"))
    assert found["scaling"]["units"] == [f"sim:{number} cores {first}" for number in range(2)]
    assert found["config"]["affinity"] == asked[1]


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
