"""From JPEG to label: does the whole keep up with its parts, and does SingleStream add up?

    python benchmarks/end_to_end.py [--seconds 5] [--repeat 3] [--preprocess fused]

P is preprocessing alone and I inference alone, each on all cores, in samples per second. One after the other on the
same cores the whole can reach 1 / (1/P + 1/I); the figure is what an Offline run at boundary ``jpeg`` reaches of it.
For SingleStream the difference of the mean latencies at ``jpeg`` and ``tensor`` is set beside the stages that make it,
with a real model and with one that sleeps.
Medians over the repeats, all sides in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.document import write_section
from benchmarks.overhead_report import spread
from benchmarks.overhead_sides import facts
from sut.config import RunConfig, usable_cores
from sut.library import Rows
from sut.picture_library import PictureLibrary

ROOT = Path(__file__).resolve().parent.parent
BATCH = 8
STAGES = ("decode", "resize", "normalize", "preprocess")
BACKENDS = {
    "onnxruntime": [],
    "simulated": ["--set", "backend_options.a_ms=5", "--set", "backend_options.b_ms=0"],
}
"""A real model is slower behind a decoder, which takes its place in the caches; one that sleeps is not."""


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


@dataclass(frozen=True, slots=True)
class Sum:
    """Means of SingleStream in ms: how much longer jpeg takes than tensor, its stages, its longer inference."""

    difference: float
    stages: float
    infer: float

    @property
    def share(self) -> float:
        """The difference over the stages, the inference's own change aside: that is no preprocessing."""
        return (self.difference - self.infer) / self.stages

    def __str__(self) -> str:
        return f"{self.difference:.3f} ms more for stages of {self.stages:.3f}, infer {self.infer:+.3f}"


def added_up(backend: str, preprocess: str, seconds: str) -> Sum:
    """One pair of runs. At ``tensor`` the stage preprocess is the copy of a ready tensor, which ``jpeg`` has not."""
    one = ["--backend", backend, "--scenario", "SingleStream", "--preprocess", preprocess, "--time", seconds]
    one += BACKENDS[backend]
    tensor, jpeg = (sut_run("--boundary", boundary, *one) for boundary in ("tensor", "jpeg"))
    mean = {
        name: [each["stages_ns"].get(name, {"mean": 0})["mean"] / 1e6 for each in (tensor, jpeg)]
        for name in (*STAGES, "infer")
    }
    stages = sum(mean[name][1] for name in STAGES) - mean["preprocess"][0]
    difference = (jpeg["latency_ns"]["mean"] - tensor["latency_ns"]["mean"]) / 1e6
    return Sum(difference, stages, mean["infer"][1] - mean["infer"][0])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def main() -> None:
    """Measure and print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--preprocess", default="opencv")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md")
    given = parser.parse_args()
    seconds = str(given.seconds)
    lanes = [
        "--lanes",
        str(usable_cores()),
        "--max-batchsize",
        "8",
        "--preprocess",
        given.preprocess,
        "--time",
        seconds,
    ]
    ratios: list[float] = []
    sums: dict[str, list[Sum]] = {backend: [] for backend in BACKENDS}
    for number in range(given.repeat):
        p = preprocessing_rate(given.preprocess, given.seconds)
        i = sut_run("--scenario", "Offline", "--boundary", "tensor", *lanes)["samples_per_second"]
        whole = sut_run("--scenario", "Offline", "--boundary", "jpeg", *lanes)["samples_per_second"]
        possible = 1 / (1 / p + 1 / i)
        ratios.append(whole / possible)
        for backend, found in sums.items():
            found.append(added_up(backend, given.preprocess, seconds))
        print(
            f"{number + 1}/{given.repeat}: P {p:.0f}, I {i:.0f}, possible {possible:.0f}, whole {whole:.0f} samples/s",
            *(f"SingleStream on {backend}: {found[-1]}" for backend, found in sums.items()),
            sep="; ",
            flush=True,
        )
    titles = {"Offline at jpeg over 1 / (1/P + 1/I)": ratios}
    for backend, found in sums.items():
        titles[f"SingleStream on {backend}: (jpeg - tensor - longer inference) over its stages"] = [
            one.share for one in found
        ]
    lines = [f"- {title}: {spread(values)}" for title, values in titles.items()]
    print("\n".join(lines))
    if given.write_docs:
        machine = facts()
        told = (
            f"preprocessor {given.preprocess}, {machine['cpu']}, {machine['cores']} cores, commit {machine['commit']}"
        )
        head = f"Measured {machine['utc']} with `benchmarks/end_to_end.py`: {told}. Medians (smallest to largest)."
        last = "\n".join(f"- The last pair on {backend}: {found[-1]}." for backend, found in sums.items())
        body = "\n".join([head, "", *lines, last])
        write_section(ROOT / "docs" / "performance.md", "end-to-end", "From JPEG to label", body)


if __name__ == "__main__":
    main()
