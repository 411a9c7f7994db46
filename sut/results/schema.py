"""result.json: one file per scenario and mode, versioned, units in the names. What was not measured is null."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sut.config import AUTO
from sut.errors import cut, cut_list
from sut.mlperf.audit import Audit
from sut.mlperf.logs import Int64Array
from sut.mlperf.metrics import PERCENTILES
from sut.results.quiet import Quiet
from sut.results.stages import Stages
from sut.text import encodable

FILE = "result.json"
REFERENCE_FILE = "results.json"
COMPARISON = "compare.json"
PAGE = "report.html"


CONFIGURED = ("backend", "device", "preprocess", "precision", "boundary", "scenario", "mode")
"""Fields of a result that repeat its config."""


REFERENCE_PERCENTILES = {"50.0": "p50", "80.0": "p80", "90.0": "p90", "95.0": "p95", "99.0": "p99", "99.9": "p99_9"}
"""What the reference harness calls them in its results.json, and we."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(_Part):
    """The figure MLPerf compares by. ``value`` is None where LoadGen gave none."""

    name: str
    value: float | None
    higher_is_better: bool

    @property
    def percentile(self) -> str | None:
        """``p90`` where the figure is that of latencies, in ns; None where it is a rate."""
        return next((word for word in self.name.split("_") if word in PERCENTILES), None)


class Accuracy(_Part):
    """Top-1 as a fraction; ``target`` and ``met`` where one is set for this model and data set."""

    name: str
    value: float
    count: int
    target: float | None = None
    met: bool | None = None


class Parity(_Part):
    """How far a preprocessor is from the oracle, in levels of 255 before normalisation; see ``sut/results/parity.py``.

    ``mean_levels`` is over all values, ``share_over_1`` the share of pixels with a channel off by more than 1 level,
    ``psnr_db`` None where nothing differs.
    """

    max_levels: int
    mean_levels: float
    share_over_1: float
    psnr_db: float | None
    pictures: int

    @property
    def within_1_level(self) -> bool:
        """Whether nothing differs by more than rounding can explain."""
        return self.max_levels <= 1

    def line(self) -> str:
        """The figures in words, for below a table."""
        if self.psnr_db is None:
            return f"equal to the oracle in all pixels of {self.pictures} pictures"
        levels = "level" if self.max_levels == 1 else "levels"
        return (
            f"max {self.max_levels} {levels}, mean {self.mean_levels:.2g}, "
            f"{100 * self.share_over_1:.3g} % of pixels over 1, {self.psnr_db:.1f} dB"
        )


class Agreement(_Part):
    """How many labels are those of the same model in FP32, and the 95 % interval; see ``models/precision``.

    ``score_difference`` is the largest absolute difference of a score, None where one of the two answers with labels;
    ``scores`` tells what the scores are: ``logits`` or ``softmax``.
    """

    value: float
    low: float
    high: float
    count: int
    source: str
    words: str
    score_difference: float | None = None
    scores: str | None = None


class Answers(_Part):
    """What the answers of some samples did before the clock; see ``sut/run/answers.py``.

    ``checked`` samples were answered alone, twice, and in rows all over a batch of ``largest_batch`` (None: there was
    none). Of the labels of these rows, ``batch_dependent_share`` were others, not counting ``near_ties``.
    """

    checked: int
    largest_batch: int | None
    batch_dependent_share: float | None
    near_ties: int


class Energy(_Part):
    """Joules per sample; ``source`` is ``none`` where nothing measures it."""

    source: str = "none"
    gross_joules_per_sample: float | None = None
    net_joules_per_sample: float | None = None


class CpuQuota(_Part):
    """The cgroup's quota of cores, and in how many of the run's periods it held the run back."""

    cores: float
    periods: int
    throttled_periods: int


Text = Annotated[str, AfterValidator(cut)]
Texts = Annotated[list[str], AfterValidator(cut_list)]


class Result(_Part):
    """One run. Field names are the contract; a later schema only adds. What has a default may be unknown."""

    schema_: Literal[1] = Field(1, alias="schema")
    model: str
    model_sha256: str | None = None
    weights: str | None
    """``trained``, ``random`` or ``unknown``; None where no model ran."""
    backend: str
    backend_version: str | None = None
    device: str
    device_name: str | None = None
    attested: Mapping[str, Any] = {}
    preprocess: str
    recipe: Mapping[str, Any] = {}
    precision: str
    boundary: str
    scenario: str
    mode: str
    valid: bool | None
    invalid_reasons: Texts
    failed_samples: int
    first_error: Text | None = None
    metric: Metric | None = None
    queries_per_second: float | None = None
    samples_per_second: float | None = None
    samples: int
    queries: int | None = None
    duration_s: float | None = None
    latency_ns: Mapping[str, int | None] = {}
    accuracy: Accuracy | None = None
    parity: Parity | None = None
    agreement: Agreement | None = None
    """For a reduced precision or a folded model, which no result shows without it, or without a note of why not."""
    output: str | None = None
    """Name of the model's output that answers."""
    answers: Answers | None = None
    stages_ns: Mapping[str, Mapping[str, int]] = {}
    cost_ns: Mapping[str, int] = {}
    batch_sizes: Mapping[str, int] = {}
    padded_samples: int = 0
    recorded_samples: int = 0
    clock_change_ns: int | None = None
    cold_start_s: Mapping[str, float] = {}
    memory_bytes: Mapping[str, int | None] = {}
    energy: Mapping[str, Energy] = {}
    cpu_seconds_per_sample: float | None = None
    rules_compliant: bool = False
    rules_broken: Texts = []
    notes: Texts = []
    audit: Audit | None = None
    cpu_quota: CpuQuota | None = None
    """None where there is no quota, or the run did not come to its end."""
    quiet: Quiet | None = None
    """What disturbed the run; None where it did not come to its end."""
    plan: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None
    config: Mapping[str, Any]
    system: Mapping[str, Any] = {}
    versions: Mapping[str, str | None] = {}
    started: str
    loaded_sha256: Mapping[str, str] = {}
    """Every file that the run's process opened for the model, as it found them before and after."""

    @property
    def failed(self) -> bool:
        """Whether the run failed, as opposed to ending INVALID."""
        return self.failed_samples > 0 or self.first_error is not None

    @property
    def is_busy(self) -> bool:
        """Whether something disturbed the run, as far as that is known."""
        return self.quiet is not None and self.quiet.is_quiet is False

    def to_json(self) -> str:
        """The file's text."""
        words = encodable(self.model_dump(mode="json", by_alias=True))
        return to_json(words, indent=1, inf_nan_mode="null").decode() + "\n"


def used(result: Result) -> dict[str, int]:
    """``lanes``, ``threads`` and ``max_batchsize`` as a run used them: its plan has them, where its config says auto.

    Those that neither has (a run that ended before its plan was made) are left out.
    """
    return {name: value for name in AUTO if (value := setting(result, name)) is not None}


def more_is_better(scenario: str) -> bool:
    """Whether runs are compared by a rate; else it is by a latency. In Server all are asked the same rate."""
    return scenario == "Offline"


def setting(result: Result, name: str) -> Any:
    """A setting as it was really used, where the plan says that, else as it was asked; None where neither does."""
    used = (result.plan or {}).get(name)
    return result.config.get(name) if used is None else used


def stage_stats(stages: Stages) -> dict[str, dict[str, int]]:
    """``stages_ns`` of result.json, in the order in which a sample meets them.

    ``p50`` and ``p99`` are the stage's own. ``middle`` and ``tail`` are its means over the tenth of the samples whose
    latency lies around the median, and over those from the latency's p99 up: unlike percentiles, they add up.
    """
    found: dict[str, dict[str, int]] = {}
    n = len(stages.latency_ns)
    # Ranks by latency; at least one sample each.
    low, high, slow = int(n * 0.45), max(int(n * 0.55), int(n * 0.45) + 1), int(n * 0.99)
    ranked = np.argpartition(stages.latency_ns, sorted({low, min(high, n - 1), slow})) if n else stages.latency_ns
    for name, values in stages.per_sample.items():
        if len(values):
            p50, p99 = np.percentile(values, (50, 99))
            found[name] = {
                "mean": round(float(values.mean())),
                "p50": int(p50),
                "p99": int(p99),
                "middle": round(float(values[ranked[low:high]].mean())),
                "tail": round(float(values[ranked[slow:]].mean())),
            }
    return found


def per_query(latency_ns: Int64Array, query: Int64Array, which: np.ufunc = np.maximum) -> Int64Array:
    """Latency of each query: that of its slowest sample (``np.minimum``: of its fastest).

    ``query`` is each sample's query number, ascending.
    """
    if len(query) == 0:
        return latency_ns
    starts = np.flatnonzero(np.diff(query, prepend=query[0] - 1))
    found: Int64Array = which.reduceat(latency_ns, starts)
    return found


def reference_results(result: Result, command: str, took_s: float) -> dict[str, Any]:
    """The keys of the reference harness's results.json; latencies in seconds."""
    latency = result.latency_ns

    def seconds(name: str) -> float | None:
        value = latency.get(name)
        return None if value is None else value / 1e9

    good = round(result.accuracy.value * result.accuracy.count) if result.accuracy else 0
    entry: dict[str, Any] = {
        "took": took_s,
        "mean": seconds("mean"),
        "percentiles": {name: seconds(ours) for name, ours in REFERENCE_PERCENTILES.items()},
        "qps": result.samples / took_s if took_s else None,
        "count": result.samples,
        "good_items": good,
        "total_items": result.accuracy.count if result.accuracy else 0,
    }
    if result.accuracy:
        entry["accuracy"] = 100 * result.accuracy.value
    return {
        "runtime": result.backend,
        "version": result.backend_version,
        "time": int(took_s),
        "args": result.config,
        "cmdline": command,
        f"TestScenario.{result.scenario}": entry,
    }


def dump_json(value: Mapping[str, Any]) -> str:
    """JSON text with a newline at its end."""
    return json.dumps(encodable(value), indent=1) + "\n"
