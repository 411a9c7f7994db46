"""Other libraries doing the work of the kernels, for ``kernels/bench.py``: those that are installed.

They need not do just the same: only PyTorch's and CuPy's transposes give the same bytes. PyTorch's chain for pictures
is what its users write (antialiased bilinear resize, picture by picture), DALI's is one fused operator after a resize
of its own; neither is OpenCV's INTER_AREA.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from kernels.normalize import Output

Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A library and what it calls its work; each launch takes the next inputs of a rotation."""

    name: str
    launches: Sequence[Callable[[], Any]]


def matrix_peers(side: int, dtype: str, rotation: int) -> Iterator[Peer]:
    """Transposes of (side, side) matrices into memory that is there."""
    count = max(2, rotation // (2 * side * side * np.dtype(dtype).itemsize))
    if cupy := _module("cupy"):
        pairs = [(cupy.zeros((side, side), dtype), cupy.empty((side, side), dtype)) for _ in range(count)]
        yield Peer("CuPy copyto", [partial(cupy.copyto, t, s.T) for s, t in pairs])
        del pairs
        cupy.get_default_memory_pool().free_all_blocks()
    if torch := _torch():
        kind = getattr(torch, dtype)
        made = [tuple(torch.zeros((side, side), dtype=kind, device="cuda") for _ in range(2)) for _ in range(count)]
        yield Peer("PyTorch copy_", [partial(t.copy_, s.t()) for s, t in made])
        del made
        torch.cuda.empty_cache()


def picture_peers(sizes: Sizes, batch: int, output: Output, rotation: int) -> Iterator[Peer]:
    """Batches of pictures, (height, width, 3) uint8 on the GPU, to (n, 3, size, size) float32."""
    one = sum(3 * width * height for width, height in (sizes[i % len(sizes)] for i in range(batch)))
    count = max(2, -(-rotation // one))
    if torch := _torch():
        yield Peer("PyTorch, picture by picture", _torch_chain(torch, sizes, batch, output, count))
        torch.cuda.empty_cache()
    if (dali := _module("nvidia.dali")) and (cupy := _module("cupy")):
        yield Peer("DALI resize, crop_mirror_normalize", _dali_pipeline(dali, cupy, sizes, batch, output, count))


def _torch_chain(torch: Any, sizes: Sizes, batch: int, output: Output, count: int) -> list[Callable[[], Any]]:
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

    launches: list[Callable[[], Any]] = []
    for _ in range(count):
        pictures = [
            torch.randint(0, 256, (*sizes[i % len(sizes)][::-1], 3), dtype=torch.uint8, device="cuda")
            for i in range(batch)
        ]
        target = torch.empty((batch, *output.shape), device="cuda")
        launches.append(partial(work, pictures, target))
    return launches


def _dali_pipeline(
    dali: Any, cupy: Any, sizes: Sizes, batch: int, output: Output, count: int
) -> list[Callable[[], Any]]:
    random = cupy.random.default_rng(1)
    shapes = [(*sizes[i % len(sizes)][::-1], 3) for i in range(batch)]
    batches = [[random.integers(0, 256, shape, dtype=cupy.uint8) for shape in shapes] for _ in range(count)]
    turn = iter(range(1 << 62))
    pipeline = dali.Pipeline(batch_size=batch, num_threads=1, device_id=0, prefetch_queue_depth=1, exec_dynamic=False)
    with pipeline:
        pictures = dali.fn.external_source(lambda: batches[next(turn) % count], device="gpu", batch=True)
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
    return [pipeline.run] * count


def _torch() -> Any:
    """PyTorch where it is installed for this GPU."""
    torch = _module("torch")
    return torch if torch is not None and torch.cuda.is_available() else None


def _module(name: str) -> Any:
    try:
        module: ModuleType = importlib.import_module(name)
    except ImportError:
        return None
    if name == "nvidia.dali":
        for part in ("fn", "types"):
            importlib.import_module(f"{name}.{part}")
    return module
