"""What is asked of the figures of a GPU report, and whether they are that good.

A wrong result makes a report fail. A missed speed is shown, and does not: how fast a GPU is says something about the
project, not about whether the report is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sut.studies.gpu_report.schema import Found
from sut.studies.gpu_report.served import BACKENDS, DETECTOR, LARGE, ONE_STREAM, PRECISIONS, TENSORRT

Bound = Literal["at least", "at most"]
Figure = Callable[[Found], float]
HOT_PATH = ("naive", "tiled", "fused")
OWN_KERNELS = ("cuda", "dali-gpu")
"""Preprocessors that resize by the project's kernels, so that they can be held to the oracle."""
ANCHORS = (
    ("ResNet-50 a second, one RTX 4090", 44_391, "Offline"),
    ("ResNet-50 a second, one H200 of eight: INT8 by TensorRT, input on the device", 96_029, "Offline"),
    ("ResNet-50 p90 in ms, one RTX 4090", 0.282, "SingleStream"),
)
"""Figures that others have published, and the scenario that they are of."""


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that is asked for; ``measured`` is None where the report has none.

    ``kind`` is ``result`` for what must be right, ``speed`` for what is to be fast.
    """

    what: str
    kind: Literal["result", "speed"]
    bound: Bound
    asked: float
    measured: float | None
    of: str = ""
    """Which case the figure is of: the worst, or for a rate the best."""

    @property
    def verdict(self) -> Literal["met", "NOT MET", "not measured"]:
        """
        >>> Target("a", "speed", "at least", 0.9, 0.9).verdict, Target("a", "result", "at most", 1, 2).verdict
        ('met', 'NOT MET')
        """
        if self.measured is None:
            return "not measured"
        is_met = self.measured >= self.asked if self.bound == "at least" else self.measured <= self.asked
        return "met" if is_met else "NOT MET"

    def row(self) -> dict[str, Any]:
        """As a report shows it."""
        return {
            "target": self.what,
            "kind": self.kind,
            "asked": f"{self.bound} {self.asked:,g}",
            "measured": self.measured,
            "of": self.of or None,
            "verdict": self.verdict,
        }


def targets(found: Mapping[str, Found]) -> list[Target]:
    """All that is asked, judged by what the parts of a report found, by part; parts that did not run are not in it."""
    parities, runs = _of(found, "parity"), _valid_runs(found)
    explained = "share of sectors and conflicts that ncu counts as they are explained"
    asked = [
        _equal("share of the kernels' cases equal to the oracle, to the bit", _of(found, "kernels_check"), "cases"),
        _equal(explained, _of(found, "kernels_profile"), "counts"),
        *_same_pixels(parities),
        _labels(parities),
    ]
    for name in (*BACKENDS, TENSORRT):
        asked += _same_labels(name, found.get(f"labels_{name}", {}))
    asked += _kernels_fast(found.get("kernels_bench", {}).get("table", []))
    asked += _preprocessing_fast([row for part in _of(found, "preprocess") for row in part["table"]])
    for name in BACKENDS:
        asked += _runs_fast(name, _where(runs, backend=name))
    boxes = _where(runs, model=DETECTOR)
    labels = [run for run in runs if run not in boxes]
    yolo = "YOLO11-L in FP16, random weights"
    return [
        *asked,
        _speed("from JPEG to label, a second", 20_000, _where(labels, boundary="jpeg", scenario="Offline"), _rate),
        _speed(f"{yolo}: at the boundary device, a second", 1_000, _where(boxes, boundary="device"), _rate),
        _speed(f"{yolo}: from JPEG to boxes, a second", 1_000, _where(boxes, boundary="jpeg"), _rate),
    ]


def beside_anchors(found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """Figures that others have published, and the best of ours, which is of another precision and of random weights."""
    rows = []
    for what, published, scenario in ANCHORS:
        ours = _where(_valid_runs(found), model=LARGE, scenario=scenario)
        figure, choose = (_rate, max) if scenario == "Offline" else (_p90_ms, min)
        best = _speed(what, published, ours, figure, of=choose)
        rows.append({"published": what, "theirs": published, "ours": best.measured, "of": best.of or None})
    return rows


def _valid_runs(found: Mapping[str, Found]) -> list[Found]:
    return [part for part in found.values() if part.get("cell") and part["valid"]]


def _of(found: Mapping[str, Found], part: str) -> list[Found]:
    """What a part and its variants (with PyCUDA, with DALI) found."""
    return [found[name] for name in (part, f"{part}_pycuda", f"{part}_dali") if name in found]


def _equal(what: str, parts: list[Found], called: str) -> Target:
    """All of their cases but those that are wrong."""
    cases, wrong = sum(part["cases"] for part in parts), sum(len(part["wrong"]) for part in parts)
    of = f"{cases} {called}" if cases else ""
    return Target(what, "result", "at least", 1, (cases - wrong) / cases if cases else None, of)


def _same_pixels(parities: list[Found]) -> Iterable[Target]:
    for name in OWN_KERNELS:
        rows = [row for parity in parities for row in parity["same_pixels"] if row["preprocess"] == name]
        worst = _largest(rows, "max_levels")
        levels = float(worst["max_levels"]) if worst else None
        what = f"levels between {name} and the oracle, given the same decoded pixels"
        yield Target(what, "result", "at most", 1, levels, worst["recipe"] if worst else "")


def _largest(rows: Iterable[Found], figure: str) -> Found | None:
    """The row with the largest of a figure; None where there is no row."""
    return max(rows, key=lambda row: float(row[figure]), default=None)


def _labels(parities: list[Found]) -> Target:
    measured = [row for parity in parities for row in parity["measured"]]
    rows = [row for row in measured if row["preprocess"] == "cuda" and row["labels"]]
    share = min((row["labels_same"] / row["labels"] for row in rows), default=None)
    of = ", ".join(f"{row['labels_same']} of {row['labels']}" for row in rows)
    return Target("share of labels that are the same with cuda", "result", "at least", 0.995, share, of)


def _kernels_fast(rows: list[Found]) -> Iterable[Target]:
    """By the names of ``lab/bench.py``: a group for each work, in it the project's kernels and other libraries."""
    hot = next((row["group"] for row in rows if row["kernel"] == "fused"), None)
    tiled = [row for row in rows if row["kernel"] == "tiled" and row["group"] != hot]
    timed = [row for row in tiled if row["share_of_copy"]]
    worst = min(timed, key=lambda row: float(row["share_of_copy"]), default=None)
    share = worst["share_of_copy"] if worst and timed == tiled else None
    what = "tiled and image transposes: share of the measured copy bandwidth"
    yield Target(what, "speed", "at least", 0.9, share, worst["group"] if worst else "")
    fused = next((row for row in rows if row["kernel"] == "fused"), None)
    share = fused["share_of_copy"] if fused else None
    yield Target("fused resize: share of its roofline", "speed", "at least", 0.7, share, hot or "")
    # Wall times: another library's launches are on streams that no event of ours sees.
    others = [row for row in rows if row["group"] == hot and row["kernel"] not in HOT_PATH and row["wall_ms"]]
    fastest = min(others, key=lambda row: float(row["wall_ms"]), default=None)
    times = fastest["wall_ms"] / fused["wall_ms"] if fastest and fused and fused["wall_ms"] else None
    of = f"the fastest: {fastest['kernel']}" if fastest else ""
    yield Target("fused resize: times the speed of a library's chain", "speed", "at least", 3, times, of)


def _preprocessing_fast(rows: list[Found]) -> Iterable[Target]:
    on_gpu = [row for row in rows if row["to"] != "host"]
    # All three, from one feed: rows with a rate for each.
    shared = [row for row in on_gpu if row["each"] and row["of_sum"]]
    best, together = _largest(on_gpu, "pictures_per_second"), _largest(shared, "of_sum")
    rate = best["pictures_per_second"] if best else None
    of = f"{best['preprocess']}: {best['decoders']}" if best else ""
    yield Target("medium JPEGs preprocessed per second", "speed", "at least", 20_000, rate, of)
    of = f"{together['preprocess']}: {together['decoders']}, lanes {together['lanes']}" if together else ""
    what = "decoders shared by demand: share of the sum of each alone"
    yield Target(what, "speed", "at least", 0.9, together["of_sum"] if together else None, of)


def _same_labels(backend: str, labels: Found) -> Iterable[Target]:
    for pictures, asked in (("photos", 1.0), ("crops", 0.99)):
        table = labels.get("table", ())
        rows = [row for row in table if row["pictures"] == pictures and row["precision"] in PRECISIONS]
        worst = min(rows, key=lambda row: float(row["same"] / row["count"]), default=None)
        share = worst["same"] / worst["count"] if worst else None
        of = f"{worst['precision']}: {worst['same']} of {worst['count']}" if worst else ""
        what = f"{backend}: share of {pictures} with the label of FP32 on the CPU"
        yield Target(what, "result", "at least", asked, share, of)


def _runs_fast(backend: str, runs: list[Found]) -> Iterable[Target]:
    """The harness's cost beside the bare loop, at the worst, and the rate that is asked of a large model."""
    beside = [run for run in runs if run["bare"]]
    offline, single = (_where(beside, scenario=scenario) for scenario in ("Offline", "SingleStream"))
    yield _speed(f"{backend}, Offline: share of the bare loop's rate", 0.97, offline, _of_bare, of=min)
    yield _speed(f"{backend}, SingleStream: us behind the bare loop's p50", 30, single, _behind_bare, "at most")
    large = _where(runs, model=LARGE, precision="fp16", boundary="device", scenario="Offline")
    yield _speed(f"{backend}: ResNet-50 in FP16 at the boundary device, a second", 6_000, large, _rate)
    copied = _where(runs, model=LARGE, precision="fp16", boundary="tensor", scenario="Offline")
    both = [_where(copied, option=option) for option in ("", ONE_STREAM)]
    gain = _rate(both[0][0]) / _rate(both[1][0]) if all(both) else None
    what = f"{backend}: copies beside another lane's model: times the rate on one stream"
    yield Target(what, "speed", "at least", 1, gain, _called(both[0][0]) if all(both) else "")


def _speed(
    what: str, asked: float, runs: list[Found], figure: Figure, bound: Bound = "at least", of: Any = max
) -> Target:
    """A figure ``of`` the run with the largest or the smallest."""
    run = of(runs, key=figure, default=None)
    return Target(what, "speed", bound, asked, figure(run) if run else None, _called(run))


def _where(runs: Iterable[Found], **settings: str) -> list[Found]:
    """The runs that were told so."""
    return [run for run in runs if settings.items() <= run["cell"].items()]


def _rate(run: Found) -> float:
    return float(run["samples_per_second"])


def _p90_ms(run: Found) -> float:
    return float(run["latency_ns"]["p90"]) / 1e6


def _of_bare(run: Found) -> float:
    return _rate(run) / float(run["bare"]["samples_per_second"])


def _behind_bare(run: Found) -> float:
    return float(run["latency_ns"]["p50"] - run["bare"]["p50_ns"]) / 1e3


def _called(run: Found | None) -> str:
    words = ("backend", "model", "precision", "boundary", "preprocess")
    if run is None:
        return ""
    batch = run["cell"].get("batch")
    return " ".join([*(run["cell"][word] for word in words), *([f"batch {batch}"] if batch else [])])
