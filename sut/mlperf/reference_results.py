"""The reference harness's results.json: its one reader, and what is wrong with one. Times in it are seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from plugins.files import SMALL_BYTES, read_file
from sut.datasets.base import IMAGENET_PICTURES
from sut.mlperf import official
from sut.mlperf.finding import Finding, Rule, Severity
from sut.mlperf.metrics import METRICS, PERCENTILES
from sut.text import shortened

REFERENCE_FILE = "results.json"
REFERENCE_PERCENTILES = {"50.0": "p50", "80.0": "p80", "90.0": "p90", "95.0": "p95", "99.0": "p99", "99.9": "p99_9"}
"""What the reference harness calls them in its results.json, and we."""

_ENTRY = "TestScenario."
_NUMBERS = ("took", "mean", "qps", "count", "good_items", "total_items", "accuracy")
_OPTION = r"\b{}=(?:'([^']*)'|([^,)]*))"
"""In the harness's ``cmdline``, which is argparse's words for all options."""
_NEARLY = 1e-3
"""Figures may have been copied by hand."""
_WITHOUT = {"SingleStream": ("qps", "max_latency"), "MultiStream": ("qps",), "Offline": ("max_latency",)}
"""Options that the harness hands on to settings of other scenarios."""


class HarnessRule(Rule):
    """What a finding about a results.json is about."""

    LITTLE = "more queries at once than the scenario has (Little's law)"
    RATE = "count, took and qps do not fit together"
    ORDER = "the percentiles are not in order"
    MEAN = "the mean is not of latencies that have these percentiles"
    NUMBER = "no run has such a figure"
    SHARE = "the accuracy is not that of its counts"
    FEWER = "accuracy over fewer samples than the data set has", Severity.INVALID
    TIMED = "timing taken in accuracy mode: no performance result", Severity.DOUBT
    OPTION = "an option without effect", Severity.DOUBT


@dataclass(frozen=True, slots=True)
class Entry:
    """One scenario's figures, as far as they are there, by the harness's names; percentiles by ours."""

    scenario: str
    figures: Mapping[str, float]
    percentiles: Mapping[str, float]

    def __getitem__(self, name: str) -> float | None:
        return self.figures.get(name)


@dataclass(frozen=True, slots=True)
class Harness:
    """A whole results.json. ``options``: ours of its config, else None."""

    entries: tuple[Entry, ...]
    runtime: str | None
    version: str | None
    time: object
    options: Mapping[str, Any] | None
    cmdline: str

    def option(self, name: str) -> str | None:
        """An option as it was given, None where it was not."""
        if self.options is not None:
            value = self.options.get(name, self.options.get(f"{name}_s"))
            return None if value is None else str(value)
        found = re.search(_OPTION.format(name), self.cmdline)
        value = (found[1] or found[2]) if found else None
        return value if value not in ("None", "", "0") else None


def read_reference(path: Path) -> Harness:
    """What a results.json says. Raises ``ValueError`` where it cannot be read, is none, or has a word for a number."""
    try:
        content = from_json(read_file(path, SMALL_BYTES))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no whole JSON file: {error}") from error
    scenarios = [name for name in content if name.startswith(_ENTRY)] if isinstance(content, dict) else []
    if not scenarios:
        raise ValueError(f"{path}: no results of the reference harness, expected '{_ENTRY}...' in it")
    options = content.get("args")
    return Harness(
        tuple(_entry(name, content[name]) for name in scenarios),
        _text(content, "runtime"),
        _text(content, "version"),
        content.get("time"),
        options if isinstance(options, Mapping) else None,
        str(content.get("cmdline")),
    )


def is_reference(path: Path) -> bool:
    """Whether a file of this name is likely the harness's, or the beginning of one: others have results.json too."""
    try:
        content = read_file(path, SMALL_BYTES)
        from_json(content)
        return _ENTRY.encode() in content
    except (OSError, ValueError):
        return True  # let the reader say why


def judge_reference(path: Path, alone: bool = True) -> list[Finding]:
    """What is wrong or odd with a results.json. Raises ``ValueError`` where it cannot be read.

    ``alone``: no result.json beside it says what it is of.
    """
    harness = read_reference(path)
    found: list[Finding] = []
    for entry in harness.entries:
        if entry.scenario not in METRICS:
            raise ValueError(f"{path}: there is no scenario '{shortened(entry.scenario)}'")
        impossible = list(_numbers(entry))
        found += impossible or [
            *(*_rate(entry), *_little(entry), *_order(entry), *_mean(entry)),
            *_accuracy(entry, harness),
        ]
        found += _doubts(entry, harness, alone)
    return found


def _entry(name: str, content: object) -> Entry:
    if not isinstance(content, dict):
        raise ValueError(f"{name} is {shortened(repr(content))}, no figures")
    figures = {key: value for key in _NUMBERS if (value := _number(name, content, key)) is not None}
    told = content.get("percentiles")
    if told is not None and not isinstance(told, dict):
        raise ValueError(f"{name}.percentiles is {shortened(repr(told))}, no figures")
    percentiles = {ours: _number(name, told or {}, theirs) for theirs, ours in REFERENCE_PERCENTILES.items()}
    return Entry(
        name.removeprefix(_ENTRY), figures, {key: value for key, value in percentiles.items() if value is not None}
    )


def _number(name: str, content: Mapping[str, Any], key: str) -> float | None:
    """A figure; None where it is not there, or NaN, as where there was no query."""
    value = content.get(key)
    if value is None or value != value:
        return None
    if type(value) not in (int, float) or not abs(value) < 2**64:
        raise ValueError(f"{name}.{key} is {shortened(repr(value))}, no number")
    return float(value)


def _text(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {shortened(repr(value))}, no text")
    return value


def _broken(rule: HarnessRule, entry: Entry, name: str, got: float, expected: str) -> Finding:
    return Finding(rule, REFERENCE_FILE, f"{_ENTRY}{entry.scenario}.{name}", f"{got:.10g}", expected)


def _numbers(entry: Entry) -> Iterator[Finding]:
    percentiles = {f"percentiles.{name}": value for name, value in entry.percentiles.items()}
    for name, value in {**entry.figures, **percentiles}.items():
        whole = name in ("count", "good_items", "total_items")
        if value < 0 or (whole and value != round(value)):
            yield _broken(HarnessRule.NUMBER, entry, name, value, "0 or more" + (", whole" if whole else ""))


def _took(entry: Entry) -> float | None:
    took, qps, count = entry["took"], entry["qps"], entry["count"]
    return took if took is not None else count / qps if count and qps else None


def _rate(entry: Entry) -> Iterator[Finding]:
    """``qps`` is ``count`` by ``took``; no latency is longer than the whole run."""
    took, qps, count = _took(entry), entry["qps"], entry["count"]
    if took and qps is not None and count is not None and not math.isclose(qps, count / took, rel_tol=_NEARLY):
        yield _broken(HarnessRule.RATE, entry, "qps", qps, f"{count / took:.6g}, {count:g} by {took:.6g} s")
    for name, value in {"mean": entry["mean"], **entry.percentiles}.items():
        if took is not None and value is not None and value > took * (1 + _NEARLY):
            field = name if name == "mean" else f"percentiles.{name}"
            yield _broken(HarnessRule.RATE, entry, field, value, f"{took:.6g} s at the most, which the run took")


def _little(entry: Entry) -> Iterator[Finding]:
    """Rate x mean latency is how many are under way at once (John Little, 1961). SingleStream and MultiStream have one
    query; the harness counts MultiStream's samples, eight to a query, or, where its backend times batches, its queries.
    """
    took, mean, qps, count = _took(entry), entry["mean"], entry["qps"], entry["count"]
    rate = count / took if count and took else qps
    if mean is None or not rate or entry.scenario not in ("SingleStream", "MultiStream"):
        return
    each = official.MULTISTREAM_SAMPLES
    per_query = entry.scenario == "SingleStream" or (count or 0) * each == (entry["total_items"] or math.nan)
    most, what = (1, "query") if per_query else (each, "samples (one query)")
    at_once = rate * mean
    if at_once > most * (1 + 10 * _NEARLY):
        spent = f", {count * mean:,.0f} s of latency in {took:,.0f} s" if count and took else ""
        expected = (
            f"{most / mean:.6g} at the most: x mean {mean:g} s it is {at_once:.4g} at once{spent}, for {most} {what}"
        )
        yield _broken(HarnessRule.LITTLE, entry, "qps", rate, expected)


def _order(entry: Entry) -> Iterator[Finding]:
    last, most = "0", 0.0
    for name, value in entry.percentiles.items():
        if value < most:
            yield _broken(HarnessRule.ORDER, entry, f"percentiles.{name}", value, f"no less than {last}")
        last, most = f"{name}, {value:.10g}", value


def _mean(entry: Entry) -> Iterator[Finding]:
    """Of ``count`` latencies n x (1 - p) are at the percentile p or above, and n x p at it or below; that is counted
    here with a query of MultiStream to spare at each, for percentiles are interpolated. None is longer than the run.
    """
    mean, count, took = entry["mean"], entry["count"], _took(entry)
    steps = [(PERCENTILES[name], value) for name, value in entry.percentiles.items()]
    values = [value for _, value in steps]
    if mean is None or not count or not steps or values != sorted(values):
        return
    spare = official.MULTISTREAM_SAMPLES / count
    least = most = below = 0.0
    reached = 0.0
    for share, value in steps:
        least += max(0.0, 1 - share - spare) * (value - below)
        most += max(0.0, share - spare - reached) * value
        reached, below = max(reached, share - spare), value
    top = math.inf if took is None else max(took, values[-1])
    most += (1 - reached) * top
    if not least * (1 - _NEARLY) <= mean <= most * (1 + _NEARLY):
        yield _broken(HarnessRule.MEAN, entry, "mean", mean, f"{least:.6g} to {most:.6g}, by the percentiles")


def _accuracy(entry: Entry, harness: Harness) -> Iterator[Finding]:
    got, good, total = entry["accuracy"], entry["good_items"], entry["total_items"]
    if good is not None and total is not None and good > total:
        yield _broken(HarnessRule.SHARE, entry, "good_items", good, f"{total:g} at the most (total_items)")
    elif got is not None and got > 100:
        yield _broken(HarnessRule.SHARE, entry, "accuracy", got, "100 at the most: it is in percent")
    elif got is not None and good is not None and total and abs(got - 100 * good / total) > _NEARLY:
        yield _broken(HarnessRule.SHARE, entry, "accuracy", got, f"{100 * good / total:.6g}, {good:g} of {total:g}")
    imagenet = (harness.option("dataset") or "").startswith("imagenet")
    if got is not None and imagenet and total is not None and total < IMAGENET_PICTURES:
        yield _broken(
            HarnessRule.FEWER, entry, "total_items", total, f"{IMAGENET_PICTURES}, all of ImageNet's pictures"
        )


def _doubts(entry: Entry, harness: Harness, alone: bool) -> Iterator[Finding]:
    """The harness writes its figures in accuracy mode, too, where its clock has begun with the last set of samples."""
    timed = next((name for name in ("qps", "mean") if entry[name]), None)
    if alone and entry["accuracy"] is not None and timed:
        yield _broken(HarnessRule.TIMED, entry, timed, entry[timed] or 0, "a run in performance mode")
    for option in _WITHOUT.get(entry.scenario, ()) if alone else ():
        if (value := harness.option(option)) is not None:
            yield Finding(HarnessRule.OPTION, REFERENCE_FILE, option, value, f"none in {entry.scenario}")
