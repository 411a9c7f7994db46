"""From JPEG to label: does the whole keep up with its parts, and does SingleStream add up?

    python benchmarks/end_to_end.py [--seconds 5] [--repeat 3] [--preprocess fused]

P is preprocessing alone and I inference alone, each on all cores, in samples per second. One after the other on the
same cores the whole can reach 1 / (1/P + 1/I); the figure is what an Offline run at boundary ``jpeg`` reaches of it.
For SingleStream the difference of the mean latencies at ``jpeg`` and ``tensor`` is set beside the stages that make it.
Medians over the repeats, all sides in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sut.config import RunConfig, usable_cores
from sut.library import PictureLibrary, Rows

ROOT = Path(__file__).resolve().parent.parent
BATCH = 8
STAGES = ("decode", "resize", "normalize", "preprocess")


def preprocessing_rate(preprocess: str, seconds: float) -> float:
    """P: samples per second of all cores preprocessing the demo photos in batches, one source per core."""
    from sut.assembly import assemble

    parts = assemble(RunConfig(preprocess=preprocess, boundary="jpeg", dataset="demo"))
    recipe = parts.spec.recipe
    library = PictureLibrary(parts.dataset, "jpeg", lambda: parts.preprocessor(recipe), parts.dataset.count, 2)
    library.load(range(library.count))
    counts = [0] * usable_cores()
    sources = [library.source() for _ in counts]
    indices = [i % library.count for i in range(BATCH)]

    def work(number: int, end: float) -> None:
        rows = Rows.of(np.empty((BATCH, *recipe.sample_shape), recipe.dtype))
        while time.perf_counter() < end:
            sources[number].fill(indices, rows, lambda stage: None)
            counts[number] += BATCH

    for limit in (0.3, seconds):  # once to warm up
        counts[:] = [0] * len(counts)
        begin = time.perf_counter()
        threads = [threading.Thread(target=work, args=(i, begin + limit)) for i in range(len(counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begin
    return sum(counts) / took


def sut_run(*options: str) -> dict[str, Any]:
    """One run through the product; its result."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            sys.executable,
            "-P",
            "-m",
            "sut",
            "run",
            "--json",
            "--output",
            output,
            "--dataset",
            "demo",
            *options,
        ]
        done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    [row] = json.loads(done.stdout)["rows"]
    return dict(row)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def main() -> None:
    """Measure and print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--preprocess", default="opencv")
    given = parser.parse_args()
    seconds = str(given.seconds)
    lanes = ["--lanes", str(usable_cores()), "--preprocess", given.preprocess, "--time", seconds]
    ratios, sums = [], []
    for number in range(given.repeat):
        p = preprocessing_rate(given.preprocess, given.seconds)
        i = sut_run("--scenario", "Offline", "--boundary", "tensor", *lanes)["samples_per_second"]
        whole = sut_run("--scenario", "Offline", "--boundary", "jpeg", *lanes)["samples_per_second"]
        possible = 1 / (1 / p + 1 / i)
        ratios.append(whole / possible)
        one = ["--scenario", "SingleStream", "--preprocess", given.preprocess, "--time", seconds]
        tensor, jpeg = (sut_run("--boundary", boundary, *one) for boundary in ("tensor", "jpeg"))
        stages = sum(jpeg["stages_ns"][name]["mean"] for name in STAGES if name in jpeg["stages_ns"])
        difference = jpeg["latency_ns"]["mean"] - tensor["latency_ns"]["mean"]
        sums.append(difference / stages)
        print(
            f"{number + 1}/{given.repeat}: P {p:.0f}, I {i:.0f}, possible {possible:.0f}, whole {whole:.0f} samples/s; "
            f"SingleStream jpeg - tensor {difference / 1e6:.3f} ms, stages {stages / 1e6:.3f} ms",
            flush=True,
        )
    print(f"whole / possible: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"(jpeg - tensor) / stages: median {statistics.median(sums):.3f} ({min(sums):.3f} to {max(sums):.3f})")


if __name__ == "__main__":
    main()
