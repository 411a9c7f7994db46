"""DALI by itself: one CPU pipeline from JPEGs to the input of ResNet-50, with nothing of this project around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.base import Recipe

Convert = Callable[[Sequence[bytes], NDArray[np.float32]], None]


def bare_dali(recipe: Recipe, batch: int) -> Convert:
    """Converts batches of ``batch`` files into float32 (batch, 3, size, size), in place, on one thread.

    The resize is the one of the preprocessor ``dali-resize`` for area; its sizes are rounded by DALI's own rule.
    """
    import nvidia.dali
    from nvidia.dali import fn, types

    pipeline = nvidia.dali.Pipeline(
        batch_size=batch, num_threads=1, device_id=None, prefetch_queue_depth=1, exec_dynamic=False
    )
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        pixels: Any = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        pixels = fn.resize(
            pixels,
            resize_shorter=int(100.0 * recipe.size / recipe.crop_percent),
            min_filter=types.INTERP_LINEAR,
            mag_filter=types.INTERP_GAUSSIAN,
            antialias=True,
            dtype=types.UINT8,
        )
        samples = fn.crop_mirror_normalize(
            pixels,
            dtype=types.FLOAT,
            output_layout="CHW",
            crop=(recipe.size, recipe.size),
            mean=list(recipe.mean),
            std=list(recipe.std),
        )
        pipeline.set_outputs(samples)
    pipeline.build()

    def convert(files: Sequence[bytes], out: NDArray[np.float32]) -> None:
        pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8) for data in files])
        [samples] = pipeline.run()
        np.copyto(out, np.asarray(samples.as_tensor()))

    return convert
