"""onnxruntime-gpu that is not there: the CPU's ONNX Runtime, over the memory and streams of ``tests/fake_gpu.py``.

``plug_in`` puts it in the place of the module. Its sessions take the provider options of onnxruntime-gpu 1.31.1, and
raise for others as that does (tried with the real one, which reads them before it needs a GPU). What a session runs it
reads from addresses when its stream comes to it; graphs belong to a thread, and replay what they captured whatever is
bound since. Another session than the one that a binding is of, another dtype or shape than the model's raise.
"""

from __future__ import annotations

import json
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from backends import onnxruntime_needs
from plugins.driver import Installed
from tests import fake_gpu
from tests.fake_gpu import FakeDriver, FakeGpuError

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
NS_A_ROW = 50_000.0
"""What a session takes on the clock of the GPU."""
OPTIONS = {
    CUDA: {
        *("device_id", "user_compute_stream", "has_user_compute_stream", "enable_cuda_graph", "use_tf32"),
        *("arena_extend_strategy", "cudnn_conv1d_pad_to_nc1d", "cudnn_conv_algo_search"),
        *("cudnn_conv_use_max_workspace", "do_copy_in_default_stream", "enable_cudnn"),
        *("enable_skip_layer_norm_strict_mode", "fuse_conv_bias", "gpu_mem_limit", "prefer_nhwc"),
        "use_ep_level_unified_stream",
    },
    TENSORRT: {"device_id", "user_compute_stream"},
    CPU: {"use_arena"},
}
"""Of the CUDA provider all that is known; of TensorRT's what was tried: it does not know has_user_compute_stream."""
_FLAGS = ("has_user_compute_stream", "enable_cuda_graph", "use_tf32")
_TYPES = {"tensor(float)": "float32"} | {f"tensor({name})": name for name in ("float16", "int64", "uint8")}

Bound = dict[str, tuple[int, tuple[int, ...], str]]
"""Address, shape and dtype by the name of an input or output."""


@dataclass
class FakeOrt:
    """What the module is made of. The fields are for tests to set.

    ``on_cpu`` are operators without a kernel on the GPU; ``half`` has what multiplies told as float16, which the CPU
    computes in float32; ``bytes_a_row`` a batch takes beside its input and output; ``at_batch`` is called when a stream
    comes to one; ``captures`` are the graphs so far, each with its thread and id.
    """

    driver: FakeDriver
    on_cpu: tuple[str, ...] = ()
    half: bool = False
    providers: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    bytes_a_row: int = 0
    at_batch: Callable[[Mapping[str, Any], int], None] = lambda feed, gpu: None
    captures: list[tuple[int, int]] = field(default_factory=list)
    sessions: list[weakref.ref[Any]] = field(default_factory=list)
    more: tuple[FakeDriver, ...] = ()
    """Further GPUs."""

    def driver_of(self, given: Mapping[str, Mapping[str, str]]) -> FakeDriver:
        """The GPU that a session's providers name, or the first."""
        number = next((int(each["device_id"]) for each in given.values() if "device_id" in each), self.driver.index)
        [found] = [each for each in (self.driver, *self.more) if each.index == number]
        return found

    def module(self) -> ModuleType:
        """What ``import onnxruntime`` gives; whatever else is asked of it is the real one's."""
        import onnxruntime as real

        fake = self

        class InferenceSession(FakeSession):
            def __init__(self, path: str, sess_options: Any = None, providers: Any = None, **kwargs: Any) -> None:
                super().__init__(fake, real, path, sess_options, providers, **kwargs)

        module = ModuleType("onnxruntime")
        module.__dict__.update(
            {name: value for name, value in vars(real).items() if not name.startswith("_")},
            __file__=real.__file__,
            __version__=real.__version__,
            cuda_version="13.0",
            get_available_providers=lambda: list(fake.providers),
            preload_dlls=lambda: None,
            InferenceSession=InferenceSession,
        )
        return module


def plug_in(driver: FakeDriver, *more: FakeDriver) -> FakeOrt:
    """From now on ONNX Runtime is this, in this process, and its GPUs those of the drivers."""
    fake = FakeOrt(driver, more=more)
    fake_gpu.plug_in(driver, *more)
    gpus = max(each.index for each in (driver, *more)) + 1
    sys.modules["onnxruntime"] = fake.module()
    vars(onnxruntime_needs).update(installed_driver=lambda: Installed(13, 0, gpus), CUDNN="libc.so.6")
    return fake


class FakeSession:
    """An ``InferenceSession``."""

    def __init__(
        self, fake: FakeOrt, real: Any, path: str, options: Any, providers: Any, enable_fallback: int = 1
    ) -> None:
        given = dict((each, {}) if isinstance(each, str) else each for each in providers)
        self._driver = fake.driver_of(given)
        for provider, values in given.items():
            _check_options(provider, values, self._driver.index)
        self._fake, self._options, self._sess = fake, {**given, CPU: {}}, object()
        self._real = real.InferenceSession(path, options, providers=[CPU])
        self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs
        self.get_session_options = self._real.get_session_options
        self._graphs: dict[tuple[int, int], Bound] = {}
        self._arena: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = {}
        if CUDA in given:
            cuda = given[CUDA]
            ours = cuda.get("has_user_compute_stream") == "1"
            self._stream = int(cuda["user_compute_stream"]) if ours else self._driver.new_stream()
            self._captures = cuda.get("enable_cuda_graph") == "1"
            self._options[CUDA] = {"use_tf32": "1", **cuda}
            self._take_memory(Path(path).stat().st_size)
        fake.sessions.append(weakref.ref(self))

    def get_providers(self) -> list[str]:
        return [provider for provider in self._options if provider in (*self._fake.providers, CPU)]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return self._options

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self._sess, self._driver.index)

    def run(self, names: Any, feed: Any) -> Any:
        return self._real.run(names, feed)

    def end_profiling(self) -> str:
        """The CPU's profile, told as the GPU's."""
        path = Path(self._real.end_profiling())
        events = json.loads(path.read_text())
        for event in events:
            if not event["name"].endswith("_kernel_time"):
                continue
            operator = event["args"]["op_name"]
            event["args"]["provider"] = CPU if operator in self._fake.on_cpu else next(iter(self._options))
            if self._fake.half:
                for tensor in event["args"]["input_type_shape"]:
                    tensor.update({"float16": tensor.pop("float")} if "float" in tensor else {})
            if event["args"]["provider"] == TENSORRT:
                event["args"]["op_name"] = f"TRTKernel_graph_{operator}"
        path.write_text(json.dumps(events))
        return str(path)

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        if binding.session is not self._sess:
            raise ValueError("IOBinding must be used with the session that created it.")
        graph = int(_entry(options, "gpu_graph_id", "0"))
        me = threading.get_ident()
        driver = self._driver
        with driver.current():
            if self._captures and (me, graph) in self._graphs:
                bound = self._graphs[me, graph]
            else:
                bound = dict(binding.bound)
                self._check(bound)
                if self._captures:
                    self._graphs[me, graph] = bound
                    self._fake.captures.append((me, graph))
            driver.enqueue(self._stream, "model", lambda: self._work(bound))
            if _entry(options, "disable_synchronize_execution_providers", "0") != "1":
                driver.synchronize(self._stream)

    def _check(self, bound: Bound) -> None:
        """What ONNX Runtime looks at before it starts anything: types, and outputs as large as they become."""
        shapes = ()
        for port in (*self.get_inputs(), *self.get_outputs()):
            if port.name not in bound:
                raise RuntimeError(f"Error in execution: missing {port.name}")
            _, shape, dtype = bound[port.name]
            if dtype != _TYPES[port.type]:
                raise RuntimeError(f"Unexpected data type. Actual: ({dtype}) , expected: ({port.type})")
            if port in self.get_inputs():
                shapes += shape
        if shapes not in self._arena:
            rows = next(iter(bound.values()))[1][0]
            self._take_memory(rows * self._fake.bytes_a_row)
            zeros = {port.name: np.zeros(bound[port.name][1], _TYPES[port.type]) for port in self.get_inputs()}
            found = self._real.run(None, zeros)
            self._arena[shapes] = {
                port.name: array.shape for port, array in zip(self.get_outputs(), found, strict=True)
            }
        for name, shape in self._arena[shapes].items():
            if bound[name][1] != shape:
                raise RuntimeError(
                    f"output '{name}' has shape {bound[name][1]} but the computed output shape is {shape}"
                )

    def _work(self, bound: Bound) -> float:
        driver = self._driver
        feed = {port.name: driver.array(*bound[port.name]).copy() for port in self.get_inputs()}
        self._fake.at_batch(feed, driver.index)
        for port, found in zip(self.get_outputs(), self._real.run(None, feed), strict=True):
            driver.array(*bound[port.name])[:] = found
        return NS_A_ROW * len(next(iter(feed.values())))

    def _take_memory(self, nbytes: int) -> None:
        """Until the session is gone."""
        if not nbytes:
            return
        try:
            address = self._driver.allocate(nbytes)
        except FakeGpuError:
            raise RuntimeError(f"Failed to allocate memory for requested buffer of size {nbytes}") from None
        weakref.finalize(self, self._driver.memory.pop, address, None)


class FakeBinding:
    """An ``IOBinding``."""

    def __init__(self, session: object, gpu: int) -> None:
        self.session, self.gpu = session, gpu
        self.bound: Bound = {}

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        assert (device_type, device_id) == ("cuda", self.gpu)
        self.bound[name] = buffer_ptr, tuple(shape), np.dtype(element_type).name

    bind_output = bind_input


def _entry(options: Any, key: str, default: str) -> str:
    try:
        return str(options.get_run_config_entry(key))
    except RuntimeError:
        return default


def _check_options(provider: str, values: dict[str, str], gpu: int) -> None:
    where = "onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions: [ONNXRuntimeError] : 1 : FAIL : Parse "
    for name, value in values.items():
        if name not in OPTIONS[provider]:
            raise RuntimeError(f'{where}Unknown provider option: "{name}".')
        if (name in _FLAGS and value not in ("0", "1")) or (name == "device_id" and value != str(gpu)):
            raise RuntimeError(f'{where}Failed to parse provider option "{name}": {value}')
