"""Runs against a real ``sut serve``: the name that LoadGen writes down, and what ``--rules network`` refuses."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sut import __version__ as version
from sut.mlperf.accuracy import read_accuracy_log
from sut.mlperf.logs import ACCURACY, SUMMARY, read_detail
from sut.mlperf.official import NETWORK_SUT
from sut.results.collected import read_result
from sut.results.schema import FILE
from tests.children import python_started, run_sut
from tests.integration.support import Sut
from tests.integration.test_closed import World
from tests.unit.small_models import RECIPE_FILE, write_means

SERVE = ("-m", "sut", "serve", "--http-port", "0", "--grpc-port", "0", "--json")
QUICK = ("--scenario", "Offline", "--qps", "1000", "--time", "0.3")
"""A rate that the server's device, which takes 1 ms for a sample, cannot be faster than."""


@contextmanager
def serving(cwd: Path, *options: str | Path) -> Iterator[dict[str, str]]:
    """The URLs of a server."""
    with python_started(*SERVE, *options, cwd=cwd) as running:
        assert running.process.stdout is not None
        [urls] = json.loads(running.process.stdout.readline())["rows"]
        yield urls
        running.signal(signal.SIGTERM)
        assert running.finish().code == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One that takes files of pictures, and answers at once with the model's outputs."""
    options = ("--backend", "simulated", "--boundary", "jpeg", "--set", "backend_options.a_ms=0.1")
    with serving(tmp_path_factory.mktemp("server"), *options) as urls:
        yield urls


def to(url: str) -> tuple[str, ...]:
    return ("--backend", "kserve", "--device", url, "--preprocess", "server", "--boundary", "jpeg")


@pytest.mark.parametrize("protocols", ["grpc", "http,grpc"])
def test_loadgen_writes_down_who_has_answered(server: dict[str, str], protocols: str, tmp_path: Path) -> None:
    urls = [server[protocol] for protocol in protocols.split(",")]

    done = run_sut(*to(",".join(urls)), *QUICK, cwd=tmp_path)

    assert done.code == 0, done.err
    [log] = tmp_path.rglob(SUMMARY)
    name = f"{NETWORK_SUT}: " + ", ".join(f"loadgen-vision-sut {version} at {url}" for url in urls)
    detail = read_detail(log.parent)
    assert detail.values["sut_name"] == name
    assert detail.values["get_sut_name_duration_ns"] > 0
    assert f"SUT name : {name}\n" in log.read_text()
    assert {"infer", "infer/queue"} < {*read_result(log.with_name(FILE)).stages_ns}  # which agrees with itself


def test_by_the_rules_all_that_a_server_here_breaks_is_named_before_the_run(
    server: dict[str, str], tmp_path: Path
) -> None:
    batch = ("--max-batchsize", "2")
    by_network = run_sut(
        *to(server["grpc"]), *batch, "--rules", "network", "--scenario", "Server,SingleStream", cwd=tmp_path
    )
    by_closed = run_sut(*to(server["grpc"]), "--rules", "closed", cwd=tmp_path)

    assert (by_network.code, by_closed.code) == (1, 1)
    assert by_network.errors == [
        "model efficientnet-lite0 is not MLPerf's resnet50",
        "Server: queries may be batched on LoadGen's side: max_batchsize is 2, not 1",
        f"the server is on this very machine: {server['grpc']}",
        "the model's weights are the server's own: nobody here has seen them",
        "answers are postprocessed on LoadGen's side: the server gives the model's outputs",
        "data set demo has 11 pictures, not ImageNet's 50000",
        "performance_sample_count 11 < 1024",
        "SingleStream: MLPerf's network division has no scenario SingleStream",
        "--rules network: nothing was run, as the above would break 8 rules of MLPerf's network division: mend it, or "
        "leave --rules out",
    ]
    assert "the model is on a server, which is of the network division: --rules network" in by_closed.errors
    assert not (tmp_path / "output").exists()


def test_a_server_that_answers_with_labels_leaves_nothing_to_compute(tmp_path: Path) -> None:
    write_means(tmp_path / "quick.onnx")
    (tmp_path / "quick.yaml").write_text(RECIPE_FILE)
    run = (
        "--model",
        "quick.onnx",
        "--recipe",
        "quick.yaml",
        "--boundary",
        "jpeg",
        "--scenario",
        "Offline",
        "--accuracy",
    )
    with serving(tmp_path, *run[:6], "--answers") as urls:
        there = run_sut(*run, *to(urls["http"])[:6], cwd=tmp_path)
    here = run_sut(*run, cwd=tmp_path)

    assert (there.code, here.code) == (0, 0), there.err + here.err
    far, near = sorted(tmp_path.rglob(FILE))
    result = json.loads(far.read_text())
    sha256 = hashlib.sha256((tmp_path / "quick.onnx").read_bytes()).hexdigest()
    assert (result["output"], result["attested"]["details"]["server_sha256"]) == ("answer", sha256)
    assert result["rules_broken"] == [
        "model quick is not MLPerf's resnet50",
        f"the server is on this very machine: {urls['http']}",
        "data set demo has 11 pictures, not ImageNet's 50000",
    ]
    answers = [read_accuracy_log(each.with_name(ACCURACY)).answers for each in (far, near)]
    assert answers[0] == answers[1] and len({*answers[0].values()}) > 1


ELSEWHERE = """
import sut.process.addresses as addresses
addresses.is_loopback = addresses.is_here = lambda host: False
"""


def test_a_run_by_the_rules_breaks_none_on_the_servers_word(sut: Sut) -> None:
    """As if the server were on another machine, and MLPerf's figures small."""
    world = World(sut)
    site = sut.packages / "sitecustomize.py"
    site.write_text(site.read_text() + ELSEWHERE)
    model = ("--model", world.model, "--model-name", "resnet50", "--dataset-path", world.pictures)
    ports = ("--http-port", "0", "--grpc-port", "0", "--json")
    with sut.started(*model, *ports, "--boundary", "jpeg", "--answers", command="serve") as running:
        assert running.process.stdout is not None
        [urls] = json.loads(running.process.stdout.readline())["rows"]
        asked = world.arguments(*to(urls["grpc"]), "--rules", "network", "--scenario", "Offline", "--qps", "9000")
        done = sut.run(*asked)

    assert done.code == 0, done.err
    result = done.result
    assert (result["rules_broken"], result["rules_compliant"]) == ([], True)
    sha256 = hashlib.sha256(world.model.read_bytes()).hexdigest()
    assert f"the model has MLPerf's weights by the server's word: SHA-256 {sha256}" in result["notes"]
