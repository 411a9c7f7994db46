"""A server of the open inference protocol over HTTP, with tensors as bytes behind the JSON.

By the standard library's connections: tritonclient's own belong to the thread that made them, and a lane's runner is
used by several in turn.
"""

from __future__ import annotations

import io
import json
import select
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from backends.kserve_client import Call, Endpoint, Late, Rejected, Reply, Shared, Tensor, Unreachable
from backends.kserve_tensors import DTYPES, UNREADABLE, from_bytes

_LENGTH = "Inference-Header-Content-Length"
_PIECE = 1 << 20
_MOST_BYTES = 1 << 30
"""Of an answer."""


class HttpClient:
    """See ``Client``."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connection = _connection(endpoint)

    def server(self) -> Mapping[str, Any]:
        """See ``Client``."""
        return self._json("GET", "/v2")

    def model(self, name: str, version: str) -> Mapping[str, Any]:
        """See ``Client``."""
        return self._json("GET", _path(name, version))

    def is_ready(self, name: str, version: str) -> bool:
        """See ``Client``."""
        try:
            self._asked("GET", f"{_path(name, version)}/ready")
        except Rejected:
            return False
        return True

    def config(self, name: str, version: str) -> Mapping[str, Any]:
        """See ``Client``."""
        return self._json("GET", f"{_path(name, version)}/config")

    def infer(self, call: Call, tensors: Sequence[Tensor]) -> Reply:
        """See ``Client``."""
        outputs = [{"name": name, "parameters": {"binary_data": True}} for name in call.outputs]
        head = json.dumps({"inputs": list(map(_told, tensors)), "outputs": outputs}).encode()
        bodies = [each.body for each in tensors if not isinstance(each.body, Shared)]
        body = b"".join([head, *(each if isinstance(each, bytes) else each.data.cast("B") for each in bodies)])
        headers = {_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
        raw, length = self._asked("POST", f"{_path(call.model, call.version)}/infer", body, headers)
        try:
            return _read(raw, length)
        except UNREADABLE as error:
            told = f"{type(error).__name__}: {error}"
            raise Rejected(f"{self._endpoint.url}: an answer that cannot be read: {told}") from error

    def share(self, region: str, key: str, size: int) -> None:
        """See ``Client``."""
        body = json.dumps({"key": key, "offset": 0, "byte_size": size}).encode()
        self._asked("POST", f"/v2/systemsharedmemory/region/{region}/register", body)

    def unshare(self, region: str) -> None:
        """See ``Client``."""
        self._asked("POST", f"/v2/systemsharedmemory/region/{region}/unregister", b"")

    def close(self) -> None:
        """See ``Client``."""
        self._connection.close()

    def _json(self, method: str, path: str) -> Mapping[str, Any]:
        raw, _ = self._asked(method, path)
        try:
            found = json.loads(raw)
        except UNREADABLE as error:
            raise Rejected(f"{self._endpoint.url}{path}: got {bytes(raw[:60])!r}, expected JSON") from error
        if not isinstance(found, dict):
            raise Rejected(f"{self._endpoint.url}{path}: got JSON of {type(found).__name__}, expected an object")
        return found

    def _asked(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> tuple[bytearray, str | None]:
        """A whole answer in time, and how much of it is JSON. Raises ``Unreachable`` or ``Rejected``."""
        until = time.monotonic() + self._endpoint.timeout_s
        connection = self._connection
        try:
            sock = self._reach(until)
            connection.request(method, path, body, dict(headers))
            connection.response_class = _Timed(sock, until).response  # type: ignore[assignment]
            response = connection.getresponse()
            raw = _whole(response)
        except TimeoutError as error:
            connection.close()
            raise Late(f"{self._endpoint.url}: no answer within {self._endpoint.timeout_s:g} s") from error
        except (OSError, HTTPException) as error:
            connection.close()
            reason = " ".join(str(error)[:200].split()) or type(error).__name__
            raise Unreachable(f"{self._endpoint.url}: {reason}") from error
        if response.status != 200:
            raise Rejected(
                f"{self._endpoint.url}: {response.status} {_reason(raw)}", unknown=response.status in (404, 405)
            )
        return raw, response.headers.get(_LENGTH)

    def _reach(self, until: float) -> socket.socket:
        """The connection's socket, which may send until then. One that the server has ended meanwhile is made anew.

        That is seen before anything is sent on it: a request that was sent is not repeated.
        """
        connection = self._connection
        if connection.sock is not None:
            ending = select.poll()
            ending.register(connection.sock, select.POLLIN)
            if ending.poll(0):
                connection.close()
        if connection.sock is None:
            connection.timeout = _left(until)
            connection.connect()
        found: socket.socket = connection.sock
        found.settimeout(_left(until))
        return found


def _left(until: float) -> float:
    """Seconds. Raises ``TimeoutError`` where there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed(io.RawIOBase):
    """What a socket receives until a moment, in however small pieces it comes. Then raises ``TimeoutError``."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until
        self._raw = sock.makefile("rb", buffering=0)

    def response(self, sock: socket.socket, **how: Any) -> HTTPResponse:
        """One that is read from here."""
        return HTTPResponse(self, **how)  # type: ignore[arg-type]  # which asks it for a file alone

    def makefile(self, mode: str) -> io.BufferedReader:
        """The file that a response reads."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._until))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _whole(response: HTTPResponse) -> bytearray:
    """The body. Raises ``HTTPException`` for a part of one, and for one that has no end."""
    raw = bytearray()
    while piece := response.read1(_PIECE):
        raw += piece
        if len(raw) > _MOST_BYTES:
            raise HTTPException(f"the answer has {_MOST_BYTES:,} bytes and more")
    if response.length:
        raise HTTPException(f"the answer ended {response.length:,} bytes early")
    response.close()  # ``read1`` leaves that open, and the connection is for the next request
    return raw


def _connection(endpoint: Endpoint) -> HTTPConnection:
    if not endpoint.is_secure:
        return HTTPConnection(endpoint.host, endpoint.port)
    context = ssl.create_default_context(cafile=endpoint.certificate)
    return HTTPSConnection(endpoint.host, endpoint.port, context=context)


def _path(model: str, version: str) -> str:
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def _told(tensor: Tensor) -> dict[str, Any]:
    """An input as the JSON tells it."""
    body, how = tensor.body, dict[str, Any]()
    if isinstance(body, Shared):
        how = {"shared_memory_region": body.region, "shared_memory_byte_size": body.size}
    else:
        how = {"binary_data_size": len(body) if isinstance(body, bytes) else body.nbytes}
    return {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype, "parameters": how}


def _read(raw: bytearray, length: str | None) -> Reply:
    """An answer. Raises one of ``UNREADABLE`` for what is none."""
    at = json_bytes = int(length) if length is not None else len(raw)
    if not 0 <= at <= len(raw):
        raise ValueError(f"{at:,} bytes of JSON are told, and the answer has {len(raw):,}")
    told = json.loads(raw[:json_bytes])
    outputs: dict[str, NDArray[Any]] = {}
    view = memoryview(raw)
    for each in told["outputs"]:
        name, datatype, shape = each["name"], each["datatype"], tuple(each["shape"])
        size = (each.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[name] = np.array(each["data"], DTYPES[datatype]).reshape(shape)
            continue
        outputs[name] = from_bytes(bytes(view[at : at + size]), datatype, shape)
        at += size
    if at != len(raw):
        raise ValueError(f"{len(raw) - json_bytes:,} bytes are behind the JSON, and it tells of {at - json_bytes:,}")
    times = {name: value for name, value in (told.get("parameters") or {}).items() if isinstance(value, int)}
    return Reply(str(told.get("model_version", "")), outputs, times, len(raw) - json_bytes)


def _reason(raw: bytearray) -> str:
    """What a server says of an error: the text in its JSON, or what there is."""
    try:
        return " ".join(str(json.loads(raw)["error"]).split())
    except UNREADABLE:
        return repr(bytes(raw[:100]).decode("utf-8", "replace"))
