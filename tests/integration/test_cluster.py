"""Stages on a real Ray cluster: the same labels and ledger, and an end with the truth whatever is killed.

Nodes are lost one after the other: the head with the last test.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import free_port
from tests.children import CHECKOUT, Running, python_started, results, run_sut
from tests.clusters import Nodes, ray_nodes
from tests.core import needs
from tests.distributions import write_distribution
from tests.integration.test_truth import labels_in, right_in_all_scenarios, right_labels

pytestmark = [pytest.mark.slow, needs("ray")]

SOON_S = 60
"""On an idle machine it takes two or three seconds."""
OF_RAY = ("--infer-place", "ray", "--lanes", "2")
SMALL = ("--set", "infer_resources={CPU: 0.25}")
PREPARING = (
    *("--boundary", "jpeg", "--preprocess-workers", "2", "--preprocess-place", "ray"),
    *("--set", "preprocess_resources={CPU: 0.25}"),
)
LONG = ("--backend", "simulated", "--scenario", "Server", "--qps", "20", "--time", "120")

FAILING = """
import sys

from preprocess.base import BadPicture
from preprocess.opencv import OpenCV


class Failing(OpenCV):
    name = "failing"

    def run(self, encoded, target, mark):
        if "default_worker" in sys.argv[0]:
            raise BadPicture(0, "will not decode this")
        return super().run(encoded, target, mark)
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    write_distribution(folder, "cluster-plugins", {"sut.preprocessors": {"failing": "cluster_plugins:Failing"}})
    (folder / "cluster_plugins.py").write_text(FAILING)
    return folder


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, plugins: Path) -> Iterator[Nodes]:
    with ray_nodes(tmp_path_factory.mktemp("cluster"), 3, plugins) as found:
        yield found


def running(tmp_path: Path, nodes: Nodes, *arguments: str):  # type: ignore[no-untyped-def]
    command = ("-m", "sut", "run", "--output", tmp_path / "output", "--cluster", nodes.address, *OF_RAY, *arguments)
    return python_started(*command, cwd=tmp_path)


def has_begun(tmp_path: Path) -> bool:
    return any((tmp_path / "output").rglob("mlperf_log_detail.txt"))


def places(result: dict[str, Any]) -> list[str]:
    told: str = result["attested"]["details"]["actors"]
    return re.findall(r"on node (\w+)", told)


def test_labels_are_right_in_all_scenarios_over_two_nodes_and_stages_add_up(tmp_path: Path, nodes: Nodes) -> None:
    child = run_sut(
        *("--config", CHECKOUT / "configs/ray.yaml", "--accuracy", "--max-batchsize", "3"),
        *("--set", "preprocess_resources={node_b: 1}", "--set", "infer_resources={node_c: 1}"),
        cwd=tmp_path,
        RAY_ADDRESS=nodes.address,
    )

    assert (child.code, child.left) == (0, []), child.err
    for result in right_in_all_scenarios(tmp_path):
        means = {stage: times["mean"] for stage, times in result["stages_ns"].items()}
        assert {"carry", "decode", "resize", "normalize", "infer", "infer/compute"} <= set(means)
        assert 0 < means.pop("infer/compute") < means["infer"]
        if result["scenario"] != "MultiStream":  # whose latency is a query's
            assert sum(means.values()) == pytest.approx(result["latency_ns"]["mean"], rel=0.001, abs=100)
        assert result["attested"]["provider"] == "CPUExecutionProvider"


def test_over_rays_client_server_labels_are_right_and_its_end_fails_the_run(tmp_path: Path, nodes: Nodes) -> None:
    port = free_port()
    where = ("--mode", "legacy", "--host", "127.0.0.1", "--port", str(port), "--address", nodes.address)
    through = (*OF_RAY, *SMALL, "--cluster", f"ray://127.0.0.1:{port}")
    own = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # as the nodes have it
    with python_started("-m", "ray.util.client.server", *where, cwd=tmp_path, **own) as server:
        server.wait_until(lambda: is_listening(port))
        child = run_sut(*through, *PREPARING, "--scenario", "Offline", "--accuracy", cwd=tmp_path)
        assert (child.code, child.left) == (0, []), child.err
        [result] = results(tmp_path).values()
        assert labels_in(result["directory"]) == right_labels()

        long = ("-m", "sut", "run", "--output", tmp_path / "long", *through, *LONG)
        with python_started(*long, cwd=tmp_path) as sut:
            sut.wait_until(lambda: [*(tmp_path / "long").rglob("mlperf_log_detail.txt")])
            server.signal(signal.SIGKILL)
            child = sut.finish(SOON_S)
    assert child.code == 3
    wait_for_no_actors(nodes)


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_an_actor_is_where_its_resources_are(tmp_path: Path, nodes: Nodes) -> None:
    asked = ("--backend", "simulated", *OF_RAY, "--cluster", nodes.address, "--scenario", "Offline", "--time", "0.5")

    for node in ("node_b", "node_c"):
        (tmp_path / node).mkdir()
        child = run_sut(*asked, "--set", f"infer_resources={{{node}: 1}}", cwd=tmp_path / node)
        assert child.code == 0, child.err

    here, there = (places(*results(tmp_path / node).values()) for node in ("node_b", "node_c"))
    assert len({*here}) == len({*there}) == 1
    assert here != there


def test_a_picture_that_fails_on_a_node_is_named(tmp_path: Path, nodes: Nodes, plugins: Path) -> None:
    asked = ("--backend", "simulated", "--cluster", nodes.address, *PREPARING, "--preprocess", "failing")

    child = run_sut(*asked, "--scenario", "Offline", cwd=tmp_path, plugins=plugins)

    assert child.code == 3
    assert re.search(r"\w+\.jpg: BadPicture: will not decode this", child.error)


def test_a_node_that_nobody_has_is_said_before_the_run(tmp_path: Path, nodes: Nodes) -> None:
    asked = ("--backend", "simulated", *OF_RAY, "--cluster", nodes.address)

    child = run_sut(*asked, "--set", "infer_resources={node_z: 1}", cwd=tmp_path)

    assert child.code == 2
    assert "no node of the cluster has node_z 1 for infer-0; they have" in child.error


OTHER_VERSION = """
import os, sys
if "sut.run.worker" in sys.orig_argv:
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    ray.__version__ = "2.1.0"
"""


def test_another_version_is_said_before_the_run(tmp_path: Path, nodes: Nodes) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(OTHER_VERSION)

    child = run_sut("--backend", "simulated", *OF_RAY, "--cluster", nodes.address, cwd=tmp_path, plugins=folder)

    assert child.code == 2
    assert re.search(r"the Ray cluster at [\d.:]+ is of other versions: .*Ray: 2\.6", child.error)


def test_nobody_at_an_address_is_said_before_the_run(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*silent.getsockname())

        child = run_sut("--backend", "simulated", *OF_RAY, "--cluster", address, cwd=tmp_path)

    assert child.code == 2
    assert f"no Ray cluster answers at {address} (Connection refused)" in child.error


def test_what_answers_and_is_no_cluster_is_waited_for_within_bounds(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = "{}:{}".format(*silent.getsockname())

        child = run_sut("--backend", "simulated", *OF_RAY, "--cluster", address, cwd=tmp_path)

    assert child.code == 2
    assert f"what answers at {address} let nobody join within 20 s" in child.error


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGKILL])
def test_no_actor_is_left_of_a_run_that_is_ended(tmp_path: Path, nodes: Nodes, which: signal.Signals) -> None:
    with running(tmp_path, nodes, *LONG, *SMALL) as sut:
        sut.wait_until(lambda: has_begun(tmp_path))
        assert len(nodes.actors()) == 2
        sut.signal(which)
        child = sut.finish(SOON_S)

    assert (child.code, child.left) == (130 if which == signal.SIGINT else -which, [])
    wait_for_no_actors(nodes)


def wait_for_no_actors(nodes: Nodes) -> None:
    deadline = time.monotonic() + SOON_S
    while left := nodes.actors():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_an_actor_that_hangs_fails_the_run(tmp_path: Path, nodes: Nodes) -> None:
    with running(tmp_path, nodes, *LONG, "--watchdog", "5", *SMALL) as sut:
        sut.wait_until(lambda: has_begun(tmp_path))
        for actor in nodes.actors():
            os.kill(actor, signal.SIGSTOP)
        child = sut.finish(SOON_S)

    assert child.code == 3
    assert re.search(r"no progress for 5 s with \d+ samples outstanding", child.error)
    wait_for_no_actors(nodes)


def lose_within(tmp_path: Path, nodes: Nodes, sut: Running, node: str) -> None:
    sut.wait_until(lambda: has_begun(tmp_path))
    time.sleep(1)
    nodes.lose(node)


def test_a_lost_node_fails_the_run_with_the_actors_name(tmp_path: Path, nodes: Nodes) -> None:
    with running(tmp_path, nodes, *LONG, "--set", "infer_resources={node_c: 1}") as sut:
        lose_within(tmp_path, nodes, sut, "node_c")
        child = sut.finish(SOON_S)

    assert child.code == 3
    assert re.search(r"infer-[01] on node \w{8} \(\S+\) is lost: Actor\w+Error", child.error)
    [result] = results(tmp_path).values()
    assert result["valid"] is False and result["samples"] > 0
    wait_for_no_actors(nodes)


def test_what_a_lost_node_had_to_do_is_done_again_and_counted(tmp_path: Path, nodes: Nodes) -> None:
    again = ("--backend", "simulated", "--scenario", "Server", "--qps", "20", "--max-latency", "60", "--time", "15")

    with running(tmp_path, nodes, *again, *PREPARING, *SMALL, "--set", "redo_lost=true") as sut:
        sut.wait_until(lambda: has_begun(tmp_path))
        time.sleep(1)
        nodes.lose("node_b")
        child = sut.finish()

    [result] = results(tmp_path).values()
    assert child.code == 0, child.err
    assert (result["valid"], result["failed_samples"]) == (True, 0)
    [told] = [rule for rule in result["rules_broken"] if "done again" in rule]
    assert re.fullmatch(r"batches done again since a node of the cluster was lost: [1-9]\d* \(.+\)", told)


def test_a_head_that_is_gone_fails_the_run_and_is_named(tmp_path: Path, nodes: Nodes) -> None:
    with running(tmp_path, nodes, *LONG) as sut:
        sut.wait_until(lambda: has_begun(tmp_path))
        nodes.lose_head()
        child = sut.finish(SOON_S)

    assert child.code == 3
    assert f"the head of the Ray cluster at {nodes.address} is gone" in child.error


def test_the_runs_own_node_that_is_gone_fails_the_run(tmp_path: Path) -> None:
    with ray_nodes(tmp_path, 1) as nodes, running(tmp_path, nodes, *LONG) as sut:
        lose_within(tmp_path, nodes, sut, "node_a")
        child = sut.finish(SOON_S)

    assert child.code == 3
    assert "ended by itself with exit code 1 (Ray ends one whose node of the cluster is gone)" in child.error
