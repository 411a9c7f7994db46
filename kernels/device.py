"""What runs kernels: memory, copies and launches of one device, be it a GPU or the host form.

``Device`` checks what it is given, the same for every device, and hands it to the few methods that a device has to
bring. Sizes are in bytes. Errors: ``ValueError`` for arguments that do not fit (nothing has run then), ``DeviceError``
for what the device itself says.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plugins.base import Closing

SOURCES = Path(__file__).parent
"""The folder of the .cu files."""

Dim3 = tuple[int, int, int]

GRID_LIMIT: Dim3 = (2**31 - 1, 65535, 65535)
BLOCK_LIMIT: Dim3 = (1024, 1024, 64)
THREADS_LIMIT = 1024
"""CUDA's limits of a launch, the same since compute capability 3 (Programming Guide, "Compute Capabilities")."""

SENT_PLACES = ("files", "pixels")
"""Where a slot has an object for each picture, which is sent to a server as it is: its file's bytes, or RGB pixels."""
HOST_PLACES = ("host", "pinned")
"""Places of slots that are NumPy arrays: ``pinned`` ones are page-locked, and copied to a GPU without being staged."""

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_ENTRY = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+'
    r"(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)"
)
_TYPES: dict[str, type[np.generic]] = {
    "bool": np.bool_,
    "unsigned char": np.uint8,
    "short": np.int16,
    "unsigned short": np.uint16,
    "int": np.int32,
    "unsigned": np.uint32,
    "unsigned int": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "float": np.float32,
    "double": np.float64,
}


class DeviceError(RuntimeError):
    """What a driver or a sanitizer said, in one line."""


class Buffer(Closing):
    """Memory of one device, freed once: by ``free``, at the end of a ``with``, or with its device."""

    def __init__(self, device: Device, address: int, nbytes: int) -> None:
        self.device = device
        self.address = address
        self.nbytes = nbytes
        self.freed = False

    def free(self) -> None:
        """Give the memory back. A second time does nothing."""
        if not self.freed:
            self.freed = True
            self.device.release(self.address)

    def close(self) -> None:
        """As ``free``."""
        self.free()


class DeviceArray:
    """An array in a device's memory: where it lies and how it is shaped. The host cannot look inside.

    Without ``strides`` it is C-contiguous; ``owner`` is what keeps the memory.
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: str,
        strides: tuple[int, ...] | None = None,
        owner: Any = None,
    ) -> None:
        self._owner = owner
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "strides": strides,
            "version": 3,
        }


Argument = np.generic | Buffer


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an entry point; ``dtype`` is None for a pointer."""

    name: str
    dtype: type[np.generic] | None


@lru_cache(maxsize=64)
def entry_points(source: Path) -> dict[str, tuple[Parameter, ...]]:
    """The kernels of a .cu file by name, as they are written there: ``extern "C" __global__ void name(...)``.

    Raises ``ValueError`` for a file that is not there, or a parameter whose type no NumPy scalar has.
    """
    if not source.is_file():
        known = ", ".join(sorted(path.stem for path in source.parent.glob("*.cu")))
        raise ValueError(f"no kernels called '{source.stem}' in {source.parent}; there are: {known}")
    text = _COMMENT.sub(" ", source.read_text(encoding="utf-8"))
    return {
        match[1]: tuple(_parameter(part, match[1]) for part in match[2].split(",") if part.strip())
        for match in _ENTRY.finditer(text)
    }


def _parameter(text: str, kernel: str) -> Parameter:
    name = text.split()[-1].lstrip("*")
    if "*" in text:
        return Parameter(name, None)
    words = " ".join(word for word in text.split()[:-1] if word != "const")
    if words not in _TYPES:
        raise ValueError(f"{kernel}: parameter '{' '.join(text.split())}' has a type that no NumPy scalar has")
    return Parameter(name, _TYPES[words])


class Growing(Closing):
    """A buffer that is made anew, larger, when it is too small."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffer: Buffer | None = None

    def of(self, nbytes: int, stream: int | None = None) -> Buffer:
        """The buffer, of at least so many bytes. A smaller one is freed once ``stream``, or all, was waited for.

        Raises ``DeviceError`` where the device has too little memory.
        """
        if self._buffer is None or self._buffer.nbytes < nbytes:
            if self._buffer is not None:
                self._device.synchronize(stream)
                self.close()
            self._buffer = self._device.alloc(nbytes)
        return self._buffer

    def close(self) -> None:
        """Free it, if there is one."""
        if self._buffer is not None:
            self._buffer.free()
            self._buffer = None


class Device(Closing, ABC):
    """One device. Used by one thread at a time; a context manager, which frees what is left of its memory."""

    name: str
    """As people call it: ``NVIDIA H200``."""
    architecture: str
    """``sm_90``, or ``host``."""
    sources: Path = SOURCES
    """Where its .cu files lie."""
    poison: ClassVar[int | None] = None
    """The byte that fresh memory is filled with, where the device does so."""

    @abstractmethod
    def allocate(self, nbytes: int) -> int:
        """Address of fresh memory. Raises ``DeviceError`` where there is too little."""

    @abstractmethod
    def release(self, address: int) -> None:
        """Free what ``allocate`` gave."""

    @abstractmethod
    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        """Copy a C-contiguous array to ``address``; ended when this returns, with a ``stream`` once that has been
        waited for: until then the array must not change.
        """

    @abstractmethod
    def read(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        """Copy from ``address`` into a C-contiguous array; ended when this returns."""

    @abstractmethod
    def clear(self, address: int, nbytes: int, byte: int, stream: int | None) -> None:
        """Set every byte."""

    @abstractmethod
    def start(
        self, module: str, function: str, grid: Dim3, block: Dim3, args: Sequence[np.generic], stream: int | None
    ) -> None:
        """Start a kernel whose arguments are known to fit; pointers come as ``np.uint64``."""

    @abstractmethod
    def new_stream(self) -> int:
        """A stream of this device, closed with it."""

    @abstractmethod
    def synchronize(self, stream: int | None = None) -> None:
        """Wait for a stream, or for all. Raises ``DeviceError`` where a kernel has failed."""

    def signal(self, stream: int) -> Any:
        """What others wait for, who read what was started on ``stream``: an event of CUDA's, until the next call for
        that stream; None where all of it has ended.
        """
        self.synchronize(stream)
        return None

    def current(self) -> AbstractContextManager[None]:
        """For other libraries, which work on the GPU that is this thread's own: this one, while the ``with`` lasts."""
        return nullcontext()

    @abstractmethod
    def timed_ms(self, work: Callable[[int], None]) -> float | None:
        """Milliseconds on the device of what ``work(stream)`` starts, at most a few hundred launches, back to back.

        ``work`` may be called several times. None where the host started it more slowly than the device could run it:
        any figure would be the host's. Raises ``DeviceError`` for a device that has no clock.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the device holds. A second time does nothing."""

    def alloc(self, nbytes: int) -> Buffer:
        """Fresh memory. Raises ``DeviceError`` where there is too little."""
        if nbytes < 1:
            raise ValueError(f"a buffer of {nbytes} bytes was asked for, expected at least 1")
        return Buffer(self, self.allocate(nbytes), nbytes)

    def upload(self, array: NDArray[Any], buffer: Buffer | None = None, stream: int | None = None) -> Buffer:
        """Copy ``array`` (made C-contiguous) to the start of ``buffer``, or to a fresh one of its size."""
        array = np.ascontiguousarray(array)
        target = self.alloc(array.nbytes) if buffer is None else buffer
        self._check(target, array.nbytes)
        self.write(target.address, array, stream)
        return target

    def download(
        self, buffer: Buffer, shape: int | Sequence[int], dtype: DTypeLike, stream: int | None = None
    ) -> NDArray[Any]:
        """The start of ``buffer`` as a new array."""
        array = np.empty(shape, dtype)
        self._check(buffer, array.nbytes)
        self.read(buffer.address, array, stream)
        return array

    def fill(self, buffer: Buffer, byte: int, stream: int | None = None) -> None:
        """Set every byte of ``buffer`` to ``byte``, 0 to 255."""
        if not 0 <= byte <= 255:
            raise ValueError(f"cannot fill with {byte}, expected a byte from 0 to 255")
        self._check(buffer, buffer.nbytes)
        self.clear(buffer.address, buffer.nbytes, byte, stream)

    def launch(
        self,
        module: str,
        function: str,
        grid: Dim3,
        block: Dim3,
        args: Sequence[Argument],
        stream: int | None = None,
    ) -> None:
        """Start kernel ``function`` of ``module`` (the stem of its file, ``resize``).

        ``args`` are NumPy scalars of exactly the C types, and buffers (or addresses, as ``np.uint64``) for pointers.
        Raises ``ValueError`` before anything runs: an unknown kernel, arguments that do not fit, a freed buffer, a
        dimension of 0 or over CUDA's limits.
        """
        kernels = entry_points(self.sources / f"{module}.cu")
        if function not in kernels:
            raise ValueError(f"{module}.cu has no kernel '{function}'; it has: {', '.join(kernels) or 'none'}")
        _check_launch(function, grid, block)
        parameters = kernels[function]
        if len(args) != len(parameters):
            names = ", ".join(parameter.name for parameter in parameters)
            raise ValueError(f"{function} got {len(args)} arguments, expected {len(parameters)}: {names}")
        given = [self._argument(function, parameter, arg) for parameter, arg in zip(parameters, args, strict=True)]
        self.start(module, function, grid, block, given, stream)

    def _argument(self, function: str, parameter: Parameter, arg: Argument) -> np.generic:
        if isinstance(arg, Buffer):
            if parameter.dtype is not None:
                raise ValueError(f"{function}: {parameter.name} got a buffer, expected {parameter.dtype.__name__}")
            self._check(arg, 0)
            return np.uint64(arg.address)
        expected = parameter.dtype or np.uint64
        if type(arg) is not expected:
            wanted = "a buffer, or an address as uint64" if parameter.dtype is None else expected.__name__
            raise ValueError(f"{function}: {parameter.name} got {type(arg).__name__}, expected {wanted}")
        return arg

    def _check(self, buffer: Buffer, nbytes: int) -> None:
        if buffer.device is not self:
            raise ValueError(f"the buffer belongs to another device, {buffer.device.name}, expected one of {self.name}")
        if buffer.freed:
            raise ValueError(f"the buffer of {buffer.nbytes} bytes has been freed")
        if nbytes > buffer.nbytes:
            raise ValueError(f"the buffer has {buffer.nbytes} bytes, expected at least {nbytes}")


def _check_launch(function: str, grid: Dim3, block: Dim3) -> None:
    for what, got, limit in (("grid", grid, GRID_LIMIT), ("block", block, BLOCK_LIMIT)):
        if len(got) != 3 or not all(1 <= size <= most for size, most in zip(got, limit, strict=False)):
            raise ValueError(f"{function}: {what} {tuple(got)}, expected three sizes from 1 to {limit}")
    if math.prod(block) > THREADS_LIMIT:
        raise ValueError(
            f"{function}: block {tuple(block)} has {math.prod(block)} threads, expected at most {THREADS_LIMIT}"
        )
