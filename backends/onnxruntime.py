"""ONNX Runtime: on the CPU one session for all lanes, on an NVIDIA GPU one for each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from backends.base import Attestation, Backend, ModelFile, Runner, Slot, TensorSpec, fixed_batch
from backends.onnxruntime_cuda import OnGpu, OnnxRuntimeOptions
from backends.onnxruntime_executed import CPU_PROVIDER, Providers, executed, import_ort, loading_failed, spec_of
from backends.onnxruntime_needs import gpus, missing_for_gpu
from plugins.errors import DeviceNotFound


class OnnxRuntime(Backend):
    """A model, loaded on either kind of device; see ``OnCpu`` and ``OnGpu``."""

    name = "onnxruntime"
    precisions: ClassVar[Mapping[str, str]] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}
    options = OnnxRuntimeOptions

    def __init__(self, loaded: OnCpu | OnGpu) -> None:
        self._loaded = loaded
        self.inputs, self.outputs = loaded.inputs, loaded.outputs
        self.batch_sizes, self.places = loaded.batch_sizes, loaded.places
        self.reads_host_arrays = isinstance(loaded, OnCpu)
        self.transfers = isinstance(loaded, OnGpu)

    @classmethod
    def devices(cls) -> list[str]:
        """The CPU, and the driver's GPUs where this build of ONNX Runtime is for them."""
        return ["cpu", *gpus(import_ort())]

    @classmethod
    def precisions_on(cls, device: str) -> Mapping[str, str]:
        """On a CPU there are no kernels for fp16: it would be computed in fp32."""
        return {each: form for each, form in cls.precisions.items() if each != "fp16" or device != "cpu"}

    @classmethod
    def check_device(cls, device: str) -> None:
        """``cpu``, ``cuda`` and ``cuda:N`` are devices; for a GPU it says all that is missing at once."""
        ort = import_ort()
        if device == "cpu":
            return
        is_gpu = re.fullmatch(r"cuda(:\d+)?", device)
        missing = missing_for_gpu(ort, device) if is_gpu else ["it takes cpu, cuda and cuda:N"]
        if missing:
            found = ", ".join(ort.get_available_providers())
            raise DeviceNotFound(
                f"onnxruntime has no device '{device}' here (providers: {found}): {'; '.join(missing)}"
            )

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Open the sessions on ``device`` with ``threads`` intra-op threads a lane."""
        chosen: OnnxRuntimeOptions = cls.read_options(options)
        cls.check_device(device)
        if device != "cpu":
            return cls(OnGpu.load(model, device, lanes, threads, chosen))
        if chosen != OnnxRuntimeOptions():
            raise ValueError(f"the options of {cls.name} ({', '.join(options)}) are for a GPU: add --device cuda")
        return cls(OnCpu(model, lanes, threads))

    @classmethod
    def version(cls) -> str:
        """Version of the installed ONNX Runtime."""
        return str(import_ort().__version__)

    def runner(self, place: str = "host") -> Runner:
        """A new runner."""
        return self._loaded.runner(place)

    def attest(self) -> Attestation:
        """Provider and precision of what executes."""
        return self._loaded.attest()

    def close(self) -> None:
        """Drop the sessions."""
        self._loaded.close()


class OnCpu:
    """A model in one ``InferenceSession``, which any number of lanes may run at once, and which share its threads."""

    places: tuple[str, ...] = ("host",)

    def __init__(self, model: ModelFile, lanes: int, threads: int) -> None:
        """Raises ``ValueError`` for a file that it cannot run."""
        ort = import_ort()
        options = ort.SessionOptions()
        # The session's pool serves all lanes. Each lane's own thread works too, and the pool counts one of them as its
        # own, so this keeps lanes x threads threads busy when all lanes run.
        options.intra_op_num_threads = lanes * (threads - 1) + 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers: Providers = [(CPU_PROVIDER, {})]
        try:
            # ORT's CPU provider executes a graph in the precision it is written in, but of a quantised one those parts
            # in floats for which it has no integer kernels.
            found = executed(ort, model, providers) if model.quantised else None
            self._session = ort.InferenceSession(str(model.path), sess_options=options, providers=providers)
        except Exception as error:
            raise loading_failed(model, error) from error
        self._precision = found.precision if found else model.precision
        self._details = found.details if found else {}
        self.inputs = tuple(spec_of(each, model.sample_shape) for each in self._session.get_inputs())
        self.outputs = tuple(spec_of(each) for each in self._session.get_outputs())
        self.batch_sizes = fixed_batch(self.inputs)

    def runner(self, place: str) -> OnnxRuntimeRunner:
        """A set of input buffers."""
        return OnnxRuntimeRunner(self._session, self.inputs, tuple(spec.name for spec in self.outputs))

    def attest(self) -> Attestation:
        """Provider as the session reports it."""
        providers = self._session.get_providers()
        options = self._session.get_session_options()
        return Attestation(
            device="cpu",
            device_name="",
            provider=providers[0],
            precision=self._precision,
            details={
                **self._details,
                "providers": ",".join(providers),
                "intra_op_num_threads": str(options.intra_op_num_threads),
                "graph_optimization": str(options.graph_optimization_level).rpartition(".")[2],
            },
        )

    def close(self) -> None:
        """Drop the session."""
        self._session = None


class OnnxRuntimeRunner(Runner):
    """Input buffers grown to the largest batch seen; a smaller batch is a view of their first rows."""

    def __init__(self, session: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[str, ...]) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = list(outputs)
        self._buffers: dict[str, Any] = {}
        self._rows = 0

    def slot(self, n: int) -> Slot:
        """Rows are contiguous, so ONNX Runtime reads them where they are."""
        if n > self._rows:
            self._rows = n
            self._buffers = {spec.name: np.zeros((n, *spec.sample_shape), spec.dtype) for spec in self._inputs}
        return Slot(n, {name: buffer[:n] for name, buffer in self._buffers.items()})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """Run the session; the outputs are new arrays."""
        return dict(zip(self._outputs, self._session.run(self._outputs, slot.buffers), strict=True))
