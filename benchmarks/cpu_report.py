"""What ``cpu.py`` found, compared, as tables and charts: no measuring."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.overhead_report import COLUMNS, Figure, Target, short

# Asked of ResNet-50; the other model's figures are shown beside them without a target of their own.
OFFLINE_TARGET = Target("ratio", "at least", 0.97)
LATENCY_TARGET = Target("difference", "at most", 0.15)
MULTISTREAM_TARGET = Target("ratio", "at most", 1.1)
SERVER_TARGET = Target("ratio", "at least", 0.9)
FIFO_TARGET = Target("ratio", "at least", 1.1)
SESSION_TARGET = Target("ratio", "at most", 1 / 7.5)
AGREEMENTS = {"bf16": 97.0, "int8": 92.0}
"""Same labels as FP32, at least, in percent of the crops."""
GAINS = {("openvino", "int8"): 9.0, ("openvino", "bf16"): 5.0, ("onnxruntime", "int8"): 2.7}
"""Times as fast as ONNX Runtime in FP32, at least, in Offline."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the grid. ``mode``: a number of streams, or one of OpenVINO's own (``latency``, ``throughput``).

    ``hint`` is its inference precision: what is not quantised in an INT8 file runs in that.
    """

    hint: str
    mode: str
    requests: int
    batch: int
    samples_per_second: float

    def __str__(self) -> str:
        mode = f"{self.mode} streams" if self.mode.isdecimal() else f"{self.mode} mode"
        return f"{self.hint} {mode} batch {self.batch}: {short(self.samples_per_second)}/s"


@dataclass(slots=True)
class Measured:
    """One figure: all values of both sides in ``unit``; ``parts`` is how many requests share MultiStream's query."""

    model: str
    precision: str
    scenario: str
    unit: str
    backend: str = "openvino"
    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    grid: list[Point] = field(default_factory=list)
    best: Point | None = None
    parts: int = 1
    where: str = ""
    """Of an agreement: which photos calibrated, and which were compared on. Of others: what the bare side was."""
    right: int | None = None
    """Of an agreement: demo photos of eleven that get their label."""

    def dump(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Self:
        """The opposite of ``dump``."""
        words = dict(dumped)
        words["grid"] = [Point(**point) for point in dumped["grid"]]
        words["best"] = Point(**dumped["best"]) if dumped["best"] else None
        return cls(**words)


def comparisons(found: Sequence[Measured]) -> list[Figure]:
    """Every figure against its bare side, and Offline against ONNX Runtime in FP32."""
    lines: list[Figure] = []
    for one in found:
        if one.scenario == "agreement":
            title = f"{one.model} {one.precision}, {one.where}"
            target = Target("value", "at least", AGREEMENTS[one.precision])
            lines.append(Figure(title, title, one.unit, target, "", one.ours))
            if one.right is not None:
                right = Target("value", "at least", 11)
                lines.append(Figure(title, f"{title}: photos right", "of 11", right, "", [float(one.right)]))
        elif one.bare or one.scenario.startswith("Server"):
            target, which = {
                "Offline": (OFFLINE_TARGET, ""),
                "SingleStream": (LATENCY_TARGET, " p50"),
                "MultiStream": (MULTISTREAM_TARGET, "-8 p99"),
                "SingleStream, ONNX Runtime fp32 alone": (SESSION_TARGET, " p50"),
                "Server, simulated": (SERVER_TARGET, ""),
                "Server, first in first out": (FIFO_TARGET, ""),
            }[one.scenario]
            title = f"{one.model} {one.precision} {one.scenario}{which}"
            lines.append(Figure(title, title, one.unit, target, _how(one), one.ours, one.bare))
    for one in found:
        limit = GAINS.get((one.backend, one.precision))
        plain = [
            each
            for each in found
            if (each.model, each.backend, each.precision, each.scenario)
            == (one.model, "onnxruntime", "fp32", "Offline")
        ]
        if one.model == "resnet50" and one.scenario == "Offline" and limit and plain:
            title = f"{one.model} {one.backend} {one.precision} over onnxruntime fp32"
            target = Target("ratio", "at least", limit)
            lines.append(Figure(title, title, one.unit, target, "Offline, both ours.", one.ours, plain[0].ours))
    return lines


def _how(one: Measured) -> str:
    if one.where:
        return one.where
    if one.best:
        return f"OpenVINO alone at its best of the grid ({one.best})."
    cut = f", cut into {one.parts} requests, which is its best" if one.parts > 1 else ""
    return f"OpenVINO alone in a loop{cut}."


def _is_told(one: Measured) -> bool:
    return bool(one.where) and one.scenario != "agreement"


def section(
    found: Sequence[Measured],
    compared: Sequence[Figure],
    machine: Mapping[str, Any],
    command: str,
    images: Sequence[str],
) -> str:
    """What stands in the document."""
    lines = [f"Measured {machine['utc']} with `{command}`. ResNet-50 has random weights.", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items() if name != "utc"]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(one.row()) + " |" for one in compared]
    lines += [
        "",
        "*Bare* is OpenVINO alone: the same file, threads and prepared inputs, at the best point of the grid "
        "below. Lines that name another side have that one. Targets are those for ResNet-50.",
        "",
    ]
    if told := [f"- **{one.model} {one.precision} {one.scenario}**: {one.where}" for one in found if _is_told(one)]:
        lines += [*told, ""]
    lines += [f"![{name}](images/{name})" for name in images]
    lines += ["", "OpenVINO alone, samples/s at each point of the grid:", ""]
    for one in found:
        if one.grid:
            lines += [f"- {one.model} {one.precision}: " + "; ".join(map(str, one.grid))]
    return "\n".join(lines)


def charts(found: Sequence[Measured], folder: Path) -> list[Path]:
    """A bar chart of Offline per model, as SVG files."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "fixed"  # the same figures make the same file
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for model in dict.fromkeys(one.model for one in found):
        rows = [one for one in found if one.model == model and one.scenario == "Offline"]
        if not rows:
            continue
        figure, axes = plt.subplots(figsize=(7, 0.5 * len(rows) + 1.2), layout="constrained")
        names = [f"{one.backend} {one.precision}" for one in rows]
        ours = [statistics.median(one.ours) for one in rows]
        bare = [statistics.median(one.bare) if one.bare else 0 for one in rows]
        places = range(len(rows))
        axes.barh([place + 0.2 for place in places], ours, 0.4, label="this system", color="#1f6fb2")
        axes.barh([place - 0.2 for place in places], bare, 0.4, label="OpenVINO alone", color="#b9c4cf")
        axes.set_yticks(list(places), names)
        axes.invert_yaxis()
        axes.set_xlabel("samples/s, Offline")
        axes.set_title(model)
        axes.legend(loc="lower right", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        path = folder / f"cpu-{model}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        written.append(path)
    return written
