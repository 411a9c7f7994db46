"""Other libraries doing the work of the kernels, for ``kernels/lab/bench.py``: those that are installed.

They need not do just the same: only PyTorch's and CuPy's transposes give the same bytes. PyTorch's chain for pictures
is what its users write (antialiased bilinear resize, picture by picture), DALI's is one fused operator after a resize
of its own; neither is OpenCV's INTER_AREA.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kernels.normalize import Output
from plugins.packages import is_installed

Sizes = Sequence[tuple[int, int]]
Launches = Sequence[Callable[[], Any]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A library and what it calls its work."""

    name: str
    open: Callable[[], AbstractContextManager[Launches]]
    """Its launches, each with the next inputs of a rotation, whose memory the end of the ``with`` gives back.

    It raises what the library raises.
    """


def matrix_peers(side: int, dtype: str, rotation: int, index: int) -> Iterator[Peer]:
    """Transposes of (side, side) matrices into memory that is there, on GPU ``index``."""
    count = max(2, rotation // (2 * side * side * np.dtype(dtype).itemsize))
    if is_installed("cupy"):
        yield Peer("CuPy copyto", partial(_cupy_transposes, side, dtype, count, index))
    if is_installed("torch"):
        yield Peer("PyTorch copy_", partial(_torch_transposes, side, dtype, count, index))


def picture_peers(sizes: Sizes, batch: int, output: Output, rotation: int, index: int) -> Iterator[Peer]:
    """Batches of pictures, (height, width, 3) uint8 on GPU ``index``, to (n, 3, size, size) float32."""
    shapes = [(*sizes[i % len(sizes)][::-1], 3) for i in range(batch)]
    count = max(2, -(-rotation // sum(map(math.prod, shapes))))
    if is_installed("torch"):
        yield Peer("PyTorch, picture by picture", partial(_torch_chain, shapes, output, count, index))
    if is_installed("nvidia.dali") and is_installed("cupy"):
        name = "DALI resize, crop_mirror_normalize"
        yield Peer(name, partial(_dali_pipeline, shapes, output, count, index))


@contextmanager
def _kept(give_back: Callable[[], Any] = lambda: None) -> Iterator[list[Any]]:
    """A list that is emptied before ``give_back`` returns to the GPU what nothing in it holds any more."""
    things: list[Any] = []
    try:
        yield things
    finally:
        things.clear()
        give_back()


@contextmanager
def _cupy_transposes(side: int, dtype: str, count: int, index: int) -> Iterator[Launches]:
    cupy: Any = importlib.import_module("cupy")
    cupy.cuda.Device(index).use()
    with _kept(cupy.get_default_memory_pool().free_all_blocks) as launches:
        for _ in range(count):
            launches.append(partial(cupy.copyto, cupy.empty((side, side), dtype), cupy.zeros((side, side), dtype).T))
        yield launches


@contextmanager
def _torch_transposes(side: int, dtype: str, count: int, index: int) -> Iterator[Launches]:
    torch = _torch(index)
    matrix = partial(torch.zeros, (side, side), dtype=getattr(torch, dtype), device="cuda")
    with _kept(torch.cuda.empty_cache) as launches:
        for _ in range(count):
            launches.append(partial(matrix().copy_, matrix().t()))
        yield launches


@contextmanager
def _torch_chain(shapes: Sequence[tuple[int, ...]], output: Output, count: int, index: int) -> Iterator[Launches]:
    torch = _torch(index)
    mean, std = (torch.tensor(values, device="cuda").view(3, 1, 1) for values in (output.mean, output.std))

    def work(pictures: list[Any], target: Any) -> None:
        for row, picture in enumerate(pictures):
            height, width = picture.shape[:2]
            scale = 256 / min(height, width)
            resized = torch.nn.functional.interpolate(
                picture.permute(2, 0, 1)[None].float(),
                size=(int(height * scale), int(width * scale)),
                mode="bilinear",
                antialias=True,
            )[0]
            top, left = ((side - output.size) // 2 for side in resized.shape[1:])
            crop = resized[:, top : top + output.size, left : left + output.size]
            target[row] = (crop - mean) / std

    noise = partial(torch.randint, 0, 256, dtype=torch.uint8, device="cuda")
    target = partial(torch.empty, (len(shapes), *output.shape), device="cuda")
    with _kept(torch.cuda.empty_cache) as launches:
        for _ in range(count):
            launches.append(partial(work, [noise(shape) for shape in shapes], target()))
        yield launches


@contextmanager
def _dali_pipeline(shapes: Sequence[tuple[int, ...]], output: Output, count: int, index: int) -> Iterator[Launches]:
    cupy: Any = importlib.import_module("cupy")
    dali: Any = importlib.import_module("nvidia.dali")
    for part in ("fn", "types"):
        importlib.import_module(f"nvidia.dali.{part}")
    cupy.cuda.Device(index).use()
    # Noise by NumPy: CuPy's own needs a compiler and cuRAND.
    random = np.random.default_rng(1)
    turn = itertools.count()
    with _kept(cupy.get_default_memory_pool().free_all_blocks) as launches, _kept() as batches:
        for _ in range(count):
            batches.append([cupy.asarray(random.integers(0, 256, shape, np.uint8)) for shape in shapes])
        pipeline = dali.Pipeline(
            batch_size=len(shapes), num_threads=1, device_id=index, prefetch_queue_depth=1, exec_dynamic=False
        )
        with pipeline:
            pictures = dali.fn.external_source(
                lambda: batches[next(turn) % count], device="gpu", batch=True, layout="HWC"
            )
            resized = dali.fn.resize(pictures, resize_shorter=256, interp_type=dali.types.INTERP_TRIANGULAR)
            pipeline.set_outputs(
                dali.fn.crop_mirror_normalize(
                    resized,
                    crop=(output.size, output.size),
                    mean=list(output.mean),
                    std=list(output.std),
                    output_layout="CHW",
                )
            )
        pipeline.build()
        launches += [pipeline.run] * count
        yield launches


def _torch(index: int) -> Any:
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch sees no GPU")
    torch.cuda.set_device(index)
    return torch
