"""The bare sides of ``cpu.py``, each in a process of its own: one JSON object as argument, one on standard output.

``grid``, ``offline`` and ``latency`` import nothing of this project: they are what it is compared with.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WARM_S = 0.5


def files(model: str, weights: str, directory: str) -> dict[str, Any]:
    """The model's files and the demo photos as its input, made by the product: both sides share them."""
    import numpy as np

    from backends.registry import load
    from preprocess.opencv import OpenCV
    from sut.config import RunConfig
    from sut.datasets.demo import open_demo
    from sut.library import Rows, TensorLibrary
    from sut.models.registry import find
    from sut.preparation import prepare

    spec = find(model)
    photos = open_demo()
    library = TensorLibrary(photos, spec.recipe, lambda: OpenCV(spec.recipe), photos.count, workers=2)
    library.load(range(photos.count))
    tensors = np.empty((photos.count, *spec.recipe.sample_shape), spec.recipe.dtype)
    library.source().fill(range(photos.count), Rows.of(tensors), lambda stage: None)
    path = Path(directory) / f"{model}.npy"
    np.save(path, tensors)
    found = {"tensors": str(path)}
    for precision in ("fp32", "int8"):
        config = RunConfig(model=model, weights=weights, backend="openvino", precision=precision)
        made = prepare(config, spec, load("openvino"), photos, lambda text: None, lambda done, total: None)
        found[precision] = str(made.file)
    return found


def grid(
    model: str, tensors: str, hint: str, threads: int, streams: Sequence[int], batches: Sequence[int], seconds: float
) -> list[dict[str, Any]]:
    """Samples per second of OpenVINO alone at every point of streams x batch, and of its own throughput mode."""
    points = [({"NUM_STREAMS": count}, count, batch) for count in streams for batch in batches]
    points += [({"PERFORMANCE_HINT": "THROUGHPUT"}, 0, batch) for batch in batches]
    found = []
    compiled, configured = None, None
    for config, count, batch in points:
        if config != configured:
            compiled, configured = _compile(model, tensors, hint, threads, config), config
        requests = count or compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        rate = _throughput(compiled, tensors, batch, requests, seconds)
        found.append({"streams": count, "requests": requests, "batch": batch, "samples_per_second": rate})
    return found


def offline(
    model: str, tensors: str, hint: str, threads: int, streams: int, batch: int, seconds: float
) -> dict[str, Any]:
    """Samples per second of OpenVINO alone, all requests busy, at one point of the grid (streams 0: its own choice)."""
    config = {"NUM_STREAMS": streams} if streams else {"PERFORMANCE_HINT": "THROUGHPUT"}
    compiled = _compile(model, tensors, hint, threads, config)
    requests = streams or compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    return {"samples_per_second": _throughput(compiled, tensors, batch, requests, seconds)}


def latency(
    model: str, tensors: str, hint: str, threads: int, batch: int, parts: int, seconds: float
) -> dict[str, Any]:
    """Median and 99th percentile, in ms, of ``batch`` samples by OpenVINO alone, in ``parts`` requests at once."""
    import numpy as np
    import openvino

    compiled = _compile(model, tensors, hint, threads, {"NUM_STREAMS": parts})
    samples = np.load(tensors)
    size = batch // parts
    requests = [compiled.create_infer_request() for _ in range(parts)]
    feeds = _feeds(samples, size)
    taken: list[int] = []
    clock = time.perf_counter_ns
    number, warm, end = 0, clock() + int(WARM_S * 1e9), clock() + int((WARM_S + seconds) * 1e9)
    while clock() < end:
        begin = clock()
        for request in requests:
            request.set_input_tensor(0, openvino.Tensor(feeds[number % len(feeds)], shared_memory=True))
            request.start_async()
            number += 1
        for request in requests:
            request.wait()
            request.get_output_tensor(0)
        if begin > warm:
            taken.append(clock() - begin)
    ordered = sorted(taken)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"p50_ms": statistics.median(ordered) / 1e6, "p99_ms": p99 / 1e6, "count": len(ordered)}


def _compile(model: str, tensors: str, hint: str, threads: int, config: dict[str, Any]) -> Any:
    import numpy as np
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape([-1, *np.load(tensors, mmap_mode="r").shape[1:]])
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, **config}
    return core.compile_model(network, "CPU", settings)


def _feeds(samples: Any, size: int) -> list[Any]:
    import numpy as np

    count = len(samples)
    return [np.ascontiguousarray(samples[[(first + i) % count for i in range(size)]]) for first in range(min(count, 4))]


def _throughput(compiled: Any, tensors: str, batch: int, requests: int, seconds: float) -> float:
    """All requests busy for so long; each is started again as soon as it has ended."""
    import numpy as np
    import openvino

    queue = openvino.AsyncInferQueue(compiled, requests)
    feeds = [openvino.Tensor(feed, shared_memory=True) for feed in _feeds(np.load(tensors), batch)]

    def run(limit_s: float) -> float:
        begin = time.perf_counter()
        done = 0
        while time.perf_counter() < begin + limit_s or done == 0:
            queue.start_async({0: feeds[done % len(feeds)]})
            done += 1
        queue.wait_all()
        return done * batch / (time.perf_counter() - begin)

    run(min(WARM_S, seconds))
    return run(seconds)


def agreement(crops: int) -> list[dict[str, Any]]:
    """Lite0 on OpenVINO against its FP32 form: calibrated on crops of six demo photos, compared on the other five, and
    the other way round. ``right`` is how many of all eleven photos get their label.
    """
    from dataclasses import replace

    import numpy as np

    from backends.base import ModelFile, Runner
    from backends.openvino import OpenVino
    from sut.config import usable_cores
    from sut.datasets.demo import open_demo
    from sut.models.agreement import Scores, Side, measure
    from sut.models.calibration import calibrate_on, preprocessed, read_picture
    from sut.models.precision import convert
    from sut.models.registry import find

    spec, photos = find("efficientnet-lite0"), open_demo()
    recipe, plain = spec.recipe, spec.build("trained", lambda text: None)
    halves = [replace(photos, files=photos.files[:6]), replace(photos, files=photos.files[6:])]
    samples = preprocessed((read_picture(photos, i, "compare") for i in range(photos.count)), photos.count, recipe)

    def scores(path: Path, precision: str) -> Scores:
        runners: list[Runner] = []  # loaded when it is first asked: the answer may be kept

        def run(tensors: Any) -> Any:
            if not runners:
                file = ModelFile(path, precision, recipe.sample_shape)
                runners.append(OpenVino.load(file, "cpu", 1, usable_cores()).runner())
            slot = runners[0].slot(len(tensors))
            next(iter(slot.buffers.values()))[...] = tensors
            [answers] = runners[0].infer(slot).values()
            return np.array(answers)

        return run

    found = []
    for calibrated, compared in (halves, halves[::-1]):
        quantised = convert(
            plain, "int8-openvino", calibrate_on(calibrated, calibrated, recipe), lambda text: None, lambda *now: None
        )
        for precision, path in (("bf16", plain), ("int8", quantised)):
            sides = [
                Side(each, recipe, "openvino", OpenVino.version(), name, scores(each, name))
                for each, name in ((plain, "fp32"), (path, precision))
            ]
            same = measure(sides[0], sides[1], compared, lambda *now: None, crops=crops)
            right = int((sides[1].scores(samples).argmax(axis=1) == photos.labels).sum())
            found.append({"precision": precision, "calibrated_on": len(calibrated.files), "value": same.value,
                          "low": same.low, "high": same.high, "count": same.count, "right": right})  # fmt: skip
    return found


TASKS: dict[str, Callable[..., Any]] = {task.__name__: task for task in (files, grid, offline, latency, agreement)}


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
