"""The real Triton server for tests, in processes of its own on free loopback ports."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests import shared_memory
from tests.brokers import free_port, missing
from tests.children import CHECKOUT, Running, inherited, started

SERVER = CHECKOUT / ".venv-triton/bin/tritonserver"
"""``tools/triton_venv.sh`` makes it, for ``./run_tests.sh --all``."""
START_S = 120.0
"""Against hangs only, as the next: a start takes three seconds."""
LIFE_S = 900


@dataclass(frozen=True, slots=True)
class Triton:
    """A server that is ready."""

    http: str
    grpc: str
    running: Running
    log: Path

    def pids(self, module: str) -> list[int]:
        """Those of its processes that have ``module`` in their command line."""
        return [pid for pid, line in self.running.processes().items() if module in line]


@contextmanager
def triton_server(repository: Path, folder: Path) -> Iterator[Triton]:
    """Serve a model repository; its log is in ``folder``. At the end nothing of it may be left."""
    if not SERVER.exists():
        missing("the Triton server of ./run_tests.sh --all")
    http, grpc = free_port(), free_port()
    log, region = folder / "triton.log", f"sut_test_{grpc}_"
    options = {"http": http, "grpc": grpc}
    addresses = [f"--{name}-{what}" for name, port in options.items() for what in ("address=127.0.0.1", f"port={port}")]
    own = ("--allow-metrics=false", "--strict-readiness=true", "--exit-timeout-secs=10")
    regions = f"--backend-config=python,shm-region-prefix-name={region}"
    server = [SERVER, f"--model-repository={repository}", *addresses, *own, regions]
    to_log = ["sh", "-c", 'exec timeout "$@" >triton.log 2>&1', "sh", str(LIFE_S)]
    with started([*to_log, *server], folder, inherited()) as running:
        try:
            triton = Triton(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", running, log)
            _wait_until_ready(triton)
            yield triton
            running.signal(signal.SIGTERM)
            assert running.finish(60).left == []
            assert [*shared_memory.FOLDER.glob(f"{region}*")] == []
        finally:
            for path in shared_memory.FOLDER.glob(f"{region}*"):
                path.unlink()


def _wait_until_ready(triton: Triton) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with suppress(URLError, ConnectionError), urlopen(f"http://{triton.http}/v2/health/ready", timeout=5) as told:
            assert told.status == 200
            return
        assert triton.running.process.poll() is None, triton.log.read_text()
        assert time.monotonic() < deadline, triton.log.read_text()
        time.sleep(0.05)
