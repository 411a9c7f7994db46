"""A server of the open inference protocol that answers as a test tells it to, over HTTP and gRPC."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import ParseDict
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

MODEL, SHAPE = "small", (3, 4, 4)
"""The model's name, and the shape of a row of its input ``images``."""
Outputs = dict[str, NDArray[Any]]
_DATATYPES = {"float32": "FP32", "float16": "FP16", "int64": "INT64"}


def scores(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What it answers: a row's sum, and its mean."""
    flat = rows.reshape(len(rows), -1)
    return np.stack([flat.sum(1), flat.mean(1)], 1)


@dataclass
class Fake:
    """What the server is, and how it answers."""

    versions: Sequence[str] = ("1",)
    is_ready: bool = True
    shape: Sequence[int] = (-1, *SHAPE)
    datatype: str = "FP32"
    classes: int = 2
    """Width of its output, as it tells it."""
    extensions: Sequence[str] = ("response_times",)
    metadata: Any = None
    """In the place of the model's own, over HTTP."""
    config: Mapping[str, Any] = field(default_factory=lambda: {"max_batch_size": 8})
    answering: str = "1"
    """The version that it says to have answered with."""
    times: Mapping[str, int] = field(default_factory=dict)
    spoilt: Callable[[Outputs], Outputs] = lambda outputs: outputs
    fault: Callable[[socket.socket], None] | None = None
    """Over HTTP what is done to the connection in the place of an answer."""
    lists: bool = False
    """Over gRPC: whether elements are sent one by one, not as bytes."""
    late_s: float = 0.0
    asked: int = 0
    """Requests that came."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Whether a fault has ended its connection."""

    def told(self) -> Any:
        inputs = [{"name": "images", "datatype": self.datatype, "shape": list(self.shape)}]
        outputs = [{"name": "scores", "datatype": "FP32", "shape": [-1, self.classes]}]
        own = {"name": MODEL, "versions": list(self.versions), "platform": "fake"}
        return self.metadata or {**own, "inputs": inputs, "outputs": outputs}

    def answer(self, raw: bytes) -> Outputs:
        self.asked += 1
        time.sleep(self.late_s)
        found = scores(np.frombuffer(raw, np.float32).reshape(-1, *self.shape[1:]))
        return self.spoilt({"scores": np.pad(found, ((0, 0), (0, max(0, self.classes - 2))))})


def reset(connection: socket.socket) -> None:
    """End a connection as a killed process does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def sending(*pieces: bytes, every_s: float = 0.0) -> Callable[[socket.socket], None]:
    """A fault that sends something else, and ends."""

    def fault(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(every_s)
        connection.shutdown(socket.SHUT_RDWR)

    return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        fake, path = self.fake, self.path.removeprefix("/v2").removeprefix(f"/models/{MODEL}")
        path = path.removeprefix("/versions/1")
        if path == "/ready":
            self._send(200 if fake.is_ready else 400, b"{}")
        elif path == "/config":
            self._send(200, json.dumps(fake.config).encode())
        elif self.path == "/v2":
            told = {"name": "fake", "version": "7", "extensions": ["model_configuration", *fake.extensions]}
            self._send(200, json.dumps(told).encode())
        elif path == "":
            self._send(200, json.dumps(fake.told()).encode())
        else:
            self._send(404, json.dumps({"error": f"nothing at {self.path}"}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.fake.fault is not None:
            self.fake.asked += 1
            self.close_connection = True
            with suppress(OSError):
                self.fake.fault(self.connection)
            self.fake.ended.set()
            return
        outputs = self.fake.answer(body[int(self.headers["Inference-Header-Content-Length"]) :])
        told = [
            {
                "name": name,
                "datatype": _DATATYPES[values.dtype.name],
                "shape": values.shape,
                "parameters": {"binary_data_size": values.nbytes},
            }
            for name, values in outputs.items()
        ]
        own = {"model_name": MODEL, "model_version": self.fake.answering, "parameters": self.fake.times}
        head = json.dumps({**own, "outputs": told}).encode()
        raw = b"".join([head, *(each.tobytes() for each in outputs.values())])
        self._send(200, raw, ("Inference-Header-Content-Length", str(len(head))))

    def _send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        with suppress(OSError):  # the client did not wait for it
            self.end_headers()
            self.wfile.write(body)


@contextmanager
def over_http(fake: Fake) -> Iterator[str]:
    """The URL of a server that lasts as long as the ``with``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self, fake: Fake) -> None:
        self._fake = fake

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        extensions = ["model_configuration", *self._fake.extensions]
        return pb.ServerMetadataResponse(name="fake", version="7", extensions=extensions)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        if request.name != MODEL:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.name}")
        return ParseDict(self._fake.told(), pb.ModelMetadataResponse())

    def ModelReady(self, request: Any, context: Any) -> Any:
        return pb.ModelReadyResponse(ready=self._fake.is_ready)

    def ModelConfig(self, request: Any, context: Any) -> Any:
        return ParseDict({"config": self._fake.config}, pb.ModelConfigResponse())

    def ModelInfer(self, request: Any, context: Any) -> Any:
        response = pb.ModelInferResponse(model_name=MODEL, model_version=self._fake.answering)
        for name, values in self._fake.answer(request.raw_input_contents[0]).items():
            told = response.outputs.add(name=name, datatype=_DATATYPES[values.dtype.name], shape=values.shape)
            if self._fake.lists:
                told.contents.fp32_contents.extend(values.ravel().tolist())
            else:
                response.raw_output_contents.append(values.tobytes())
        for name, value in self._fake.times.items():
            response.parameters[name].int64_param = value
        return response


@contextmanager
def over_grpc(fake: Fake) -> Iterator[str]:
    """The same over gRPC."""
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(fake), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(0)


SERVERS = {"http": over_http, "grpc": over_grpc}
