"""What ``sut plan`` expects against what runs then come to, of configurations that were drawn before.

python benchmarks/plan.py [--only NAME,...] [--each 5] [--work DIR] [--write SECTION]

For each of eight systems (backend, boundary, preprocessor) one plan, then so many of the layouts that it has a figure
for, drawn with a seed, each run in Offline; last, its own YAML file in Server, which asks the lower end of what is
expected. Interrupted, it goes on behind what ``--work`` has. All of it takes about a quarter of an hour. Exit code:
0 everything was measured, whatever came out; 1 wrong usage; 3 something could not be measured.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.document import Figure, Parser, Target, command_line, figures_table, publish, table
from benchmarks.overhead_sides import MeasurementError, last_line, measured, product, run_command

SYSTEMS = {
    "onnxruntime-tensor": ("onnxruntime", "tensor", "opencv"),
    "onnxruntime-pixels": ("onnxruntime", "pixels", "opencv"),
    "onnxruntime-jpeg": ("onnxruntime", "jpeg", "opencv"),
    "onnxruntime-jpeg-fused": ("onnxruntime", "jpeg", "fused"),
    "openvino-tensor": ("openvino", "tensor", "opencv"),
    "openvino-pixels": ("openvino", "pixels", "opencv"),
    "openvino-jpeg": ("openvino", "jpeg", "opencv"),
    "openvino-jpeg-fused": ("openvino", "jpeg", "fused"),
}
MODEL = "efficientnet-lite0"
SEED = 20
WORK = Path("output/benchmark-plan")
P99 = "200ms"
PLAN_S, RUN_S = 20, 5
_ASKED = 1e6
"""Queries a second, more than there are: the plan is then of the layout that holds most."""

Held = tuple[list[tuple[float, bool]], float | None]
"""Of each layout measured by expected, and whether it is in the interval; Server's p99 in ms, None without a rate."""
_SHAPE = ("lanes", "max_batchsize", "preprocess_workers")


def options(name: str) -> list[str]:
    """Of a system."""
    backend, boundary, preprocess = SYSTEMS[name]
    return [*("--backend", backend, "--model", MODEL), *("--boundary", boundary, "--preprocess", preprocess)]


def planned(name: str) -> dict[str, Any]:
    """The plan of a system, and what its own YAML file came to in Server."""
    with tempfile.TemporaryDirectory(prefix="plan-") as output:
        words = ["plan", *options(name), *("--rate", str(_ASKED), "--p99", P99, "--time", str(PLAN_S))]
        done = run_command(
            [sys.executable, "-P", "-m", "sut", *words, "--dataset", "demo", "--json", "--output", output]
        )
        if done.returncode not in (0, 4) or not done.stdout.strip():
            raise MeasurementError(f"sut {' '.join(words)}: {last_line(done.stderr)}")
        told: dict[str, Any] = json.loads(done.stdout)
        found = {"rows": told["rows"], "plan": told["plan"], "quiet": told["quiet"], "server_p99_ns": None}
        for file in Path(output).glob("*/*/plan.yaml"):  # none where no rate is held
            with product("--config", str(file), "--time", str(RUN_S)) as (result, _):
                found["server_p99_ns"] = result["latency_ns"]["p99"]
        return found


def drawn(name: str, rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """So many layouts, each once; the same ones of the same rows."""
    return random.Random(f"{SEED} {name}").sample(list(rows), min(count, len(rows)))


def offline(name: str, row: Mapping[str, Any]) -> float:
    """What a layout comes to in Offline, in samples a second."""
    lanes, batch, workers = (str(row[key]) for key in _SHAPE)
    shape = ["--lanes", lanes, "--max-batchsize", batch]
    shape += ["--preprocess-workers", workers] if workers != "0" else []
    with product(*options(name), "--scenario", "Offline", *shape, "--time", str(RUN_S)) as (result, _):
        return float(result["samples_per_second"])


class Kept:
    """What was measured, in ``work``: a file each, written when it is there."""

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._work = work

    def get(self, key: str, make: Any, *arguments: Any) -> Any:
        """What lies there under ``key``, else what ``make`` comes to."""
        path = self._work / f"{key}.json"
        if not path.exists():
            made = make(*arguments)
            path.with_suffix(".part").write_text(json.dumps(made), encoding="utf-8")
            path.with_suffix(".part").rename(path)
        return json.loads(path.read_text(encoding="utf-8"))


def held_against(name: str, each: int, kept: Kept) -> Held:
    """What the layouts that are drawn of a system come to."""
    plan = kept.get(name, planned, name)
    found = []
    for row in drawn(name, plan["rows"], each):
        shape = "-".join(str(row[key]) for key in _SHAPE)
        figure = kept.get(f"{name}-{shape}", offline, name, row)
        told = row["samples_per_second"]
        found.append((figure / told["value"], told["low"] <= figure <= told["high"]))
        print(f"{name} {shape}: {figure:.4g} of {told['value']:.4g} expected", file=sys.stderr, flush=True)
    p99_ns = plan["server_p99_ns"]
    return found, None if p99_ns is None else p99_ns / 1e6


def report(found: Mapping[str, Held]) -> list[str]:
    """The two figures that something is asked of, and a line for each system."""
    every = [each for layouts, _ in found.values() for each in layouts]
    errors = Figure(f"Error of {len(every)} expected rates", "%", Target("value", "at most", 10))
    errors.ours = [100 * abs(ratio - 1) for ratio, _ in every]
    inside = Figure("Rates within the 90 % interval", "%", Target("value", "at least", 90))
    inside.ours = [100 * statistics.fmean(within for _, within in every)]
    lines = []
    for name, (layouts, p99_ms) in found.items():
        ratios = sorted(ratio for ratio, _ in layouts)
        middle = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        within = f"{sum(each for _, each in layouts)} of {len(layouts)}"
        lines.append([name, middle, within, "-" if p99_ms is None else f"{p99_ms:.4g} ms"])
    columns = ("system", "measured by expected", "within the interval", f"Server's p99, {P99} asked")
    return [*figures_table([errors, inside]), "", *table(columns, lines)]


def main() -> int:
    """Measure, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--only", default=",".join(SYSTEMS), metavar="NAME,...")
    parser.add_argument("--each", type=int, default=5, help="layouts of each system (5)")
    parser.add_argument("--work", type=Path, default=WORK, help="what was measured is kept there")
    parser.add_argument("--write", metavar="SECTION", help="write the table into that section of docs/performance.md")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if arguments.each < 1:
        parser.error("--each takes 1 or more")
    if unknown := [name for name in names if name not in SYSTEMS]:
        parser.error(f"unknown system '{unknown[0]}'; known: {', '.join(SYSTEMS)}")
    before = os.getloadavg()[0]
    kept = Kept(arguments.work)
    try:
        found = {name: held_against(name, arguments.each, kept) for name in names}
    except (MeasurementError, OSError, KeyError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}; what was measured is in {arguments.work}", file=sys.stderr)
        return 3
    how = (
        f"{MODEL}, {arguments.each} layouts of each system drawn with the seed {SEED}, Offline runs of {RUN_S} s, each "
        f"system after its plan of {PLAN_S} s. Server is asked the lower end of the rate expected of the best layout."
    )
    body = [measured(command_line(sys.argv), before), "", *report(found), "", how]
    publish(body, arguments.write, "What a plan expects")
    return 0


if __name__ == "__main__":
    sys.exit(main())
