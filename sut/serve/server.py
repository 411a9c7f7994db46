"""Starts and stops the front ends: addresses, certificates, limits against clients that are slow or too many."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from plugins.files import read_file
from sut.errors import InputError, RunError, reason_of
from sut.serve.grpc import server_of
from sut.serve.http import Http
from sut.serve.service import Service

_HEAD_S = 10.0
"""How long a connection may take over the head of its first request."""
_KEEP_ALIVE_S = 75
"""How long a connection may be idle after a request."""
_BACKLOG = 4096
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: ports, of which 0 is any that is free; a certificate and its key, or neither."""

    host: str
    http_port: int
    grpc_port: int
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """The URLs of a server that is there."""

    http: str
    grpc: str


class _Guarded(HttpToolsProtocol):
    """Ends connections whose first request does not come, or comes a byte at a time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._patience = self.loop.call_later(_HEAD_S, transport.abort)

    def on_headers_complete(self) -> None:
        self._patience.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        super().connection_lost(exc)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to who has started it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    service: Callable[[], Service],
    address: Address,
    connections: int,
    patience_s: float,
    ready: Callable[[Serving], None],
    endings: Sequence[signal.Signals] = ENDINGS,
) -> None:
    """Serve until one of these signals comes, then answer what was taken up, for so many seconds at most.

    ``service`` makes it within the event loop; ``ready`` is called once both front ends listen. Raises ``InputError``
    for an address or a certificate that cannot be had, ``RunError`` where requests were left without an answer.
    """
    _allow_files(connections)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(service, address, connections, patience_s, ready, endings))


async def _serve(
    make: Callable[[], Service],
    address: Address,
    connections: int,
    patience_s: float,
    ready: Callable[[Serving], None],
    endings: Sequence[signal.Signals],
) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in endings:
        loop.add_signal_handler(number, ended.set)
    service = make()
    sock, remote = _listening(address), server_of(service)
    local = _Uvicorn(_uvicorn_config(service, address, connections, patience_s))
    port = _grpc_port(remote, address)
    await remote.start()
    serving = asyncio.create_task(local.serve(sockets=[sock]))
    drained = False
    try:
        while not (local.started or serving.done()):
            await asyncio.sleep(0.01)
        ready(_urls(address, sock.getsockname()[1], port))
        await asyncio.wait([serving, asyncio.create_task(ended.wait())], return_when=asyncio.FIRST_COMPLETED)
        ended.clear()
        drained = await _drained(service, patience_s, ended)
    finally:
        local.should_exit, local.force_exit = True, not drained
        await remote.stop(1.0 if drained else 0.0)
        await serving
        if service.regions is not None:
            service.regions.unregister()
    if not drained:
        raise RunError(f"not all requests that were taken up were answered within {patience_s:g} s")


async def _drained(service: Service, patience_s: float, again: asyncio.Event) -> bool:
    """Whether all was answered in time; a second signal ends the patience."""
    draining = asyncio.create_task(service.drained(patience_s))
    hurried = asyncio.create_task(again.wait())
    await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    return draining.done() and draining.result()


def _uvicorn_config(service: Service, address: Address, connections: int, patience_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        Http(service),
        http=_Guarded,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        limit_concurrency=connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(patience_s)),
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )


def _listening(address: Address) -> socket.socket:
    try:
        family = socket.getaddrinfo(address.host, None)[0][0]
        return socket.create_server((address.host, address.http_port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            f"cannot listen on {address.host} port {address.http_port}: {reason_of(error)}; "
            "choose --host and --http-port, 0 for any that is free"
        ) from error


def _grpc_port(server: Any, address: Address) -> int:
    host = f"[{address.host}]" if ":" in address.host else address.host
    where = f"{host}:{address.grpc_port}"
    try:
        if address.certificate is None or address.key is None:
            return int(server.add_insecure_port(where))
        pair = (read_file(address.key, 1 << 20), read_file(address.certificate, 1 << 20))
        return int(server.add_secure_port(where, grpc.ssl_server_credentials([pair])))
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"cannot listen on {where} for gRPC (taken, or not ours); choose --grpc-port, 0 for any that is free"
        ) from error


def _urls(address: Address, http_port: int, grpc_port: int) -> Serving:
    host, s = f"[{address.host}]" if ":" in address.host else address.host, "s" if address.certificate else ""
    return Serving(f"http{s}://{host}:{http_port}", f"grpc{s}://{host}:{grpc_port}")


def _allow_files(connections: int) -> None:
    """As many open files as connections take, if the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))
