"""The harness by itself: LoadGen's own ceiling, memory, the first result on a fresh machine, planted Server rates.

python benchmarks/overhead.py [--repeat 5] [--only NAME,...] [--write SECTION]

Our side is always ``sut run``, each time in a fresh process; sides take turns. Exit code: 0 everything was measured,
whatever came out; 1 wrong usage; 3 something could not be measured.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.document import Figure, Parser, Target, command_line, figures_table, publish
from benchmarks.overhead_sides import (
    MeasurementError,
    check_same_settings,
    child,
    copy_checkout,
    first_result_s,
    last_line,
    measured,
    product,
    run_command,
)
from sut.mlperf.logs import read_detail
from sut.models.sources.resnet import build
from sut.results.samples import FILE as SAMPLES
from sut.results.samples import Samples
from sut.studies.simulation import Unity, at_random, highest_rate, line

BATCH = 1024
"""--max-batchsize at saturation."""
SATURATION_QPS = 3_000_000
"""Samples per second asked for at saturation: more than LoadGen can hold from Python (under 2 million)."""
SATURATION_S = 2
"""Makes six million samples, for which LoadGen takes about 2 GB; both sides then work for longer than this."""
RATE_QPS = 50_000
MEMORY_SAMPLES = 1024
PLANTED_MS = (50.0, 25.0)
"""a and b of a + b n, which a batch of n takes on one device."""
PLANTED_DEVICES = 4
PLANTED_BOUND_S = 0.5
PLANTED_BATCH = 8
PLANTED_S = 30
"""Makes about 3,000 queries a run: with fewer, early stopping and which queries LoadGen drew decide, not the device."""
TIGHT_MS = (2.0, 12.0)
"""Of one device where batching by deadline is worth most: what a batch takes grows with its pictures, and a full one
takes nearly as long as ``TIGHT_BOUND_S``."""
TIGHT_BOUND_S = 0.12
TUNE_LIMIT_S = 3600
PLATEAU_LANES = 2
PLATEAU_BATCH = 4
PLATEAU_S = 8
SERVED = f"--backend openvino --boundary jpeg --preprocess fused --lanes {PLATEAU_LANES} --threads 1"
_MIB = 2**20

Pair = tuple[float, float | None]
"""One measurement: ours, and bare where there is another side. They get a folder to work in."""


def _saturated(scenario: str, conf: Path, key: str) -> Pair:
    """Completed samples per second of both sides under the same LoadGen settings, which ask for more than they can."""
    options = f"--backend null --model resnet50 --scenario {scenario} --qps {SATURATION_QPS} --time {SATURATION_S}"
    with product(*options.split(), "--max-batchsize", str(BATCH), "--user_conf", str(conf)) as (result, logs):
        ours = read_detail(logs).values
    with tempfile.TemporaryDirectory(prefix="overhead-") as directory:
        child(
            "ceiling",
            scenario=scenario,
            conf=str(conf),
            time_s=SATURATION_S,
            queries=int(ours["effective_min_query_count"]),
            qps=SATURATION_QPS,
            samples=int(ours["effective_performance_sample_count"]),
            trace=result["plan"]["trace"],
            directory=directory,
        )
        bare = read_detail(Path(directory)).values
    check_same_settings(ours, bare)
    if scenario == "Server" and max(ours[key], bare[key]) > 0.95 * SATURATION_QPS:
        raise MeasurementError(f"{SATURATION_QPS:,} samples/s were held: not enough to find the limit")
    return ours[key], bare[key]


def null_server(work: Path) -> Pair:
    """Server with coalesced queries at saturation, samples per second."""
    conf = work / "coalesce.conf"
    conf.write_text("*.Server.coalesce_queries = 1\n", encoding="utf-8")
    return _saturated("Server", conf, "result_completed_samples_per_sec")


def null_offline(work: Path) -> Pair:
    """Offline, samples per second."""
    conf = work / "plain.conf"
    conf.touch()
    return _saturated("Offline", conf, "result_samples_per_second")


def null_rate(_: Path) -> Pair:
    """p99 in ms of Server at a rate far over any model's, one query at a time."""
    options = f"--backend null --model resnet50 --scenario Server --qps {RATE_QPS} --time 5"
    with product(*options.split()) as (result, _logs):
        return result["latency_ns"]["p99"] / 1e6, None


def memory(work: Path) -> Pair:
    """Peak memory less an idle process, and its bound, in MiB."""
    pictures = work / "pictures"
    if not pictures.exists():
        pictures.mkdir()
        child("pictures", directory=str(pictures), count=MEMORY_SAMPLES)
    options = "--backend onnxruntime --model resnet50 --weights random --scenario Offline --time 5 --max-batchsize 8"
    data = ["--dataset", "imagenet", "--dataset-path", str(pictures)]
    count = ["--performance-sample-count", str(MEMORY_SAMPLES)]
    with product(*options.split(), "--lanes", "1", *data, *count) as (result, logs):
        loaded = int(read_detail(logs).values["effective_performance_sample_count"])
    if loaded != MEMORY_SAMPLES:
        raise MeasurementError(f"LoadGen loaded {loaded} samples, expected {MEMORY_SAMPLES}")
    samples = MEMORY_SAMPLES * 3 * 224 * 224 * 4
    bound = 1.5 * samples + build("random", lambda text: None).stat().st_size
    return (result["memory_bytes"]["host_peak"] - child("idle")["peak_bytes"]) / _MIB, bound / _MIB


def first_result(work: Path) -> Pair:
    """Seconds from ./run_local.sh in a fresh copy to its first result, with pip's downloads already there."""
    cache = work / "pip"
    took_s = 0.0
    for _ in range(1 if cache.exists() else 2):  # the first one downloads
        with tempfile.TemporaryDirectory(prefix="overhead-") as fresh:
            checkout, home = Path(fresh) / "checkout", Path(fresh) / "home"
            home.mkdir()
            copy_checkout(checkout)
            took_s = first_result_s(checkout, home, cache)
    return took_s, None


@dataclass(frozen=True, slots=True)
class Tuned:
    """What ``sut tune`` confirmed: the rate, and LoadGen's queries at it, as ``Unity`` of the simulation."""

    rate: float
    at_unity_ns: Unity


@cache
def _tuned(work: Path, planted_ms: tuple[float, float], devices: int, bound_s: float, batching: str) -> Tuned:
    """Tune planted devices for Server's rate, once. Raises ``MeasurementError``."""
    (a, b), output = planted_ms, work / f"{batching}-{devices}"
    options = (
        f"--backend simulated --set backend_options.a_ms={a} --set backend_options.b_ms={b} --dataset demo "
        f"--device {','.join(f'sim:{number}' for number in range(devices))} --lanes {devices} "
        f"--set batching={batching} --set keep_samples=true"
    )
    space = f"--max-batchsize {PLANTED_BATCH} --space max_batchsize={PLANTED_BATCH} --max-latency {bound_s}"
    words = f"tune --scenario Server {options} {space} --time {PLANTED_S} --overwrite --output {output}"
    rate = _outcome(words)["queries_per_second"]
    if not rate:
        raise MeasurementError(f"sut {words}: no rate was confirmed")
    # The last run is the last that confirmed it. At another rate LoadGen asks the same queries, faster or slower.
    last = max(output.glob(f"**/{SAMPLES}"), key=lambda path: path.stat().st_mtime)
    scheduled_ns = np.sort(Samples.load(last).scheduled_ns)
    return Tuned(rate, (scheduled_ns - scheduled_ns[0]) * float(rate))


def _outcome(words: str) -> dict[str, Any]:
    """What a study of the product found. Raises ``MeasurementError``."""
    done = run_command([sys.executable, "-P", "-m", "sut", *words.split(), "--json"], limit_s=TUNE_LIMIT_S)
    if done.returncode not in (0, 4) or not done.stdout.strip():
        raise MeasurementError(f"sut {words}: {last_line(done.stderr)}")
    outcome: dict[str, Any] = json.loads(done.stdout)["outcome"]
    return outcome


def planted_rate(work: Path) -> Pair:
    """The rate that ``sut tune`` confirms for planted devices, and the simulation's highest for the same queries."""
    found = _tuned(work, PLANTED_MS, PLANTED_DEVICES, PLANTED_BOUND_S, "deadline")
    return found.rate, _simulated(found.at_unity_ns)


def planted_bound(work: Path) -> Pair:
    """The same rate, and the highest by the simulation for queries as they come in the long run."""
    found = _tuned(work, PLANTED_MS, PLANTED_DEVICES, PLANTED_BOUND_S, "deadline")
    return found.rate, _simulated(at_random(50_000, 0), len(found.at_unity_ns))


def _simulated(at_unity_ns: Unity, queries: int | None = None) -> float:
    times, bound_ns = line(*(1e6 * ms for ms in PLANTED_MS), PLANTED_BATCH), int(PLANTED_BOUND_S * 1e9)
    queries = queries or len(at_unity_ns)
    return highest_rate(times, bound_ns, PLANTED_DEVICES, run_queries=queries, at_unity_ns=at_unity_ns)


def deadline_by_fifo(work: Path) -> Pair:
    """The rate that ``sut tune`` confirms with batching by deadline, and first in, first out."""
    by_deadline, fifo = (_tuned(work, TIGHT_MS, 1, TIGHT_BOUND_S, batching).rate for batching in ("deadline", "fifo"))
    return by_deadline, fifo


def plateau(_: Path) -> Pair:
    """Samples per second of the closed loop far past its knee, and of Offline with the same settings."""
    served = f"{SERVED} --max-batchsize {PLATEAU_BATCH} --dataset demo"
    asked = f"--concurrency {4 * PLATEAU_LANES * PLATEAU_BATCH} --rates none --seconds {PLATEAU_S}"
    with product(*served.split(), "--scenario", "Offline", "--time", str(PLATEAU_S)) as (result, _logs):
        offline = result["samples_per_second"]
    with tempfile.TemporaryDirectory(prefix="overhead-") as output:
        closed = _outcome(f"sweep {served} {asked} --output {output}")
    return closed["plateau_samples_per_second"], offline


@dataclass(frozen=True, slots=True)
class Plan:
    """A figure to be measured, at most so many times where one takes minutes."""

    title: str
    unit: str
    target: Target
    measure: Callable[[Path], Pair]
    how: str
    at_most: int = 1000


_CEILING = Target("ratio", "at least", 0.8)
_NULL = f"""\
*null*: `--backend null --max-batchsize {BATCH}`; bare is LoadGen with a callback that builds empty answers and
completes them at once, in LoadGen's own call. Both are asked for {SATURATION_QPS:,} samples/s, more than they hold; the
figure is what LoadGen counts as completed per second, and the settings in the two detail logs must be equal."""
_RATE = f"*{RATE_QPS:,} a second*: one query at a time, everything else as it comes."
_MEMORY = """\
*Peak memory* is that of ResNet-50 in Offline at the boundary tensor, less a process that has only imported the same
packages; bare is the bound: 1.5 x the samples' tensors, plus the model's file."""
_FIRST = """\
*First result*: from the start of `./run_local.sh` in a fresh copy of the checkout, with an empty home and no caches but
pip's downloads, to its first result.json."""
_PLANTED = f"""\
*Planted*: `sut tune` with the backend `simulated`, {PLANTED_DEVICES} devices on which a batch of n takes
{PLANTED_MS[0]:g} + {PLANTED_MS[1]:g} n ms, and {1e3 * PLANTED_BOUND_S:g} ms as Server's bound; bare is the highest rate
by the simulation, for the queries that LoadGen asked, or (*bound*) for ones that come as they do in the long run."""
_TIGHT = f"""\
*By deadline*: the same, with one device of {TIGHT_MS[0]:g} + {TIGHT_MS[1]:g} n ms and {1e3 * TIGHT_BOUND_S:g} ms; bare
is `--set batching=fifo`."""
_PLATEAU = f"""\
*Plateau*: `sut sweep {SERVED}`, batches of {PLATEAU_BATCH}, with four times as many outstanding as its lanes work on;
bare is Offline with the same settings."""

PLANS = {
    "null-server": Plan("null Server, coalesced", "samples/s", _CEILING, null_server, _NULL),
    "null-offline": Plan("null Offline", "samples/s", _CEILING, null_offline, _NULL),
    "null-rate": Plan(f"null Server, {RATE_QPS:,} a second, p99", "ms", Target("value", "below", 2), null_rate, _RATE),
    "memory": Plan(f"Peak memory, {MEMORY_SAMPLES:,} samples", "MiB", Target("ratio", "at most", 1), memory, _MEMORY),
    "first-result": Plan("First result on a fresh machine", "s", Target("value", "below", 90), first_result, _FIRST, 3),
    "planted-rate": Plan(
        "Planted Server rate", "queries/s", Target("ratio", "within", 0.05), planted_rate, _PLANTED, 1
    ),
    "planted-bound": Plan(
        "Planted Server rate by its bound", "queries/s", Target("ratio", "at least", 0.9), planted_bound, _PLANTED, 1
    ),
    "deadline": Plan(
        "Server by deadline, by first in, first out",
        "queries/s",
        Target("ratio", "at least", 1.1),
        deadline_by_fifo,
        _TIGHT,
        1,
    ),
    "plateau": Plan("Plateau of the closed loop", "samples/s", Target("ratio", "within", 0.05), plateau, _PLATEAU),
}


def measure(name: str, repeat: int, work: Path) -> Figure:
    """One figure ``repeat`` times. One that fails says so."""
    plan = PLANS[name]
    figure = Figure(plan.title, plan.unit, plan.target)
    for number in range(1, min(repeat, plan.at_most) + 1):
        try:
            ours, bare = plan.measure(work)
        except (MeasurementError, OSError, KeyError, ValueError) as error:
            figure.error = " ".join(str(error).split()) or type(error).__name__
            break
        figure.ours.append(ours)
        figure.bare += [] if bare is None else [bare]
        print(f"{name} {number}: ours {ours:.6g}, bare {bare or 0:.6g} {plan.unit}", file=sys.stderr, flush=True)
    return figure


def main() -> int:
    """Measure, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="measurements of each figure (5)")
    parser.add_argument("--only", default=",".join(PLANS), metavar="NAME,...")
    parser.add_argument("--write", metavar="SECTION", help="write the table into that section of docs/performance.md")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if arguments.repeat < 1:
        parser.error("--repeat takes 1 or more")
    if unknown := [name for name in names if name not in PLANS]:
        parser.error(f"unknown figure '{unknown[0]}'; known: {', '.join(PLANS)}")
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="overhead-") as work:
        figures = [measure(name, arguments.repeat, Path(work)) for name in names]
    body = [measured(command_line(sys.argv), before), "", *figures_table(figures), ""]
    body += dict.fromkeys(PLANS[name].how for name in names)
    publish(body, arguments.write, "The harness by itself")
    return 3 if any(figure.error for figure in figures) else 0


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)  # as Ctrl-C: the process that is being measured is ended too
    sys.exit(main())
