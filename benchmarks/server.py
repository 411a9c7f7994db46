"""How near Server comes to what batching alone allows, and what is planted to whoever looks for it.

python benchmarks/server.py [--time 8] [--bound 0.015] [--only PART,...] [--output results.json] [--write-docs]

- ``server``: ResNet-50 in INT8 on OpenVINO, random weights. The highest rate that ``sut tune`` confirms within the
  bound, batched by deadline and first in, first out, beside what the simulation holds with batch times that were
  measured between random pauses, and with how much they vary.
- ``planted``: the backend ``simulated``: the rate that ``sut tune`` finds against the simulation's with the planted
  times; four devices against one; and which stage ``sut boundary`` names where decoding was planted as the slowest.
- ``theory``: mean waiting time in the simulation against M/D/1.

Exit code: 0 everything was measured, whatever came out; 1 wrong usage; 3 something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks.document import command_line, write_section
from benchmarks.overhead_report import COLUMNS, Figure, Target
from benchmarks.overhead_sides import ROOT, MeasurementError, child, facts, last_line, product, run_command
from sut.planning import EARLY_STOPPING_QUERIES
from sut.simulation import highest_rate, line, poisson, simulate

BOUND_S = 0.015
"""MLPerf's for ResNet-50."""
CPU_CHILD = Path(__file__).with_name("cpu_child.py")
PAUSE_S = 0.02
ROUNDS = 60
BATCH = 8
PLANTED_MS = (10.0, 5.0)
"""a and b of a + b n, on one device."""
PLANTED_BOUND_S = 0.075
"""In proportion. Copying a sample's 600 kB is part of serving it, but not of the planted truth: the larger
both are, the less of them it takes."""
_MOST_PROBES = 8


@dataclass(frozen=True, slots=True)
class ServerRates:
    """Rates in queries per second, each a list of one, or empty where none was found. ``how`` they came about."""

    deadline: list[float]
    fifo: list[float]
    simulated: list[float]
    how: str


def tune(bound_s: float, *options: str) -> dict[str, Any]:
    """What ``sut tune`` for Server prints, of one configuration: rows of its runs, and the outcome."""
    with tempfile.TemporaryDirectory(prefix="server-") as output:
        command = [sys.executable, "-P", "-m", "sut", "tune", "--scenario", "Server", "--dataset", "demo", "--json"]
        command += ["--lanes", "1", "--max-batchsize", str(BATCH), "--space", f"max_batchsize={BATCH}"]
        command += ["--max-latency", str(bound_s), *options, "--output", output]
        done = run_command(command)
    if done.returncode not in (0, 4) or not done.stdout.strip():
        raise MeasurementError(f"sut tune {' '.join(options)}: {last_line(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def server_rates(time_s: float, bound_s: float = BOUND_S) -> ServerRates:
    """ResNet-50 INT8 on OpenVINO: the confirmed rates by deadline and first in, first out, and the simulation's."""
    common = ["--backend", "openvino", "--model", "resnet50", "--weights", "random", "--precision", "int8"]
    common += ["--time", f"{time_s:g}", "--set"]
    service_ns, sigma = _after_pauses()
    found = {how: tune(bound_s, *common, f"batching={how}") for how in ("deadline", "fifo")}
    rate = found["deadline"]["outcome"]["queries_per_second"]
    asked = [row["queries"] for row in found["deadline"]["rows"] if row["qps"] == rate and row["queries"]]
    queries = max(asked, default=EARLY_STOPPING_QUERIES["Server"])
    ideal = highest_rate(service_ns, int(bound_s * 1e9), 1, run_queries=queries, sigma=sigma)
    times = ", ".join(f"{took / 1e6:.2f}" for took in service_ns)
    how = (
        f"Bound {1e3 * bound_s:g} ms; rates confirmed by sut tune, three VALID runs of three. Batches of 1 to {BATCH} "
        f"take {times} ms after random pauses (mean {1e3 * PAUSE_S:g} ms), and vary by {100 * sigma:.0f} % (sigma)."
    )
    fifo = found["fifo"]["outcome"]["queries_per_second"]
    return ServerRates([rate] if rate else [], [fifo] if fifo else [], [ideal] if ideal else [], how)


def _after_pauses() -> tuple[list[int], float]:
    """Median time of batches of 1 to ``BATCH`` in ns, and the standard deviation of the logarithm around it."""
    with tempfile.TemporaryDirectory(prefix="server-") as directory:
        files = child("files", script=CPU_CHILD, model="resnet50", weights="random", directory=directory)
        measured = child(
            "gaps", script=CPU_CHILD, model=files["int8"], precision="int8", tensors=files["tensors"], sizes=BATCH,
            pause_s=PAUSE_S, rounds=ROUNDS,
        )["batch_ns"]  # fmt: skip
    medians = {int(size): statistics.median(times) for size, times in measured.items()}
    logs = [math.log(took / medians[int(size)]) for size, times in measured.items() for took in times]
    return [round(medians[size]) for size in range(1, BATCH + 1)], statistics.pstdev(logs)


def server(time_s: float, bound_s: float) -> list[Figure]:
    """The confirmed rate by deadline over the simulation's, and over the one of first in, first out."""
    rates = server_rates(time_s, bound_s)
    return [
        Figure("server-ideal", "ResNet-50 int8 Server over the simulation", "queries/s",
               Target("ratio", "at least", 0.9), rates.how, rates.deadline, rates.simulated),
        Figure("server-fifo", "ResNet-50 int8 Server, by deadline over FIFO", "queries/s",
               Target("ratio", "at least", 1.1), "The same.", rates.deadline, rates.fifo),
    ]  # fmt: skip


def planted(time_s: float, _: float) -> list[Figure]:
    """What ``sut tune``, four devices and ``sut boundary`` make of planted times."""
    a, b = PLANTED_MS
    options = ["--backend", "simulated", "--set", f"backend_options.a_ms={a}", "--set", f"backend_options.b_ms={b}"]
    found = tune(PLANTED_BOUND_S, *options, "--time", f"{4 * time_s:g}")
    rate = found["outcome"]["queries_per_second"]
    probes = [row for row in found["rows"] if row["phase"] == "rate"]
    queries = max((row["queries"] for row in found["rows"] if row["qps"] == rate and row["queries"]), default=0)
    queries = max(queries, EARLY_STOPPING_QUERIES["Server"])
    truth = highest_rate(line(a * 1e6, b * 1e6, BATCH), int(PLANTED_BOUND_S * 1e9), 1, run_queries=queries)
    offline = []
    for devices in (1, 4):
        words = [*options, "--set", f"backend_options.devices={devices}", "--lanes", str(devices)]
        with product(*words, "--scenario", "Offline", "--time", f"{time_s:g}") as (result, _):
            offline.append(result["metric"]["value"])
    decode = ["--preprocess", "simulated", "--set", "preprocess_options.decode_ms=40", "--rounds", "1"]
    done = run_command(
        [sys.executable, "-P", "-m", "sut", "boundary", *options, *decode, "--dataset", "demo", "--json"]
    )
    if done.returncode not in (0, 4):
        raise MeasurementError(f"sut boundary: {last_line(done.stderr)}")
    named = json.loads(done.stdout)["rows"][-1]["longest_stage"]
    how = f"a + b n with a = {a:g} ms, b = {b:g} ms; bound {1e3 * PLANTED_BOUND_S:g} ms."
    return [
        Figure("planted-rate", "planted Server rate found, lower end", "queries/s", Target("ratio", "at least", 0.95),
               how, [rate] if rate else [], [truth]),
        Figure("planted-rate-high", "planted Server rate found, upper end", "queries/s",
               Target("ratio", "at most", 1.05), "The same.", [rate] if rate else [], [truth]),
        Figure("planted-probes", "probes for it", "runs", Target("value", "at most", _MOST_PROBES),
               "Runs before the confirmation.", [float(len(probes))]),
        Figure("devices", "four simulated devices over one", "samples/s", Target("ratio", "at least", 3.9),
               "Offline, a lane per device.", [offline[1]], [offline[0]]),
        Figure("decode", "sut boundary names decode where it was planted", "of 1", Target("value", "at least", 1),
               f"It named {named}.", [float(named == "decode")]),
    ]  # fmt: skip


def theory(time_s: float, bound_s: float) -> list[Figure]:
    """Mean waiting time of the simulation over rho D / (2 (1 - rho)), for one server with constant service time."""
    service_ns = 1_000_000
    figures = []
    for load in (0.3, 0.6, 0.8):
        waits = simulate(poisson(load * 1e9 / service_ns, 400_000, seed=1), [service_ns]).wait_ns
        expected = load * service_ns / (2 * (1 - load))
        for which, bound, limit in (("lower", "at least", 0.95), ("upper", "at most", 1.05)):
            title = f"mean wait over M/D/1 at load {load:g}, {which} end"
            target = Target("ratio", bound, limit)  # type: ignore[arg-type]
            figures.append(Figure(title, title, "us", target, "", [float(waits.mean()) / 1e3], [expected / 1e3]))
    return figures


PARTS: dict[str, Callable[[float, float], list[Figure]]] = {"theory": theory, "planted": planted, "server": server}


def section(figures: Sequence[Figure], machine: dict[str, Any], command: str) -> str:
    """What stands in the document."""
    lines = [f"Measured {machine['utc']} with `{command}`. ResNet-50 has random weights.", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items() if name != "utc"]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(figure.row()) + " |" for figure in figures]
    lines += ["", "*Bare* is the simulation, theory, first in first out, or one device.", ""]
    lines += [f"- **{figure.title}**: {figure.how}" for figure in figures if figure.how]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--time",
        type=float,
        default=8,
        help="length of the longest runs in seconds (8); four times that for the planted rate",
    )
    parser.add_argument("--bound", type=float, default=BOUND_S, help="Server's latency bound in seconds (0.015)")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,...", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep every value as JSON")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md")
    given = parser.parse_args()
    if unknown := [word for word in given.only.split(",") if word not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    if given.time <= 0 or given.bound <= 0:
        parser.error("--time and --bound take more than 0")
    return given


def main() -> int:
    """Measure, print, write."""
    try:
        given = _arguments()
    except SystemExit as stop:
        return 1 if stop.code else 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    before = os.getloadavg()[0]
    figures: list[Figure] = []
    failed = ""
    for name in given.only.split(","):
        try:
            figures += PARTS[name](given.time, given.bound)
        except MeasurementError as error:
            failed = str(error)
            break
    table = Table(*COLUMNS)
    for figure in figures:
        table.add_row(*figure.row())
    console.print(table)
    for figure in figures:
        if figure.how:
            console.print(f"{figure.title}: {figure.how}", soft_wrap=True)
    machine = facts() | {"load average before and after": f"{before:.2f} and {os.getloadavg()[0]:.2f}"}
    command = command_line("server.py", sys.argv[1:])
    if given.output:
        kept = {"schema": 1, "command": command, "machine": machine, "figures": [each.as_json() for each in figures]}
        given.output.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if failed:
        print(f"error: not measured: {failed}", file=sys.stderr)
        return 3
    if given.write_docs:
        write_section(
            ROOT / "docs" / "performance.md", "server", "Server and the simulation", section(figures, machine, command)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
