"""How fast each preprocessor is by itself on one core, and how near it is to the oracle.

python benchmarks/preprocess.py [--repeat 7] [--write-docs]

The pictures are those of ``tools/make_pictures.py``. Each side gets the same files in memory and writes ResNet-50's
input tensor; the reference is what MLPerf's reference harness does, in plain OpenCV calls. Sides take turns within one
process. Where DALI is installed its work is set beside a bare DALI pipeline, in batches of eight. Exit code: 0
measured, whatever came out; 1 wrong usage.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.document import Figure, Parser, Target, command_line, figures_table, publish
from benchmarks.overhead_sides import measured
from preprocess.base import Recipe, unmarked
from preprocess.oracle import oracle
from preprocess.parts.decode import decode
from preprocess.registry import load
from sut.datasets.mosaics import pictures
from sut.qsl.library import Rows
from sut.results.parity import measure as parity_of
from sut.results.parity import photos

MEAN = (123.68, 116.78, 103.94)
RECIPE = Recipe(name="resnet50", size=224, fit="resize-crop", interpolation="area", mean=MEAN)
REFERENCE = "reference"
COUNTS = {"small": (11, 20), "medium": (12, 4), "large": (2, 1)}
"""Pictures of each size, and how often a measurement goes through them."""
ASKED = {
    "opencv": {"small": 1.0, "medium": 1.0, "large": 1.0},
    "fused": {"small": 1.5, "medium": 1.8, "large": 1.2},
}
"""How many times as fast as the reference a preprocessor must be."""
BATCH = 8
DALI_ASKED = 0.95
"""Speed of ``dali-resize`` over that of DALI by itself, which does the same work, at least."""
LETTERBOX = Recipe(name="yolo", size=640, fit="letterbox", interpolation="linear", std=(255.0, 255.0, 255.0))
LETTERBOX_ASKED = {"pixels": 1.5, "JPEG": 1.0}
"""How many times as fast as ``opencv`` ``fused`` must letterbox, from pixels and with decoding, which both must do."""

HOW = f"""
Pictures: small 60 x 70 pixels and 4 kB, medium 500 x 375 and 121 kB, large 3564 x 2880 and 9.5 MB, from
`tools/make_pictures.py`; per second of processor time on one core. *Bare* is the reference: decode, colour,
`INTER_AREA`, crop, mean and transpose in plain OpenCV and NumPy calls, as MLPerf's reference harness has them; or, for
`dali-resize`, DALI alone: one pipeline that decodes, resizes, crops and normalises, in batches of {BATCH}; or, for a
letterbox (640 pixels, float32 in NCHW), `opencv`, from files or from pixels that are decoded already; *photos* are the
demo's, most of 512 pixels. *Levels* are the largest difference from the oracle in levels of 255, on the pixels that
OpenCV decodes."""

Convert = Callable[[bytes, NDArray[np.float32]], None]
"""Turns a file into one sample, float32 (3, 224, 224), in place."""


def reference(data: bytes, out: NDArray[np.float32]) -> None:
    """The steps of MLPerf's reference harness for ResNet-50, from a file in memory."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    height, width, _ = picture.shape
    side = int(100.0 * 224 / 87.5)
    to = (side, int(side * height / width)) if height > width else (int(side * width / height), side)
    picture = cv2.resize(picture, to, interpolation=cv2.INTER_AREA)
    left, top = int((to[0] - 224) / 2), int((to[1] - 224) / 2)
    sample = np.asarray(picture[top : top + 224, left : left + 224], dtype="float32")
    sample -= np.array(MEAN, dtype=np.float32)
    out[...] = sample.transpose(2, 0, 1)


def converter(name: str) -> Convert:
    """What the side ``name`` does with one picture."""
    if name == REFERENCE:
        return reference
    preprocessor = load(name)(RECIPE)

    def convert(data: bytes, out: NDArray[np.float32]) -> None:
        preprocessor.run([data], Rows.of(out[np.newaxis]), unmarked)

    return convert


def farthest(convert: Convert, files: Sequence[bytes]) -> float:
    """Largest difference from the oracle in levels of 255, on the pixels that OpenCV decodes."""
    out = np.empty(RECIPE.sample_shape, np.float32)
    largest = 0.0
    for data in files:
        out.fill(np.nan)
        convert(data, out)
        largest = max(largest, float(np.abs(out.astype(np.float64) - oracle(decode(data), RECIPE)[0]).max()))
    return largest


def rate(work: Callable[[], object], loops: int, pictures: int) -> float:
    """Pictures per second of processor time of a piece of work that takes so many, done so many times.

    It computes all the time, so on a quiet machine that is the time that passes; a busy one distorts it less.
    """
    begin = time.process_time()
    for _ in range(loops):
        work()
    return loops * pictures / (time.process_time() - begin)


def each(convert: Convert, files: Sequence[bytes]) -> Callable[[], None]:
    """All files one by one."""
    out = np.empty(RECIPE.sample_shape, np.float32)
    convert(files[0], out)

    def work() -> None:
        for data in files:
            convert(data, out)

    return work


def measure_dali(repeat: int) -> list[Figure]:
    """DALI's own work through this project and by itself on every size, in turn, the same files in batches."""
    from benchmarks.bare_dali import bare_dali

    out = np.empty((BATCH, *RECIPE.sample_shape), np.float32)
    bare, ours = bare_dali(RECIPE, BATCH), load("dali-resize")(RECIPE)
    found: list[Figure] = []
    for size, (count, loops) in COUNTS.items():
        pool = [data for _, data, _ in pictures(size, count)]
        files = [pool[i % count] for i in range(BATCH)]
        figure = Figure(f"dali-resize, {size}", "/s", Target("ratio", "at least", DALI_ASKED))
        for _ in range(repeat):
            for side, work in (
                (figure.bare, partial(bare, files, out)),
                (figure.ours, partial(ours.run, files, Rows.of(out), unmarked)),
            ):
                work()
                side.append(rate(work, loops, BATCH))
        found.append(figure)
    return found


def measure_letterbox(repeat: int) -> list[Figure]:
    """``fused`` beside ``opencv`` in YOLO's letterbox, from pixels and with decoding, in turn."""
    row = Rows.of(np.empty((1, *LETTERBOX.sample_shape), np.float32))
    fused, opencv = (load(name)(LETTERBOX) for name in ("fused", "opencv"))
    found: list[Figure] = []
    for size, (files, loops) in {
        "photos": (photos(), 4),
        "large": ([data for _, data, _ in pictures("large", 2)], 1),
    }.items():
        decoded = [decode(data) for data in files]
        levels = parity_of(load("fused"), LETTERBOX, files).max_levels
        for start, asked in LETTERBOX_ASKED.items():
            title = f"fused, letterbox of {size} from {start}, {levels} levels"
            figure = Figure(title, "/s", Target("ratio", "at least", asked))
            for _ in range(repeat):
                for side, working in ((figure.ours, fused), (figure.bare, opencv)):
                    if start == "JPEG":
                        works = [partial(working.run, [data], row, unmarked) for data in files]
                    else:
                        works = [partial(working.run_pixels, [pixels], row, unmarked) for pixels in decoded]
                    works[0]()
                    side.append(rate(lambda works=works: [work() for work in works], loops, len(files)))
            found.append(figure)
    return found


def measure(repeat: int) -> list[Figure]:
    """Every preprocessor on every size beside the reference, and how near it is to the oracle."""
    found: list[Figure] = []
    for size, (count, loops) in COUNTS.items():
        files = [data for _, data, _ in pictures(size, count)]
        works = {name: each(converter(name), files) for name in (REFERENCE, *ASKED)}
        rates: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(repeat):
            for name, work in works.items():
                rates[name].append(rate(work, loops, len(files)))
        for name, asked in ASKED.items():
            title = f"{name}, {size}, {farthest(converter(name), files):.2g} levels"
            found.append(Figure(title, "/s", Target("ratio", "at least", asked[size]), rates[name], rates[REFERENCE]))
    return found


def main() -> int:
    """Measure, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--repeat", type=int, default=7, help="measurements of each side (7)")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/performance.md")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    figures = [*measure(given.repeat), *measure_letterbox(given.repeat)]
    figures += measure_dali(given.repeat) if find_spec("nvidia.dali") else []
    os.sched_setaffinity(0, cores)
    body = [measured(command_line(sys.argv), before), "", *figures_table(figures), *HOW.splitlines()]
    publish(body, "preprocess" if given.write_docs else None, "Preprocessing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
