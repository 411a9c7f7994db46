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

from sut.config import RunConfig
from sut.console import Console, parity_lines
from sut.errors import ExitCode, InputError
from sut.results import Result
from sut.runner import Ran, run_each

BOUNDARIES = ("tensor", "pixels", "jpeg")
_PREPROCESSING = ("decode", "resize", "normalize", "preprocess")

HELP = """Run the same work at the boundaries tensor, pixels and jpeg, and show what each step costs.

Example: sut boundary --model efficientnet-lite0 --time 5

Takes the options of sut run, in one scenario (default SingleStream). Latencies are means. "If inference were free" is
what throughput would gain if the model took no time at all, by Amdahl's law on the busy times of the jpeg run.
"""


@dataclass(frozen=True, slots=True)
class Shares:
    """Busy time per sample of a run at boundary ``jpeg``, in ns."""

    preprocessing_ns: float
    inference_ns: float

    @property
    def gain_without_inference(self) -> float:
        """By how much throughput would rise if inference took no time: 0.5 is half as much again.

        Amdahl's law for one lane, whose throughput is 1 / (preprocessing + inference).
        """
        return self.inference_ns / self.preprocessing_ns if self.preprocessing_ns else float("inf")

    @property
    def gain_without_preprocessing(self) -> float:
        """By how much throughput would rise if preprocessing took no time."""
        return self.preprocessing_ns / self.inference_ns if self.inference_ns else float("inf")


def shares(cost_ns: Mapping[str, int]) -> Shares:
    """Split the busy time per sample (``cost_ns`` of a result) into preprocessing and inference.

    >>> shares({"decode": 2, "resize": 1, "infer": 6, "postprocess": 1}).gain_without_preprocessing
    0.5
    """
    return Shares(
        preprocessing_ns=sum(cost_ns.get(stage, 0) for stage in _PREPROCESSING),
        inference_ns=cost_ns.get("infer", 0),
    )


def register(app: typer.Typer, like_run: Callable[..., None]) -> None:
    """Add the command to ``app``; ``like_run`` gives a handler the options of ``sut run``."""
    like_run(app, "boundary", HELP, _boundary)


def _boundary(configs: Sequence[RunConfig], as_json: bool) -> ExitCode:
    if len(configs) != 1 or configs[0].mode != "performance":
        raise InputError("sut boundary runs one scenario in performance mode; give one --scenario, without --accuracy")
    runs = [configs[0].model_copy(update={"boundary": boundary}) for boundary in BOUNDARIES]
    console = Console()
    ran = run_each(runs, console, "sut boundary")
    if len(ran.results) == len(BOUNDARIES) and not any(result.failed for result in ran.results):
        rows = _rows(ran.results)
        if as_json:
            sys.stdout.write(json.dumps({"schema": 1, "command": "boundary", "rows": rows}) + "\n")
        else:
            _show(rows, ran)
    return ran.code


def _rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    rows = []
    for before, result in zip([None, *results], results, strict=False):
        mean = result.latency_ns.get("mean")
        earlier = before.latency_ns.get("mean") if before else None
        split = shares(result.cost_ns)
        rows.append(
            {
                "boundary": result.boundary,
                "valid": result.valid,
                "metric": result.metric.model_dump() if result.metric else None,
                "samples_per_second": result.samples_per_second,
                "latency_ns": {"mean": mean, "p99": result.latency_ns.get("p99")},
                "step_mean_ns": mean - earlier if mean is not None and earlier is not None else None,
                "preprocessing_ns": round(split.preprocessing_ns),
                "inference_ns": round(split.inference_ns),
                "stages_ns": result.stages_ns,
                "cost_ns": result.cost_ns,
                "parity": result.parity.model_dump() if result.parity else None,
            }
        )
    return rows


def _show(rows: Sequence[Mapping[str, Any]], ran: Ran) -> None:
    out = RichConsole(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("clock starts at", no_wrap=True)
    for heading in ("mean ms", "p99 ms", "step ms", "preprocess ms", "infer ms", "samples/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        step = row["step_mean_ns"]
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
    for line in parity_lines(ran.results):
        out.print(line, soft_wrap=True)
    split = Shares(rows[-1]["preprocessing_ns"], rows[-1]["inference_ns"])
    out.print(
        f"From JPEG to label: if inference were free, {100 * split.gain_without_inference:+.0f} % throughput; "
        f"if preprocessing were free, {100 * split.gain_without_preprocessing:+.0f} %"
    )
    if any(result.valid is False for result in ran.results):
        out.print("not every run was VALID: see above")
