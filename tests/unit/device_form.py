"""A GPU's place taken by the kernels' host form: memory that nothing but the device can look into, and decoders for it.

``CudaHost`` is the preprocessor ``cuda`` in this form, for runs from end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from kernels.device import Buffer, Device
from kernels.host import HostDevice
from kernels.hot_path import Variant
from plugins.options import option
from preprocess.base import Recipe
from preprocess.cuda import OnDevice
from preprocess.parts.decode import decode
from preprocess.parts.gpu_decode import DevicePixels, GpuDecoder, NvImageCodec
from preprocess.parts.self_test import DecoderNotUsable, plain_jpeg

PLACE = "cuda:0"
_GUARD = 4096
_POISON = 0xCD
_ROW_PADDING = 13

Pixels = NDArray[np.uint8]


class HostAccessError(AssertionError):
    """Somebody looked into device memory from the host."""


class Untouchable:
    """An array in device memory: where it lies, how it is shaped, and an error for every look inside."""

    def __init__(self, address: int, shape: Sequence[int], dtype: str, strides: Sequence[int] | None = None) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": tuple(shape),
            "typestr": np.dtype(dtype).str,
            "strides": None if strides is None else tuple(strides),
            "version": 3,
        }

    def _look(self, *args: object, **options: object) -> NoReturn:
        raise HostAccessError("device memory was read by the host")

    __array__ = __getitem__ = __iter__ = __len__ = __dlpack__ = get = tobytes = tolist = cpu = numpy = copy = _look


class WatchedDevice(HostDevice):
    """Counts what goes to the host and back."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.read_bytes = self.written_bytes = 0

    def read(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        self.read_bytes += array.nbytes
        super().read(address, array, stream)

    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        self.written_bytes += array.nbytes
        super().write(address, array, stream)

    def gather(self, target: Buffer, sources: Sequence[Buffer], stream: int | None = None) -> None:
        """As ``kernels.gpu.GpuDevice.gather``."""
        self._check(target, sum(source.nbytes for source in sources))
        address = target.address
        for source in sources:
            self._check(source, source.nbytes)
            whole = np.empty(source.nbytes, np.uint8)
            super().read(source.address, whole, stream)
            super().write(address, whole, stream)
            address += source.nbytes


class DeviceSlot:
    """A slot of n rows in device memory, poisoned, with a guard behind them."""

    place = PLACE
    stream = None

    def __init__(self, device: Device, recipe: Recipe, n: int, *, name: str = "input") -> None:
        self.n = n
        self._device = device
        self._shape = (n, *recipe.sample_shape)
        self._dtype = np.dtype(recipe.dtype)
        self._nbytes = int(np.prod(self._shape)) * self._dtype.itemsize
        self.memory = device.alloc(self._nbytes + _GUARD)
        device.fill(self.memory, _POISON)
        self.buffers = {name: Untouchable(self.memory.address, self._shape, recipe.dtype)}

    def download(self) -> NDArray[Any]:
        """What was written, once nothing behind it was."""
        whole = self._device.download(self.memory, self._nbytes + _GUARD, np.uint8)
        assert (whole[self._nbytes :] == _POISON).all(), "written beyond the slot"
        return whole[: self._nbytes].view(self._dtype).reshape(self._shape)


def put(device: Device, picture: Pixels, padding: int = _ROW_PADDING) -> DevicePixels:
    """A picture in memory of its own, with rows that are not next to each other."""
    height, width, _ = picture.shape
    rows = np.full((height, 3 * width + padding), _POISON, np.uint8)
    rows[:, : 3 * width] = picture.reshape(height, -1)
    memory = device.upload(rows)
    shown = Untouchable(memory.address, picture.shape, "uint8", (rows.shape[1], 3, 1))
    return DevicePixels.of(shown, owner=memory)


class Uploading(GpuDecoder):
    """OpenCV, whose pixels it uploads; ``refuses`` says what it refuses though the header looked well."""

    def __init__(self, device: Device, refuses: Callable[[bytes], bool] = lambda data: False) -> None:
        self._device, self._refuses = device, refuses
        self._held: list[DevicePixels] = []
        self.seen: list[bytes] = []
        self.closed = 0

    @classmethod
    def version(cls) -> str:
        return f"OpenCV {cv2.__version__}"

    def check(self, stream: int | None = None) -> None:
        if self._refuses(plain_jpeg()):
            raise DecoderNotUsable(self.version(), "told to refuse it")

    def _decode(self, encoded: Sequence[bytes], stream: int | None) -> list[DevicePixels | None]:
        assert encoded, "nothing to decode"
        for pixels in self._held:
            pixels.owner.free()  # type: ignore[attr-defined]
        self.seen += encoded
        found = [None if self._refuses(data) else self._put(data) for data in encoded]
        self._held = [pixels for pixels in found if pixels is not None]
        return found

    def _put(self, data: bytes) -> DevicePixels:
        return put(self._device, cv2.cvtColor(decode(data), cv2.COLOR_BGR2RGB))

    def close(self) -> None:
        self.closed += 1


class NvImageCodecOnHost(NvImageCodec):
    """nvImageCodec with its decoders for the CPU, whose pixels are uploaded: all of it but where it decodes."""

    def __init__(self, device: Device) -> None:
        from nvidia import nvimgcodec

        self._device = device
        self._held: list[DevicePixels] = []
        self._open(nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)], 1)

    def decode(self, encoded: Sequence[bytes], stream: int | None) -> list[DevicePixels | None]:
        for pixels in self._held:
            pixels.owner.free()  # type: ignore[attr-defined]
        self._held = []
        return super().decode(encoded, None)

    def _pixels(self, image: Any) -> DevicePixels:
        self._held.append(put(self._device, np.asarray(image)))
        return self._held[-1]


class HostForm(OnDevice):
    """The way of the pixels on a device and with a decoder that a test brings."""

    name: ClassVar[str] = "host-form"

    @classmethod
    def version(cls) -> str:
        return Uploading.version()


@dataclass(frozen=True, slots=True)
class CudaHostOptions:
    kernels: Variant = option("fused", "as of cuda")


class CudaHost(HostForm):
    """The preprocessor ``cuda`` without a GPU."""

    name: ClassVar[str] = "cuda-host"
    options = CudaHostOptions

    def __init__(self, recipe: Recipe, *, kernels: Variant = "fused") -> None:
        device = HostDevice()
        super().__init__(recipe, device, Uploading(device), PLACE, kernels)
