"""The bare sides of ``cpu.py``, each in a process of its own: one JSON object as argument, one on standard output.

``grid``, ``offline``, ``latency`` and ``session`` import nothing of this project: they are what it is compared with.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WARM_S = 0.5
MODES = ("latency", "throughput")
"""OpenVINO's own modes; else a mode is a number of streams, as a word."""


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
    model: str,
    tensors: str,
    hints: Sequence[str],
    threads: int,
    streams: Sequence[int],
    batches: Sequence[int],
    seconds: float,
) -> list[dict[str, Any]]:
    """Samples per second of OpenVINO alone at every point of hint x (streams or a mode of its own) x batch.

    ``hints`` are its inference precisions: what is not quantised in an INT8 file runs in the one or the other.
    """
    found = []
    for hint in hints:
        for mode in (*map(str, streams), *MODES):
            compiled = _compile(model, tensors, hint, threads, mode)
            requests = _requests(compiled, mode)
            for batch in batches:
                rate = _throughput(compiled, tensors, batch, requests, seconds)
                found.append({"hint": hint, "mode": mode, "requests": requests, "batch": batch,
                              "samples_per_second": rate})  # fmt: skip
    return found


def offline(model: str, tensors: str, hint: str, threads: int, mode: str, batch: int, seconds: float) -> dict[str, Any]:
    """Samples per second of OpenVINO alone, all requests busy, at one point of the grid."""
    compiled = _compile(model, tensors, hint, threads, mode)
    return {"samples_per_second": _throughput(compiled, tensors, batch, _requests(compiled, mode), seconds)}


def latency(
    model: str, tensors: str, hint: str, threads: int, batch: int, parts: int, seconds: float
) -> dict[str, Any]:
    """Median and 99th percentile, in ms, of ``batch`` samples by OpenVINO alone, in ``parts`` requests at once."""
    import numpy as np
    import openvino

    compiled = _compile(model, tensors, hint, threads, str(parts))
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


def _compile(model: str, tensors: str, hint: str, threads: int, mode: str) -> Any:
    import numpy as np
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape([-1, *np.load(tensors, mmap_mode="r").shape[1:]])
    own = {"PERFORMANCE_HINT": mode.upper()} if mode in MODES else {"NUM_STREAMS": int(mode)}
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, **own}
    return core.compile_model(network, "CPU", settings)


def _requests(compiled: Any, mode: str) -> int:
    return int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if mode in MODES else mode)


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


def session(model: str, tensors: str, seconds: float) -> dict[str, Any]:
    """Median of one sample in milliseconds through a plain ONNX Runtime session with its default options.

    That is the work of MLPerf's reference harness without the harness.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    [name] = [each.name for each in opened.get_inputs()]
    feeds = _feeds(np.load(tensors), 1)
    taken: list[int] = []
    clock = time.perf_counter_ns
    warm, end = clock() + int(WARM_S * 1e9), clock() + int((WARM_S + seconds) * 1e9)
    for number in itertools.count():
        if (begin := clock()) >= end and taken:
            break
        opened.run(None, {name: feeds[number % len(feeds)]})
        if begin > warm:
            taken.append(clock() - begin)
    return {"p50_ms": statistics.median(taken) / 1e6}


def gaps(model: str, precision: str, tensors: str, sizes: int, pause_s: float, rounds: int) -> dict[str, Any]:
    """What the product's OpenVINO backend takes for batches of 1 to ``sizes`` after random pauses, in nanoseconds.

    ``{"batch_ns": {size: [one per round]}}``. Between queries of a server caches and cores cool down, as they do here;
    pauses are exponential with mean ``pause_s``, sizes come in random order.
    """
    import numpy as np

    from backends.base import ModelFile
    from backends.openvino import OpenVino
    from sut.config import usable_cores

    samples = np.load(tensors)
    file = ModelFile(Path(model), precision, samples.shape[1:])
    runner = OpenVino.load(file, "cpu", 1, usable_cores()).runner()
    random = np.random.default_rng(0)
    found: dict[int, list[int]] = {size: [] for size in range(1, sizes + 1)}
    for number in range(-1, rounds):  # the first round warms
        for size in map(int, random.permutation(list(found))):
            slot = runner.slot(size)
            next(iter(slot.buffers.values()))[...] = samples[np.arange(size) % len(samples)]
            time.sleep(random.exponential(pause_s))
            begin = time.perf_counter_ns()
            runner.infer(slot)
            if number >= 0:
                found[size].append(time.perf_counter_ns() - begin)
    return {"batch_ns": found}


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


TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task for task in (files, grid, offline, latency, session, gaps, agreement)
}


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
