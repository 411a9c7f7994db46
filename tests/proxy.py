"""A TCP proxy that loses, doubles, reorders and delays messages on their way to a broker, and cuts connections.

It lets through one request after the other, each with its reply, so that it knows which reply belongs to what.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import BinaryIO

DELAY_S = 0.5


class Fault(Enum):
    """What becomes of a message."""

    PASS = auto()
    LOSE = auto()
    """The sender is told that it was stored."""
    DOUBLE = auto()
    HOLD = auto()
    """It comes behind the next one."""
    DELAY = auto()
    CUT_BEFORE = auto()
    CUT_AFTER = auto()
    """It is stored, and the sender does not hear of it."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How a protocol is cut into requests and replies, which requests are messages, what is said of one held back."""

    read_request: Callable[[BinaryIO], bytes]
    read_reply: Callable[[BinaryIO], bytes]
    is_message: Callable[[bytes], bool]
    stored: bytes


def _resp(stream: BinaryIO) -> bytes:
    """A command, or a reply, of Redis's protocol, version 2."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError
    kind, count = line[:1], line[1:-2]
    if kind == b"$" and int(count) >= 0:
        return line + stream.read(int(count) + 2)
    if kind == b"*":
        return line + b"".join(_resp(stream) for _ in range(int(count)))
    return line


def _sized(stream: BinaryIO) -> bytes:
    """A request, or a reply, of Kafka's protocol."""
    head = stream.read(4)
    if len(head) < 4:
        raise EOFError
    return head + stream.read(struct.unpack(">i", head)[0])


REDIS = Framing(_resp, _resp, lambda request: b"\r\nXADD\r\n" in request[:20], b"$3\r\n0-1\r\n")
KAFKA = Framing(_sized, _sized, lambda request: request[4:6] == b"\0\0" and b".control" not in request[:400], b"")


@dataclass(slots=True)
class Proxy:
    """``plan`` is what becomes of the messages, in the order in which they come; those beyond it pass."""

    port: int
    plan: list[Fault] = field(default_factory=list)
    _sockets: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_of_next(self) -> Fault:
        with self._lock:
            return self.plan.pop(0) if self.plan else Fault.PASS

    def keep(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._sockets += sockets

    def cut(self) -> None:
        """Cut all connections that there are."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(target: int, framing: Framing, plan: Sequence[Fault] = (), port: int = 0) -> Iterator[Proxy]:
    """A proxy before the port ``target`` of this machine, on a ``port`` of its own."""
    with socket.create_server(("127.0.0.1", port)) as server:
        proxy = Proxy(server.getsockname()[1], list(plan))

        def accept() -> None:
            with suppress(OSError):  # the server was closed
                while True:
                    ours, _ = server.accept()
                    threading.Thread(target=_serve, args=(proxy, framing, ours, target), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown(socket.SHUT_RDWR)
            proxy.cut()


def _serve(proxy: Proxy, framing: Framing, ours: socket.socket, target: int) -> None:
    with suppress(OSError, EOFError), ours, socket.create_connection(("127.0.0.1", target)) as theirs:
        for each in (ours, theirs):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        proxy.keep(ours, theirs)
        requests, replies = ours.makefile("rb"), theirs.makefile("rb")
        held: list[bytes] = []

        def asked(request: bytes) -> bytes:
            theirs.sendall(request)
            return framing.read_reply(replies)

        while True:
            request = framing.read_request(requests)
            fault = proxy.fault_of_next() if framing.is_message(request) else Fault.PASS
            if fault is Fault.CUT_BEFORE:
                return
            if fault in (Fault.LOSE, Fault.HOLD) and framing.stored:
                held += [request] if fault is Fault.HOLD else []
                ours.sendall(framing.stored)
                continue
            if fault is Fault.DELAY:
                time.sleep(DELAY_S)
            reply = asked(request)
            if fault is Fault.DOUBLE:
                asked(request)
            if framing.is_message(request):
                for each in held:
                    asked(each)
                held.clear()
            if fault is Fault.CUT_AFTER:
                return
            ours.sendall(reply)
