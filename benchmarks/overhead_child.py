"""The bare sides of ``overhead.py``, each in a process of its own: one JSON object as argument, one on standard output.

``session`` and ``ceiling`` import nothing of this project: they are what it is compared with.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WARM_S = 1.5
"""How long a session is warmed: as long as the product calibrates at the most."""


def inputs(directory: str) -> dict[str, Any]:
    """Build the random ResNet-50 and write ``inputs.npy``: the demo photos, float32 (n, 3, 224, 224).

    The files are made by the product's own code, so that both sides get the same; returns where the model is.
    """
    import numpy as np

    from preprocess.opencv import OpenCV
    from sut.datasets.demo import open_demo
    from sut.library import Rows, TensorLibrary
    from sut.models.registry import find

    spec = find("resnet50")
    photos = open_demo()
    library = TensorLibrary(photos, spec.recipe, lambda: OpenCV(spec.recipe), photos.count, workers=2)
    library.load(range(photos.count))
    tensors = np.empty((photos.count, *spec.recipe.sample_shape), spec.recipe.dtype)

    library.source().fill(range(photos.count), Rows.of(tensors), lambda stage: None)
    np.save(Path(directory) / "inputs.npy", tensors)
    return {"model": str(spec.build("random", lambda text: None))}


def pictures(directory: str, count: int) -> dict[str, Any]:
    """Make a folder in the ImageNet layout: ``count`` JPEGs cut out of the demo photos at random, and val_map.txt."""
    import cv2
    import numpy as np

    from sut.datasets.demo import open_demo

    photos = open_demo()
    decoded = [cv2.imread(str(photos.root / name), cv2.IMREAD_COLOR) for name in photos.files]
    random = np.random.default_rng(1)
    lines = []
    for number in range(count):
        photo = decoded[number % len(decoded)]
        assert photo is not None, "a demo photo cannot be read"
        height, width = (int(random.integers(side // 2, side + 1)) for side in photo.shape[:2])
        top, left = (
            int(random.integers(0, side - size + 1)) for side, size in zip(photo.shape, (height, width), strict=False)
        )
        crop = photo[top : top + height, left : left + width]
        scale = 500 / max(height, width)
        name = f"{number:04d}.jpg"
        if not cv2.imwrite(str(Path(directory) / name), cv2.resize(crop, None, fx=scale, fy=scale)):
            raise OSError(f"{directory}/{name} cannot be written")
        lines.append(f"{name} {number % 1000}\n")
    (Path(directory) / "val_map.txt").write_text("".join(lines), encoding="utf-8")
    return {"count": count}


def idle() -> dict[str, Any]:
    """Peak memory in bytes of a process that has imported what the worker imports and loaded nothing."""
    packages = (
        "mlperf_loadgen",
        "onnxruntime",
        "sut.worker",
        "sut.assembly",
        "sut.calibrate",
        "sut.planning",
        "sut.system",
        "backends.onnxruntime",
        "preprocess.opencv",
    )
    for package in packages:
        importlib.import_module(package)
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return {"peak_bytes": int(line.split()[1]) * 1024}
    raise OSError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")


def session(model: str, tensors: str, batch: int, threads: int, batches: int) -> dict[str, Any]:
    """A plain ONNX Runtime session in a tight loop: ``batches`` batches of ``batch`` ready samples.

    Returns the median latency of a batch in ms, and samples per second over the whole loop.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    bare = onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    samples = np.load(tensors)
    name = bare.get_inputs()[0].name
    feeds = [
        {name: np.ascontiguousarray(samples[[(first + i) % len(samples) for i in range(batch)]])}
        for first in range(len(samples))
    ]
    clock = time.perf_counter_ns
    end = clock() + int(WARM_S * 1e9)
    while clock() < end:
        bare.run(None, feeds[0])
    taken: list[int] = []
    begin = clock()
    for number in range(batches):
        feed = feeds[number % len(feeds)]
        start = clock()
        bare.run(None, feed)
        taken.append(clock() - start)
    seconds = (clock() - begin) / 1e9
    return {"p50_ms": statistics.median(taken) / 1e6, "samples_per_second": batch * batches / seconds}


def ceiling(
    scenario: str, conf: str, time_s: float, queries: int, qps: float, samples: int, trace: bool, directory: str
) -> dict[str, Any]:
    """LoadGen with an empty callback: it answers what it gets with nothing, at once and in LoadGen's own call.

    ``queries`` is min_query_count, ``samples`` the size of the sample library; LoadGen's logs go to ``directory``.
    """
    import mlperf_loadgen as lg

    settings = lg.TestSettings()
    for path, kind in (("", 0), (conf, 2)):  # the rules inside the wheel, then the file alone
        if settings.FromConfig(path, "resnet50", scenario, kind) != 0:
            raise ValueError(f"LoadGen refuses {path or 'its own mlperf.conf'}")
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = round(time_s * 1000)
    settings.min_query_count = queries
    settings.server_target_qps = qps
    settings.offline_expected_qps = qps
    logs = lg.LogSettings()
    logs.log_output.outdir = directory
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = trace
    response, answer = lg.QuerySampleResponse, lg.QuerySamplesComplete

    def issue(ids: Sequence[int], indices: Sequence[int]) -> None:
        answer([response(each, 0, 0) for each in ids])

    system = lg.ConstructFastSUT(issue, lambda: None)
    library = lg.ConstructQSL(samples, samples, lambda indices: None, lambda indices: None)
    begin = time.process_time()
    lg.StartTestWithLogSettings(system, library, settings, logs, "")
    cpu_s = time.process_time() - begin
    lg.DestroyFastSUT(system)
    lg.DestroyQSL(library)
    return {"cpu_s": cpu_s}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    task.__name__: task for task in (inputs, pictures, idle, session, ceiling)
}


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
