"""``sut study brokers`` on models that sleep: where a channel pays is found where it was planted."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import Broker, free_port, redis_server
from tests.children import Finished, python_started, run_python

PLANTED = {"backend_options.a_ms": 0, "backend_options.b_ms": 0}
NO_TIME = {"decode_ms": 0, "normalize_ms": 0}
CROP_BYTES = 3 * 224 * 224 * 4
FOUR = range(1, 5)


def planted(lanes: int = 1, workers: int = 1, devices: int = 1, crop_ms: float = 2.5, **identify: float) -> list[str]:
    """Two models that sleep: the second as told, and each crop as long as that before it."""
    settings = PLANTED | {f"preprocess_options.{name}": ms for name, ms in {**NO_TIME, "resize_ms": crop_ms}.items()}
    settings |= {f"identify_options.{name}": value for name, value in {**identify, "devices": devices}.items()}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    models = ("--model", "efficientnet-lite0", "--backend", "simulated", "--dataset", "demo")
    system = (
        "--lanes",
        str(lanes),
        "--max-batchsize",
        "1",
        "--identify-workers",
        str(workers),
        "--identify-batch",
        "32",
    )
    return [*models, "--preprocess", "simulated", *system, *words]


def study(cwd: Path, *words: str) -> Finished:
    return run_python("-m", "sut", "study", "brokers", "--output", "out", *words, cwd=cwd, timeout_s=1800)


def told_by(child: Finished) -> dict[str, Any]:
    assert child.code == 0, child.err
    report: dict[str, Any] = json.loads(child.out)
    return report


def kept(cwd: Path) -> list[str]:
    [path] = cwd.glob("out/*/brokers-*/rounds.jsonl")
    return path.read_text().splitlines()[1:]


def test_a_study_leaves_its_file_and_page_and_goes_on_behind_what_it_kept(tmp_path: Path) -> None:
    with redis_server(tmp_path) as broker:
        urls = ("--redis", f"redis://127.0.0.1:{broker.port}", "--kafka", f"kafka://127.0.0.1:{free_port()}")
        words = (*planted(a_ms=5, b_ms=0), *urls, "--forms", "redis,kafka", "--fan-outs", "2", "--time", "0.2")
        told = told_by(study(tmp_path, *words, "--rounds", "1", "--json"))
        before = kept(tmp_path)
        again = study(tmp_path, *words, "--rounds", "1")

    assert (told["schema"], told["command"], told["identify"]) == (1, "study brokers", "efficientnet-lite0")
    fused, redis = told["rows"]
    assert (fused["form"], fused["bytes_per_frame"], redis["form"]) == ("fused", 0, "redis")
    assert redis["bytes_per_frame"] == pytest.approx(2 * CROP_BYTES, rel=0.01) and redis["broker_share"] > 0
    assert redis["parts_ns"]["second model"] >= 5e6 and sum(redis["parts_ns"].values()) >= 10e6
    assert told["absent"].keys() == {"kafka"} and "\n" not in told["absent"]["kafka"]
    verdicts = {row["claim"]: row["verdict"] for row in told["claims"]}
    assert verdicts["kafka-share"] == verdicts["redis-kafka"] == "cannot be tested here"
    [file] = tmp_path.glob("out/*/brokers-*/study.json")
    page = file.with_name("report.html").read_text()
    assert "Throughput at saturation" in page and "Latency of one frame alone" in page
    assert again.code == 0 and "rounds there already: 2" in again.err and kept(tmp_path) == before
    assert "kafka is left out: " in again.err and max(map(len, again.out.splitlines()[:-2])) <= 80


@pytest.mark.parametrize(
    ("words", "code", "fragment"),
    [
        (("--forms", "rabbit"), 1, "--forms: unknown form 'rabbit'"),
        (("--fan-outs", "1..9"), 1, "--fan-outs: got '1..9'"),
        (("--durable",), 1, "name it by --kafka URL"),
        (("--redis", "redis://:secret@127.0.0.1"), 1, "password"),
        (("--set", "channel=shared"), 1, "sets channel itself, got shared"),
        (("--config", "one.yaml"), 1, "name the second: --identify MODEL"),
        (("--forms", "fused"), 2, "nothing to hold the fused form against: --forms names no other"),
        (("--forms", "redis", "--redis", "redis://127.0.0.1:1"), 2, "redis: the Redis at redis://127.0.0.1:1 cannot"),
    ],
)
@pytest.mark.first(3)
def test_bad_input_is_one_line_before_anything_runs(
    words: tuple[str, ...], code: int, fragment: str, tmp_path: Path
) -> None:
    (tmp_path / "one.yaml").write_text("model: planted\n")

    child = study(tmp_path, *words)

    assert (child.code, child.out) == (code, "") and fragment in child.error and "secret" not in child.err


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured_leaves_nothing_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with redis_server(tmp_path) as broker:
        words = (*planted(a_ms=5, b_ms=0), "--forms", "redis", "--redis", f"redis://127.0.0.1:{broker.port}")
        words = (*words, "--fan-outs", "1", "--rounds", "2", "--time", "0.2")
        with python_started("-m", "sut", "study", "brokers", "--output", "out", *words, cwd=tmp_path) as running:
            running.wait_until(lambda: [*tmp_path.glob("out/*/brokers-*/rounds.jsonl")])
            running.wait_until(lambda: keys(broker))
            running.signal(signal.SIGINT)
            child = running.finish()
        assert child.code == 130 and child.left == [] and "rounds kept: " in child.err
        assert keys(broker) == []
        before = kept(tmp_path)
        assert [row["rounds"] for row in told_by(study(tmp_path, *words, "--json"))["rows"]] == [2, 2]
        assert keys(broker) == []

    assert kept(tmp_path)[: len(before)] == before


def keys(broker: Broker) -> list[bytes]:
    import redis  # --core may be without

    return [*redis.Redis(port=broker.port, protocol=2).keys("*")]


def judged_as_four(cwd: Path, *words: str) -> dict[str, Any]:
    """A round that is measured, and what the same command says where four such are kept: an interval takes so many.

    What a spread does to N*, planted figures tell; here it is what was measured of planted models.
    """
    told_by(study(cwd, *words, "--rounds", "1", "--json"))
    [path] = cwd.glob("out/*/brokers-*/rounds.jsonl")
    head, *rounds = path.read_text().splitlines()
    fours = [json.dumps(json.loads(each) | {"number": number}) for each in rounds for number in FOUR]
    path.write_text("\n".join([head, *fours]) + "\n")
    told = told_by(study(cwd, *words, "--rounds", "4", "--json"))
    assert len(kept(cwd)) == 4 * len(rounds), "nothing more was measured"
    return told


@pytest.mark.timed
@pytest.mark.slow
def test_batches_over_frames_pay_at_once_where_a_batch_costs_much(tmp_path: Path) -> None:
    """Four lanes share a device: fused, each batch is one frame's crops; through a channel, those of all frames."""
    with redis_server(tmp_path) as broker:
        words = (*planted(lanes=4, crop_ms=0, a_ms=30, b_ms=0.1), "--redis", f"redis://127.0.0.1:{broker.port}")
        told = judged_as_four(tmp_path, *words, "--forms", "memory,redis", "--fan-outs", "1", "--time", "1")

    assert told["crossing"] == {"verdict": "found", "at": 1, "low": 1, "high": 1}
    assert all(row["against_fused"]["ratio"] > 1.3 for row in told["rows"][1:])


@pytest.mark.timed
@pytest.mark.slow
def test_n_star_is_where_two_workers_come_to_be_faster_than_one_lane(tmp_path: Path) -> None:
    """Of 3 crops a worker does the first alone and then another: 2 x 20 ms, fused 28; of 25 each worker has half."""
    words = (*planted(workers=2, devices=2, crop_ms=1, a_ms=16, b_ms=4), "--forms", "memory", "--fan-outs", "3,25")
    told = judged_as_four(tmp_path, *words, "--time", "1")

    assert told["crossing"] == {"verdict": "found", "at": 25, "low": 25, "high": 25}
    assert told["best"]["3"]["found"]["verdict"] == "worse"
