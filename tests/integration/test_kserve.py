"""The backend kserve through the command, against a ``sut serve`` in another process: labels, bytes, times, ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.base import ModelFile, Traffic
from backends.kserve import KServe
from sut.config import SCENARIOS
from sut.results.consistency import contradictions
from sut.results.schema import Result
from tests import shared_memory
from tests.children import Finished, python_started, results, run_sut
from tests.fake_kserve import MODEL, SERVERS, Fake
from tests.integration.test_serve_start import certificate
from tests.integration.test_truth import labels_in, right_labels
from tests.serving import SIMULATED, Server, served, small_model
from tests.unit.small_models import CLASSES, SIZE

JPEG = ("--preprocess", "server", "--boundary", "jpeg")
WIRES = {
    "jpeg": (("--boundary", "jpeg"), JPEG),
    "pixels": (("--boundary", "pixels"), ("--preprocess", "server", "--boundary", "pixels")),
    "tensor": ((), ()),
    "uint8": (("--fold",), ("--fold",)),
}
"""What crosses of a picture: options of the server, and of the run."""
LIMIT_S = 60.0
"""Against hangs: what ends a run here takes seconds at the most."""


def run(cwd: Path, url: str, *options: str | Path) -> Finished:
    return run_sut("--backend", "kserve", "--device", url, *options, cwd=cwd)


def the_result(cwd: Path) -> dict[str, Any]:
    [result] = results(cwd).values()
    return result


@pytest.fixture(scope="module", params=WIRES)
def wire(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Any]]:
    """A server of the default model, and how a run asks it."""
    serve, ask = WIRES[request.param]
    with served(tmp_path_factory.mktemp("wire"), *serve) as server:
        yield server, ask


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Any]]:
    """A server of a small model, which takes tensors or memory, and how a run asks it."""
    folder = tmp_path_factory.mktemp("small")
    options = small_model(folder)
    with served(folder, *options, "--shared-memory") as server:
        yield server, options[:-2]


def sleeping(folder: Path, seconds: float) -> Any:
    """A server that takes so long for a batch."""
    return served(folder, *SIMULATED, "--set", f"backend_options.a_ms={1000 * seconds}", "--lanes", "1")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", SERVERS)
def test_labels_are_those_of_a_run_in_one_process_whatever_crosses(
    tmp_path: Path, wire: tuple[Server, Any], protocol: str
) -> None:
    server, how = wire
    done = run(tmp_path, getattr(server, protocol), *how, "--accuracy")

    assert done.code == 0, done.err
    result = the_result(tmp_path)
    assert labels_in(result["directory"]) == right_labels()
    assert result["attested"]["model"].split()[:2] == ["efficientnet-lite0", "1"]
    assert len(result["attested"]["model"].split()[2]) == 64


@pytest.mark.slow
def test_four_scenarios_from_file_to_label(tmp_path: Path) -> None:
    with served(tmp_path, "--boundary", "jpeg") as server:
        done = run(tmp_path, server.grpc, *JPEG, "--scenario", "all", "--accuracy")

    assert done.code == 0, done.err
    found = results(tmp_path)
    assert {scenario for scenario, _ in found} == set(SCENARIOS)
    for result in found.values():
        assert labels_in(result["directory"]) == right_labels()


@pytest.mark.slow
def test_four_scenarios_under_load(tmp_path: Path) -> None:
    options = small_model(tmp_path)
    with served(tmp_path, *options, "--boundary", "jpeg") as server:
        done = run(tmp_path, server.grpc, *options[:-2], *JPEG, "--scenario", "all", "--time", "0.5", "--qps", "20")

    assert done.code in (0, 4), done.err
    found = results(tmp_path)
    assert {scenario for scenario, _ in found} == set(SCENARIOS)
    for result in found.values():
        assert result["failed_samples"] == 0 < result["traffic"]["sent_bytes"]
        closes(result)


def closes(result: dict[str, Any]) -> None:
    """The stages of a result, without the details of ``infer``, add up to the latency."""
    stages = {name: stage["mean"] for name, stage in result["stages_ns"].items()}
    details = [stages.pop(f"infer/{name}") for name in ("queue", "preprocess", "compute")]
    assert sum(stages.values()) == pytest.approx(result["latency_ns"]["mean"], abs=1000)
    assert 0 < sum(details) <= stages["infer"]
    assert not {name for name in result["cost_ns"] if name.startswith("infer/")}
    read = Result.model_validate({name: value for name, value in result.items() if name != "directory"})
    assert list(contradictions(read)) == []


def sums(server: Server, protocol: str) -> Traffic:
    """What a server has counted so far."""
    told = server.metrics()
    answered = told.get(f'sut_requests_total{{outcome="answered",protocol="{protocol}"}}', 0)
    came, sent = (told.get(f'sut_{word}_bytes_total{{protocol="{protocol}"}}', 0) for word in ("received", "sent"))
    return Traffic(int(answered), int(came), int(sent))


@pytest.mark.parametrize("protocol", SERVERS)
def test_each_side_counts_the_same(small: tuple[Server, Any], protocol: str) -> None:
    server, _ = small
    before = sums(server, protocol)
    model = ModelFile(None, sample_shape=(3, 16, 16), name="small")
    with KServe.load(model, getattr(server, protocol), 1, 1) as backend, backend.runner() as runner:
        for n in (1, 8, 3):
            runner.infer(runner.slot(n))
        traffic = backend.traffic()

    assert traffic == Traffic(3, 12 * 3072, 12 * 40)
    assert before + traffic == sums(server, protocol)


@pytest.mark.parametrize("protocol", SERVERS)
def test_the_ledger_closes_and_traffic_is_the_runs_own(
    tmp_path: Path, small: tuple[Server, Any], protocol: str
) -> None:
    server, how = small
    samples = server.metrics()["sut_samples_total"]
    done = run(tmp_path, getattr(server, protocol), *how, "--scenario", "Offline", "--time", "0.5")

    assert done.code in (0, 4), done.err
    result = the_result(tmp_path)
    closes(result)
    assert result["traffic"]["sent_bytes"] == 3072 * result["samples"]
    assert result["traffic"]["received_bytes"] == 40 * result["samples"]
    assert server.metrics()["sut_samples_total"] - samples >= result["samples"]


def test_tensors_in_shared_memory_are_not_sent(tmp_path: Path, small: tuple[Server, Any]) -> None:
    server, how = small
    before, there = sums(server, "grpc"), shared_memory.files()
    done = run(
        *(tmp_path, server.grpc, *how, "--set", "backend_options.shared_memory=true"),
        *("--scenario", "Offline", "--time", "0.5"),
    )

    assert done.code in (0, 4), done.err
    traffic = the_result(tmp_path)["traffic"]
    assert traffic["sent_bytes"] == 0 < traffic["received_bytes"]
    assert sums(server, "grpc").sent_bytes == before.sent_bytes
    assert server.json("/v2/systemsharedmemory/status") == []
    assert not shared_memory.left_since(there)


@pytest.mark.slow
def test_two_servers_share_the_work_by_what_they_can_do(tmp_path: Path) -> None:
    with sleeping(tmp_path, 0.02) as quick, sleeping(tmp_path, 0.2) as slow:
        before = [server.metrics()["sut_samples_total"] for server in (quick, slow)]
        done = run(
            *(tmp_path, f"{quick.grpc},{slow.grpc}", "--preprocess", "simulated", "--lanes", "4"),
            *("--scenario", "Offline", "--time", "3", "--max-batchsize", "1"),
        )
        shares = [
            server.metrics()["sut_samples_total"] - count for server, count in zip((quick, slow), before, strict=True)
        ]

    assert done.code in (0, 4), done.err
    assert min(shares) > 0 and shares[0] > 2 * shares[1]


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
@pytest.mark.parametrize("protocol", SERVERS)
def test_a_server_that_dies_or_hangs_in_the_run_fails_it_by_name(
    tmp_path: Path, protocol: str, which: signal.Signals
) -> None:
    with sleeping(tmp_path, 0.1) as server:
        url = getattr(server, protocol)
        with started(tmp_path, url, "--set", "backend_options.timeout_s=2") as running:
            running.wait_until(lambda: [*tmp_path.rglob("*detail.txt")])
            before = server.metrics()["sut_samples_total"]
            running.wait_until(lambda: server.metrics()["sut_samples_total"] > before)  # LoadGen asks
            server.running.signal(which)
            done = running.finish(LIMIT_S)

    assert done.code == 3
    result = the_result(tmp_path)
    assert result["valid"] is False and result["failed_samples"] > 0
    assert url in result["first_error"]
    assert done.left == []


def started(cwd: Path, url: str, *options: str) -> Any:
    """A run that would go on for longer than a test waits."""
    how = ("--scenario", "SingleStream", "--time", "600", "--preprocess", "simulated", *options)
    line = ("-m", "sut", "run", "--output", cwd / "output", "--backend", "kserve", "--device", url, *how)
    return python_started(*line, cwd=cwd)


def config(sha256: str) -> dict[str, Any]:
    """Of a fake server's model."""
    return {"max_batch_size": 8, "parameters": {"sha256": {"string_value": sha256}}}


@pytest.mark.parametrize(
    ("becomes", "told"),
    [
        ({"config": config("22")}, "is another than at the begin: model was small 1 11, is small 1 22"),
        ({"is_ready": False}, "it is not ready"),
    ],
)
def test_a_server_that_became_another_in_the_run_fails_it(tmp_path: Path, becomes: dict[str, Any], told: str) -> None:
    *model, _, _ = small_model(tmp_path)
    fake = Fake(shape=(-1, 3, SIZE, SIZE), classes=CLASSES, config=config("11"))
    line = ("-m", "sut", "run", "--output", tmp_path / "output", *model, "--backend", "kserve", "--time", "2")
    with (
        SERVERS["grpc"](fake) as url,
        python_started(*line, "--device", url, "--scenario", "SingleStream", cwd=tmp_path) as running,
    ):
        running.wait_until(lambda: [*tmp_path.rglob("*detail.txt")])
        asked = fake.asked
        running.wait_until(lambda: fake.asked >= asked + 20)
        for name, value in becomes.items():
            setattr(fake, name, value)
        done = running.finish(LIMIT_S)

    assert done.code == 3
    assert told in done.error


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_the_server_as_it_was(tmp_path: Path) -> None:
    with sleeping(tmp_path, 0.1) as server:
        with started(tmp_path, server.grpc) as running:
            running.wait_until(lambda: server.metrics()["sut_inflight_requests"])
            running.signal(signal.SIGKILL)
            running.finish(LIMIT_S)
        server.running.wait_until(lambda: not server.metrics()["sut_inflight_requests"])
        server.running.signal(signal.SIGTERM)

        assert server.running.finish(LIMIT_S).code == 0


REFUSED: dict[str, tuple[Fake, tuple[str, ...], int, str]] = {
    "unknown model": (Fake(), ("--set", "backend_options.model=large"), 1, "the server has no model large"),
    "another size": (Fake(shape=(-1, 3, 320, 320), classes=1000), (), 1, "320"),
    "another type": (Fake(shape=(-1, 3, 224, 224), datatype="FP64", classes=1000), (), 1, "float64"),
    "a type of nobody": (Fake(datatype="BF16"), (), 1, "BF16"),
    "pictures": (Fake(shape=(-1, 1), datatype="BYTES"), (), 1, "add --preprocess server"),
    "tensors": (Fake(shape=(-1, 3, 224, 224)), JPEG, 1, "the server takes ready tensors"),
    "two versions": (Fake(versions=("1", "2")), (), 1, "has versions 1, 2 of small; name one"),
    "not ready": (Fake(is_ready=False), (), 2, "is not ready"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_asked(tmp_path: Path, what: str) -> None:
    fake, options, code, told = REFUSED[what]
    with SERVERS["grpc"](fake) as url:
        own = ("--set", f"backend_options.model={MODEL}") if "--set" not in options else ()
        done = run(tmp_path, url, *own, *options, "--scenario", "SingleStream", "--time", "0.1")

    assert done.code == code
    assert told in done.error
    assert fake.asked == 0


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        ("grpc://127.0.0.1:1", 2, "no server answers: grpc://127.0.0.1:1"),
        ("http://127.0.0.1:1", 2, "no server answers: http://127.0.0.1:1"),
        ("http://127.0.0.1", 1, "expected grpc|grpcs|http|https://HOST:PORT"),
        ("cpu", 2, "add --device grpc://HOST:PORT or http://"),
    ],
)
def test_a_server_that_is_not_there(tmp_path: Path, url: str, code: int, told: str) -> None:
    done = run(tmp_path, url, "--scenario", "SingleStream", "--time", "0.1")

    assert done.code == code
    assert told in done.error


@pytest.mark.slow
def test_over_tls_whom_nobody_knows_is_not_asked(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    options = small_model(tmp_path)
    with served(tmp_path, *options, "--certificate", pem, "--key", key) as server:
        for url in (server.http, server.grpc):
            how = (*options[:-2], "--scenario", "SingleStream", "--time", "0.2")
            stranger = run(tmp_path, url, *how)
            known = run(tmp_path, url, *how, "--set", f"backend_options.certificate={pem}")

            assert url.startswith(("https://", "grpcs://"))
            assert stranger.code == 2 and f"no server answers: {url}" in stranger.error
            assert known.code in (0, 4), known.err
