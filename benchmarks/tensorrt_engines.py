"""Engines of two models in three precisions by TensorRT-RTX, which builds them without a GPU: sizes and build times.

python benchmarks/tensorrt_engines.py [--architecture sm_89] [--write-docs]

For batches of 1, 2, 4 and 8, and one GPU architecture each. Lite0's weights are trained, ResNet-50's random; INT8 is
calibrated on the demo photos. No engine is run. Exit code: 0 built, or its row says why not; 1 wrong usage.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backends.tensorrt import TensorRt
from backends.tensorrt_engine import Build, architectures, build_engine, import_tensorrt
from benchmarks.document import Parser, command_line, publish, short, table
from benchmarks.overhead_sides import measured
from sut.config import make_config
from sut.datasets.demo import open_demo
from sut.models.preparation import Prepared, prepare
from sut.models.registry import find

MODELS = ("efficientnet-lite0", "resnet50")
SIZES = (1, 2, 4, 8)


def prepared(model: str, precision: str, fold: bool = False) -> tuple[Prepared, tuple[int, ...]]:
    """The file that the backend would be given, and the shape of a sample."""
    told = {"backend": "tensorrt", "device": "cuda", "model": model, "precision": precision, "fold": fold}
    weights = "trained" if model == MODELS[0] else "random"
    config, spec = make_config(told | {"weights": weights}), find(model)
    file = prepare(config, spec, TensorRt, open_demo(), lambda line: None, lambda done, total: None)
    size = spec.recipe.size
    return file, (size, size, 3) if fold else (3, size, size)


def built(model: str, precision: str, architecture: str) -> list[str]:
    """A row: what was built, its megabytes and seconds, or why not."""
    file, shape = prepared(model, precision)
    begin, cpu = time.perf_counter(), time.process_time()
    try:
        plan, _ = build_engine(import_tensorrt(), file.file, Build(SIZES, shape, architectures=(architecture,)))
    except ValueError as error:
        return [model, precision, architecture, "-", "-", "-", str(error).partition("engine of it: ")[2]]
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    return [model, precision, architecture, short(len(plan) / 1e6), short(seconds), short(cpu_s), ""]


def main() -> int:
    """Build, print, write."""
    parser, trt = Parser(__doc__), import_tensorrt()
    known = architectures(trt)
    parser.add_argument("--architecture", action="append", choices=known, help="one of those it builds for (all)")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/performance.md")
    given, before = parser.parse_args(), os.getloadavg()[0]
    rows = [
        built(model, precision, architecture)
        for model in MODELS
        for precision in TensorRt.precisions
        for architecture in given.architecture or known
    ]
    columns = ("model", "precision", "for", "MB", "s", "CPU s", "")
    what = f"TensorRT-RTX {trt.__version__}, batches of {', '.join(map(str, SIZES))}; no engine was run."
    body = [measured(command_line(sys.argv), before), what, "", *table(columns, rows)]
    publish(body, "engines" if given.write_docs else None, "Engines that TensorRT-RTX builds without a GPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
