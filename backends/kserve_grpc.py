"""A server of the open inference protocol over gRPC, with the messages that tritonclient has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from backends.kserve_client import Call, Endpoint, Late, Rejected, Reply, Shared, Tensor, Unreachable
from backends.kserve_tensors import from_bytes, from_contents

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_RAW_INPUT = bytes([pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2])
"""What stands before a field ``raw_input_contents`` in a message: number and type."""
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # a failure must be seen
    ("grpc.use_local_subchannel_pool", 1),  # else all channels of a process share one connection
    ("grpc.enable_http_proxy", 0),
)
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_MOST_HEADS = 1024
"""Beginnings of requests that are kept: pictures may each be of a size of their own."""


class GrpcClient:
    """See ``Client``."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._channel = _channel(endpoint)
        self._infer: Callable[..., Any] = self._channel.unary_unary(
            _INFER, request_serializer=b"".join, response_deserializer=pb.ModelInferResponse.FromString
        )
        self._heads: dict[tuple[object, ...], bytes] = {}

    @cached_property
    def _stub(self) -> Any:
        return service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def _asked(self, call: Callable[..., Any], request: object) -> Any:
        """An answer in time. Raises ``Unreachable`` or ``Rejected``."""
        try:
            return call(request, timeout=self._endpoint.timeout_s)
        except grpc.RpcError as error:
            code, told = error.code(), " ".join(str(error.details()).split())
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Late(f"{self._endpoint.url}: no answer within {self._endpoint.timeout_s:g} s") from error
            if code in _AWAY:
                raise Unreachable(f"{self._endpoint.url}: {code.name}: {told}") from error
            unknown = code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
            raise Rejected(f"{self._endpoint.url}: {code.name}: {told}", unknown=unknown) from error

    def server(self) -> Mapping[str, Any]:
        """See ``Client``."""
        return _dict(self._asked(self._stub.ServerMetadata, pb.ServerMetadataRequest()))

    def model(self, name: str, version: str) -> Mapping[str, Any]:
        """See ``Client``."""
        return _dict(self._asked(self._stub.ModelMetadata, pb.ModelMetadataRequest(name=name, version=version)))

    def is_ready(self, name: str, version: str) -> bool:
        """See ``Client``."""
        request = pb.ModelReadyRequest(name=name, version=version)
        return bool(self._asked(self._stub.ModelReady, request).ready)

    def config(self, name: str, version: str) -> Mapping[str, Any]:
        """See ``Client``."""
        found = self._asked(self._stub.ModelConfig, pb.ModelConfigRequest(name=name, version=version))
        told: Mapping[str, Any] = _dict(found).get("config", {})
        return told

    def infer(self, call: Call, tensors: Sequence[Tensor]) -> Reply:
        """See ``Client``.

        A message is the bytes of its fields in any order, so that of a request what is alike in all of them is made
        once, and a tensor is copied once into what is sent: ModelInferRequest would copy it three times.
        """
        key = (
            call,
            *((each.name, each.shape, each.body if isinstance(each.body, Shared) else None) for each in tensors),
        )
        if (head := self._heads.get(key)) is None:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            head = self._heads[key] = _head(call, tensors)
        parts: list[bytes | memoryview] = [head]
        for each in tensors:
            if not isinstance(each.body, Shared):
                body = each.body if isinstance(each.body, bytes) else each.body.data.cast("B")
                parts += (_RAW_INPUT, _varint(len(body)), body)
        response = self._asked(self._infer, parts)
        return self._read(response)

    def _read(self, response: Any) -> Reply:
        raw = list(response.raw_output_contents)
        outputs: dict[str, NDArray[Any]] = {}
        try:
            if not raw:
                outputs = {
                    each.name: from_contents(each.contents, each.datatype, each.shape) for each in response.outputs
                }
            for told, body in zip(response.outputs if raw else (), raw, strict=True):
                outputs[told.name] = from_bytes(body, told.datatype, tuple(told.shape))
        except ValueError as error:
            raise Rejected(f"{self._endpoint.url}: an answer that cannot be read: {error}") from error
        times = {name: value.int64_param for name, value in response.parameters.items()}
        return Reply(response.model_version, outputs, times, sum(map(len, raw)))

    def share(self, region: str, key: str, size: int) -> None:
        """See ``Client``."""
        request = pb.SystemSharedMemoryRegisterRequest(name=region, key=key, offset=0, byte_size=size)
        self._asked(self._stub.SystemSharedMemoryRegister, request)

    def unshare(self, region: str) -> None:
        """See ``Client``."""
        self._asked(self._stub.SystemSharedMemoryUnregister, pb.SystemSharedMemoryUnregisterRequest(name=region))

    def close(self) -> None:
        """See ``Client``."""
        self._channel.close()


def _channel(endpoint: Endpoint) -> grpc.Channel:
    if not endpoint.is_secure:
        return grpc.insecure_channel(endpoint.target, options=_OPTIONS)
    known = endpoint.certificate.read_bytes() if endpoint.certificate is not None else None
    return grpc.secure_channel(endpoint.target, grpc.ssl_channel_credentials(known), options=_OPTIONS)


def _head(call: Call, tensors: Sequence[Tensor]) -> bytes:
    """A request but for its tensors' bytes."""
    request = pb.ModelInferRequest(model_name=call.model, model_version=call.version)
    for each in tensors:
        told = request.inputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
        if isinstance(each.body, Shared):
            told.parameters["shared_memory_region"].string_param = each.body.region
            told.parameters["shared_memory_byte_size"].int64_param = each.body.size
    for name in call.outputs:
        request.outputs.add(name=name)
    return bytes(request.SerializeToString())


def _varint(number: int) -> bytes:
    """A length as protocol buffers write it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _dict(message: Any) -> dict[str, Any]:
    return dict(MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
