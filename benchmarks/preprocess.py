"""How fast each preprocessor is, beside how near it is to the oracle: on one core, then with two workers.

python benchmarks/preprocess.py [--repeat 7] [--sides opencv,fused] [--output results.json] [--write-docs]

The pictures are those of ``tools/make_pictures.py``. Each side gets the same files in memory and writes ResNet-50's
input tensor; the reference is what MLPerf's reference harness does, in plain OpenCV calls. Sides take turns within one
process. Where DALI is installed its preprocessors are set beside a bare DALI pipeline, in batches of eight. Exit code:
0 everything was measured, whatever came out; 1 wrong usage; 3 no second core for two workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.document import command_line, write_section
from benchmarks.overhead_report import short, spread
from benchmarks.overhead_sides import ROOT, facts
from preprocess.base import Recipe
from preprocess.decode import decode
from preprocess.oracle import oracle
from preprocess.registry import load
from sut.library import Rows
from tools.make_pictures import pictures

DOCUMENT = ROOT / "docs" / "performance.md"

MEAN = (123.68, 116.78, 103.94)
RECIPE = Recipe(name="resnet50", size=224, fit="resize-crop", interpolation="area", mean=MEAN)
REFERENCE = "reference"
COUNTS = {"small": (11, 20), "medium": (12, 4), "large": (2, 1)}
"""Pictures of each size, and how often a measurement goes through them."""
TARGETS = {"small": 1.5, "medium": 1.8, "large": 1.2}
"""How many times as fast as the reference ``fused`` must be."""
BATCH = 8
DALI_SIDES = ("dali", "dali-resize")
DALI_TARGET = 0.95
"""Speed of DALI through our pipeline over that of DALI by itself, at least."""
WORKERS_TARGET = 1.9
WORKERS_S = 1.0
"""Length of one measurement with workers in seconds."""

Convert = Callable[[bytes, NDArray[np.float32]], None]
"""Turns a file into one sample, float32 (3, 224, 224), in place."""


def reference(data: bytes, out: NDArray[np.float32]) -> None:
    """The steps of MLPerf's reference harness for ResNet-50, from a file in memory."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
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
    """What the side ``name`` does with one picture. Raises ``ModuleNotFoundError`` and ``ValueError`` as ``load``."""
    if name == REFERENCE:
        return reference
    preprocessor = load(name)(RECIPE)

    def convert(data: bytes, out: NDArray[np.float32]) -> None:
        preprocessor.run([data], Rows.of(out[np.newaxis]), lambda stage: None)

    return convert


@dataclass(slots=True)
class Row:
    """One side on one size: ms of processor time per picture, and the distance from the oracle in levels."""

    size: str
    side: str
    largest: float
    mean: float
    ms: list[float] = field(default_factory=list)
    two_workers: list[float] = field(default_factory=list)
    """Pictures per second of two workers over those of one."""

    @property
    def median(self) -> float:
        """Median ms per picture."""
        return statistics.median(self.ms)


def parity(convert: Convert, files: Sequence[bytes]) -> tuple[float, float]:
    """Largest and mean difference from the oracle in levels of 255, on the pixels that OpenCV decodes."""
    out = np.empty(RECIPE.sample_shape, np.float32)
    largest, mean = 0.0, 0.0
    for data in files:
        out.fill(np.nan)
        convert(data, out)
        difference = np.abs(out.astype(np.float64) - oracle(decode(data), RECIPE)[0])
        largest = max(largest, float(difference.max()))
        mean += float(difference.mean()) / len(files)
    return largest, mean


def one_core(converters: Mapping[str, Convert], files: Sequence[bytes], loops: int, rows: Mapping[str, Row]) -> None:
    """One measurement of every side, one after the other; kept in ``rows``."""
    out = np.empty(RECIPE.sample_shape, np.float32)
    for name, convert in converters.items():
        convert(files[0], out)
        # It computes all the time, so on a quiet machine this is the time that passes; a busy one distorts it less.
        begin = time.process_time()
        for _ in range(loops):
            for data in files:
                convert(data, out)
        rows[name].ms.append(1e3 * (time.process_time() - begin) / (loops * len(files)))


def throughput(name: str, files: Sequence[bytes], workers: int) -> float:
    """Pictures per second of ``workers`` threads, each with a preprocessor of its own."""
    done = [0] * workers
    converters = [converter(name) for _ in range(workers)]
    start = threading.Barrier(workers + 1)
    stop = threading.Event()

    def work(number: int) -> None:
        out = np.empty(RECIPE.sample_shape, np.float32)
        converters[number](files[0], out)
        start.wait()
        while not stop.is_set():
            converters[number](files[(done[number] + number) % len(files)], out)
            done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    time.sleep(WORKERS_S)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - begin)


@dataclass(slots=True)
class DaliRow:
    """A preprocessor on DALI beside DALI by itself, on one size: ms of processor time per picture in batches."""

    size: str
    side: str
    ms: list[float] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Speed over that of the bare pipeline, by the medians."""
        return statistics.median(self.bare_ms) / statistics.median(self.ms)


def measure_dali(repeat: int, cores: Sequence[int], say: Callable[[str], None]) -> list[DaliRow]:
    """DALI's preprocessors and DALI by itself on every size, in turn on one core, the same files in batches."""
    from benchmarks.bare_dali import bare_dali

    os.sched_setaffinity(0, cores[:1])
    out = np.empty((BATCH, *RECIPE.sample_shape), np.float32)
    bare, preprocessors = bare_dali(RECIPE, BATCH), {name: load(name)(RECIPE) for name in DALI_SIDES}
    found = []
    for size, (count, loops) in COUNTS.items():
        pool = [data for _, data, _ in pictures(size, count)]
        files = [pool[i % count] for i in range(BATCH)]
        rows = {name: DaliRow(size, name) for name in DALI_SIDES}

        def timed(work: Callable[[], object], loops: int = loops) -> float:
            work()
            begin = time.process_time()
            for _ in range(loops):
                work()
            return 1e3 * (time.process_time() - begin) / (loops * BATCH)

        for _ in range(repeat):
            alone = timed(lambda files=files: bare(files, out))
            for name, one in preprocessors.items():
                rows[name].bare_ms.append(alone)
                rows[name].ms.append(
                    timed(lambda one=one, files=files: one.run(files, Rows.of(out), lambda stage: None))
                )
        found += rows.values()
        say(f"{size}: " + ", ".join(f"{row.side} {row.ratio:.2f} of bare DALI" for row in rows.values()))
    return found


def measure(sides: Sequence[str], repeat: int, cores: Sequence[int], say: Callable[[str], None]) -> list[Row]:
    """Every side on every size, on one core and, where there are two, with two workers."""
    found = []
    converters = {name: converter(name) for name in sides}
    for size, (count, loops) in COUNTS.items():
        files = [data for _, data, _ in pictures(size, count)]
        rows = {name: Row(size, name, *parity(convert, files)) for name, convert in converters.items()}
        os.sched_setaffinity(0, cores[:1])
        for _ in range(repeat):
            one_core(converters, files, loops, rows)
        os.sched_setaffinity(0, cores[:2])
        for _ in range(repeat if len(cores) > 1 else 0):
            for name in sides:
                one = throughput(name, files, 1)
                rows[name].two_workers.append(throughput(name, files, 2) / one)
        found += rows.values()
        say(f"{size}: " + ", ".join(f"{row.side} {short(row.median)} ms" for row in rows.values()))
    return found


COLUMNS = ("pictures", "preprocessor", "ms each", "x reference", "asked", "two workers", "asked", "largest", "mean")


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table's lines, under ``COLUMNS``."""
    base = {row.size: row.median for row in rows if row.side == REFERENCE}
    lines = []
    for row in rows:
        ours = row.side == "fused"
        line = (row.size, row.side, spread(row.ms), f"{base[row.size] / row.median:.2f}")
        line += (f"{TARGETS[row.size]:g}" if ours else "", spread(row.two_workers), f"{WORKERS_TARGET}" if ours else "")
        lines.append((*line, f"{row.largest:.3g}", f"{row.mean:.2g}"))
    return lines


def dali_section(rows: Sequence[DaliRow]) -> list[str]:
    """DALI's table in the document; nothing where it was not measured."""
    if not rows:
        return []
    lines = ["", "| pictures | preprocessor | ms each | bare DALI ms each | of bare DALI | asked |", "|" + " --- |" * 6]
    for row in rows:
        cells = (row.size, row.side, spread(row.ms), spread(row.bare_ms), f"{row.ratio:.2f}", f"{DALI_TARGET}")
        lines.append("| " + " | ".join(cells) + " |")
    return [
        *lines,
        "",
        f"DALI on one core in batches of {BATCH}. *Bare DALI* is one pipeline of its own: decode, its antialiased "
        "linear resize, crop and normalise. `dali` resizes exactly instead, behind DALI's decoder.",
    ]


def section(rows: Sequence[Row], dali: Sequence[DaliRow], machine: Mapping[str, Any], command: str) -> str:
    """What stands between the markers of the document."""
    lines = [f"Measured {machine['utc']} with `{command}`, in one process.", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items() if name != "utc"]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(line) + " |" for line in cells(rows)]
    lines += [
        "",
        "Pictures: small 60 x 70 pixels and 4 kB, medium 500 x 375 and 121 kB, large 3564 x 2880 and 9.5 MB, from "
        "`tools/make_pictures.py`. Reference: decode, colour, `INTER_AREA`, crop, mean and transpose in plain OpenCV "
        "and NumPy calls, as MLPerf's reference harness has them. *ms each* is processor time on one core, one "
        "picture at a time, median (smallest to largest); *x reference* is the ratio of the medians. *Two workers* is "
        "their pictures per second over those of one. *Largest* and *mean* are differences from the oracle in "
        "levels of 255.",
        *dali_section(dali),
    ]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repeat", type=int, default=7, help="measurements of each side (7)")
    parser.add_argument("--sides", default="opencv,fused", metavar="NAME,...", help="preprocessors (opencv,fused)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write every value to a JSON file")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/performance.md")
    found = parser.parse_args()
    if found.repeat < 1:
        parser.error("--repeat takes 1 or more")
    try:
        for name in found.sides.split(","):
            load(name)
    except (ValueError, ModuleNotFoundError) as error:
        parser.error(str(error))
    return found


def main() -> int:
    """Measure, print, write."""
    try:
        arguments = _arguments()
    except SystemExit as stop:
        return 1 if stop.code else 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    machine = facts()
    cores = sorted(os.sched_getaffinity(0))
    before = os.getloadavg()[0]
    rows = measure([REFERENCE, *arguments.sides.split(",")], arguments.repeat, cores, console.print)
    dali = measure_dali(arguments.repeat, cores, console.print) if find_spec("nvidia.dali") else []
    machine["load average before and after"] = f"{before:.2f} and {os.getloadavg()[0]:.2f}"
    table = Table(*COLUMNS)
    for line in cells(rows):
        table.add_row(*line)
    console.print(table)
    command = command_line("preprocess.py", sys.argv[1:])
    if arguments.output:
        kept = {"schema": 1, "command": command, "machine": machine, "rows": [asdict(row) for row in rows]}
        kept["dali"] = [asdict(row) for row in dali]
        arguments.output.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if arguments.write_docs:
        write_section(DOCUMENT, "preprocess", "Preprocessing", section(rows, dali, machine, command))
    return 0 if len(cores) > 1 else 3


if __name__ == "__main__":
    sys.exit(main())
