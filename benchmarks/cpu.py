"""How fast a CPU gets: this system on OpenVINO beside OpenVINO alone, per scenario and precision, and beside FP32.

python benchmarks/cpu.py [--repeat 5] [--seconds 4] [--models resnet50,efficientnet-lite0] [--precisions int8,bf16,fp32]
                         [--only PART,...] [--output results.json] [--from results.json] [--write-docs]

OpenVINO alone is given its best point of a grid of inference precision x streams (or its latency and throughput modes)
x batch, found and printed in the same run. Both sides then take turns, each in a fresh process. ``--write-docs`` writes
tables and charts into docs/performance.md, from what was just measured or from the JSON of an earlier run (``--from``).
Exit code: 0 everything was measured, whatever came out; 1 wrong usage; 3 something could not be measured; 130
interrupted. What was measured until then is printed and kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks.cpu_report import Measured, Point, charts, comparisons, section
from benchmarks.document import command_line, write_section
from benchmarks.overhead_report import COLUMNS
from benchmarks.overhead_sides import ROOT, MeasurementError, child, facts, product
from benchmarks.server import server_rates
from sut.config import usable_cores

DOCUMENT = ROOT / "docs" / "performance.md"
CHILD = Path(__file__).with_name("cpu_child.py")
HINTS = {"int8": ("bf16", "f32"), "bf16": ("bf16",), "fp32": ("f32",)}
"""Inference precisions that OpenVINO alone is tried with: what is not quantised in an INT8 file has a choice."""
WEIGHTS = {"resnet50": "random", "efficientnet-lite0": "trained"}
BATCHES = (1, 2, 4, 8, 16, 32)
GRID_S = 0.8
PARTS = ("agreement", "offline", "singlestream", "multistream", "onnxruntime", "server")
CROPS = 2000
FEW_QUERIES = 100
"""MultiStream's least count here: LoadGen's own (662) is for a verdict, the percentile settles before."""

Say = Callable[[str], None]


class Bench:
    """Everything that one call measures."""

    def __init__(self, work: Path, seconds: float, repeat: int, precisions: Sequence[str], say: Say) -> None:
        self.seconds = seconds
        self.repeat = repeat
        self.precisions = precisions
        self.work = work
        self.say = say
        self.threads = usable_cores()
        self.found: list[Measured] = []
        (work / "few.conf").write_text(f"*.MultiStream.min_query_count = {FEW_QUERIES}\n", encoding="utf-8")

    def agreement(self) -> None:
        """Labels of Lite0 in BF16 and INT8 against FP32, on photos that calibrated nothing."""
        for row in child("agreement", script=CHILD, crops=CROPS):
            where = f"calibrated on {row['calibrated_on']} photos, compared on the other {11 - row['calibrated_on']}"
            one = Measured("efficientnet-lite0", row["precision"], "agreement", "% same labels", where=where)
            one.ours.append(100 * row["value"])
            one.right = row["right"]
            self.found.append(one)
            interval = f"95 % interval {100 * row['low']:.1f} to {100 * row['high']:.1f} %"
            what = f"{one.precision} {where}: {100 * row['value']:.1f} % same labels on {row['count']:,} crops"
            self.say(f"{what} ({interval}), {row['right']} of 11 photos right")

    def model(self, name: str, parts: Sequence[str]) -> None:
        """Measure one model in every precision."""
        files = child("files", script=CHILD, model=name, weights=WEIGHTS[name], directory=str(self.work))
        if "onnxruntime" in parts:
            self._onnxruntime(name)
        for precision in self.precisions:
            file = files.get(precision, files["fp32"])
            common = {"model": file, "tensors": files["tensors"], "threads": self.threads}
            if "offline" in parts:
                self._offline(name, precision, common)
            if "singlestream" in parts:
                single = self._latency(name, precision, common, "SingleStream", 1)
                if (name, precision) == ("resnet50", "int8"):
                    self._session(single, files["fp32"], files["tensors"])
            if "multistream" in parts:
                self._latency(name, precision, common, "MultiStream", 8)

    def server(self) -> None:
        """ResNet-50 in INT8: the rate against the simulation's, and by deadline against first in, first out."""
        rates = server_rates(2 * self.seconds)
        for other, bare in (("simulated", rates.simulated), ("first in first out", rates.fifo)):
            one = Measured("resnet50", "int8", f"Server, {other}", "queries/s", where=rates.how)
            one.ours, one.bare = rates.deadline, bare
            self._keep(one)

    def _ours(
        self, model: str, backend: str, precision: str, scenario: str, *options: str, seconds: float | None = None
    ) -> dict[str, Any]:
        words = f"--backend {backend} --model {model} --weights {WEIGHTS[model]} --precision {precision}".split()
        words += [
            "--scenario",
            scenario,
            "--time",
            f"{seconds or self.seconds:g}",
            "--user_conf",
            str(self.work / "few.conf"),
        ]
        with product(*words, *options) as (result, _):
            return result

    def _onnxruntime(self, model: str) -> None:
        for precision in ("fp32", "int8"):
            one = Measured(model, precision, "Offline", "samples/s", backend="onnxruntime")
            for _ in range(self.repeat):
                result = self._ours(model, "onnxruntime", precision, "Offline")
                one.ours.append(result["metric"]["value"])
            self._keep(one)

    def _offline(self, model: str, precision: str, common: dict[str, Any]) -> None:
        streams = [count for count in range(1, self.threads + 1) if self.threads % count == 0]
        tried = {"hints": HINTS[precision], "streams": streams, "batches": BATCHES, "seconds": GRID_S}
        points = [Point(**point) for point in child("grid", script=CHILD, **common, **tried)]
        best = max(points, key=lambda point: point.samples_per_second)
        self.say(f"{model} {precision} alone: " + "; ".join(map(str, points)))
        one = Measured(model, precision, "Offline", "samples/s", grid=points, best=best)
        lanes = best.requests
        options = ["--lanes", str(lanes), "--threads", str(max(1, self.threads // lanes))]
        options += ["--max-batchsize", str(best.batch)]
        if not best.mode.isdecimal():
            options += ["--set", f"backend_options.hint={best.mode}"]
        point = {"hint": best.hint, "mode": best.mode, "batch": best.batch, "seconds": self.seconds}
        for _ in range(self.repeat):
            one.bare.append(child("offline", script=CHILD, **common, **point)["samples_per_second"])
            one.ours.append(self._ours(model, "openvino", precision, "Offline", *options)["metric"]["value"])
        self._keep(one)

    def _latency(self, model: str, precision: str, common: dict[str, Any], scenario: str, batch: int) -> Measured:
        """SingleStream compares medians, MultiStream the 99th percentile of a query of ``batch`` samples."""
        which = "p50" if scenario == "SingleStream" else "p99"
        # Of a hundred queries the 99th percentile is the slowest but one.
        seconds = self.seconds if which == "p50" else 3 * self.seconds
        splits = [1] if batch == 1 else [parts for parts in (1, 2, 4) if parts <= self.threads]
        tried = {
            (hint, parts): child("latency", script=CHILD, **common, hint=hint, batch=batch, parts=parts, seconds=GRID_S)
            for hint in HINTS[precision]
            for parts in splits
        }
        hint, parts = min(tried, key=lambda each: tried[each]["p50_ms"])
        one = Measured(model, precision, scenario, "ms", parts=parts)
        options = ["--lanes", str(parts), "--threads", str(max(1, self.threads // parts))]
        if batch > 1:
            options += ["--max-batchsize", str(batch // parts)]
        for _ in range(self.repeat):
            point = {"hint": hint, "batch": batch, "parts": parts, "seconds": seconds}
            bare = child("latency", script=CHILD, **common, **point)
            one.bare.append(bare[f"{which}_ms"])
            result = self._ours(model, "openvino", precision, scenario, *options, seconds=seconds)
            one.ours.append(result["latency_ns"][which] / 1e6)
        self._keep(one)
        return one

    def _session(self, single: Measured, model: str, tensors: str) -> None:
        """Hold SingleStream against ONNX Runtime alone: the reference harness's work, less the harness."""
        one = Measured(single.model, single.precision, "SingleStream, ONNX Runtime fp32 alone", "ms", ours=single.ours)
        one.where = "*Bare* is an ONNX Runtime session in FP32 with its default options, in a loop."
        for _ in range(self.repeat):
            one.bare.append(
                child("session", script=CHILD, model=model, tensors=tensors, seconds=self.seconds)["p50_ms"]
            )
        self._keep(one)

    def _keep(self, one: Measured) -> None:
        self.found.append(one)
        ours, bare = (f"{statistics.median(side):.4g}" if side else "none" for side in (one.ours, one.bare))
        self.say(f"{one.model} {one.backend} {one.precision} {one.scenario}: {ours}, bare {bare} {one.unit}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repeat", type=int, default=5, help="pairs of each figure (5)")
    parser.add_argument("--seconds", type=float, default=4, help="length of one measurement (4)")
    parser.add_argument("--models", default=",".join(WEIGHTS), metavar="NAME,...")
    parser.add_argument("--precisions", default=",".join(HINTS), metavar="NAME,...", help="on OpenVINO")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,...", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep every value as JSON")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing; take that JSON")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md and its charts")
    given = parser.parse_args()
    for words, known in ((given.models, WEIGHTS), (given.precisions, HINTS), (given.only, PARTS)):
        if unknown := [word for word in words.split(",") if word not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    if given.repeat < 1 or given.seconds <= 0:
        parser.error("--repeat takes 1 or more, --seconds more than 0")
    if given.output and not os.access(given.output.resolve().parent, os.W_OK):
        parser.error(f"--output {given.output}: its folder is not there or cannot be written")
    if given.write_docs and find_spec("matplotlib") is None:
        parser.error("--write-docs draws charts, which needs matplotlib: pip install '.[charts]'")
    return given


def _failed(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code


def _measure(given: argparse.Namespace, say: Say) -> tuple[list[Measured], tuple[str, int] | None]:
    """What could be measured; and why no more could, with the exit code for it."""
    parts = given.only.split(",")
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work), given.seconds, given.repeat, given.precisions.split(","), say)
        try:
            if "agreement" in parts:
                bench.agreement()
            for model in given.models.split(","):
                bench.model(model, parts)
            if "server" in parts and "resnet50" in given.models.split(","):
                bench.server()
        except KeyboardInterrupt:
            return bench.found, ("interrupted", 130)
        except MeasurementError as error:
            return bench.found, (f"not measured: {error}", 3)
    return bench.found, None


def main() -> int:
    """Measure, or read what was measured; print and write."""
    try:
        given = _arguments()
    except SystemExit as stop:
        return 1 if stop.code else 0
    # A plain SIGTERM would leave a child measuring on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=None if sys.stdout.isatty() else 160)
    stopped: tuple[str, int] | None = None
    if given.source:
        try:
            kept = json.loads(given.source.read_text(encoding="utf-8"))
            found = [Measured.load(entry) for entry in kept["measured"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            return _failed(f"--from {given.source}: not the JSON that --output writes ({error})", 1)
    else:
        before = os.getloadavg()[0]
        found, stopped = _measure(given, partial(console.print, soft_wrap=True))
        machine = facts() | {"load average before and after": f"{before:.2f} and {os.getloadavg()[0]:.2f}"}
        command = command_line("cpu.py", sys.argv[1:])
        kept = {"schema": 1, "command": command, "machine": machine, "measured": [one.dump() for one in found]}
        if given.output:
            given.output.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    table = Table(*COLUMNS)
    compared = comparisons(found)
    for one in compared:
        table.add_row(*one.row())
    console.print(table)
    if stopped:
        return _failed(*stopped)
    if given.write_docs:
        images = charts(found, DOCUMENT.parent / "images")
        body = section(found, compared, kept["machine"], kept["command"], [path.name for path in images])
        write_section(DOCUMENT, "cpu", "Fast on a CPU", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
