"""What a pipeline's steps cost, by the ledger of one run, and by pairs of runs at two boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sut.results.schema import Result, used
from sut.results.statistics import Difference, difference

PREPROCESSING = ("decode", "resize", "normalize", "preprocess")
_STEPS = {"pixels": ("resize", "normalize", "preprocess"), "jpeg": ("decode",)}
"""What a boundary adds to the one before it."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Busy time per sample of a run, in ns, and how many threads share it: what bounds its throughput.

    Fused (``workers`` 0): each of L lanes preprocesses (P), infers (I) and does the rest (R: the copy into the slot,
    ``postprocess``, ``complete``) in turn, so throughput is L / (P + I + R), and the gains are those of Amdahl's law.
    Staged: W workers preprocess while L lanes do what is left, so the slower side decides: min(W / P, L / (I + R)).
    Neither side alone is then worth more than the other allows.

    The model holds where there is always work to do: in Server below its highest rate, and in MultiStream with fewer
    samples in a query than threads, threads wait and the gains are of what the system could do. It knows no cores.
    Lanes, workers and the runtime's own threads share them: with fewer cores than threads, throughput is also bounded
    by cores / (P + I + R), where a stage that becomes free leaves its cores to the other, and the times measured there
    include waiting for a core.
    """

    preprocessing_ns: float
    inference_ns: float
    lanes: int = 1
    workers: int = 0
    rest_ns: float = 0.0

    @property
    def gain_without_inference(self) -> float:
        """By how much throughput would rise if inference took no time: 0.5 is half as much again; ``inf`` unbounded."""
        return self._gain(self._time_ns(self.preprocessing_ns, 0.0))

    @property
    def gain_without_preprocessing(self) -> float:
        """By how much throughput would rise if preprocessing took no time."""
        return self._gain(self._time_ns(0.0, self.inference_ns))

    def _gain(self, instead_ns: float) -> float:
        now_ns = self._time_ns(self.preprocessing_ns, self.inference_ns)
        return now_ns / instead_ns - 1 if instead_ns else float("inf")

    def _time_ns(self, preprocessing_ns: float, inference_ns: float) -> float:
        """A sample's share of the time, if its two parts took so long."""
        in_lanes_ns = (inference_ns + self.rest_ns) / self.lanes
        if self.workers:
            return max(preprocessing_ns / self.workers, in_lanes_ns)
        return preprocessing_ns / self.lanes + in_lanes_ns


def pipeline(cost_ns: Mapping[str, float], scenario: str, lanes: int, workers: int) -> Pipeline:
    """How a run was worked on: its ``cost_ns``, and the ``lanes`` and ``preprocess_workers`` of its config.

    In SingleStream one sample is under way at a time, so that no second thread has anything to do.

    >>> pipeline({"decode": 9, "gather": 1, "infer": 2}, "Offline", lanes=1, workers=2).gain_without_preprocessing
    0.5
    """
    if scenario == "SingleStream":
        lanes = 1
    # Only lanes that workers feed gather; a run whose preprocessing is not timed has no workers, whatever was asked.
    staged = "gather" in cost_ns and scenario != "SingleStream"
    preprocessing = sum(cost_ns.get(stage, 0) for stage in PREPROCESSING)
    inference = cost_ns.get("infer", 0) + cost_ns.get("identify/infer", 0)
    rest = sum(cost_ns.values()) - preprocessing - inference
    return Pipeline(preprocessing, inference, lanes, workers if staged else 0, rest)


def limiting_stage(cost_ns: Mapping[str, float], found: Pipeline) -> str:
    """The stage with the most busy time per sample and thread that does it: copies to and from a device, too.

    >>> cost = {"decode": 5, "resize": 2, "gather": 1, "infer": 4}
    >>> limiting_stage(cost, Pipeline(7, 4)), limiting_stage(cost, Pipeline(7, 4, lanes=1, workers=2))
    ('decode', 'infer')
    """
    of_lanes = dict.fromkeys(["infer", *cost_ns], found.lanes)
    threads = of_lanes | dict.fromkeys(PREPROCESSING, found.workers or found.lanes)
    return max(threads, key=lambda stage: cost_ns.get(stage, 0) / threads[stage])


def pipeline_of(result: Result) -> Pipeline:
    """How a run was worked on."""
    return pipeline(result.cost_ns, result.scenario, used(result).get("lanes", 1), result.config["preprocess_workers"])


def price_ns(jpeg: Result, boundary: str) -> float | None:
    """What the step to a boundary costs a sample, by the ledger of one run at the boundary ``jpeg``, in ns.

    In Offline the busy time of the step's stages, shared by the threads that do it, as 1 / samples_per_second is; in
    the other scenarios their part of the latency. None where that run has no such stage, or does not tell decoding
    from the rest.
    """
    found = pipeline_of(jpeg)
    if jpeg.scenario == "Offline":
        threads = found.workers or found.lanes
        times = {name: busy / threads for name, busy in jpeg.cost_ns.items()}
    else:
        times = {name: stats["mean"] for name, stats in jpeg.stages_ns.items()}
    stages = [times[name] for name in _STEPS.get(boundary, ()) if name in times]
    return sum(stages) if stages and "decode" in times else None


def step_ns(scenario: str, before: Result | None, result: Result) -> float | None:
    """What a boundary adds to the one before it, in ns; None for the first, and where it was not measured.

    The difference of the mean latencies; in Offline, where all samples wait from the start so that latency grows with
    the run, the difference of 1 / samples_per_second.
    """
    if before is None:
        return None
    earlier, later = (time_ns(scenario, each) for each in (before, result))
    return None if earlier is None or later is None else later - earlier


def time_ns(scenario: str, result: Result) -> float | None:
    """What a sample takes, as ``step_ns`` compares it."""
    if scenario == "Offline":
        return 1e9 / result.samples_per_second if result.samples_per_second else None
    return result.latency_ns.get("mean")


def step_of(scenario: str, before: Sequence[Result], after: Sequence[Result]) -> Difference:
    """How many times longer a sample takes at a boundary than at the one before it, by pairs of runs.

    ``better`` means that the boundary before is faster, so that the step costs something.
    """
    earlier, later = ([time_ns(scenario, each) for each in side] for side in (before, after))
    return difference(later, earlier, higher_is_better=False)


def step_cost_of(before: Sequence[Result], after: Sequence[Result]) -> Difference:
    """How many times more CPU time a sample takes at a boundary than at the one before it."""
    earlier, later = ([each.cpu_seconds_per_sample for each in side] for side in (before, after))
    return difference(later, earlier, higher_is_better=False)
