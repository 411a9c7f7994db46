"""Runs against a real ``sut serve``: the name that LoadGen writes down, and what ``--rules network`` refuses."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sut import __version__ as version
from sut.mlperf.logs import SUMMARY, read_detail
from sut.mlperf.official import NETWORK_SUT
from tests.children import python_started, run_sut

SERVE = ("-m", "sut", "serve", "--http-port", "0", "--grpc-port", "0", "--json")
QUICK = ("--scenario", "Offline", "--qps", "200", "--time", "0.3")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The URLs of one that takes files of pictures, and answers at once."""
    options = ("--backend", "simulated", "--boundary", "jpeg", "--set", "backend_options.a_ms=0.1")
    with python_started(*SERVE, *options, cwd=tmp_path_factory.mktemp("server")) as running:
        assert running.process.stdout is not None
        [urls] = json.loads(running.process.stdout.readline())["rows"]
        yield urls
        running.signal(signal.SIGTERM)
        assert running.finish().code == 0


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
