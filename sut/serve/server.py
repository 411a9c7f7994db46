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
from sut.serve.http import BODY_S, Http
from sut.serve.service import Service

_HEAD_S = 10.0
"""How long a connection may take over the head of a request."""
_HEAD_BYTES = 1 << 16
"""How long that may be: the parser itself knows no end."""
_MESSAGE_S = BODY_S + 5.0
"""How long a body may take when its request was refused already."""
_UNREAD_MS = 60_000
"""How long a client may leave an answer unread."""
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
    """Ends connections whose first request does not come, and those of a request that comes too slowly or has no end.

    Between requests the parser's keep-alive is in charge, which the first byte of anything ends.
    """

    _patience: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True
    _has_ended = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._allow(_HEAD_S)

    def data_received(self, data: bytes) -> None:
        if self._patience is None and (self.cycle is None or self.cycle.response_complete):
            self._allow(_HEAD_S)
        self._has_ended = False
        super().data_received(data)
        is_more_of_head = self._is_in_head and not self._has_ended
        self._head_bytes = self._head_bytes + len(data) if is_more_of_head else 0
        if self._head_bytes > _HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._allow(_HEAD_S)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._allow(_MESSAGE_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_in_head = self._has_ended = True
        self._allow(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._allow(None)
        super().connection_lost(exc)

    def _allow(self, seconds: float | None) -> None:
        """Let what comes next take so long at the most, or for ever."""
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


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
    http = Http(service, connections)
    local = _Uvicorn(_uvicorn_config(http, address, patience_s))
    sock, remote = _listening(address), server_of(service)
    http.connections = local.server_state.connections
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
        if not drained:
            service.engine.give_up()
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


def _uvicorn_config(http: Http, address: Address, patience_s: float) -> uvicorn.Config:
    made = uvicorn.Config(
        http,
        http=_Guarded,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # else each request that is none leaves a line
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(patience_s)),
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    try:
        made.load()
    except OSError as error:
        raise InputError(f"{address.certificate} with {address.key}: {reason_of(error)}; expected PEM files") from error
    return made


def _listening(address: Address) -> socket.socket:
    try:
        family = socket.getaddrinfo(address.host, None)[0][0]
        made = socket.create_server((address.host, address.http_port), family=family, backlog=_BACKLOG)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)  # all connections have it from here
        return made
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
