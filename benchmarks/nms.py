"""What a detector's postprocessing costs: from raw predictions to answers, CPU time of one thread.

python benchmarks/nms.py [--repeat 7] [--write-docs]

Predictions are drawn: of 8,400 anchors (25,200 with objectness) 3,000 are candidates. Each picture has its own, more
than a cache holds. Exit code: 0 measured, whatever came out; 1 wrong usage.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backends.base import TensorSpec
from benchmarks.document import Figure, Parser, Target, command_line, figures_table, publish
from benchmarks.overhead_sides import measured
from preprocess.base import Geometry, Recipe
from sut.models.base import ModelSpec
from sut.tasks.detection.task import Detection

CANDIDATES = 3000
CLASSES = 80
SIZE = 640
PICTURES = 32
"""Predictions that are gone through: 90 MB, and more with objectness."""
PLACE = Geometry(SIZE, 480, 1.0, 1.0, 0.0, -80.0)
ASKED_MS = 1.5
"""With as many numbers as YOLO11 predicts at 640 pixels; v5 has three times as many, and twice the time."""

Predictions = NDArray[np.float32]


def drawn(random: np.random.Generator, anchors: int, objectness: bool, spread: int) -> Predictions:
    """One picture's: candidates of any class all over ``spread`` pixels, and scores next to nothing elsewhere."""
    first = 4 + objectness
    found = np.empty((first + CLASSES, anchors), np.float32)
    found[:2] = random.uniform(0, spread, (2, anchors))
    found[2:4] = random.uniform(8, 200, (2, anchors))
    found[4:] = random.uniform(0, 0.0009, (first - 4 + CLASSES, anchors))
    chosen = random.choice(anchors, CANDIDATES, replace=False)
    found[4:first, chosen] = 0.9
    found[first + random.integers(0, CLASSES, CANDIDATES), chosen] = random.uniform(0.01, 1, CANDIDATES)
    return found


def measure(title: str, batch: int, repeat: int, objectness: bool = False, spread: int = SIZE) -> Figure:
    """CPU time of ``decode`` for a picture, in batches; v5's order of the axes with objectness, v11's without."""
    random, anchors = np.random.default_rng(0), 25_200 if objectness else 8_400
    pictures = np.stack([drawn(random, anchors, objectness, spread) for _ in range(PICTURES)])
    if objectness:
        pictures = np.ascontiguousarray(pictures.transpose(0, 2, 1))
    recipe = Recipe(name="letterbox", size=SIZE, fit="letterbox", interpolation="linear")
    spec = ModelSpec(
        name="detector", recipe=recipe, build=lambda weights, say: Path(), task="detection", classes=CLASSES
    )
    task = Detection.of(spec, [TensorSpec("raw", "float32", (None, *pictures.shape[1:]))])
    figure = Figure(title, "ms", Target("value", "at most", ASKED_MS * (1 + objectness)))
    for _ in range(repeat):
        begin = time.thread_time()
        for at in range(0, PICTURES, batch):
            task.decode({"raw": pictures[at : at + batch]}, range(batch), [PLACE] * batch, batch)
        figure.ours.append(1e3 * (time.thread_time() - begin) / PICTURES)
    return figure


def main() -> int:
    """Measure, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--repeat", type=int, default=7, help="measurements of each (7)")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/performance.md")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    figures = [
        measure("a picture alone", 1, given.repeat),
        measure("in batches of 8", 8, given.repeat),
        measure("all in one corner, so that most go", 1, given.repeat, spread=100),
        measure("25,200 anchors with objectness", 1, given.repeat, objectness=True),
    ]
    body = [measured(command_line(sys.argv), before), "", *figures_table(figures)]
    publish(body, "nms" if given.write_docs else None, "Postprocessing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
