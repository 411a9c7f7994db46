"""ONNX Runtime on an NVIDIA GPU, by its CUDA provider, or by its TensorRT provider with that one behind it.

A stream and CUDA graphs belong to a session, so each lane has a session of its own, on its own stream; input and
output are bound once per batch size, and a batch is one call that is not waited for. None of it has run on a GPU yet:
tests run it over ``tests/fake_onnxruntime.py``, which knows the options and rules of onnxruntime-gpu 1.31.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from backends.base import DOUBLING, Attestation, ModelFile, TensorSpec, fixed_batch
from backends.executed import listed
from backends.on_gpu import TOO_LITTLE_MEMORY, GpuOptions, GpuRunner, SharedGpu, gpu_places
from backends.onnxruntime_executed import CPU_PROVIDER, Node, Providers, executed, import_ort, loading_failed
from backends.onnxruntime_needs import PROVIDERS, why_not
from kernels.gpu_driver import OwnerThread
from kernels.gpu_library import one_line
from plugins.errors import DeviceNotFound
from plugins.options import option

_CUDA = PROVIDERS["cuda"]
_GPU_SAID = re.compile(r"\w+ failure \d+: [^;]*[^; ]|Failed to allocate memory.*")
"""What is worth reading of what ONNX Runtime raises, between places in its sources."""
_ERRORS = 3
"""Of the levels that ONNX Runtime logs at: it warns at each session that there is no other build of the provider."""


@dataclass(frozen=True, slots=True)
class OnnxRuntimeOptions(GpuOptions):
    """What may be set of ONNX Runtime on a GPU."""

    provider: Literal["cuda", "tensorrt"] = option(
        "cuda", "on a GPU, what executes: cuda, or tensorrt (which needs TensorRT 10) with cuda behind it"
    )
    conv_search: Literal["exhaustive", "heuristic"] = option(
        "exhaustive",
        "on a GPU, how cuDNN's algorithm for a convolution and batch size is chosen: all tried in warm-up, or by rule",
    )
    graphs: bool = option(
        False, "on a GPU, a CUDA graph for each batch size, which are powers of two then: smaller batches are padded"
    )
    tf32: bool = option(False, "on a GPU, let fp32 be multiplied in TF32, which has 10 bits of fraction")


class OnGpu:
    """A model on one GPU, in a session for each lane, which holds the weights once more (attested: ``sessions``)."""

    def __init__(self, gpu: SharedGpu, model: ModelFile, lanes: int, threads: int, options: OnnxRuntimeOptions) -> None:
        """Run the model once on zeros, look at each node that was executed, and open the lanes' sessions.

        Raises ``ValueError`` for a file that it cannot run there, ``DeviceNotFound`` where the provider is not made.
        """
        self._gpu, self._options, self._threads = gpu, options, threads
        self._provider = PROVIDERS[options.provider]
        self._ort = import_ort()
        self._ort.set_default_logger_severity(_ERRORS)
        try:
            self._executed = executed(self._ort, model, self._providers(None))
        except Exception as error:
            raise self._not_made() or self._failed(model, error, 0, lanes) from error
        if self._executed.providers[0] != self._provider:
            raise self._not_made() or self._got(self._executed.providers)
        self._check_nodes(model)
        is_known = options.provider == "cuda" and any(node.computes for node in self._executed.nodes)
        self._precision = self._executed.precision if is_known else model.precision
        self.inputs, self.outputs = self._executed.inputs, self._executed.outputs
        self.batch_sizes = fixed_batch(self.inputs) or (DOUBLING if options.graphs else None)
        self.places = gpu_places(gpu.device.index)
        self._lanes: list[tuple[int, Any]] = []
        try:
            for lane in range(lanes):
                stream = gpu.stream()
                self._lanes.append((stream, self._session(model, stream, lane, lanes)))
        except BaseException:
            self._lanes.clear()  # before the streams that they work on
            raise
        self._tf32 = self._lanes[0][1].get_provider_options()[_CUDA]["use_tf32"]
        self._sessions = lanes

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: OnnxRuntimeOptions) -> OnGpu:
        """Open the GPU, ``cuda`` or ``cuda:N``, for this backend alone."""
        if options.graphs and options.provider != "cuda":
            raise ValueError(
                f"the option graphs is for the provider cuda, got {options.provider}: leave one of them out"
            )
        gpu = SharedGpu.open(device, options.overlap)
        try:
            return cls(gpu, model, lanes, threads, options)
        except BaseException:
            gpu.close()
            raise

    def runner(self, place: str) -> OnnxRuntimeGpuRunner:
        """The runner of the next lane."""
        if not self._lanes:
            raise RuntimeError(f"all {self._sessions} lanes of this model have their runner")
        stream, session = self._lanes.pop()
        return OnnxRuntimeGpuRunner(
            self._gpu, place, self.inputs, self.outputs, stream, session, graphs=self._options.graphs
        )

    def attest(self) -> Attestation:
        """Provider as the sessions report it; nodes, precision and kernels as the run on zeros had them."""
        found = self._executed
        details = {
            **found.details,
            "providers": ",".join(found.providers),
            "nodes": listed(Counter(node.provider for node in found.nodes)),
            "sessions": f"{self._sessions}, one for each lane, each with the weights",
            "tf32": "allowed" if self._tf32 == "1" else "off",
            "cuda_graphs": "one for each batch size" if self._options.graphs else "off",
            "gpu": self._gpu.device.details,
        }
        if away := found.not_on(self._provider):
            details["fallback"] = f"not on {self._provider}: {_named(away, with_provider=True)}"
        if self._options.provider == "tensorrt":
            details["tf32"] = "as TensorRT chooses"
            details["precision_of_tensorrt"] = "the file's: what its engines compute in is not told"
        return Attestation(self._gpu.place, self._gpu.device.name, self._provider, self._precision, details)

    def close(self) -> None:
        """Drop the sessions that no runner took, and give back the GPU."""
        self._lanes.clear()
        self._gpu.close()

    def _check_nodes(self, model: ModelFile) -> None:
        """Refuse a model that would execute elsewhere: all that multiplies, and with graphs everything."""
        nodes = self._executed.nodes
        if on_cpu := [node for node in nodes if node.computes and node.provider == CPU_PROVIDER]:
            raise ValueError(
                f"{model.path}: onnxruntime has no kernel on the GPU for {_named(on_cpu)}, and the CPU executes it: "
                "run the model on cpu"
            )
        if self._options.graphs and (away := self._executed.not_on(_CUDA)):
            raise ValueError(
                f"{model.path}: CUDA graphs need every node on the GPU, but the CPU executes {_named(away)}: "
                "leave the option graphs out"
            )
        if all(node.provider != self._provider for node in nodes):
            raise ValueError(f"{model.path}: {self._provider} executes no node of it; leave the option provider out")

    def _session(self, model: ModelFile, stream: int, lane: int, lanes: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = self._ort.InferenceSession(
                str(model.path), sess_options=options, providers=self._providers(stream), enable_fallback=0
            )
        except Exception as error:
            raise self._failed(model, error, lane, lanes) from error
        if session.get_providers()[0] != self._provider:
            raise self._got(session.get_providers())
        return session

    def _providers(self, stream: int | None) -> Providers:
        """The providers with their options; without a ``stream``, for a look at the nodes, quickly made ones."""
        shared = {"device_id": str(self._gpu.device.index)}
        if stream is not None:
            shared["user_compute_stream"] = str(stream)
        cuda = {**shared, "use_tf32": str(int(self._options.tf32))}
        cuda["cudnn_conv_algo_search"] = "HEURISTIC" if stream is None else self._options.conv_search.upper()
        if stream is not None:
            cuda |= {"has_user_compute_stream": "1", "enable_cuda_graph": str(int(self._options.graphs))}
        tensorrt = [(self._provider, shared)] if self._options.provider == "tensorrt" else []
        return [*tensorrt, (_CUDA, cuda)]

    def _failed(self, model: ModelFile, error: Exception, lane: int, lanes: int) -> Exception:
        """What to raise where a session cannot be made behind so many: what the GPU says is not the file's fault."""
        name = self._gpu.device.name
        if TOO_LITTLE_MEMORY.search(str(error)):
            return ValueError(
                f"{model.path}: the memory of {name} takes {lane} of {lanes} lanes, each with the weights in a session "
                f"of its own ({_reason(error)}): use fewer lanes, or free memory"
            )
        if _GPU_SAID.search(str(error)):
            return RuntimeError(f"onnxruntime cannot load {model.path} on {name}: {_reason(error)}")
        return loading_failed(model, error)

    def _not_made(self) -> DeviceNotFound | None:
        """Why the provider is not there, if a library of it is missing."""
        missing = why_not(self._ort, self._options.provider)
        return DeviceNotFound(f"onnxruntime cannot make {self._provider}: {missing}") if missing else None

    def _got(self, providers: Sequence[str]) -> DeviceNotFound:
        return DeviceNotFound(f"asked onnxruntime for {self._provider}, got {', '.join(providers)}")


class OnnxRuntimeGpuRunner(GpuRunner):
    """A lane's session, with a binding of its input and output for each batch size.

    With graphs, ONNX Runtime keeps what it captured for the thread that did: so a thread of the runner's own runs the
    session, whoever calls (20 us to change threads and back, measured on a CPU). It replays by an id, whatever is
    bound: so each binding has one that no other had, nor those from before the buffers moved.
    """

    def __init__(
        self,
        gpu: SharedGpu,
        place: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        stream: int,
        session: Any,
        *,
        graphs: bool,
    ) -> None:
        """``session`` works on ``stream``. Raises as ``GpuRunner``."""
        super().__init__(gpu, place, inputs, outputs, stream)
        self._session = session
        self._bindings: dict[int, tuple[Any, Any]] = {}
        self._graph_ids = count(1)
        self._thread = OwnerThread("CUDA graphs") if graphs else None

    def _bind(self, n: int) -> None:
        binding = self._session.io_binding()
        for specs, bind in ((self._specs, binding.bind_input), (self._output_specs, binding.bind_output)):
            for spec in specs:
                shape, address = (n, *spec.sample_shape), self._memory[spec.name].address
                bind(spec.name, "cuda", self._device.index, spec.dtype, shape, address)
        options = import_ort().RunOptions()
        # The model's end is waited for on the stream, behind the copy of its output.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        options.add_run_config_entry("gpu_graph_id", str(next(self._graph_ids)))
        self._bindings[n] = binding, options
        # The first run of a size takes the memory that it needs, finds cuDNN's algorithms, and captures the graph.
        try:
            self._start(n)
        except Exception as error:
            if TOO_LITTLE_MEMORY.search(str(error)):
                raise MemoryError(_reason(error)) from error
            raise
        self._device.synchronize(self.stream)

    def _unbind(self) -> None:
        self._bindings.clear()

    def _start(self, n: int) -> None:
        binding, options = self._bindings[n]
        if self._thread is None:
            self._session.run_with_iobinding(binding, options)
        else:
            self._thread(lambda: self._session.run_with_iobinding(binding, options))

    def close(self) -> None:
        """Drop the session, and what it works on."""
        super().close()
        self._session = None
        if self._thread is not None:
            self._thread.close()


def _reason(error: Exception) -> str:
    found = _GPU_SAID.search(one_line(error))
    return found[0] if found else one_line(error)


def _named(nodes: Iterable[Node], *, with_provider: bool = False) -> str:
    return ", ".join(
        f"{node.operator} '{node.name}'{f' on {node.provider}' if with_provider else ''}" for node in nodes
    )
