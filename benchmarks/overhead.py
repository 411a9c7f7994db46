"""What the system costs on top of what it drives: the same work through ``sut run`` and bare, in turn.

python benchmarks/overhead.py [--repeat 5] [--seconds 10] [--only NAME,...] [--output results.json] [--write-docs]

Prints a table of medians against targets; ``--write-docs`` writes it into docs/performance.md, which says how to read
it. Exit code: 0 everything was measured, whatever came out; 1 wrong usage; 3 something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks.overhead_report import COLUMNS, INTRODUCTION, Figure, Target, markdown, replace_section
from benchmarks.overhead_sides import (
    ROOT,
    MeasurementError,
    check_same_settings,
    child,
    copy_checkout,
    facts,
    first_result_s,
    log_values,
    product,
)
from sut.config import usable_cores

DOCUMENT = ROOT / "docs" / "performance.md"
BATCH = 8
NULL_BATCH = 1024
"""--max-batchsize of the null runs at saturation."""
SATURATION_QPS = 3_000_000
"""Samples per second asked for at saturation: more than LoadGen can hold from Python (under 2 million)."""
SATURATION_S = 2
"""Makes six million samples, for which LoadGen takes about 2 GB; both sides then work for longer than this."""
RATE_QPS = 50_000
MEMORY_SAMPLES = 1024
_MIB = 2**20

Details = dict[str, Any]
Pair = tuple[float, float | None, Details]
"""One measurement: ours, bare (None where there is no other side), and what else is worth keeping."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the measurements share. ``model`` and ``work`` are paths; ``seconds`` is the length of one run."""

    seconds: float
    threads: int
    work: Path
    model: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A figure to be measured."""

    title: str
    unit: str
    target: Target
    measure: Callable[[Setting], Pair]
    how: str
    needs_model: bool = False
    at_most: int | None = None
    """Measured no more often than this, where one measurement takes minutes."""


def _resnet50(setting: Setting, scenario: str, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The product's result, and the bare session's answer for as many batches.

    The median settles long before LoadGen's least count for a verdict (662 queries of MultiStream are minutes).
    """
    options = (
        f"--backend onnxruntime --model resnet50 --weights random --scenario {scenario} --time {setting.seconds:g}"
    )
    limit = [] if scenario == "SingleStream" else ["--max-batchsize", str(batch)]
    conf = ["--user_conf", str(setting.work / "few.conf")]
    with product(*options.split(), "--lanes", "1", "--threads", str(setting.threads), *limit, *conf) as (result, _):
        pass
    bare = child(
        "session",
        model=setting.model,
        tensors=str(setting.work / "inputs.npy"),
        batch=batch,
        threads=setting.threads,
        batches=math.ceil(result["samples"] / batch),
    )
    return result, bare


def _latency(setting: Setting, scenario: str, batch: int) -> Pair:
    result, bare = _resnet50(setting, scenario, batch)
    details = {"queries": result["queries"], "stages_ns": result["stages_ns"]}
    return result["latency_ns"]["p50"] / 1e6, bare["p50_ms"], details


def offline(setting: Setting) -> Pair:
    """Samples per second of ResNet-50 at batch 8."""
    result, bare = _resnet50(setting, "Offline", BATCH)
    details = {"samples": result["samples"], "cost_ns": result["cost_ns"]}
    return result["metric"]["value"], bare["samples_per_second"], details


def single_stream(setting: Setting) -> Pair:
    """Median latency of one picture in ms."""
    return _latency(setting, "SingleStream", 1)


def multi_stream(setting: Setting) -> Pair:
    """Median latency of a query of eight pictures in ms."""
    return _latency(setting, "MultiStream", BATCH)


def _saturated(setting: Setting, scenario: str, conf: str, key: str) -> Pair:
    """Completed samples per second of both sides under the same LoadGen settings, which ask for more than they can."""
    path = setting.work / conf
    options = f"--backend null --model resnet50 --scenario {scenario} --qps {SATURATION_QPS} --time {SATURATION_S}"
    with product(*options.split(), "--max-batchsize", str(NULL_BATCH), "--user_conf", str(path)) as (result, logs):
        ours = log_values(logs)
    with tempfile.TemporaryDirectory(prefix="overhead-") as directory:
        bare = child(
            "ceiling",
            scenario=scenario,
            conf=str(path),
            time_s=SATURATION_S,
            queries=int(ours["effective_min_query_count"]),
            qps=SATURATION_QPS,
            samples=int(ours["effective_performance_sample_count"]),
            trace=result["plan"]["trace"],
            directory=directory,
        )
        values = log_values(Path(directory))
    check_same_settings(ours, values)
    if scenario == "Server" and max(ours[key], values[key]) > 0.95 * SATURATION_QPS:
        raise MeasurementError(f"{SATURATION_QPS:,} samples/s were held: not enough to find the limit")
    details = {
        "samples": result["samples"],
        "trace": result["plan"]["trace"],
        "cpu_us_per_sample": [1e6 * result["cpu_seconds_per_sample"], 1e6 * bare["cpu_s"] / result["samples"]],
        "cost_ns": result["cost_ns"],
    }
    return ours[key], values[key], details


def null_server(setting: Setting) -> Pair:
    """Server with coalesced queries at saturation, samples per second."""
    return _saturated(setting, "Server", "coalesce.conf", "result_completed_samples_per_sec")


def null_offline(setting: Setting) -> Pair:
    """Offline, samples per second."""
    return _saturated(setting, "Offline", "plain.conf", "result_samples_per_second")


def null_rate(setting: Setting) -> Pair:
    """p99 latency in ms of Server at 50,000 queries a second, one by one."""
    seconds = min(5.0, setting.seconds)
    options = f"--backend null --model resnet50 --scenario Server --qps {RATE_QPS} --time {seconds:g}"
    with product(*options.split(), "--user_conf", str(setting.work / "plain.conf")) as (result, logs):
        values = log_values(logs)
    details = {
        "valid": result["valid"],
        "completed_per_second": values["result_completed_samples_per_sec"],
        "p50_ms": values["result_50.00_percentile_latency_ns"] / 1e6,
        "p99_9_ms": values["result_99.90_percentile_latency_ns"] / 1e6,
        "trace": result["plan"]["trace"],
        "stages_ns": result["stages_ns"],
    }
    return values["result_99.00_percentile_latency_ns"] / 1e6, None, details


def memory(setting: Setting) -> Pair:
    """Peak memory less an idle process, and its bound, in MiB."""
    pictures = setting.work / "pictures"
    if not pictures.exists():
        pictures.mkdir()
        child("pictures", directory=str(pictures), count=MEMORY_SAMPLES)
    options = f"--backend onnxruntime --model resnet50 --weights random --scenario Offline --time {setting.seconds:g}"
    sizes = ["--max-batchsize", str(BATCH), "--performance-sample-count", str(MEMORY_SAMPLES)]
    data = ["--dataset", "imagenet", "--dataset-path", str(pictures)]
    conf = ["--user_conf", str(setting.work / "plain.conf")]
    with product(*options.split(), "--lanes", "1", "--threads", str(setting.threads), *sizes, *data, *conf) as (
        result,
        logs,
    ):
        loaded = int(log_values(logs)["effective_performance_sample_count"])
    if loaded != MEMORY_SAMPLES:
        raise MeasurementError(f"LoadGen loaded {loaded} samples, expected {MEMORY_SAMPLES}")
    idle = child("idle")["peak_bytes"]
    samples = MEMORY_SAMPLES * 3 * 224 * 224 * 4
    model = Path(setting.model).stat().st_size
    peak = result["memory_bytes"]["host_peak"]
    details = {"peak_bytes": peak, "idle_bytes": idle, "sample_bytes": samples, "model_bytes": model}
    return (peak - idle) / _MIB, (1.5 * samples + model) / _MIB, details


def first_result(setting: Setting) -> Pair:
    """Seconds from ./run_local.sh in a fresh copy to its first result, with pip's downloads already there."""
    cache = setting.work / "pip"
    details: Details = {}
    for name in ("with downloads", "without"):
        if name == "with downloads" and cache.exists():
            continue
        with tempfile.TemporaryDirectory(prefix="overhead-") as fresh:
            checkout, home = Path(fresh) / "checkout", Path(fresh) / "home"
            home.mkdir()
            copy_checkout(checkout)
            details[name] = first_result_s(checkout, home, cache)
    return details["without"], None, details


SATURATION = (
    f"`--backend null --max-batchsize {NULL_BATCH}` against LoadGen with a callback that builds empty answers for what "
    f"it gets and completes them at once, in LoadGen's own call. Both are asked for {SATURATION_QPS:,} samples/s "
    f"for {SATURATION_S} s, more than they hold, so the figure is what was completed per second, as LoadGen counts it "
    "(from the first query's schedule to the last answer). The settings in the two detail logs must be equal. "
)
PLANS = {
    "resnet50-offline": Plan(
        "ResNet-50 Offline",
        "samples/s",
        Target("ratio", "at least", 0.97),
        offline,
        f"random weights, ORT CPU, batch {BATCH}, against the session alone in a loop at that batch.",
        needs_model=True,
    ),
    "resnet50-singlestream": Plan(
        "ResNet-50 SingleStream p50",
        "ms",
        Target("difference", "at most", 0.3),
        single_stream,
        "random weights, ORT CPU, against the median of the session alone in a loop at batch 1.",
        needs_model=True,
    ),
    "resnet50-multistream": Plan(
        "ResNet-50 MultiStream-8 p50",
        "ms",
        Target("ratio", "at most", 1.03),
        multi_stream,
        f"random weights, ORT CPU, against the median of the session alone in a loop at batch {BATCH}.",
        needs_model=True,
    ),
    "null-server": Plan(
        "null Server, coalesced",
        "samples/s",
        Target("ratio", "at least", 0.8),
        null_server,
        SATURATION + "Server with `*.Server.coalesce_queries = 1` in user.conf: what is overdue comes in one call.",
    ),
    "null-offline": Plan(
        "null Offline",
        "samples/s",
        Target("ratio", "at least", 0.8),
        null_offline,
        SATURATION + "Offline is one query with all samples.",
    ),
    "null-rate": Plan(
        f"null Server, {RATE_QPS:,} a second, p99",
        "ms",
        Target("value", "below", 2),
        null_rate,
        f"`--backend null --qps {RATE_QPS}` with everything else as it comes, one query at a time; LoadGen's own p99.",
    ),
    "memory": Plan(
        f"Peak memory, {MEMORY_SAMPLES:,} samples",
        "MiB",
        Target("ratio", "at most", 1),
        memory,
        "ResNet-50 Offline at the boundary tensor: `memory_bytes.host_peak` less the peak of a process that has only "
        "imported the same packages. The other side is the bound: 1.5 x the samples' tensors, plus the model's file.",
        needs_model=True,
    ),
    "first-result": Plan(
        "First result on a fresh machine",
        "s",
        Target("value", "below", 90),
        first_result,
        "from the start of `./run_local.sh` in a fresh copy of the checkout, with an empty home and no caches, to its "
        "first result.json. Downloads do not count: an earlier start of another fresh copy has filled pip's cache.",
        at_most=3,
    ),
}


def measure(plans: Mapping[str, Plan], setting: Setting, repeat: int, say: Callable[[str], None]) -> list[Figure]:
    """Every figure ``repeat`` times. A figure that fails says so and does not stop the others."""
    figures = []
    for name, plan in plans.items():
        figure = Figure(name, plan.title, plan.unit, plan.target, plan.how)
        figures.append(figure)
        times = min(repeat, plan.at_most or repeat)
        for number in range(1, times + 1):
            try:
                ours, bare, details = plan.measure(setting)
            except (MeasurementError, OSError, KeyError) as error:
                figure.error = " ".join(str(error).split()) or type(error).__name__
                say(f"{name}: not measured: {figure.error}")
                break
            figure.ours.append(ours)
            if bare is not None:
                figure.bare.append(bare)
            figure.details.append(details)
            other = "" if bare is None else f", bare {bare:.6g}"
            say(f"{name} {number}/{times}: ours {ours:.6g}{other} {plan.unit}")
    return figures


def table(figures: list[Figure]) -> Table:
    """The figures for a terminal."""
    found = Table(*COLUMNS)
    for figure in figures:
        found.add_row(*figure.row())
    return found


def write_document(figures: list[Figure], machine: Mapping[str, Any], command: str) -> None:
    """Write the section into docs/performance.md, which is made if it is not there."""
    text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else INTRODUCTION
    DOCUMENT.write_text(replace_section(text, markdown(figures, machine, command)), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repeat", type=int, default=5, help="measurements of each figure (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one run (10)")
    parser.add_argument("--only", metavar="NAME,...", help=f"only these figures: {', '.join(PLANS)}")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write every value to a JSON file")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/performance.md")
    found = parser.parse_args()
    if found.repeat < 1 or found.seconds <= 0:
        parser.error("--repeat takes 1 or more, --seconds more than 0")
    if unknown := [name for name in (found.only or "").split(",") if name and name not in PLANS]:
        parser.error(f"unknown figure '{unknown[0]}'; known: {', '.join(PLANS)}")
    if found.only and found.write_docs:
        parser.error("--write-docs writes the whole table; leave out --only")
    return found


def main() -> int:
    """Measure, print, write."""
    try:
        arguments = _arguments()
    except SystemExit as stop:
        return 1 if stop.code else 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    wanted = arguments.only.split(",") if arguments.only else list(PLANS)
    plans = {name: plan for name, plan in PLANS.items() if name in wanted}
    machine = facts()
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="overhead-") as work:
        (Path(work) / "plain.conf").write_text("")
        (Path(work) / "few.conf").write_text("*.MultiStream.min_query_count = 20\n")
        (Path(work) / "coalesce.conf").write_text("*.Server.coalesce_queries = 1\n")
        model = ""
        if any(plan.needs_model for plan in plans.values()):
            console.print("making the model and the inputs")
            model = child("inputs", directory=work)["model"]
        setting = Setting(arguments.seconds, usable_cores(), Path(work), model)
        figures = measure(plans, setting, arguments.repeat, lambda text: console.print(text, highlight=False))
    loads.append(os.getloadavg()[0])
    machine["threads"] = setting.threads
    machine["load average before and after"] = " and ".join(f"{load:.2f}" for load in loads)
    console.print(table(figures))
    command = shlex.join(["python", "benchmarks/overhead.py", *sys.argv[1:]])
    if arguments.output:
        kept = {"schema": 1, "command": command, "machine": machine, "figures": [each.as_json() for each in figures]}
        arguments.output.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if arguments.write_docs:
        write_document(figures, machine, command)
    return 3 if any(figure.error for figure in figures) else 0


def _stop(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)  # as Ctrl-C: the process that is being measured is ended too
    try:
        sys.exit(main())
    except MeasurementError as error:
        sys.exit(f"error: {error}")
