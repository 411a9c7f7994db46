"""The protocol over gRPC, with the messages that tritonclient has."""

from __future__ import annotations

from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from backends.kserve_tensors import DATATYPES, from_contents, to_bytes
from sut.serve.metrics import ANSWERED, FAILED, REFUSED
from sut.serve.refused import GRPC, INVALID, Refused, Unanswered
from sut.serve.service import VERSION, Answer, Given, Service

PROTOCOL = "grpc"


class Grpc(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated, without types
    """The calls that this server answers; those of a repository of models it has not."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ServerLive(self, request: Any, context: Any) -> Any:
        """Whether the server is there."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Whether it takes requests."""
        return pb.ServerReadyResponse(ready=self._service.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """The same of its model."""
        await self._checked(request, context)
        return pb.ModelReadyResponse(ready=self._service.ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """Name, version, extensions."""
        return pb.ServerMetadataResponse(**self._service.server)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Inputs and outputs."""
        await self._checked(request, context)
        return pb.ModelMetadataResponse(**self._service.metadata)

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """Batch size, and what runs."""
        from google.protobuf.json_format import ParseDict

        await self._checked(request, context)
        return pb.ModelConfigResponse(config=ParseDict(self._service.config, pb.model__config__pb2.ModelConfig()))

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Answer a request."""
        meters = self._service.meters
        raw = list(request.raw_input_contents)  # each look at a field of bytes copies it
        meters.received.labels(PROTOCOL).inc(sum(map(len, raw)))
        outcome = FAILED
        try:
            self._service.check_name(request.model_name, request.model_version)
            with self._service.admitted():
                answer = await self._service.infer(self._given(request, raw), [each.name for each in request.outputs])
                response = self._told(request, answer)
            meters.sent.labels(PROTOCOL).inc(sum(map(len, response.raw_output_contents)))
            outcome = ANSWERED
            return response
        except Unanswered as error:
            outcome = REFUSED if isinstance(error, Refused) else FAILED
            await _abort(context, error)
        finally:
            meters.requests.labels(PROTOCOL, outcome).inc()

    async def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        """What is registered."""
        regions = await self._regions(context)
        try:
            return pb.SystemSharedMemoryStatusResponse(
                regions={
                    name: pb.SystemSharedMemoryStatusResponse.RegionStatus(**told)
                    for name, told in regions.status(request.name).items()
                }
            )
        except Unanswered as error:
            await _abort(context, error)

    async def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        """Register a region."""
        regions = await self._regions(context)
        try:
            regions.register(request.name, request.key, request.offset, request.byte_size)
        except Unanswered as error:
            await _abort(context, error)
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        """Unregister a region, or all."""
        (await self._regions(context)).unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def _checked(self, request: Any, context: Any) -> None:
        try:
            self._service.check_name(request.name, request.version)
        except Unanswered as error:
            await _abort(context, error)

    async def _regions(self, context: Any) -> Any:
        if self._service.regions is None:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, "this server shares no memory; start it with --shared-memory"
            )
        return self._service.regions

    def _given(self, request: Any, raw: list[bytes]) -> list[Given]:
        """The inputs. Raises ``Refused`` where they cannot be read."""
        is_raw, given = bool(raw), list[Given]()
        for each in request.inputs:
            how = each.parameters
            if "shared_memory_region" in how:
                given.append(self._shared(each))
            elif is_raw:
                if not raw:
                    raise Refused(INVALID, f"input '{each.name}' has no raw contents, and others have")
                given.append(Given(each.name, each.datatype, each.shape, raw.pop(0)))
            else:
                given.append(_listed(each))
        if raw:
            raise Refused(INVALID, f"{len(raw)} raw contents are of no input")
        return given

    def _shared(self, told: Any) -> Given:
        if self._service.regions is None:
            raise Refused(INVALID, "this server shares no memory; start it with --shared-memory")
        name, offset, size = _place(told)
        return Given(told.name, told.datatype, told.shape, self._service.regions.read(name, offset, size))

    def _told(self, request: Any, answer: Answer) -> Any:
        """The answer as bytes, or in shared memory where that was asked for."""
        wanted = {each.name: each for each in request.outputs if "shared_memory_region" in each.parameters}
        response = pb.ModelInferResponse(model_name=self._service.name, model_version=VERSION, id=request.id)
        for name, value in answer.times.items():
            response.parameters[name].int64_param = value
        for name, values in answer.outputs.items():
            told = response.outputs.add(name=name, datatype=DATATYPES[values.dtype.name], shape=values.shape)
            if name not in wanted:
                response.raw_output_contents.append(to_bytes(values))
            elif self._service.regions is None:
                raise Refused(INVALID, "this server shares no memory; start it with --shared-memory")
            else:
                self._service.regions.write(*_place(wanted[name]), to_bytes(values))
                for key, value in wanted[name].parameters.items():
                    told.parameters[key].CopyFrom(value)
                response.raw_output_contents.append(b"")
        return response


def _place(told: Any) -> tuple[str, int, int]:
    """Region, offset and size in bytes of a tensor in shared memory."""
    how = told.parameters
    offset = how["shared_memory_offset"].int64_param if "shared_memory_offset" in how else 0
    size = how["shared_memory_byte_size"].int64_param if "shared_memory_byte_size" in how else 0
    return how["shared_memory_region"].string_param, offset, size


def _listed(told: Any) -> Given:
    """An input whose elements are in the message one by one."""
    try:
        array = from_contents(told.contents, told.datatype, told.shape)
    except ValueError as error:
        raise Refused(INVALID, f"input '{told.name}' {list(told.shape)}: {error}") from error
    return Given(told.name, told.datatype, told.shape, array)


async def _abort(context: Any, error: Unanswered) -> None:
    await context.abort(grpc.StatusCode[GRPC[error.status]], str(error))


def server_of(service: Service) -> Any:
    """A server that answers these calls, in the running event loop, without an address yet."""
    most = service.limits.request_bytes
    made = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small message may unfold to any size
        ]
    )
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Grpc(service), made)
    return made
