"""The protocol over HTTP: an ASGI application, with JSON and with tensors as bytes behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.kserve_tensors import DATATYPES, DTYPES, UNREADABLE, to_bytes
from sut.serve.metrics import ANSWERED, FAILED, REFUSED
from sut.serve.refused import BUSY, INVALID, TOO_LARGE, TOO_SLOW, UNKNOWN, Refused, Unanswered
from sut.serve.regions import Regions
from sut.serve.service import Answer, Given, Service

PROTOCOL = "http"
LENGTH = b"inference-header-content-length"
"""The header that says how much of a body is JSON; tensors are behind it."""
BODY_S = 30.0
"""How long the body of a request may take to come."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back. ``json_bytes``: how much of the body is JSON, where tensors are behind it."""

    body: bytes
    status: int = 200
    kind: bytes = b"application/json"
    json_bytes: int | None = None


class Http:
    """The application."""

    def __init__(self, service: Service, most_connections: int) -> None:
        """While more than ``most_connections`` are open, those that ask are refused and closed."""
        self._service, self._most_connections = service, most_connections
        self.connections: Collection[object] = ()
        """Those that are open, once the server is there."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            reply = await self._reply(scope, receive)
        except Unanswered as error:
            reply = _json({"error": str(error)}, error.status)
        except asyncio.CancelledError:  # at the end, and of nothing but this request
            reply = _json({"error": "the server has stopped"}, BUSY)
        headers = [(b"content-type", reply.kind), (b"content-length", str(len(reply.body)).encode())]
        if self._is_crowded:
            headers.append((b"connection", b"close"))
        if reply.json_bytes is not None:
            headers.append((LENGTH, str(reply.json_bytes).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    @property
    def _is_crowded(self) -> bool:
        return len(self.connections) > self._most_connections

    async def _reply(self, scope: MutableMapping[str, Any], receive: Receive) -> Reply:
        service, method = self._service, scope["method"]
        match [method, *(part for part in scope["path"].split("/") if part)]:
            case ["GET", "metrics"]:
                return Reply(service.meters.text(), kind=b"text/plain; version=0.0.4; charset=utf-8")
            case ["GET", "v2"]:
                return _json(service.server)
            case ["GET", "v2", "health", "live"]:
                return _json({"live": True})
            case ["GET", "v2", "health", "ready"]:
                return _json({"ready": service.ready}, 200 if service.ready else 503)
            case [_, "v2", "models", name, "versions", version, *rest]:
                return await self._of_model(method, name, version, rest, scope, receive)
            case [_, "v2", "models", name, *rest]:
                return await self._of_model(method, name, "", rest, scope, receive)
            case [_, "v2", "systemsharedmemory", *rest] if service.regions is not None:
                return _shared(service.regions, method, rest, await self._body(scope, receive))
        raise Refused(UNKNOWN, f"there is nothing at {method} {scope['path']}")

    async def _of_model(
        self,
        method: str,
        name: str,
        version: str,
        rest: Sequence[str],
        scope: MutableMapping[str, Any],
        receive: Receive,
    ) -> Reply:
        service = self._service
        match method, *rest:
            case "POST", "infer":
                return await self._infer(name, version, scope, receive)
        service.check_name(name, version)
        match method, *rest:
            case "GET", "ready":
                return _json({"name": name, "ready": service.ready}, 200 if service.ready else 503)
            case "GET", "config":
                return _json(service.config)
            case ("GET",):
                return _json(service.metadata)
        raise Refused(UNKNOWN, f"there is nothing at {method} {scope['path']}")

    async def _infer(self, name: str, version: str, scope: MutableMapping[str, Any], receive: Receive) -> Reply:
        meters = self._service.meters
        outcome = FAILED
        try:
            self._service.check_name(name, version)
            if self._is_crowded:
                raise Refused(BUSY, f"{self._most_connections:,} connections are open, which is the cap; close some")
            with self._service.admitted():  # before its body is held, too
                body = await self._body(scope, receive)
                asked = parse(body, _header(scope, LENGTH), self._service.regions)
                meters.received.labels(PROTOCOL).inc(asked.tensor_bytes)
                answer = await self._service.infer(asked.given, [*asked.outputs])
                reply = self._told(asked, answer)
            if reply.json_bytes is not None:
                meters.sent.labels(PROTOCOL).inc(len(reply.body) - reply.json_bytes)
            outcome = ANSWERED
            return reply
        except Refused:
            outcome = REFUSED
            raise
        finally:
            meters.requests.labels(PROTOCOL, outcome).inc()

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        """The whole of it, in time. Raises ``Refused`` for too much of it, too slow a client, and one that is gone."""
        most = self._service.limits.request_bytes
        if _header(scope, b"content-encoding") not in ("", "identity"):
            raise Refused(INVALID, "compressed bodies are not read; send them as they are")
        told = _header(scope, b"content-length")
        parts, came, size = [], 0, int(told or 0)  # the parser has seen to it that this is a number
        try:
            async with asyncio.timeout(BODY_S):
                while size <= most:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(INVALID, "the client is gone")
                    parts.append(message.get("body", b""))
                    if not message.get("more_body"):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
                    came += len(parts[-1])
                    size = max(size, came)
        except TimeoutError:
            raise Refused(TOO_SLOW, f"the request did not come within {BODY_S:g} s") from None
        raise Refused(TOO_LARGE, f"the request has {size:,} bytes or more, expected {most:,} at the most")

    def _told(self, asked: Asked, answer: Answer) -> Reply:
        """The answer as it was asked for: as bytes, as JSON, or in shared memory."""
        outputs, tail = [], []
        for name, values in answer.outputs.items():
            how = asked.outputs.get(name, {})
            told: dict[str, Any] = {
                "name": name,
                "datatype": DATATYPES[values.dtype.name],
                "shape": list(values.shape),
            }
            if "shared_memory_region" in how:
                told["parameters"] = _put(self._service.regions, how, values)
            elif how.get("binary_data", asked.binary):
                tail.append(to_bytes(values))
                told["parameters"] = {"binary_data_size": len(tail[-1])}
            else:
                told["data"] = values.ravel().tolist()
            outputs.append(told)
        content = {
            "model_name": self._service.name,
            "model_version": "1",
            **({"id": asked.id} if asked.id else {}),
            "parameters": dict(answer.times),
            "outputs": outputs,
        }
        head = json.dumps(content).encode()
        if not tail:
            return Reply(head)
        return Reply(b"".join([head, *tail]), kind=b"application/octet-stream", json_bytes=len(head))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read: its inputs, and how each output is wanted; ``binary`` holds where that is not said.

    ``tensor_bytes`` came behind the JSON.
    """

    given: list[Given]
    outputs: dict[str, dict[str, Any]]
    id: str
    binary: bool
    tensor_bytes: int


def parse(body: bytes, json_length: str, regions: Regions | None) -> Asked:
    """Read a request. Raises ``Refused`` for what is none."""
    try:
        length = int(json_length or len(body))
        if not 0 <= length <= len(body):
            raise ValueError(f"Inference-Header-Content-Length says {length:,}, the body has {len(body):,} bytes")
        content = json.loads(body[:length])
        tail = memoryview(body)[length:]
        given, at = [], 0
        for each in content["inputs"]:
            one, size = _given(each, tail[at:], regions)
            given.append(one)
            at += size
        outputs = {str(each["name"]): _wanted(each.get("parameters") or {}) for each in content.get("outputs") or ()}
        binary = bool((content.get("parameters") or {}).get("binary_data_output", False))
        identity = str(content.get("id", ""))
    except UNREADABLE as error:
        raise Refused(INVALID, f"the request cannot be read: {type(error).__name__}: {error}") from error
    if at != len(tail):
        raise Refused(INVALID, f"{len(tail):,} bytes are behind the JSON, and the inputs tell of {at:,}")
    return Asked(given, outputs, identity, binary, at)


def _wanted(how: dict[str, Any]) -> dict[str, Any]:
    """How an output is wanted."""
    if how.get("shared_memory_region") is None:
        return {"binary_data": bool(how["binary_data"])} if "binary_data" in how else {}
    name, offset = str(how["shared_memory_region"]), int(how.get("shared_memory_offset", 0))
    return {
        "shared_memory_region": name,
        "shared_memory_byte_size": int(how["shared_memory_byte_size"]),
        "shared_memory_offset": offset,
    }


def _given(told: dict[str, Any], tail: memoryview, regions: Regions | None) -> tuple[Given, int]:
    """An input, and how many bytes of the tail it has."""
    name, datatype, shape = str(told["name"]), str(told["datatype"]), [int(axis) for axis in told["shape"]]
    how = told.get("parameters") or {}
    if (region := how.get("shared_memory_region")) is not None:
        if regions is None:
            raise Refused(INVALID, "this server shares no memory; start it with --shared-memory")
        raw = regions.read(str(region), int(how.get("shared_memory_offset", 0)), int(how["shared_memory_byte_size"]))
        return Given(name, datatype, shape, raw), 0
    if "binary_data_size" in how:
        size = int(how["binary_data_size"])
        if not 0 <= size <= len(tail):
            raise ValueError(f"input '{name}' says {size:,} bytes, and {len(tail):,} are there")
        return Given(name, datatype, shape, tail[:size]), size
    if datatype == "BYTES":
        elements = np.array([str(each).encode() for each in told["data"]], object)
        return Given(name, datatype, shape, elements.reshape(shape)), 0
    if datatype not in DTYPES:
        raise ValueError(f"got the datatype {datatype}, expected one of {', '.join(DTYPES)}")
    return Given(name, datatype, shape, np.array(told["data"], DTYPES[datatype]).reshape(shape)), 0


def _put(regions: Regions | None, how: dict[str, Any], values: NDArray[Any]) -> dict[str, Any]:
    if regions is None:
        raise Refused(INVALID, "this server shares no memory; start it with --shared-memory")
    place = how["shared_memory_region"], how["shared_memory_offset"], how["shared_memory_byte_size"]
    regions.write(*place, to_bytes(values))
    return how


def _shared(regions: Regions, method: str, rest: Sequence[str], body: bytes) -> Reply:
    try:
        match method, *rest:
            case "GET", "status":
                return _json([*regions.status().values()])
            case "GET", "region", name, "status":
                return _json([*regions.status(name).values()])
            case "POST", "region", name, "register":
                told = json.loads(body)
                regions.register(name, str(told["key"]), int(told.get("offset", 0)), int(told["byte_size"]))
                return _json({})
            case "POST", "region", name, "unregister":
                regions.unregister(name)
                return _json({})
            case "POST", "unregister":
                regions.unregister()
                return _json({})
    except UNREADABLE as error:
        raise Refused(INVALID, f"the request cannot be read: {type(error).__name__}: {error}") from error
    raise Refused(UNKNOWN, "there is nothing there; regions are registered, unregistered, and asked for their status")


def _header(scope: MutableMapping[str, Any], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _json(content: object, status: int = 200) -> Reply:
    return Reply(json.dumps(content).encode(), status)
