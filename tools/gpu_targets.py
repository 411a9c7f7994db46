"""What is asked of the figures of a GPU report, and whether they are that good.

A wrong result makes a report fail. A missed speed is shown, and does not: how fast a GPU is says something about the
project, not about whether the report is sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Found = Mapping[str, Any]
HOT_PATH = ("naive", "tiled", "fused")
OWN_KERNELS = ("cuda", "dali-gpu")
"""Preprocessors that resize by the project's kernels, so that they can be held to the oracle."""


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that is asked for; ``measured`` is None where the report has none.

    ``kind`` is ``result`` for what must be right, ``speed`` for what is to be fast.
    """

    what: str
    kind: Literal["result", "speed"]
    bound: Literal["at least", "at most"]
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
    return [
        _kernels_right(found.get("kernels_check", {})),
        *_same_pixels(found.get("parity", {})),
        _labels(found.get("parity", {})),
        *_kernels_fast(found.get("kernels_bench", {}).get("table", [])),
        *_preprocessing_fast(found.get("preprocess", {}).get("table", [])),
    ]


def _kernels_right(check: Found) -> Target:
    cases = check.get("cases")
    share = (cases - len(check["wrong"])) / cases if cases else None
    of = f"{cases} cases" if cases else ""
    return Target("share of the kernels' cases equal to the oracle, to the bit", "result", "at least", 1, share, of)


def _same_pixels(parity: Found) -> Iterable[Target]:
    for name in OWN_KERNELS:
        rows = [row for row in parity.get("same_pixels", ()) if row["preprocess"] == name]
        worst = _largest(rows, "max_levels")
        levels = worst and float(worst["max_levels"])
        what = f"levels between {name} and the oracle, given the same decoded pixels"
        yield Target(what, "result", "at most", 1, levels, worst["recipe"] if worst else "")


def _largest(rows: Iterable[Found], figure: str) -> Found | None:
    """The row with the largest of a figure; None where there is no row."""
    return max(rows, key=lambda row: float(row[figure]), default=None)


def _labels(parity: Found) -> Target:
    rows = [row for row in parity.get("measured", ()) if row["preprocess"] == "cuda" and row["labels"]]
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
    share = fused and fused["share_of_copy"]
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
    rate, of = best and best["pictures_per_second"], f"{best['preprocess']}: {best['decoders']}" if best else ""
    yield Target("medium JPEGs preprocessed per second", "speed", "at least", 20_000, rate, of)
    of = f"{together['preprocess']}: {together['decoders']}, lanes {together['lanes']}" if together else ""
    what = "decoders shared by demand: share of the sum of each alone"
    yield Target(what, "speed", "at least", 0.9, together and together["of_sum"], of)
