"""What a backend is: the runtime that runs the model, behind one small interface.

A backend is loaded once per device (session, compiled model, engine). A *runner* is made from it once per lane
(request, execution context, buffers), so that N lanes are not N models. The backend lends *slots*, input buffers for
n rows, which somebody else fills; ``infer(slot)`` reads them. Backends speak arrays and know nothing of LoadGen.

Errors: raise ``ValueError`` for an input or model that does not fit, ``ModuleNotFoundError`` for a runtime that is not
installed, ``DeviceNotFound`` for a device that is not there. Anything else is a failure of the run.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from plugins.base import Closing, Plugin
from plugins.errors import DeviceNotFound as DeviceNotFound  # a backend of somebody else's has it from here


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    ``shape`` has ``None`` where an axis is dynamic; axis 0 is the batch. ``dtype`` is a NumPy name (``float32``).
    ``layout`` is ``NCHW`` or ``NHWC`` for pictures, ``NC`` for scores, ``N`` for labels, empty where unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    layout: str = ""

    @classmethod
    def of(
        cls, name: str, dtype: str, shape: tuple[int | None, ...], sample_shape: tuple[int, ...] | None = None
    ) -> Self:
        """With the layout that ``shape`` speaks for, once ``sample_shape`` has decided the axes that it leaves open."""
        shape = closed(shape, sample_shape)
        return cls(name, dtype, shape, layout_of(shape))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one row. Raises ``ValueError`` where more than the batch is dynamic: no buffer fits."""
        if None in self.shape[1:]:
            raise ValueError(f"input '{self.name}' has shape {self.shape}: only the batch axis may be dynamic")
        return tuple(axis for axis in self.shape[1:] if axis is not None)


def layout_of(shape: tuple[int | None, ...]) -> str:
    """The layout that a shape speaks for, for runtimes that know shapes only; empty where it speaks for none.

    >>> layout_of((None, 3, 224, 224)), layout_of((None, 1000)), layout_of((None, 100, 4))
    ('NCHW', 'NC', '')
    """
    if len(shape) == 4:
        return "NCHW" if shape[1] == 3 else "NHWC" if shape[3] == 3 else ""
    return "NC"[: len(shape)] if len(shape) in (1, 2) else ""


def closed(shape: tuple[int | None, ...], sample_shape: tuple[int, ...] | None) -> tuple[int | None, ...]:
    """``shape`` with the axes behind the batch that it leaves open as a sample has them, where that has as many.

    >>> closed((None, 3, None, None), (3, 224, 224)), closed((None, None), (3, 224, 224))
    ((None, 3, 224, 224), (None, None))
    """
    if sample_shape is None or len(shape) != 1 + len(sample_shape):
        return shape
    pairs = zip(shape[1:], sample_shape, strict=True)
    return (shape[0], *(size if axis is None else axis for axis, size in pairs))


def fixed_batch(inputs: Iterable[TensorSpec]) -> tuple[int] | None:
    """``Backend.batch_sizes`` of a model that takes one size only; None where its inputs leave the batch open."""
    sizes = (spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] is not None)
    return next(((size,) for size in sizes), None)


DOUBLING = tuple(2**power for power in range(13))
"""``Backend.batch_sizes`` where each size costs a compilation or a graph, which is made before a run: the warm-up meets
all of these up to the largest batch, and no other size ever comes."""


def import_runtime(backend: str, runtime: str, module: str, distribution: str) -> Any:
    """The ``module`` of a ``runtime``. Raises ``ModuleNotFoundError`` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the backend {backend} needs {runtime}: pip install {distribution}", name=error.name
        ) from error


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The file a backend loads, and the precision it must execute (``fp32``, ``fp16``, ``bf16``, ``int8``).

    The file is in the form that ``Backend.precisions`` names for the precision. ``sample_shape`` is that of one input
    sample, without the batch: it decides axes that the file leaves open. A ``quantised`` file is computed in 8 bits as
    far as the runtime has kernels for that: how far has to be found out. ``largest_batch`` is the most rows that any
    slot will have, for a backend that is built for sizes; None where that is not known. For a backend that needs no
    model ``path`` is None. ``progress`` is to be told how many steps of how many are done where loading takes minutes:
    a process that is silent for long is taken for one that hangs.
    """

    path: Path | None
    precision: str = "fp32"
    sample_shape: tuple[int, ...] | None = None
    quantised: bool = False
    largest_batch: int | None = None
    progress: Callable[[int, int], None] = lambda done, total: None
    name: str = ""
    """What the model is called, for a backend that asks somebody else for it."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """What really executes, as the runtime itself reports it after loading (never what was asked for)."""

    device: str
    device_name: str
    provider: str
    precision: str
    details: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    """Which model it is, of a runtime that was given no file: name, version and hash, as far as it tells them."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went to servers and came from them: requests that were answered, bytes of their tensors."""

    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.requests + other.requests,
            self.sent_bytes + other.sent_bytes,
            self.received_bytes + other.received_bytes,
        )


@dataclass(slots=True)
class Slot:
    """Input buffers for ``n`` rows, by tensor name, with their place (``host``, ``pinned``, ``cuda:0``).

    On a GPU a buffer is anything with ``__cuda_array_interface__``. It is read on ``stream``, a handle of CUDA's. Who
    fills it has ended when it says so, or sets ``ready``: an event that the backend waits for on that stream
    (``kernels.device.Device.signal``).
    """

    n: int
    buffers: Mapping[str, Any]
    place: str = "host"
    stream: int | None = None
    ready: Any = None


class Runner(Closing, ABC):
    """One lane's share of a backend. Used by one thread at a time."""

    transfers_ns: tuple[int, int] = (0, 0)
    """Of a backend that ``transfers``: what the last batch took to the device and back, by the device's own clock."""
    details_ns: tuple[int, ...] = ()
    """Of a backend with ``details``: what each of them took of the last batch, by whoever did it."""

    @abstractmethod
    def slot(self, n: int) -> Slot:
        """Lend buffers for ``n`` rows (a batch size that the backend takes). Valid until the next call."""

    @abstractmethod
    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """Run the model on the slot; outputs by name, ``slot.n`` rows each, valid until the next call."""


class Loaded(Closing, ABC):
    """A model that is loaded. ``inputs`` and ``outputs`` are known then."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    places: tuple[str, ...] = ("host",)
    """Where its slots may live, best first."""
    batch_sizes: tuple[int, ...] | None = None
    """The batch sizes it takes, ascending; None for any. The caller pads up to the next one."""
    reads_host_arrays: bool = False
    """Whether a slot may be given to it that it did not lend, with any C-contiguous host array as its buffer."""
    transfers: bool = False
    """Whether ``infer`` begins with a copy to the device and ends with one back, whose times its runners tell."""
    details: tuple[str, ...] = ()
    """Parts of ``infer`` whose times its runners tell, in order: what a server says of itself."""

    @abstractmethod
    def runner(self, place: str = "host") -> Runner:
        """A new runner, whose slots lie at one of ``places``; at most ``lanes`` of them."""

    @abstractmethod
    def attest(self) -> Attestation:
        """Device, provider and precision as really executed."""

    @property
    def processes(self) -> Mapping[str, int]:
        """Numbers of the processes that work for it, by name."""
        return {}

    def traffic(self) -> Traffic | None:
        """What its runners have sent and received so far, where there is a server; None elsewhere."""
        return None

    def round_trip(self) -> str | None:
        """Who serves, and where, as a server says when it is asked now; None where there is none.

        Raises what ``Runner.infer`` does where it does not answer.
        """
        return None

    def check_unchanged(self) -> None:
        """Raise ``RuntimeError`` where what runs is not what was loaded: a server may have become another meanwhile."""

    def close(self) -> None:
        """Unload. Called once, after all runners were closed."""


class Backend(Plugin, Loaded):
    """A model loaded on one device. Subclasses set ``inputs`` and ``outputs`` before ``load`` returns."""

    needs_model: ClassVar[bool] = True
    """False for a backend that answers without a model file."""
    model_elsewhere: ClassVar[bool] = False
    """Whether it runs a model all the same, whose file somebody else has loaded: a server."""
    precisions: ClassVar[Mapping[str, str]] = {"fp32": "fp32"}
    """The precisions that can be asked for, each with the form of the model file it needs: ``fp32`` (the ONNX file as
    it is), ``fp16`` (ONNX cast to float16), ``int8`` (ONNX with Q/DQ, unsigned activations), ``int8-signed`` (ONNX with
    Q/DQ, symmetric signed activations), ``int8-openvino`` (OpenVINO IR, quantised)."""
    reads: ClassVar[tuple[str, ...]] = (".onnx",)
    """How the names of the model files end that it can be given: ``.onnx``, ``.xml`` for OpenVINO's, ``.tflite``."""

    @classmethod
    @abstractmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Load the model on ``device`` for ``lanes`` concurrent runners with ``threads`` runtime threads each.

        ``options`` are those that the user set, which ``read_options`` reads.
        """

    @classmethod
    def devices(cls) -> list[str]:
        """Names of the devices this backend can use here, as ``--device`` takes them."""
        return ["cpu"]

    @classmethod
    def takes_device(cls, word: str) -> bool:
        """Whether a word is a device's name, here or not; beside ``cpu``, ``cuda`` and those of ``devices``."""
        return False

    @classmethod
    def precisions_on(cls, device: str) -> Mapping[str, str]:
        """Those of ``precisions`` that it has on a device."""
        return cls.precisions

    @classmethod
    def check_device(cls, device: str) -> None:
        """Raise ``DeviceNotFound``, with what to do, for a device that is known not to be here.

        It is asked before the model is looked for; a backend that cannot tell so early does in ``load``.
        """

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Version of the runtime."""
