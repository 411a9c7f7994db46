"""result.json: one file per scenario and mode, versioned, units in the names. What was not measured is null."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sut.config import AUTO
from sut.errors import cut, cut_list, short
from sut.mlperf.audit import Audit
from sut.mlperf.logs import Int64Array
from sut.mlperf.metrics import PERCENTILES
from sut.mlperf.reference_results import REFERENCE_PERCENTILES
from sut.results.energy import UNMEASURED, Energy, NotMeasured
from sut.results.gpus import GpuUse
from sut.results.identified import Identified
from sut.results.quiet import Quiet
from sut.results.stages import Stages
from sut.text import encodable, share_in_percent

FILE = "result.json"
COMPARISON = "compare.json"
STUDY = "study.json"
PAGE = "report.html"


CONFIGURED = ("backend", "device", "preprocess", "precision", "boundary", "scenario", "mode")
"""Fields of a result that repeat its config."""


class _Part(BaseModel):
    # Docstrings below fields are their descriptions in docs/contract.md and docs/result.schema.json. What checks values
    # is built when one is read: most processes import this and read none.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Metric(_Part):
    """The scenario's own figure, by which MLPerf compares."""

    name: str
    """The figure; its unit is in the name."""
    value: float | None
    """None where LoadGen gave none."""
    higher_is_better: bool
    """True for rates, False for latencies."""

    @property
    def percentile(self) -> str | None:
        """``p90`` where the figure is that of latencies, in ns; None where it is a rate."""
        return next((word for word in self.name.split("_") if word in PERCENTILES), None)


class Traffic(_Part):
    """What went to servers in the run, and came back: their tensors, without what the protocol has around them."""

    requests: int
    """Requests that were answered."""
    sent_bytes: int
    """Of inputs; 0 where they lay in shared memory."""
    received_bytes: int
    """Of outputs."""


class Accuracy(_Part):
    """How many answers were right."""

    name: str
    """``top1``, of detectors ``mAP``, of two models ``identities``."""
    value: float
    """A fraction: 1.0 is all."""
    count: int
    """Pictures that were scored; of ``identities`` what was to be found in them."""
    target: float | None = None
    """What MLPerf asks for, where this is its model and data set; else None."""
    met: bool | None = None
    """Whether ``value`` reaches the target; None without one."""

    @property
    def share(self) -> str:
        """How many are right, where that is what is counted; else the value in percent."""
        if self.name in ("top1", "identities"):
            return f"{round(self.value * self.count)} of {self.count}"
        return f"{share_in_percent(self.value)} %"


class Parity(_Part):
    """How far a preprocessor is from the oracle, in levels of 255 before normalisation; see ``results/parity.py``."""

    max_levels: int
    """The largest difference of a value, padding or not."""
    mean_levels: float
    """The mean difference, over all values that a picture covers: padding would flatter it."""
    share_over_1: float
    """The share of covered pixels with a channel off by more than 1 level."""
    psnr_db: float | None
    """Peak signal-to-noise ratio of what is covered; None where nothing differs."""
    pictures: int
    """How many were compared."""
    values: int | None = None
    """How many values they cover: three a pixel."""
    padding_levels: int | None = None
    """The largest difference of a value where there is no picture; None where the recipe pads nothing."""

    @property
    def within_1_level(self) -> bool:
        """Whether nothing differs by more than rounding can explain: padding is not computed, so not at all."""
        return self.max_levels <= 1 and not self.padding_levels

    def line(self) -> str:
        """The figures in words, for below a table."""
        if self.psnr_db is None and not self.padding_levels:
            return f"equal to the oracle in all pixels of {self.pictures} pictures"
        levels = "level" if self.max_levels == 1 else "levels"
        psnr = "equal but for padding" if self.psnr_db is None else f"{self.psnr_db:.1f} dB"
        padding = {None: "", 0: ", padding exact"}.get(self.padding_levels, f", padding off by {self.padding_levels}")
        return (
            f"max {self.max_levels} {levels}, mean {self.mean_levels:.2g}, "
            f"{100 * self.share_over_1:.3g} % of pixels over 1, {psnr}{padding}"
        )


class Agreement(_Part):
    """How far the answers are those of the same model in FP32; see ``sut/tasks/agreement.py``."""

    kind: str = "labels"
    """What was compared: ``labels``, or ``boxes``."""
    value: float
    """The share of equal labels; of boxes their mAP, with those of FP32 as the truth."""
    low: float | None
    """Lower end of its 95 % interval; None where there is none."""
    high: float | None
    """Upper end of its 95 % interval."""
    count: int
    """Crops that were compared; of boxes, pictures."""
    source: str
    """What was compared on."""
    words: str
    """All of it as one line, with the verdict."""
    score_difference: float | None = None
    """The largest absolute difference of a score; None where one of the two answers with labels."""
    scores: str | None = None
    """What the scores are: ``logits`` or ``softmax``."""

    @property
    def short(self) -> str:
        """The figure, and of what."""
        share = f"{share_in_percent(self.value)} %"
        return f"{share} same labels" if self.kind == "labels" else f"mAP {share} for the same {self.kind}"


class Scaling(_Part):
    """How much more several devices do together than the first alone; see ``sut/run/scaling.py``."""

    units: list[str]
    """The devices, or core sets of the CPU's, each of which has the model."""
    one_samples_per_second: float
    """What the lanes of the first did alone, before the run, preprocessing included: the median of some windows."""
    all_samples_per_second: float
    """What all lanes did together, in windows between those."""
    efficiency: float
    """All by as many times one, the median of the pairs: 1 is as much as so many could do."""
    limited_by: str | None = None
    """The stage with the most busy time per sample and thread that does it in the run; null but in Offline, where there
    is work for all at any time."""

    def line(self) -> str:
        """The figures in words."""
        count, one, together = len(self.units), self.one_samples_per_second, self.all_samples_per_second
        limit = f"; {self.limited_by} limits" if self.limited_by else ""
        kind = "core sets" if len({unit.split()[0] for unit in self.units}) == 1 else "devices"
        return (
            f"{count} {kind} did {short(together)} samples/s, one {short(one)}: "
            f"{share_in_percent(self.efficiency)} % of {count} times as much, median of pairs{limit}"
        )


class Answers(_Part):
    """What the answers of some samples did before the clock; see ``sut/run/answers.py``."""

    checked: int
    """Samples that were answered alone, twice, and in rows all over the largest batch."""
    largest_batch: int | None
    """Its size; None where there was none."""
    batch_dependent_share: float | None
    """Of the answers in these rows, the share that were others in the batch, without near ties."""
    near_ties: int
    """Answers that changed by rounding: classes whose logits nearly agree, a box that is hardly worth showing."""


class CpuQuota(_Part):
    """The cgroup's quota of cores."""

    cores: float
    """How many it allows."""
    periods: int
    """Its periods in which the run wanted to run."""
    throttled_periods: int
    """Those in which it held the run back."""


Text = Annotated[str, AfterValidator(cut)]
Texts = Annotated[list[str], AfterValidator(cut_list)]


class Result(_Part):
    """One run. Field names are the contract; a later schema only adds. What has a default may be unknown."""

    schema_: Literal[1] = Field(1, alias="schema")
    """Raised when the meaning of a field changes."""
    model: str
    """Its name."""
    loadgen_model: str = "resnet50"
    """The model in mlperf.conf whose rules were applied: ``resnet50``, ``yolo`` or ``retinanet``."""
    model_sha256: str | None = None
    """Of its file as it was brought or built; of several files, see docs/results.md."""
    model_parameters: int | None = None
    """Of its ONNX graph as it was brought or built; None for a file of another kind."""
    model_flops: int | None = None
    """For one sample: two for each multiply-accumulate; None where no ONNX graph tells it; see docs/results.md."""
    weights: str | None
    """``trained``, ``random``, ``planted`` (to give known answers) or ``unknown``; None where no model ran."""
    backend: str
    """The runtime, by its name here."""
    backend_version: str | None = None
    """As it tells itself."""
    device: str
    """``cpu``, ``cuda:1``, or a name that the backend lists."""
    device_name: str | None = None
    """What the runtime calls the device."""
    attested: Mapping[str, Any] = {}
    """The runtime's own word for what executed: device, provider, precision and what shows it.

    ``cuda_library``, where a GPU took part, is what loaded the kernels: PyCUDA or CuPy, and its version.
    """
    preprocess: str
    """The preprocessor."""
    recipe: Mapping[str, Any] = {}
    """How a picture was prepared: fit, size, colour order, mean, scale, layout, dtype."""
    precision: str
    """What executed: ``fp32``, ``bf16``, ``fp16`` or ``int8``."""
    boundary: str
    """Where the clock starts: ``device``, ``tensor``, ``pixels`` or ``jpeg``."""
    scenario: str
    """``SingleStream``, ``MultiStream``, ``Server`` or ``Offline``."""
    mode: str
    """``performance``, ``accuracy`` or ``find_peak``."""
    valid: bool | None
    """True VALID, False INVALID or failed, None an accuracy run that came to its end."""
    invalid_reasons: Texts
    """Why it does not count, in plain words, with what to change."""
    failed_samples: int
    """Samples that were answered with nothing. Any makes the run a failed one."""
    first_error: Text | None = None
    """What went wrong first, with the name of the picture."""
    metric: Metric | None = None
    """The scenario's own figure; None in accuracy mode."""
    queries_per_second: float | None = None
    """``queries`` by ``duration_s``."""
    samples_per_second: float | None = None
    """``samples`` by ``duration_s``."""
    samples: int
    """Samples that were answered."""
    queries: int | None = None
    """As LoadGen counts them."""
    duration_s: float | None = None
    """From the first query to the last answer."""
    latency_ns: Mapping[str, int | None] = {}
    """From the scheduled time, per query in MultiStream, else per sample: ``mean``, ``min``, ``p50``, ... ``max``."""
    accuracy: Accuracy | None = None
    """None in performance mode, or where it could not be scored."""
    parity: Parity | None = None
    """None where nothing was preprocessed."""
    agreement: Agreement | None = None
    """For a reduced precision or a folded model, which no result shows without it, or without a note of why not.

    Of two models the first's; of a second in a reduced precision a note says that its labels are not known.
    """
    output: str | None = None
    """Name of the model's output that answers."""
    answers: Answers | None = None
    """None where no model ran."""
    stages_ns: Mapping[str, Mapping[str, int]] = {}
    """A sample's latency in parts, in their order: of each ``mean``, ``p50``, ``p99``, ``middle`` and ``tail``."""
    cost_ns: Mapping[str, int] = {}
    """Busy time per sample: a batch's time in a stage by its size."""
    batch_sizes: Mapping[str, int] = {}
    """How many batches had how many samples."""
    padded_samples: int = 0
    """Rows that only filled a batch up to a size that the backend takes."""
    recorded_samples: int = 0
    """Samples in the ledger, which ``latency_ns`` and ``stages_ns`` are of."""
    clock_change_ns: int | None = None
    """The largest change of the system clock against the monotonic one."""
    traffic: Traffic | None = None
    """Where the model is behind a server: what crossed."""
    identified: Identified | None = None
    """The second model, of a pipeline of two; None where there is one, or the run did not come to its end."""
    scaling: Scaling | None = None
    """None with one device, in SingleStream, and where the run did not come to its plan."""
    thread_cores: Mapping[str, str] = {}
    """Where ``affinity`` is set: the cores on which the kernel let each thread run when LoadGen was about to ask."""
    cold_start_s: Mapping[str, float] = {}
    """Seconds that the run's process took: ``import``, ``choose``, ``load``, ``first``."""
    memory_bytes: Mapping[str, int | None] = {}
    """``host_peak`` of the run's process; ``gpu_peak``: what the run took of its GPUs' memory, seen once a second."""
    energy: Mapping[str, Energy | NotMeasured] = UNMEASURED
    """Of ``cpu`` and ``gpu``, the source ``none`` alone where nothing was measured; ``external`` with a power log."""
    cpu_seconds_per_sample: float | None = None
    """CPU time of the run's process."""
    rules_compliant: bool = False
    """Whether ``rules_broken`` is empty."""
    rules_broken: Texts = []
    """What keeps it from being a result by MLPerf's rules."""
    notes: Texts = []
    """What a reader must know besides."""
    audit: Audit | None = None
    """The audit.config that was obeyed."""
    cpu_quota: CpuQuota | None = None
    """None where there is no quota, or the run did not come to its end."""
    quiet: Quiet | None = None
    """What disturbed the run; None where it did not come to its end."""
    gpus: list[GpuUse] | None = None
    """The GPUs that it worked on, before it and in it; None where it took none, or NVML is not to be had."""
    plan: Mapping[str, Any] | None = None
    """What the run was made with: lanes, threads, batch and why, LoadGen's settings, how long it would take."""
    calibration: Mapping[str, Any] | None = None
    """What was measured in order to plan."""
    config: Mapping[str, Any]
    """Every setting as it was asked for; null was left open."""
    system: Mapping[str, Any] = {}
    """The machine: CPU, cores, caches, memory, GPUs, kernel, load."""
    versions: Mapping[str, str | None] = {}
    """Of this project (with its commit, and ``-dirty`` where files differ from that), Python and the packages."""
    started: str
    """ISO 8601, in UTC."""
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
    middle, tail = conditional(stages.latency_ns)
    for name, values in stages.per_sample.items():
        if len(values):
            p50, p99 = np.percentile(values, (50, 99))
            found[name] = {
                "mean": round(float(values.mean())),
                "p50": int(p50),
                "p99": int(p99),
                "middle": round(float(values[middle].mean())),
                "tail": round(float(values[tail].mean())),
            }
    return found


def conditional(latency_ns: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Numbers of the samples whose latency lies around the median (45 to 55 in 100), and of those from the p99 up.

    By ranks; at least one sample each, of any.
    """
    n = len(latency_ns)
    low, high, slow = int(n * 0.45), max(int(n * 0.55), int(n * 0.45) + 1), int(n * 0.99)
    ranked = np.argpartition(latency_ns, sorted({low, min(high, n - 1), slow})) if n else latency_ns
    return ranked[low:high], ranked[slow:]


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
    seconds = {name: None if value is None else value / 1e9 for name, value in result.latency_ns.items()}
    scored = result.accuracy
    entry: dict[str, Any] = {
        "took": took_s,
        "mean": seconds.get("mean"),
        "percentiles": {name: seconds.get(ours) for name, ours in REFERENCE_PERCENTILES.items()},
        "qps": result.samples / took_s if took_s else None,
        "count": result.samples,
        "good_items": round(scored.value * scored.count) if scored else 0,
        "total_items": scored.count if scored else 0,
        **({"accuracy": 100 * scored.value} if scored else {}),
    }
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
