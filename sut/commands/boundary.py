"""``sut boundary``: the same work at each timing boundary, and what each step costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console as RichConsole
from rich.table import Table

from backends.registry import load
from sut.config import RunConfig
from sut.console import Console, agreement_lines, parity_lines
from sut.errors import ExitCode, InputError
from sut.results import Result
from sut.runner import Ran, run_each

BOUNDARIES = ("tensor", "pixels", "jpeg")
"""Those that every backend has; ``device`` comes before them where a backend takes its input there."""
_PREPROCESSING = ("decode", "resize", "normalize", "preprocess")
_STEP_HEADINGS = {"mean_latency": "step of\nmean ms", "time_per_sample": "step of\n1/rate ms"}

HELP = """Run the same work at the boundaries tensor, pixels and jpeg, and show what each step costs.

Example: sut boundary --model efficientnet-lite0 --time 5

Takes the options of sut run, in one scenario (default SingleStream), without --demo. Starts with the boundary device
where the backend takes its input from a GPU's memory. A step is what a boundary adds to the mean latency; in Offline,
where latency grows with the run, what it adds to 1/(samples per second). "If inference were free" is what throughput
would gain if the model took no time at all, by the busy times of the jpeg run, its lanes and its workers.
"""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Busy time per sample of a run, in ns, and how many threads share it: what bounds its throughput.

    Fused (``workers`` 0): each of L lanes preprocesses (P) and infers (I) in turn, so throughput is L / (P + I), and
    the gains are those of Amdahl's law. Staged: W workers preprocess while L lanes infer, so the slower side decides:
    min(W / P, L / I). Neither side alone is then worth more than the other allows.

    The model holds where there is always work to do: in Server below its highest rate, and in MultiStream with fewer
    samples in a query than threads, threads wait and the gains are of what the system could do. It leaves out what is
    neither P nor I (the copy into the slot, ``postprocess``, ``complete``), and it knows no cores. Lanes, workers and
    the runtime's own threads share them: with fewer cores than threads, throughput is also bounded by cores / (P + I),
    where a stage that becomes free leaves its cores to the other, and the P and I measured there include waiting for a
    core.
    """

    preprocessing_ns: float
    inference_ns: float
    lanes: int = 1
    workers: int = 0

    @property
    def gain_without_inference(self) -> float:
        """By how much throughput would rise if inference took no time: 0.5 is half as much again; ``inf`` unbounded."""
        if self.workers:
            return _excess(self.inference_ns / self.lanes, self.preprocessing_ns / self.workers)
        return _ratio(self.inference_ns, self.preprocessing_ns)

    @property
    def gain_without_preprocessing(self) -> float:
        """By how much throughput would rise if preprocessing took no time."""
        if self.workers:
            return _excess(self.preprocessing_ns / self.workers, self.inference_ns / self.lanes)
        return _ratio(self.preprocessing_ns, self.inference_ns)


def _ratio(part: float, rest: float) -> float:
    return part / rest if rest else float("inf")


def _excess(freed: float, kept: float) -> float:
    """The gain where only the longer of two times per sample counts, and ``freed`` becomes nothing."""
    return max(0.0, _ratio(freed, kept) - 1)


def pipeline(cost_ns: Mapping[str, int], scenario: str, lanes: int, workers: int) -> Pipeline:
    """How a run was worked on: its ``cost_ns``, and the ``lanes`` and ``preprocess_workers`` of its config.

    In SingleStream one sample is under way at a time, so that no second thread has anything to do.

    >>> pipeline({"decode": 6, "gather": 1, "infer": 2}, "Offline", lanes=1, workers=2).gain_without_preprocessing
    0.5
    """
    if scenario == "SingleStream":
        lanes = 1
    # Only lanes that workers feed gather; a run whose preprocessing is not timed has no workers, whatever was asked.
    staged = "gather" in cost_ns and scenario != "SingleStream"
    preprocessing = sum(cost_ns.get(stage, 0) for stage in _PREPROCESSING)
    return Pipeline(preprocessing, cost_ns.get("infer", 0), lanes, workers if staged else 0)


def limiting_stage(cost_ns: Mapping[str, int], found: Pipeline) -> str:
    """The stage with the most busy time per sample and thread that does it.

    >>> cost = {"decode": 5, "resize": 2, "gather": 1, "infer": 4}
    >>> limiting_stage(cost, Pipeline(7, 4)), limiting_stage(cost, Pipeline(7, 4, lanes=1, workers=2))
    ('decode', 'infer')
    """
    threads = dict.fromkeys(_PREPROCESSING, found.workers or found.lanes) | {"infer": found.lanes}
    return max(threads, key=lambda stage: cost_ns.get(stage, 0) / threads[stage])


def step_ns(scenario: str, before: Result | None, result: Result) -> float | None:
    """What a boundary adds to the one before it, in ns; None for the first, and where it was not measured.

    The difference of the mean latencies; in Offline, where all samples wait from the start so that latency grows with
    the run, the difference of 1 / samples_per_second.
    """
    if before is None:
        return None
    earlier, later = (_time_ns(scenario, each) for each in (before, result))
    return None if earlier is None or later is None else later - earlier


def _time_ns(scenario: str, result: Result) -> float | None:
    if scenario == "Offline":
        return 1e9 / result.samples_per_second if result.samples_per_second else None
    return result.latency_ns.get("mean")


def device_left_out(name: str, places: Sequence[str], device: str) -> str | None:
    """Why a backend with these ``places`` has no boundary ``device`` on ``device``; None where it has."""
    if not any(place.startswith("cuda:") for place in places):
        return f"boundary device left out: {name} takes its input from {', '.join(places)} memory, not from a GPU's"
    if not device.startswith("cuda"):
        return f"boundary device left out: it needs a GPU's memory, and --device is {device}; add --device cuda"
    return None


def register(app: typer.Typer, like_run: Callable[..., None]) -> None:
    """Add the command to ``app``; ``like_run`` gives a handler the options of ``sut run``."""
    like_run(app, "boundary", HELP, _boundary)


def _boundary(configs: Sequence[RunConfig], as_json: bool) -> ExitCode:
    if len(configs) != 1 or configs[0].mode != "performance":
        raise InputError(
            "sut boundary runs one scenario in performance mode; give one --scenario, without --accuracy or --demo"
        )
    console = Console()
    boundaries = boundaries_of(configs[0], console)
    runs = [configs[0].model_copy(update={"boundary": boundary}) for boundary in boundaries]
    ran = run_each(runs, console, "sut boundary")
    if len(ran.results) == len(boundaries) and not any(result.failed for result in ran.results):
        rows = _rows(ran.results)
        if as_json:
            sys.stdout.write(json.dumps({"schema": 1, "command": "boundary", "rows": rows}) + "\n")
        else:
            _show(rows, ran)
    return ran.code


def boundaries_of(config: RunConfig, console: Console) -> tuple[str, ...]:
    """The boundaries that a config can be run at, in order; tells in one line why ``device`` is not among them."""
    try:
        backend = load(config.backend)
    except Exception:
        return BOUNDARIES  # the first run says what is wrong, as it always does
    # Before a model is loaded there is only the class; what an instance makes of its places comes too late.
    if why := device_left_out(backend.name, backend.places, config.device):
        console.note(why)
        return BOUNDARIES
    return ("device", *BOUNDARIES)


def _rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    rows = []
    for before, result in zip([None, *results], results, strict=False):
        mean = result.latency_ns.get("mean")
        earlier = before.latency_ns.get("mean") if before else None
        config = result.config
        found = pipeline(result.cost_ns, result.scenario, config["lanes"], config["preprocess_workers"])
        rows.append(
            {
                "boundary": result.boundary,
                "valid": result.valid,
                "metric": result.metric.model_dump() if result.metric else None,
                "samples_per_second": result.samples_per_second,
                "latency_ns": {"mean": mean, "p99": result.latency_ns.get("p99")},
                "step_mean_ns": mean - earlier if mean is not None and earlier is not None else None,
                "step_ns": step_ns(result.scenario, before, result),
                "step_of": "time_per_sample" if result.scenario == "Offline" else "mean_latency",
                "preprocessing_ns": round(found.preprocessing_ns),
                "inference_ns": round(found.inference_ns),
                "lanes": found.lanes,
                "workers": found.workers,
                "gain_without_inference": _finite(found.gain_without_inference),
                "gain_without_preprocessing": _finite(found.gain_without_preprocessing),
                "stages_ns": result.stages_ns,
                "cost_ns": result.cost_ns,
                "longest_stage": limiting_stage(result.cost_ns, found),
                "parity": result.parity.model_dump() if result.parity else None,
                "agreement": result.agreement.model_dump() if result.agreement else None,
            }
        )
    return rows


def _finite(gain: float) -> float | None:
    return None if gain == float("inf") else gain  # JSON has no infinity


def _show(rows: Sequence[Mapping[str, Any]], ran: Ran) -> None:
    out = RichConsole(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("clock\nstarts at", no_wrap=True)
    step_heading = _STEP_HEADINGS[rows[0]["step_of"]]
    for heading in ("mean ms", "p99 ms", step_heading, "preprocess\nms", "infer ms", "samples/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        step = row["step_ns"]
        means = {name: times["mean"] / 1e6 for name, times in row["stages_ns"].items()}
        table.add_row(
            row["boundary"],
            f"{row['latency_ns']['mean'] / 1e6:.3f}",
            f"{row['latency_ns']['p99'] / 1e6:.3f}",
            "-" if step is None else f"{step / 1e6:+.3f}",
            f"{sum(means.get(name, 0.0) for name in _PREPROCESSING):.3f}",
            f"{means['infer']:.3f}",
            f"{row['samples_per_second']:.1f}",
        )
    out.print(table)
    for line in (*parity_lines(ran.results), *agreement_lines(ran.results)):
        out.print(line, soft_wrap=True)
    if ran.results[0].scenario == "Server":
        out.print("in Server each boundary may have its own rate, and latency includes queueing: a step is no price")
    last = rows[-1]
    out.print(
        f"From JPEG to label: if inference were free, {_percent(last['gain_without_inference'])} throughput; "
        f"if preprocessing were free, {_percent(last['gain_without_preprocessing'])}; "
        f"the limiting stage is {last['longest_stage']}"
    )
    if any(result.valid is False for result in ran.results):
        out.print("not every run was VALID: see above")


def _percent(gain: float | None) -> str:
    return "unbounded" if gain is None else f"{100 * gain:+.0f} %"
