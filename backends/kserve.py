"""Any server of the open inference protocol (KServe's v2): Triton, OpenVINO Model Server, KServe, ``sut serve``.

The device is the server's URL, and several share the work: each lane has one request in flight, and takes its next
batch when that is answered. What crosses is what the server's metadata asks for: the model's input, or a picture that
it preprocesses itself, as its file or its pixels (then the preprocessor is ``server``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import Attestation, Backend, ModelFile, Runner, Slot, TensorSpec, Traffic, import_runtime
from backends.kserve_client import (
    Call,
    Client,
    Endpoint,
    Late,
    Rejected,
    Reply,
    Shared,
    Tensor,
    Unreachable,
    check_certificate,
    endpoint_of,
    is_url,
)
from backends.kserve_memory import Memory
from backends.kserve_tensors import ANSWER, DATATYPES, UNREADABLE, spec_of, to_bytes, wire_of
from plugins.errors import DeviceNotFound
from plugins.options import option

_MOST_ROWS = 1024
_TIMES = {"queue_ns": "queue", "preprocess_ns": "preprocess", "compute_ns": "compute"}
"""What ``sut serve`` tells with each answer, and the parts of ``infer`` that it becomes."""
_TELLS_TIMES = "response_times"
_IS_IT_ONE = "is it a server of the open inference protocol?"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server is asked."""

    model: str | None = option(None, "what the server calls the model; default the name of --model")
    version: str | int | None = option(None, "which version of it; needed where the server has several")
    timeout_s: float = option(30.0, "seconds that a request may take", least=0.01, most=3600, unit="seconds")
    certificate: str | None = option(None, "PEM file of who signs for the server, in the place of the system's")
    shared_memory: bool = option(False, "put inputs into memory that a server on this host maps")

    @property
    def which(self) -> str:
        """The version as the protocol names it, which a command line may have read as a number; empty: none named."""
        return "" if self.version is None else str(self.version)


class KServe(Backend):
    """A model on a server. Loading it is asking the server what it has."""

    name = "kserve"
    needs_model = False
    model_elsewhere = True
    options = ServerOptions
    precisions: ClassVar[Mapping[str, str]] = dict.fromkeys(("fp32", "fp16", "bf16", "int8"), "fp32")

    def __init__(self, endpoint: Endpoint, client: Client, model: ModelFile, options: ServerOptions) -> None:
        """Raises ``DeviceNotFound`` where no server answers, ``ValueError`` for a model that it does not have."""
        self._endpoint, self._client = endpoint, client
        self._model_file, self._options = model, options
        name = options.model or model.name
        try:
            self._server = client.server()
            told = _model(client, name, options.which, endpoint)
            self._config = self._configured(name, options.which)
        except Unreachable as error:
            raise DeviceNotFound(f"no server answers: {error}; is it started, and its address right?") from error
        except Rejected as error:
            raise ValueError(f"not understood: {error}; {_IS_IT_ONE}") from error
        try:
            self._understand(told, model.sample_shape)
        except UNREADABLE as error:
            raise ValueError(
                f"{endpoint.url}: {type(error).__name__} in its metadata: {error}; {_IS_IT_ONE}"
            ) from error
        if not options.which and len(self._versions) > 1:
            versions = ", ".join(self._versions)
            raise ValueError(
                f"{endpoint.url} has versions {versions} of {name}; name one: --set backend_options.version=..."
            )
        version = options.which or self._versions[0]
        self._call = Call(name, version, tuple(each.name for each in self.outputs))
        self.places = {"jpeg": ("files",), "pixels": ("pixels",), "tensor": ("host",)}[self.wire]
        self.reads_host_arrays = not options.shared_memory
        self._shares = options.shared_memory
        self._runners: list[KServeRunner] = []
        if self._shares and self.wire != "tensor":
            raise ValueError("shared_memory is for tensors of one size; pictures that the server preprocesses are sent")

    def _understand(self, told: Mapping[str, Any], sample_shape: tuple[int, ...] | None) -> None:
        """Take from the metadata what is needed of it. Raises one of ``UNREADABLE`` for what is none."""
        inputs = [_spec(each) for each in told["inputs"]]
        self.wire = wire_of(inputs[0]) if len(inputs) == 1 else "tensor"
        self.inputs = tuple(_spec(each, sample_shape if self.wire == "tensor" else None) for each in told["inputs"])
        self.outputs = tuple(_spec(each) for each in told["outputs"])
        self._versions = [str(each) for each in told.get("versions") or ("",)]
        self._platform = str(told.get("platform", ""))
        self.batch_sizes = self._sizes()
        parameters = self._config.get("parameters") or {}
        self._facts = {key: str(value.get("string_value", "")) for key, value in parameters.items()}
        self.details = tuple(_TIMES.values()) if _TELLS_TIMES in (self._server.get("extensions") or ()) else ()

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Ask the server at ``device``; no file of ``model`` is read, and what threads there are is its own affair."""
        chosen: ServerOptions = cls.read_options(options)
        certificate = Path(chosen.certificate).expanduser() if chosen.certificate else None
        if certificate is not None and not certificate.is_file():
            raise ValueError(f"{certificate}: no such file; the option certificate takes a PEM file")
        if certificate is not None:
            check_certificate(certificate)
        endpoint = endpoint_of(device, chosen.timeout_s, certificate)
        with ExitStack() as stack:
            client = connect(endpoint)
            stack.callback(client.close)
            made = cls(endpoint, client, model, chosen)
            stack.pop_all()
        return made

    @classmethod
    def devices(cls) -> list[str]:
        """None has a name of its own: see ``takes_device``."""
        return []

    @classmethod
    def takes_device(cls, word: str) -> bool:
        """A URL."""
        return is_url(word)

    @classmethod
    def check_device(cls, device: str) -> None:
        """Raises ``ValueError`` for what is no URL, ``ModuleNotFoundError`` without the client's package."""
        import_runtime("kserve", "tritonclient", "tritonclient.grpc", "'tritonclient[grpc]'")
        if not is_url(device):
            raise DeviceNotFound(
                f"the backend kserve asks a server, got device '{device}': add --device grpc://HOST:PORT or http://"
            )
        endpoint_of(device, 1.0, None)

    @classmethod
    def version(cls) -> str:
        """Of the client's package."""
        from importlib.metadata import version

        return version("tritonclient")

    def runner(self, place: str = "host") -> Runner:
        """One with a connection of its own."""
        specs = (self.inputs, self.outputs)
        made = KServeRunner(connect(self._endpoint), self._call, specs, self.places[0], self.details, self._shares)
        self._runners.append(made)
        return made

    def traffic(self) -> Traffic:
        """What its runners have sent and received so far."""
        return sum((each.traffic for each in self._runners), Traffic())

    def round_trip(self) -> str:
        """Ask by a connection of its own: the one that there is may have been closed since."""
        with closing(connect(self._endpoint)) as client:
            told = client.server()
        return f"{told.get('name', '')} {told.get('version', '')} at {self._endpoint.url}".lstrip()

    def check_unchanged(self) -> None:
        """Ask anew: connections are made anew where a server ended them, and another may be at its address by now."""
        with closing(connect(self._endpoint)) as client:
            options = replace(self._options, version=self._call.version)
            was, now = self.attest(), type(self)(self._endpoint, client, self._model_file, options).attest()
        if was != now:
            raise Rejected(f"{self._endpoint.url} is another than at the begin: {_told_apart(was, now)}; run it again")

    def attest(self) -> Attestation:
        """What the server says of itself and of the model; ``unknown`` for a precision that it does not tell."""
        told = self._facts
        name, version = str(self._server.get("name", "")), str(self._server.get("version", ""))
        facts = {f"server_{key}": value for key, value in told.items() if value and key != "precision"}
        if self.outputs == (ANSWER,):
            facts["answers"] = "ready"
        return Attestation(
            device=self._endpoint.url,
            device_name=f"{name} {version}".strip(),
            provider=f"{name} {version}".strip(),
            precision=told.get("precision") or "unknown",
            model=" ".join(filter(None, (self._call.model, self._call.version, told.get("sha256", "")))),
            details={"platform": self._platform, "wire": self.wire, **facts},
        )

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _configured(self, name: str, version: str) -> Mapping[str, Any]:
        """The model's configuration where the server tells it; empty elsewhere."""
        try:
            return self._client.config(name, version)
        except Rejected as error:
            if error.unknown or "model_configuration" not in (self._server.get("extensions") or ()):
                return {}
            raise

    def _sizes(self) -> tuple[int, ...] | None:
        """Batch sizes: up to what the configuration allows, or the one that the metadata tells."""
        fixed = self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else None
        if fixed is not None:
            return (fixed,)
        most = int(self._config.get("max_batch_size") or 0)
        return tuple(range(1, min(most, _MOST_ROWS) + 1)) if most else None


def _model(client: Client, name: str, version: str, endpoint: Endpoint) -> Mapping[str, Any]:
    """The metadata of a model that is loaded."""
    try:
        told = client.model(name, version)
    except Rejected as error:
        which = f"{name} version {version}" if version else name
        raise ValueError(
            f"the server has no model {which} ({error}); name it by the option model (--set backend_options.model=...)"
        ) from error
    if not client.is_ready(name, version):
        raise DeviceNotFound(f"{endpoint.url} has the model {name}, but it is not ready; has the server loaded it?")
    return told


def _told_apart(was: Attestation, now: Attestation) -> str:
    """The first thing that two servers tell differently."""
    before, after = ({**asdict(each), **each.details} for each in (was, now))
    names = (name for name in (*before, *after) if name != "details")
    name = next(name for name in names if before.get(name) != after.get(name))
    return f"{name} was {before.get(name) or 'not told'}, is {after.get(name) or 'not told'}"


def _spec(told: Mapping[str, Any], sample_shape: tuple[int, ...] | None = None) -> TensorSpec:
    return spec_of(str(told["name"]), str(told["datatype"]), told["shape"], sample_shape)


def connect(endpoint: Endpoint) -> Client:
    """A connection of its own, which is opened when it is needed."""
    if endpoint.scheme.startswith("grpc"):
        from backends.kserve_grpc import GrpcClient

        return GrpcClient(endpoint)
    from backends.kserve_http import HttpClient

    return HttpClient(endpoint)


class KServeRunner(Runner):
    """Sends a slot's rows, and waits for the answer. Pictures of different sizes go one by one."""

    def __init__(
        self,
        client: Client,
        call: Call,
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        place: str,
        details: tuple[str, ...],
        shares: bool,
    ) -> None:
        """``specs`` of inputs and outputs."""
        self._client, self._call, self._place = client, call, place
        self._inputs, self._outputs = specs
        self._late: tuple[float, str] = (0.0, "")
        """Until when a server that was late is not asked again, in s of the monotonic clock, and what it was."""
        self.details_ns = (0,) * len(details)
        self._times = tuple(key for key, detail in _TIMES.items() if detail in details)
        self._buffers: dict[str, NDArray[Any]] = {}
        self._rows = 0
        self._memory = Memory(client) if shares else None
        self.traffic = Traffic()

    def slot(self, n: int) -> Slot:
        """Rows of buffers that grow to the largest batch; of pictures, objects."""
        if n > self._rows:
            self._rows = n
            self._buffers = {each.name: self._buffer(each, n) for each in self._inputs}
        return Slot(n, {name: buffer[:n] for name, buffer in self._buffers.items()}, self._place)

    def _buffer(self, spec: TensorSpec, n: int) -> NDArray[Any]:
        if self._place != "host":
            return np.empty(n, object)
        shape = (n, *spec.sample_shape)
        if self._memory is not None:
            return self._memory.array(spec.name, shape, spec.dtype)
        return np.zeros(shape, spec.dtype)

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """Have the server answer. Raises ``Unreachable`` or ``Rejected``, which fail the batch: nothing is repeated."""
        if self._place == "pixels":
            return self._pictures(slot)
        return self._ask([self._tensor(spec, slot.buffers[spec.name]) for spec in self._inputs], slot.n)

    def _tensor(self, spec: TensorSpec, buffer: NDArray[Any]) -> Tensor:
        if self._place == "files":
            return Tensor(spec.name, "BYTES", (len(buffer), 1), to_bytes(buffer))
        body: NDArray[Any] | Shared = buffer
        if self._memory is not None:
            body = Shared(self._memory.region(spec.name), buffer.nbytes)
        return Tensor(spec.name, DATATYPES[spec.dtype], buffer.shape, body)

    def _pictures(self, slot: Slot) -> Mapping[str, Any]:
        """Pictures of one size in one request, of several one by one."""
        [spec], [buffer] = self._inputs, slot.buffers.values()
        pictures = list(buffer)
        batches = [pictures] if len({each.shape for each in pictures}) == 1 else [[each] for each in pictures]
        found = []
        spent = [0] * len(self._times)
        for batch in batches:
            rows = batch[0][np.newaxis] if len(batch) == 1 else np.stack(batch)
            found.append(self._ask([Tensor(spec.name, "UINT8", rows.shape, rows)], len(batch)))
            spent = [sum(each) for each in zip(spent, self.details_ns, strict=True)]
        self.details_ns = tuple(spent)
        if len(found) == 1:
            return found[0]
        return {name: np.concatenate([each[name] for each in found]) for name in self._call.outputs}

    def _ask(self, tensors: list[Tensor], rows: int) -> Mapping[str, Any]:
        reply = self._in_time(tensors)
        if reply.version != self._call.version and self._call.version and reply.version:
            raise Rejected(f"version {reply.version} of {self._call.model} answered, expected {self._call.version}")
        for spec in self._outputs:
            _check_output(spec, reply.outputs.get(spec.name), rows)
        sent = sum(_size(each.body) for each in tensors)
        self.traffic += Traffic(1, sent, reply.received_bytes)
        self.details_ns = tuple(reply.times_ns.get(key, 0) for key in self._times)
        return reply.outputs

    def _in_time(self, tensors: list[Tensor]) -> Reply:
        """An answer. A server that gave none in time is left alone for as long: else each batch would wait for it."""
        began, (until, what) = time.monotonic(), self._late
        if began < until:
            raise Late(f"{what}, and was not asked again")
        try:
            return self._client.infer(self._call, tensors)
        except Late as error:
            now = time.monotonic()
            self._late = (now + now - began, str(error))
            raise

    def close(self) -> None:
        """End the connection, and give the memory back."""
        if self._memory is not None:
            self._memory.close()
        self._client.close()


def _check_output(spec: TensorSpec, found: NDArray[Any] | None, rows: int) -> None:
    """Raise ``Rejected`` for what is not what the metadata promised, for a batch of so many rows."""
    if found is None:
        raise Rejected(f"an answer without the output '{spec.name}'")
    shape = (rows, *spec.shape[1:])
    fits = len(shape) == found.ndim and all(a in (None, b) for a, b in zip(shape, found.shape, strict=True))
    if not fits or found.dtype.name != spec.dtype:
        told = f"{spec.dtype} {[-1 if axis is None else axis for axis in shape]}"
        raise Rejected(f"output '{spec.name}' is {found.dtype.name} {list(found.shape)}, expected {told}")


def _size(body: NDArray[Any] | bytes | Shared) -> int:
    """Bytes of a tensor that are sent."""
    if isinstance(body, Shared):
        return 0
    return len(body) if isinstance(body, bytes) else body.nbytes
