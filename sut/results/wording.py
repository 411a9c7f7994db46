"""A result in few words: its verdict, its figure, and what no figure is shown without."""

from __future__ import annotations

from collections.abc import Sequence

from sut.config import TIMED_BOUNDARIES
from sut.errors import short
from sut.models.precision.agreement import NOT_COMPARED, reduced_name, second_unknown
from sut.results.energy import Energy
from sut.results.schema import Accuracy, Metric, Result

ESTIMATE = "* LoadGen's early-stopping estimate, on the safe side; the columns are measured"
"""What the ``*`` of a figure means."""
RANDOM_WEIGHTS = "the weights are random: times are real, answers mean nothing"
_NAMES = {"accuracy": "accuracy", "find_peak": "peak search"}


def kind(result: Result) -> str:
    """Scenario or mode, in words: results of one kind have the same figure."""
    return _NAMES.get(result.mode, result.scenario)


def verdict(mode: str, valid: bool | None, failed: bool) -> str:
    """What became of a run, in a word; ``-`` where nobody has judged it."""
    if valid is None:
        return "done" if mode == "accuracy" else "-"
    if valid:
        return "VALID"
    return "FAILED" if failed else "no result" if mode == "accuracy" else "INVALID"


def figure(accuracy: Accuracy | None, metric: Metric | None) -> str:
    """The figure of a run with its unit: what it scored, else what MLPerf compares by."""
    if accuracy is not None:
        return f"{accuracy.share} {accuracy.name}"
    if metric is None or metric.value is None:
        return "-"
    if metric.percentile is not None:
        return f"{metric.value / 1e6:.4g} ms {metric.percentile}{'*' if is_estimate(metric) else ''}"
    return f"{short(metric.value)} samples/s"


def is_estimate(metric: Metric | None) -> bool:
    """Whether a figure is LoadGen's estimate of a percentile, unlike those in the columns."""
    return metric is not None and metric.value is not None and metric.name.startswith("early_stopping")


def milliseconds(value: float | None) -> str:
    """A time in ns as ms, without the unit."""
    if value is None:
        return "-"
    return f"{value / 1e6:.0f}" if value >= 1e9 else f"{value / 1e6:.3g}"


def parity_lines(results: Sequence[Result]) -> list[str]:
    """What a preprocessor's speed is not shown without: where preprocessing is timed."""
    timed = [result for result in results if result.boundary in TIMED_BOUNDARIES]
    return list(dict.fromkeys(f"parity of {each.preprocess}: {each.parity.line()}" for each in timed if each.parity))


def energy_lines(results: Sequence[Result]) -> list[str]:
    """What a sample cost in energy, by each meter that there was; net is above what the machine draws when idle."""
    names = {"cpu": "CPU", "gpu": "GPU"}
    lines = []
    for each in results:
        parts = [
            f"{names.get(name, name)} {of.gross_joules_per_sample:.4g} J"
            + ("" if of.net_joules_per_sample is None else f", net {of.net_joules_per_sample:.4g} J")
            for name, of in each.energy.items()
            if isinstance(of, Energy)
        ]
        if parts:
            lines.append(f"energy per sample, {kind(each)}: {'; '.join(parts)}")
    return lines


def scaling_lines(results: Sequence[Result]) -> list[str]:
    """How the devices of each scenario's run scaled, where there are several."""
    return [f"scaling, {each.scenario}: {each.scaling.line()}" for each in results if each.scaling]


def identified_lines(results: Sequence[Result]) -> list[str]:
    """The second model of each scenario's run, where there are two."""
    return [f"{each.scenario}: {each.identified.line()}" for each in results if each.identified]


def agreement_lines(results: Sequence[Result]) -> list[str]:
    """What no figure of a reduced precision is shown without."""
    lines = []
    for each in results:
        folded = bool(each.config.get("fold"))
        if each.agreement:
            lines.append(f"{reduced_name(each.precision, folded)} against fp32: {each.agreement.words}")
        elif folded or each.precision != "fp32":
            why = next((note for note in each.notes if NOT_COMPARED in note), f"the labels {NOT_COMPARED}")
            lines.append(f"{reduced_name(each.precision, folded).rstrip(',')}: {why}")
        if line := second_unknown(each.config.get("identify"), each.config.get("identify_precision", "fp32")):
            lines.append(line)
    return list(dict.fromkeys(lines))
