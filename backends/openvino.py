"""OpenVINO: one compiled model for all lanes, an infer request with its own input buffers per lane.

It runs ONNX files and OpenVINO's own (IR: an ``.xml`` beside a ``.bin``). What precision executes is its own decision,
made layer by layer after the CPU it finds; the hint it is given is a wish. So what executes is read from the graph that
it made, after it could be executed once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import Attestation, Backend, ModelFile, Runner, Slot, TensorSpec, closed, fixed_batch, import_runtime
from backends.executed import NATIVE_BF16, emulated, executed_precision, listed, shares
from plugins.cpuinfo import read_cpuinfo
from plugins.errors import DeviceNotFound
from plugins.options import Tuned, option

_HINT = "INFERENCE_PRECISION_HINT"
_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""Inference precision hints. Without one, OpenVINO executes an fp32 file in bf16 where the CPU has AMX."""
_EXECUTED = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
_COMPUTE = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
"""Layers that multiply and accumulate, as the executed graph calls them."""
_MOST = 99_999
"""Streams, or rows of a batch: more is a slip of the hand."""
_NOISE = re.compile(r"(?:Exception from|Check '[^\n]*?' failed at) \S+?:\d+:\s*")
"""Where in its sources OpenVINO gave up; the reason follows."""


@dataclass(frozen=True, slots=True)
class OpenVinoOptions:
    """What may be set of OpenVINO."""

    hint: Literal["auto", "latency", "throughput"] = option(
        "auto", "latency or throughput: what OpenVINO chooses the number of streams for; auto: one for each lane"
    )
    # A stream executes one request at a time, and the streams share the threads. Half as many as lanes let a lane get
    # its next batch ready while another's executes, without more threads than cores. More streams than lanes would
    # idle, and their threads with them; fewer make lanes wait for each other.
    streams: int | None = option(
        None,
        "how many requests execute at once, sharing the threads: the lanes, or what hint chooses",
        least=1,
        most=_MOST,
        tune=Tuned(lambda lanes: lanes // 2, unless=("hint",)),
    )
    # Compiled for one batch size, Lite0 and ResNet-50 took 3 to 10 % less time at batch 1 and at 8, less than padding
    # costs where batches are smaller, and nobody tells load the sizes: so any batch size is the default.
    shape: Literal["dynamic"] | int = option(
        "dynamic",
        "dynamic (any batch size), or the one batch size to compile for: smaller batches are padded",
        least=1,
        most=_MOST,
    )


class OpenVino(Backend):
    """A model compiled once, which as many requests as there are lanes run at once."""

    name = "openvino"
    # The runtime converts an fp32 file to fp16 and bf16 itself, and keeps inputs and outputs as they are in the file.
    precisions: ClassVar[Mapping[str, str]] = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32", "int8": "int8-openvino"}
    reads = (".onnx", ".xml")
    options = OpenVinoOptions
    reads_host_arrays = True

    def __init__(self, compiled: Any, device: str, network: Any, more: Mapping[str, str] = {}) -> None:
        """``compiled`` on OpenVINO's ``device`` from ``network``, the model as it was read; ``more`` is attested."""
        self._compiled = compiled
        self.inputs = tuple(_spec(port, index, "input") for index, port in enumerate(compiled.inputs))
        self.outputs = tuple(_spec(port, index, "output") for index, port in enumerate(compiled.outputs))
        self.batch_sizes = fixed_batch(self.inputs)
        attested = _attest(compiled, device, self.inputs, _weights(network))
        self._attested = replace(attested, details={**attested.details, **more})

    @classmethod
    def devices(cls) -> list[str]:
        """OpenVINO's names in small letters, a GPU always with its number: ``cpu``, ``gpu.0``, ``npu``."""
        return list(_devices())

    @classmethod
    def check_device(cls, device: str) -> None:
        """Raise ``DeviceNotFound`` for a device that OpenVINO does not list; ``CPU`` is ``cpu``."""
        if device.lower() in (found := _devices()):
            return
        hint = ""
        if device.lower().startswith(("gpu", "cuda")):
            hint = (
                "; it runs on Intel GPUs only, as gpu.0, where their compute driver is installed (on Debian: "
                "apt install intel-opencl-icd)"
            )
        raise DeviceNotFound(f"openvino has no device '{device}' here; it has {', '.join(found)}{hint}")

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Compile the model for lanes x threads threads in all, and run it once on zeros."""
        chosen: OpenVinoOptions = cls.read_options(options)
        config = _config(model.precision, lanes, threads, chosen, on_cpu=device.lower() == "cpu")
        cls.check_device(device)
        core = _import().Core()
        try:
            network, on = _read(core, model, chosen.shape), _devices()[device.lower()]
            try:
                return cls(core.compile_model(network, on, config), device, network)
            except RuntimeError as error:
                if (model.precision, config.get(_HINT)) != ("int8", "bf16"):
                    raise
                # bf16 is our choice, not the user's: what runs without it is run.
                refused = f"OpenVINO cannot run this file with bf16 beside int8 ({_reason(error)}): it has fp32 there"
            compiled = core.compile_model(network, on, {**config, _HINT: "f32"})
            return cls(compiled, device, network, {"fallback": refused})
        except RuntimeError as error:
            # All its errors are RuntimeErrors; whichever step failed, it cannot run this file.
            raise ValueError(f"{model.path}: openvino cannot run it: {_reason(error)}") from error

    @classmethod
    def version(cls) -> str:
        """Version of the installed OpenVINO, without its build."""
        return str(_import().get_version()).partition("-")[0]

    def runner(self, place: str = "host") -> OpenVinoRunner:
        """A new request."""
        streams = int(self._attested.details.get("num_streams", 1))
        outputs = tuple(spec.name for spec in self.outputs)
        return OpenVinoRunner(self._compiled.create_infer_request(), streams, self.inputs, outputs)

    def attest(self) -> Attestation:
        """What the graph says that executes; for its precision see ``executed_precision``."""
        return self._attested

    def close(self) -> None:
        """Drop the compiled model."""
        self._compiled = None


class OpenVinoRunner(Runner):
    """Input buffers grown to the largest batch seen, which the request reads where they are."""

    def __init__(self, request: Any, streams: int, inputs: tuple[TensorSpec, ...], outputs: tuple[str, ...]) -> None:
        self._request = request
        self._streams = streams
        self._tensor = _import().Tensor
        self._inputs = inputs
        self._outputs = outputs
        self._rows = 0
        self._buffers: dict[str, NDArray[Any]] = {}
        self._slots: dict[int, Slot] = {}
        self._bound: Slot | None = None
        self._held: list[NDArray[Any]] = []

    def slot(self, n: int) -> Slot:
        """The same slot for the same ``n``, so that the request need not be told of it again."""
        if n > self._rows:
            self._rows = n
            self._buffers = {spec.name: np.zeros((n, *spec.sample_shape), spec.dtype) for spec in self._inputs}
            self._slots = {}
        if (slot := self._slots.get(n)) is None:
            slot = self._slots[n] = Slot(n, {name: buffer[:n] for name, buffer in self._buffers.items()})
        return slot

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """Run the request; the outputs are views of its own memory."""
        if slot is not self._bound:
            self._bind(slot)
        # infer() would save two thread switches (0.03 ms), but with one stream it loses what a layer raises: OpenVINO
        # 2026.4 then returns as if all were well, and its next call runs the failed batch again. wait() raises.
        self._request.start_async()
        try:
            self._request.wait()
        except RuntimeError:
            self._settle()
            raise
        return {name: self._request.get_output_tensor(index).data for index, name in enumerate(self._outputs)}

    def _settle(self) -> None:
        """After a layer refused a batch size: run one row, which went through when the model was loaded.

        A graph keeps the shapes that it got to before it failed, and would fail at the size it last ran, too, until
        another size went through. Idle streams take turns, so as many rows as there are streams reach them all.
        """
        with suppress(RuntimeError):
            if any(spec.shape[0] is None for spec in self._inputs):
                self._bind(self.slot(1))
                for _ in range(self._streams):
                    self._request.start_async()
                    self._request.wait()

    def _bind(self, slot: Slot) -> None:
        """Let the request read the slot's buffers where they are. It does not keep them alive, so this does."""
        self._bound = None
        held = []
        for position, spec in enumerate(self._inputs):
            array = slot.buffers[spec.name]
            # OpenVINO refuses memory that it may not write, though it only reads its inputs.
            held.append(array if array.flags.writeable else array.copy())
            self._request.set_input_tensor(position, self._tensor(held[-1], shared_memory=True))
        self._held = held
        if all(array is slot.buffers[spec.name] for array, spec in zip(held, self._inputs, strict=True)):
            self._bound = slot

    def close(self) -> None:
        """Drop the request."""
        self._request = None


def _attest(
    compiled: Any, device: str, inputs: tuple[TensorSpec, ...], weights: Mapping[str, list[int]]
) -> Attestation:
    """Run the model once on zeros, so that what cannot execute is known now, and look at the graph that it became.

    ``weights`` has the shape of every convolution's weights, by its name in the model.
    """
    zeros = [np.zeros((spec.shape[0] or 1, *spec.sample_shape), spec.dtype) for spec in inputs]
    request = compiled.create_infer_request()
    for position, array in enumerate(zeros):
        request.set_input_tensor(position, _import().Tensor(array, shared_memory=True))
    request.start_async()
    request.wait()
    layers, work, kernels = _executed(compiled, weights)
    [on] = compiled.get_property("EXECUTION_DEVICES")
    details = {
        "layers": listed(layers) or "none that multiplies and accumulates",
        "multiply_accumulates": shares(work),
        "kernels": listed(+kernels),
        "build": _import().get_version(),
    }
    if on == "CPU" and (note := emulated(work, read_cpuinfo().flags)):
        details["emulated"] = note
    # A device raises for a property that is another's: an Intel GPU has no INFERENCE_NUM_THREADS.
    known = compiled.get_property("SUPPORTED_PROPERTIES")
    for key in ("NUM_STREAMS", "INFERENCE_NUM_THREADS", "PERFORMANCE_HINT"):
        if key in known:
            details[key.lower()] = str(compiled.get_property(key))
    return Attestation(
        device=device if _name(on) == device.lower() else _name(on),
        device_name=_import().Core().get_property(on, "FULL_DEVICE_NAME"),
        provider=f"OpenVINO {on}",
        precision=executed_precision(work),
        details=details,
    )


def _executed(compiled: Any, weights: Mapping[str, list[int]]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """What multiplies and accumulates in the graph: layers and work by precision, layers by kernel."""
    layers: Counter[str] = Counter()
    work: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        kind, name, kernel = (info[key].astype(str) for key in ("layerType", "runtimePrecision", "primitiveType"))
        if kind in _COMPUTE:
            # Weights kept in float16 give their name to a layer whose kernel converts them and computes in float32.
            if name == "f16" and node.input(0).get_element_type().get_type_name() == "f32":
                name = "f32"
            layers["u8/i8" if name in ("u8", "i8") else name] += 1
            work[_EXECUTED.get(name, name)] += _multiply_accumulates(node, kind, weights)
            # There is a graph per stream, and the one shown may have no kernels yet for what waits for a batch size.
            kernels[kernel] += not kernel.startswith("undef")
    return layers, work, kernels


def _weights(network: Any) -> dict[str, list[int]]:
    """Shapes of the weights of a model's convolutions, by their names."""
    operations = (each for each in network.get_ordered_ops() if "Convolution" in each.get_type_name())
    return {each.get_friendly_name(): _axes(each.input(1)) for each in operations}


def _multiply_accumulates(node: Any, kind: str, weights: Mapping[str, list[int]]) -> int:
    """Of one layer. Weights are (out, in, ...) or (groups, out, in, ...): one output takes those of its channel."""
    data, out = _axes(node.input(0)), _axes(node.output(0))
    if kind not in ("Convolution", "Deconvolution"):
        return prod(data) * out[-1]
    # From the model, as the graph that a GPU executes is shown without constants.
    names = node.get_rt_info()["originalLayersNames"].astype(str).split(",")
    taken = next((weights[name] for name in names if name in weights), None) or _axes(node.input(1))
    channels = out[1] if kind == "Convolution" else data[1]
    return prod(out if kind == "Convolution" else data) * prod(taken) // channels


def _shape(port: Any) -> tuple[int | None, ...]:
    """Of a tensor; None for an axis that is open."""
    return tuple(axis.get_length() if axis.is_static else None for axis in port.get_partial_shape())


def _axes(port: Any) -> list[int]:
    """Shape of a tensor; 1 for an axis that is open."""
    return [1 if axis is None else axis for axis in _shape(port)]


def _config(precision: str, lanes: int, threads: int, options: OpenVinoOptions, *, on_cpu: bool) -> dict[str, Any]:
    """Properties to compile with."""
    config: dict[str, Any] = {}
    if precision != "int8":
        config[_HINT] = _HINTS[precision]
    elif on_cpu:
        # What the file leaves unquantised, a third of Lite0's layers, makes all of it 8 % (batch 1) to 30 % (batch 8)
        # faster in bf16; not where that would be emulated.
        config[_HINT] = "bf16" if read_cpuinfo().flags & NATIVE_BF16 else "f32"
    hint, streams = options.hint, options.streams
    if hint == "auto":
        streams = streams or lanes
        hint = "latency" if streams == 1 else "throughput"
    config["PERFORMANCE_HINT"] = hint.upper()
    if streams is not None:
        config["NUM_STREAMS"] = streams
    if on_cpu:
        config["INFERENCE_NUM_THREADS"] = lanes * threads
    return config


def _read(core: Any, model: ModelFile, rows: str | int) -> Any:
    """The file with the axes closed that it leaves open, and the batch if it is to be compiled for a number of rows."""
    network = core.read_model(model.path)
    shapes = {}
    for port in network.inputs:
        axes = [-1 if axis is None else axis for axis in closed(_shape(port), model.sample_shape)]
        if axes and isinstance(rows, int):
            axes[0] = rows
        shapes[port] = axes
    network.reshape(shapes)
    return network


def _devices() -> dict[str, str]:
    """OpenVINO's devices by the name that ``--device`` takes."""
    return {_name(device): device for device in _import().Core().available_devices}


def _name(device: str) -> str:
    """An OpenVINO device as ``--device`` has it; the only GPU of a machine is listed without a number."""
    return "gpu.0" if device == "GPU" else device.lower()


def _reason(error: Exception) -> str:
    return " ".join(_NOISE.sub("", str(error)).split())


def _spec(port: Any, index: int, kind: str) -> TensorSpec:
    """What a compiled model says of a tensor; a tensor without a name is called after its place.

    OpenVINO merges an output with the tensor that it is a plain copy of, which then has both names: the output's own is
    the one that its node is called after.
    """
    own = port.get_node().get_friendly_name().rpartition("/sink_port_")[0]
    name = own if own in port.get_names() else port.get_any_name() if port.get_names() else f"{kind}{index}"
    return TensorSpec.of(name, np.dtype(port.get_element_type().to_dtype()).name, _shape(port))


def _import() -> Any:
    return import_runtime("openvino", "OpenVINO", "openvino", "openvino")
