"""The bare sides of ``overhead.py``, each in a process of its own: one JSON object as argument, one on standard output.

``ceiling`` imports nothing of this project: it is what the project is compared with.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


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
        "sut.run.worker",
        "sut.run.course",
        "backends.onnxruntime",
        "preprocess.opencv",
    )
    for package in packages:
        importlib.import_module(package)
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return {"peak_bytes": int(line.split()[1]) * 1024}
    raise OSError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")


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
    lg.StartTestWithLogSettings(system, library, settings, logs, "")
    lg.DestroyFastSUT(system)
    lg.DestroyQSL(library)
    return {}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {task.__name__: task for task in (pictures, idle, ceiling)}


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
