"""Two models from the command: the same identities over every channel, and nothing left at a broker after any fault."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sut.channels.base import ChannelSettings
from tests.brokers import Broker, kafka_broker, redis_server
from tests.children import Finished, Running, results, run_python, run_sut, started, variables

ALBUMS = (
    *("--model", "planted-photos", "--identify", "efficientnet-lite0", "--boundary", "jpeg", "--count", "6"),
    *("--lanes", "2", "--max-batchsize", "1"),
)
PLANTED = (
    *("--backend", "simulated", "--identify", "efficientnet-lite0", "--identify-backend", "simulated"),
    *("--boundary", "pixels", "--fan-out", "30", "--scenario", "SingleStream", "--set", "identify_batch=32"),
    *("--set", "identify_options.a_ms=38", "--set", "identify_options.b_ms=0", "--set", "backend_options.a_ms=2"),
)
"""Nothing is computed, so that faults are soon reached. A frame takes 40 ms or more, however fast the machine is."""
LONG = ("--time", "120")
SOON_S = 60
"""Against hangs only."""
UNDER_WAY = 2400
"""Labels: more than warm-up asks for, which takes two seconds and some frames, with 30 for each of ``PLANTED``."""


@pytest.fixture
def the_redis(tmp_path: Path) -> Iterator[Broker]:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as broker:
        yield broker


@pytest.fixture
def the_broker(scheme: str, tmp_path: Path) -> Iterator[Broker]:
    """Of the kind that a test asks for."""
    (tmp_path / "broker").mkdir()
    with (kafka_broker if scheme == "kafka" else redis_server)(tmp_path / "broker") as broker:
        yield broker


def url(broker: Broker, scheme: str = "redis") -> str:
    return f"{scheme}://127.0.0.1:{broker.port}"


def client(broker: Broker) -> Any:
    import redis  # --core may be without

    return redis.Redis(port=broker.port, protocol=2)


def keys(broker: Broker) -> list[bytes]:
    return [*client(broker).keys("*")]


@contextmanager
def looked_at(broker: Broker, scheme: str) -> Iterator[tuple[Callable[[], bool], Callable[[], list[Any]]]]:
    """What tells whether a run is under way there, and what is left of it."""
    if scheme == "redis":
        yield partial(is_under_way, broker), partial(keys, broker)
        return
    from sut.channels.kafka_link import Cluster  # --core may be without

    cluster = Cluster(ChannelSettings("kafka", "test", url=url(broker, "kafka")))
    consumer = cluster.consumer()

    def has_labels() -> bool:
        topics = [name for name in cluster.topics() if name.endswith("-answers")]
        return any(cluster.end(consumer, name, 0) > UNDER_WAY for name in topics)

    try:
        yield has_labels, lambda: [*cluster.topics()]
    finally:
        consumer.close()


def labels_of(run: dict[str, Any]) -> dict[int, str]:
    log = json.loads((run["directory"] / "mlperf_log_accuracy.json").read_text())
    return {entry["qsl_idx"]: entry["data"] for entry in log}


@pytest.mark.slow
def test_identities_are_the_same_over_all_channels(tmp_path: Path, the_redis: Broker) -> None:
    found: dict[str, dict[int, str]] = {}
    with kafka_broker(tmp_path / "redis") as kafka:
        for channel in ("none", "memory", "shared", url(the_redis), url(kafka, "kafka")):
            folder = tmp_path / channel.partition(":")[0]
            folder.mkdir(exist_ok=True)
            child = run_sut(*ALBUMS, "--channel", channel, "--accuracy", "--scenario", "Offline", cwd=folder)
            assert (child.code, child.left) == (0, []), child.err
            [run] = results(folder).values()
            check_accuracy(run)
            check_carried(run, channel.partition(":")[0])
            found[channel] = labels_of(run)
    assert keys(the_redis) == []
    assert all(each == found["none"] for each in found.values())
    assert sorted(found["none"]) == list(range(6))


def check_accuracy(run: dict[str, Any]) -> None:
    assert run["accuracy"]["name"] == "identities"
    assert run["accuracy"]["value"] >= 0.95
    assert run["accuracy"]["count"] == sum(len(bytes.fromhex(each)) // 28 for each in labels_of(run).values())
    assert any(rule.startswith("two models: ") for rule in run["rules_broken"])


def check_carried(run: dict[str, Any], channel: str) -> None:
    """What the result says of the channel, against the answers and the broker's own counters."""
    told = run["identified"]
    assert told["identified"] == run["accuracy"]["count"]
    assert (told["channel"], told["model"], told["weights"]) == (channel, "efficientnet-lite0", "trained")
    if channel == "none":
        assert (told["crops"], told["broker"], told["workers"]) == (None, None, None)
        return
    crops, answers = told["crops"], told["answers"]
    assert crops["messages"] == answers["messages"] == run["accuracy"]["count"]
    assert crops["bytes"] == crops["messages"] * 224 * 224 * 3, "pixels: the model normalises"
    assert crops["all_messages"] == answers["all_messages"] > crops["messages"]
    assert 0 < crops["waited_p50_ns"] <= crops["waited_p99_ns"] <= crops["waited_most_ns"]
    assert 1 <= crops["depth_mean"] <= crops["depth_most"] <= 32
    assert crops["duplicates"] == answers["duplicates"] == 0
    if channel not in ("redis", "kafka"):
        assert (crops["broker_messages"], answers["broker_messages"]) == (None, None)
        return
    assert run["versions"]["redis" if channel == "redis" else "confluent-kafka"]
    # The broker of these tests leaves out what else is in the last batch of a topic: Kafka itself does not.
    missing = 32 if channel == "kafka" else 0
    for told_of in (crops, answers):
        assert told_of["all_messages"] - missing <= told_of["broker_messages"] <= told_of["all_messages"]
    if channel == "redis":
        assert told["durability"] == "none"
        broker = told["broker"]
        # But for what it takes to open connections.
        assert 0 <= broker["bytes_in"] - broker["our_bytes_in"] < 20_000
        assert 0 <= broker["bytes_out"] - broker["our_bytes_out"] < 50_000


CONFIG = Path(__file__).parents[2] / "configs/detect-identify.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("channel", ["none", "shared"])
def test_the_demo_runs_from_its_config(tmp_path: Path, channel: str) -> None:
    asked = ("--config", CONFIG, "--count", "3", "--time", "0.5", "--scenario", "SingleStream")

    child = run_sut(*asked, "--channel", channel, cwd=tmp_path)

    [run] = results(tmp_path).values()
    assert (child.code, run["failed_samples"], run["first_error"]) == (0, 0, None), child.err
    check_parts(run, channel)
    assert run["identified"]["attested"]["provider"] == "CPUExecutionProvider"


@pytest.mark.slow
def test_with_a_fan_out_the_first_model_need_not_be_a_detector(tmp_path: Path) -> None:
    models = ("--model", "efficientnet-lite0", "--identify", "efficientnet-lite0", "--boundary", "jpeg")

    child = run_sut(*models, "--fan-out", "2", "--time", "0.5", "--count", "2", cwd=tmp_path)

    [run] = results(tmp_path).values()
    assert (child.code, run["failed_samples"]) == (0, 0), child.err
    assert "identified by efficientnet-lite0 on onnxruntime, in the lane" in child.out


def check_parts(run: dict[str, Any], channel: str) -> None:
    """The parts of the second model's time, which close the latency as all stages do."""
    parts = [stage for stage in run["stages_ns"] if stage.startswith("identify/")]
    assert len(parts) == (2 if channel == "none" else 5)
    means = {stage: times["mean"] for stage, times in run["stages_ns"].items()}
    assert sum(means.values()) == pytest.approx(run["latency_ns"]["mean"], rel=0.001, abs=200)


@pytest.mark.parametrize("channel", ["none", "shared"])
def test_all_scenarios_run_and_keep_their_messages(tmp_path: Path, channel: str) -> None:
    quick = [word for of in ("backend", "identify") for ms in "ab" for word in ("--set", f"{of}_options.{ms}_ms=0")]
    asked = ("--scenario", "all", "--time", "0.3", "--set", "keep_samples=true", "--samples-per-query", "2")

    run_sut(*PLANTED, *asked, *quick, "--fan-out", "3", "--channel", channel, cwd=tmp_path)

    found = results(tmp_path)
    assert len(found) == 4
    for run in found.values():
        assert (run["failed_samples"], run["first_error"]) == (0, None)
        check_parts(run, channel)
        if channel == "shared":
            kept, told = np.load(run["directory"] / "messages.npz"), run["identified"]
            assert told["crops"]["messages"] == 3 * run["samples"]
            assert len(kept["crops:waited_ns"]) == told["crops"]["messages"]
            assert kept["answers:bytes"].sum() == told["answers"]["bytes"]


def running(tmp_path: Path, channel: str, *arguments: str, **more: str) -> AbstractContextManager[Running]:
    import sys

    command = [sys.executable, "-P", "-m", "sut", "run", "--output", str(tmp_path / "output"), *PLANTED]
    return started([*command, "--channel", channel, *arguments], tmp_path, variables() | more)


def is_under_way(broker: Broker) -> bool:
    """Whether so many labels came that LoadGen must have asked for them."""
    server = client(broker)
    streams = [key for key in server.keys("sut:*:answers")]
    return any(server.xinfo_stream(key)["entries-added"] > UNDER_WAY for key in streams)


def identifying(sut: Running) -> list[int]:
    return [number for number, line in sut.processes().items() if "sut.pipeline.identify.worker" in line]


@pytest.mark.first(1)
def test_a_worker_that_is_killed_ends_the_run_and_is_named(tmp_path: Path, the_redis: Broker) -> None:
    with running(tmp_path, url(the_redis), *LONG, "--set", "identify_workers=2") as sut:
        sut.wait_until(lambda: is_under_way(the_redis))
        os.kill(identifying(sut)[0], signal.SIGKILL)
        child = sut.finish(SOON_S)

    assert child.code == 3
    assert re.search(r"identify-[01]: its process was killed by SIGKILL", child.error)
    assert keys(the_redis) == []
    [run] = results(tmp_path).values()
    assert run["valid"] is False and run["samples"] > 0


def test_a_worker_that_is_killed_ends_the_run_over_shared_memory(tmp_path: Path) -> None:
    with running(tmp_path, "shared", *LONG) as sut:
        sut.wait_until(lambda: identifying(sut))
        time.sleep(3)
        os.kill(identifying(sut)[0], signal.SIGKILL)
        child = sut.finish(SOON_S)

    assert child.code == 3
    assert "identify-0: its process was killed by SIGKILL" in child.err
    assert child.left == []


@pytest.mark.parametrize(
    ("scheme", "again"), [("redis", False), ("redis", True), pytest.param("kafka", False, marks=pytest.mark.slow)]
)
def test_a_broker_that_dies_in_the_run_fails_it_soon(
    tmp_path: Path, the_broker: Broker, scheme: str, again: bool
) -> None:
    place = url(the_broker, scheme)
    with looked_at(the_broker, scheme) as (has_labels, left):
        with running(tmp_path, place, *LONG) as sut:
            sut.wait_until(has_labels)
            the_broker.kill()
            if again:
                the_broker.start()
            child = sut.finish(SOON_S)
        assert not again or left() == []

    assert child.code == 3
    assert child.left == []
    assert f"the {scheme.capitalize()} at {place}" in child.err
    [run] = results(tmp_path).values()
    assert run["valid"] is False


@pytest.mark.parametrize("scheme", ["redis", pytest.param("kafka", marks=pytest.mark.slow)])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, the_broker: Broker, scheme: str) -> None:
    with looked_at(the_broker, scheme) as (has_labels, left):
        with running(tmp_path, url(the_broker, scheme), *LONG) as sut:
            sut.wait_until(has_labels)
            sut.signal(signal.SIGINT)
            child = sut.finish(SOON_S)
        assert left() == []

    assert (child.code, child.left) == (130, [])


def test_what_a_killed_command_has_left_is_removed_by_the_next(tmp_path: Path, the_redis: Broker) -> None:
    with running(tmp_path, url(the_redis), *LONG) as sut:
        sut.wait_until(lambda: is_under_way(the_redis))
        sut.signal(signal.SIGKILL)
        child = sut.finish(SOON_S)
    assert child.left == []
    left = keys(the_redis)
    assert left, "or there was nothing to remove"

    child = run_sut(*PLANTED, "--channel", url(the_redis), "--time", "0.5", cwd=tmp_path / "redis")

    assert child.code == 0, child.err
    assert keys(the_redis) == []


def test_the_runs_process_may_be_killed_and_nothing_is_left(tmp_path: Path, the_redis: Broker) -> None:
    with running(tmp_path, url(the_redis), *LONG) as sut:
        sut.wait_until(lambda: is_under_way(the_redis))
        [of_run] = [number for number, line in sut.processes().items() if "sut.run.worker" in line]
        os.kill(of_run, signal.SIGKILL)
        child = sut.finish(SOON_S)

    assert child.code == 3
    assert "the run's process was killed by SIGKILL" in child.error
    assert keys(the_redis) == []


def test_two_runs_on_one_broker_do_not_meet(tmp_path: Path, the_redis: Broker) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    fan_outs = ("3", "5")
    with (
        running(folders[0], url(the_redis), "--time", "5", "--fan-out", fan_outs[0]) as one,
        running(folders[1], url(the_redis), "--time", "5", "--fan-out", fan_outs[1]) as two,
    ):
        one.wait_until(lambda: len(client(the_redis).keys("sut:*:answers")) == 2)
        ended: list[Finished] = [one.finish(), two.finish()]

    assert [child.code for child in ended] == [0, 0], [child.err for child in ended]
    for folder, fan_out in zip(folders, fan_outs, strict=True):
        [run] = results(folder).values()
        assert run["identified"]["crops"]["messages"] == int(fan_out) * run["samples"]
        assert run["identified"]["crops"]["duplicates"] == 0
    assert keys(the_redis) == []


@pytest.mark.parametrize(
    ("channel", "code", "says"),
    [
        ("redis://127.0.0.1:9", 2, "the Redis at redis://127.0.0.1:9 cannot be used: .*refused"),
        ("kafka://127.0.0.1:9", 2, "the Kafka at kafka://127.0.0.1:9 does not answer"),
        (
            "redis://me:secret@127.0.0.1:9",
            1,
            "channel: a password in a URL would be seen; it belongs into the environment",
        ),
        ("rabbit", 1, "unknown channel 'rabbit'; known: kafka, memory, none, redis, shared"),
    ],
)
def test_a_channel_that_cannot_be_had_is_said_in_a_line(tmp_path: Path, channel: str, code: int, says: str) -> None:
    child = run_sut(*PLANTED, "--channel", channel, cwd=tmp_path)

    assert child.code == code
    assert re.search(says, child.error)
    assert "secret" not in child.err + child.out


def test_a_wrong_password_is_said_and_never_shown(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "right") as broker:
        wrong = run_sut(*PLANTED, "--channel", url(broker), cwd=tmp_path, SUT_CHANNEL_PASSWORD="wr0ng")
        right = run_sut(*PLANTED, "--channel", url(broker), "--time", "0.5", cwd=tmp_path, SUT_CHANNEL_PASSWORD="right")

    assert wrong.code == 1
    assert "SUT_CHANNEL_PASSWORD" in wrong.error and "wr0ng" not in wrong.err
    assert right.code == 0, right.err
    for file in (tmp_path / "output").rglob("*"):
        assert not file.is_file() or b'"right"' not in file.read_bytes()


def test_a_broker_that_is_full_fails_the_run(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as broker:
        child = run_sut(*PLANTED, "--channel", url(broker), "--fan-out", "200", "--time", "1", cwd=tmp_path)

        assert child.code == 3
        assert "full" in child.error or "maxmemory" in child.error
        assert keys(broker) == []


OF_TWO = ("--identify", "efficientnet-lite0", "--boundary", "jpeg")
NOT_OF_TWO = ("--channel", "shared"), ("--fan-out", "3"), ("--identify-workers", "2"), ("--identify-backend", "null")


@pytest.mark.parametrize("words", NOT_OF_TWO)
def test_settings_of_a_second_model_need_one(tmp_path: Path, words: tuple[str, str]) -> None:
    child = run_sut(*words, cwd=tmp_path)

    assert child.code == 1
    assert child.error.endswith("is of a second model, and there is none; add --identify MODEL")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--boundary", "tensor"), "not there at the boundary tensor; take --boundary jpeg or pixels"),
        (("--preprocess-workers", "2"), "preprocess_workers is for one model"),
        (("--set", "slowdown.infer=2"), "slowdown is for one model"),
        (("--identify", "planted"), "its task is detection, and what identifies a crop is a classifier"),
        (("--fan-out", "3", "--accuracy"), "crops that nobody has labelled"),
        (("--model", "efficientnet-lite0"), "efficientnet-lite0 finds none"),
        (("--identify", "nosuch"), "unknown model 'nosuch'"),
    ],
)
def test_what_two_models_cannot_have_is_refused(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    child = run_sut(*ALBUMS, *words, cwd=tmp_path)

    assert child.code == 1
    assert says in child.error


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("whatif", *OF_TWO), "the stages of one model"),
        (("submit", "--rehearse", *OF_TWO), "have one model"),
        (("plan", "--rate", "9", "--p99", "1s", *OF_TWO), "sut plan times the batches of one model"),
        (("boundary", *OF_TWO[:2]), "sut boundary prices the steps of one model"),
        (("breakdown", *OF_TWO[:2]), "sut breakdown tells the share of one model"),
        (("study", "models", *OF_TWO[:2]), "sut study models tells the share of one model"),
        (("study", "shortcuts", *OF_TWO[:2]), "sut study shortcuts times one model"),
        (("study", "beyond-inference", *OF_TWO[:2]), "tells the share of one model"),
        (("sweep", "--cores", "1", *OF_TWO[:2]), "--cores and --devices scale the parts of one model"),
        (("tune", "--space", "channel=none,shared"), "has no effect without a second model"),
        (("compare", "--vary", "channel=none,redis://:geheim@127.0.0.1:9"), "channel: a password in a URL would be"),
    ],
)
def test_what_is_of_one_model_says_so_before_anything_runs(tmp_path: Path, command: tuple[str, ...], says: str) -> None:
    child = run_python("-m", "sut", *command, cwd=tmp_path, OUTPUT_DIR=str(tmp_path / "output"))

    assert child.code == 1
    assert says in child.error
    assert "geheim" not in child.out + child.err
    assert not [*(tmp_path / "output").rglob("*.json")]
