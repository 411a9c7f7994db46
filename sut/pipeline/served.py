"""A system behind a server of its own: the run starts ``sut serve`` on this host, and is its client.

What is asked is the same system, so that what is more than without is the price of serving.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from backends.base import Attestation, Loaded, ModelFile, Runner, Traffic
from backends.kserve import KServe
from sut.config import RunConfig
from sut.errors import RunError
from sut.models.preparation import Prepared
from sut.process.messages import Failed, Step, vocabulary
from sut.process.workers import Ready, Workers
from sut.text import Progress

_MODULE = "sut.serve.worker"


@dataclass(frozen=True, slots=True)
class ServerOrders:
    """What the server's process is to serve, and what its client calls it."""

    config: RunConfig
    prepared: Prepared | None
    name: str


@dataclass(frozen=True, slots=True)
class Listening:
    """The server is there, at these URLs by protocol."""

    urls: Mapping[str, str]
    event: Literal["listening"] = "listening"


_KINDS = vocabulary(Ready | Listening | Step | Failed)


class Behind(Loaded):
    """A server's process, and a client of it for all lanes."""

    def __init__(
        self, config: RunConfig, prepared: Prepared | None, name: str, sample_shape: tuple[int, ...], progress: Progress
    ) -> None:
        """Raises ``SutError`` in one line where the server cannot be started, for whatever reason."""
        alone = config.model_copy(update={"serve": "none", "scenario": "Server", "mode": "performance"})
        self._urls: Mapping[str, str] = {}
        orders = [ServerOrders(alone, prepared, name)]
        self._workers: Workers[Any] = Workers("server", _MODULE, orders, [], _KINDS, self._lost, self._heard)
        with ExitStack() as stack:
            stack.callback(self._end)
            self._workers.start(lambda: progress(0, 0))
            file = ModelFile(None, config.precision, sample_shape, name=name)
            self._client = KServe.load(file, self._urls[config.serve], config.requests_at_once, 1)
            stack.pop_all()
        client = self._client
        self.inputs, self.outputs, self.batch_sizes = client.inputs, client.outputs, client.batch_sizes
        self.places, self.reads_host_arrays, self.details = client.places, client.reads_host_arrays, client.details

    @property
    def processes(self) -> Mapping[str, int]:
        """The server."""
        return self._workers.processes

    def runner(self, place: str = "host") -> Runner:
        """One with a connection of its own."""
        return self._client.runner(place)

    def traffic(self) -> Traffic | None:
        """What went to the server."""
        return self._client.traffic()

    def attest(self) -> Attestation:
        """What the server attests of the system behind it."""
        told = self._client.attest()
        server = {key.removeprefix("server_"): value for key, value in told.details.items()}
        return replace(
            told, device=server.get("device", ""), device_name="", provider=server.get("provider", ""), model=""
        )

    def close(self) -> None:
        """End the connection, then the server."""
        self._client.close()
        self._end()

    def _end(self) -> None:
        def tell() -> None:
            for number in self._workers.processes.values():
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGTERM)

        self._workers.end(tell)

    def _heard(self, event: object) -> None:
        if isinstance(event, Listening):
            self._urls = event.urls

    def _lost(self, message: str) -> None:
        """The server is gone: whatever is asked of it fails, and says so."""
        raise RunError(message)
