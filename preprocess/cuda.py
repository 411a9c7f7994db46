"""The project's kernels on a GPU: decode there, resize, crop and normalise there, straight into the backend's slot.

``OnDevice`` is the way of the pixels, for any ``Device`` and any decoder that leaves pixels in its memory: none come
back to the host. ``Cuda`` is that with nvImageCodec on an NVIDIA GPU. Tests run ``OnDevice`` with the kernels in host
form; on a GPU nothing of this file has run yet.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from kernels.compilers import WHEELS, find_compiler
from kernels.device import HOST_PLACES, Buffer, Device, Growing
from kernels.gpu import GpuDevice, open_device
from kernels.hot_path import VARIANTS, HotPath, Variant
from kernels.normalize import Output
from kernels.resize import NO_PADDING, PICTURE, choose_path
from plugins.driver import installed_driver
from plugins.errors import DeviceNotFound
from plugins.options import option
from plugins.packages import is_installed
from preprocess.base import Geometry, Mark, Preprocessor, Recipe, Target, only_buffer
from preprocess.opencv import decode_at
from preprocess.oracle import Fit, check_recipe, fit
from preprocess.parts.device_memory import lent_slot
from preprocess.parts.gpu_decode import DevicePixels, GpuDecoder, HwShare, NvImageCodec

Pixels = NDArray[np.uint8]
ColourOrder = Literal["RGB", "BGR"]

BY_CPU = "pictures were decoded by the CPU, since the GPU's decoder does not take them"
"""What ``OnDevice.counts`` calls them."""
KERNELS = "fused, tiled or naive: one kernel behind the decoder, or a chain of launches"
"""The help of the option ``kernels``."""
_ALIGNMENT = 256
"""Bytes: where each picture begins in memory that several share, as CUDA aligns its allocations."""


class OnDevice(Preprocessor):
    """Pictures decoded into a device's memory, then the kernels of ``kernels/hot_path.py``, on one stream of its own.

    A stage has ended when its work on the device has: the stream is waited for at each mark. So the slot is complete
    when ``run`` returns, whatever stream it is read on; and its memory must be free to write when it is lent.

    What the decoder does not take or refuses is decoded by OpenCV, uploaded, and counted. Where the slot lies in host
    memory the finished rows are copied there, once a batch, and that is counted too.
    """

    places = ("cuda", "host")
    stages = ("decode", "preprocess")

    def __init__(
        self,
        recipe: Recipe,
        device: Device,
        decoder: GpuDecoder,
        place: str,
        kernels: Variant = "fused",
        details: str = "",
    ) -> None:
        """Owns ``device`` and ``decoder`` from now on. ``place`` is what slots call the device's memory: ``cuda:0``.

        ``details`` is one line about what runs the kernels there, for whoever reads the result; else the device's name.
        Raises ``ValueError`` for a recipe that contradicts itself and an unknown variant.
        """
        super().__init__(recipe)
        with ExitStack() as undo:
            undo.callback(device.close)
            undo.callback(decoder.close)
            check_recipe(recipe)
            if kernels not in VARIANTS:
                raise ValueError(f"kernels: got '{kernels}', expected one of {', '.join(VARIANTS)}")
            self._device, self._decoder, self._place = device, decoder, place
            self._details = details or device.name
            self._stream = device.new_stream()
            self._kernels = kernels
            self._hot_paths: dict[ColourOrder, HotPath] = {}
            self._uploads, self._rows = Growing(device), Growing(device)
            undo.pop_all()
        self.pictures = 0
        """Pictures so far."""
        self.decoded_by_cpu = 0
        """Pictures so far that the decoder was not given, or refused."""
        self.batches_to_host = 0
        """Batches so far that were copied to a slot in host memory."""

    def counts(self) -> Mapping[str, int]:
        """What a reader of the result must know: what ran the kernels, pictures that the CPU decoded, batches that went
        to host memory.
        """
        return {
            f"pictures were preprocessed on {self._details}": self.pictures,
            BY_CPU: self.decoded_by_cpu,
            f"batches were copied from {self._place} to the host memory that the backend reads": self.batches_to_host,
        }

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """Turn ``encoded`` (whole files) into the first ``len(encoded)`` rows of the target's only buffer.

        Raises ``BadPicture`` for one that no decoder can decode, ``ValueError`` for a buffer that does not fit and
        ``DeviceError`` for what the device says, as for too little memory.
        """
        self._check(target, len(encoded))
        with self._device.current():
            pictures = self._decode(encoded)
            self._device.synchronize(self._stream)
            mark("decode")
            return self._finish("RGB", pictures, target, mark)

    def run_pixels(self, pictures: Sequence[Pixels], target: Target, mark: Mark) -> list[Geometry]:
        """Upload decoded pictures, uint8 (height, width, 3) in BGR, then resize, crop and normalise them."""
        self._check(target, len(pictures))
        with self._device.current():
            return self._finish("BGR", self._uploaded(pictures), target, mark)

    def _check(self, target: Target, n: int) -> None:
        """Refuse a target before anything is decoded for it."""
        if target.place in HOST_PLACES:
            only_buffer(self.recipe, target, n)
        else:
            lent_slot(self.recipe, target, n, self._device, self._place)

    def _decode(self, encoded: Sequence[bytes]) -> list[DevicePixels]:
        own = [position for position, data in enumerate(encoded) if self._decoder.takes(data)]
        found = self._decoder.decode([encoded[position] for position in own], self._stream) if own else []
        pictures = {position: pixels for position, pixels in zip(own, found, strict=True) if pixels is not None}
        others = [position for position in range(len(encoded)) if position not in pictures]
        by_cpu = [_rgb(decode_at(position, encoded[position])) for position in others]
        pictures |= zip(others, self._uploaded(by_cpu), strict=True)
        self.decoded_by_cpu += len(others)
        return [pictures[position] for position in range(len(encoded))]

    def _uploaded(self, pictures: Sequence[Pixels]) -> list[DevicePixels]:
        """Pictures in the device's memory, all in one buffer, until the next call."""
        begins = np.cumsum([0, *(-(-picture.nbytes // _ALIGNMENT) * _ALIGNMENT for picture in pictures)]).tolist()
        if not pictures:
            return []
        memory = self._uploads.of(begins[-1], self._stream)
        found = []
        for picture, begin in zip(pictures, begins, strict=False):
            height, width, _ = picture.shape
            self._device.write(memory.address + begin, np.ascontiguousarray(picture), self._stream)
            found.append(DevicePixels(memory.address + begin, 3 * width, width, height, memory))
        return found

    def _finish(
        self, given: ColourOrder, pictures: Sequence[DevicePixels], target: Target, mark: Mark
    ) -> list[Geometry]:
        """Pixels in the order ``given`` to rows, in the slot or on the way to it."""
        n = len(pictures)
        self.pictures += n
        fits = [fit(self.recipe, picture.width, picture.height) for picture in pictures]
        if n and target.place in HOST_PLACES:
            buffer = only_buffer(self.recipe, target, n)[:n]
            rows = self._rows.of(buffer.nbytes, self._stream)
            self._compute(given, pictures, fits, rows)
            self._device.read(rows.address, buffer, self._stream)
            self.batches_to_host += 1
        elif n:
            slot = lent_slot(self.recipe, target, n, self._device, self._place)
            self._compute(given, pictures, fits, slot)
            self._device.synchronize(self._stream)
        mark("preprocess")
        return [where.geometry for where in fits]

    def _compute(self, given: ColourOrder, pictures: Sequence[DevicePixels], fits: Sequence[Fit], rows: Buffer) -> None:
        """Start writing a row for each picture."""
        if given not in self._hot_paths:
            self._hot_paths[given] = HotPath(self._device, self._kernels, _output(self.recipe, given))
        described = _described(pictures, fits, self.recipe)
        self._hot_paths[given].run(described, rows, self._stream)

    def close(self) -> None:
        """Drop the decoder, then the device with all its memory."""
        self._decoder.close()
        self._device.close()


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """What may be set of every preprocessor on a GPU."""

    gpu: int = option(0, "index of the GPU", least=0, unit="the index of a GPU")
    threads: int = option(
        1,
        "CPU threads of the decoder; with more than one, JPEG engine and nvJPEG's kernels work at the same time",
        least=1,
        unit="a number of threads",
    )


@dataclass(frozen=True, slots=True)
class CudaOptions(GpuOptions):
    """What may be set of ``cuda``."""

    hw_share: HwShare = option(
        1.0,
        "share of a batch that the GPU's JPEG engine is offered, 0 to 1, or adaptive: by nvImageCodec's policy of that "
        "name, which stays at a half; rounded up, any above 0 is all of a small batch",
        least=0,
        most=1,
    )
    kernels: Variant = option("fused", KERNELS)


@dataclass(frozen=True, slots=True)
class Library:
    """What a preprocessor decodes with: its name, its module and, by the driver's CUDA, the extra that brings it."""

    label: str
    module: str
    extras: Mapping[int, str]


class OnGpu(OnDevice):
    """A decoder and the project's kernels on one NVIDIA GPU. Has not run on hardware yet."""

    decoder: ClassVar[Any]
    """Its class, called with a GPU's index, the JPEG engine's share and a number of threads."""
    library: ClassVar[Library]
    """What it decodes with."""

    def __init__(self, recipe: Recipe, **options: Any) -> None:
        """Raises ``ValueError`` for bad options, ``DeviceNotFound`` and ``ModuleNotFoundError`` for what is missing."""
        chosen = self.read_options(options)
        gpu = chosen.gpu
        device, decoder = open_both(gpu, lambda: self.decoder(gpu, chosen.hw_share, chosen.threads))
        kernels: Variant = getattr(chosen, "kernels", "fused")
        super().__init__(recipe, device, decoder, f"cuda:{gpu}", kernels, device.details)

    @classmethod
    def version(cls) -> str:
        """The decoder's version; the kernels are this project's."""
        return str(cls.decoder.version())

    @classmethod
    def check_machine(cls) -> None:
        """Raise ``ModuleNotFoundError`` with all that is missing, in one line."""
        check_parts(cls.name, cls.library)


class Cuda(OnGpu):
    """nvImageCodec and the project's kernels on one NVIDIA GPU. Has not run on hardware yet."""

    name = "cuda"
    options = CudaOptions
    decoder = NvImageCodec
    library = Library("nvImageCodec", "nvidia.nvimgcodec", {12: "gpu-cu12", 13: "gpu-cu13"})


def open_both(gpu: int, decoder: Callable[[], GpuDecoder]) -> tuple[GpuDevice, GpuDecoder]:
    """A GPU and a decoder on it; the GPU is given back where there is no decoder. Raises what opening them raises."""
    device = open_device(f"cuda:{gpu}")
    try:
        with device.current():
            return device, decoder()
    except BaseException:
        device.close()
        raise


def check_parts(name: str, library: Library) -> None:
    """Raise ``ModuleNotFoundError``, in one line, with everything that a preprocessor on a GPU lacks on this machine.

    A library that was built for a newer CUDA than the driver's is as good as missing; one for an older CUDA runs.
    """
    missing, mend, cuda = [], [], max(WHEELS)
    try:
        driver = installed_driver()
    except DeviceNotFound as error:
        missing += ["an NVIDIA driver", "a GPU"]
        mend.append(str(error))
    else:
        if driver.major < min(WHEELS):
            missing.append(f"a driver with CUDA {min(WHEELS)} (this one has {driver.major}.{driver.minor})")
            mend.append("update the driver")
        if not driver.gpus:
            missing.append("a GPU (the driver shows none)")
        cuda = min(max(driver.major, min(WHEELS)), cuda)
    packages, extras = [], []
    if not is_installed("pycuda") and not is_installed("cupy"):
        packages.append("PyCUDA or CuPy")
        extras.append(f"gpu-cu{cuda}")
    try:
        find_compiler(cuda)
    except ModuleNotFoundError:
        packages.append("NVRTC or nvcc")
        extras.append(f"gpu-cu{cuda}")
    if not is_installed(library.module):
        packages.append(library.label)
        extras.append(library.extras[cuda])
    elif not missing and (built := _cuda_of(library.module)) > cuda:
        packages.append(f"{library.label} for the driver's CUDA {cuda} (the one here is for CUDA {built})")
        extras.append(library.extras[cuda])
    if extras:
        mend.append(f"pip install -e '.[{','.join(dict.fromkeys(extras))}]'")
    if missing or packages:
        raise ModuleNotFoundError(
            f"the preprocessor {name} needs what is not here: {', '.join([*missing, *packages])}; {'; '.join(mend)}"
        )


def _cuda_of(module: str) -> int:
    """The CUDA that one of NVIDIA's modules was built for: they say 13030, or 13492, and both mean 13."""
    return int(str(importlib.import_module(module).__cuda_version__)[:2])


def _output(recipe: Recipe, given: ColourOrder) -> Output:
    return Output(
        size=recipe.size,
        layout=recipe.layout,
        dtype=recipe.dtype,
        swap=recipe.colour_order != given,
        mean=recipe.mean,
        std=recipe.std,
    )


def _described(pictures: Sequence[DevicePixels], fits: Sequence[Fit], recipe: Recipe) -> NDArray[np.void]:
    """What the kernel is told of a batch. Rows in one go: ``kernels.resize.describe`` takes 0.1 ms for each picture."""
    rows = []
    pad_level = recipe.pad_level if recipe.fit == "letterbox" else NO_PADDING
    for picture, where in zip(pictures, fits, strict=True):
        scale_x = 1.0 / (where.resized_width / where.box_width)
        scale_y = 1.0 / (where.resized_height / where.box_height)
        box = (where.box_left, where.box_top, where.box_width, where.box_height)
        kept = (where.resized_width, where.resized_height, where.crop_left, where.crop_top)
        path = choose_path(recipe.interpolation, scale_x, scale_y)
        place = (picture.address, picture.pitch, scale_x, scale_y, picture.width, picture.height)
        rows.append((*place, *box, *kept, path, pad_level))
    return np.array(rows, PICTURE)


def _rgb(picture: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
