"""Where a picture's time goes, and what would be gained if a part of it were free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sut.config import TIMED_BOUNDARIES
from sut.results.page.figures import Number, finite
from sut.results.page.runs import Run
from sut.results.prices import Pipeline, pipeline
from sut.results.schema import Result
from sut.results.stages import whole_stages

MODEL = "infer"
PERCENTILES = {"middle": "p50", "tail": "p99"}
"""Which of a result's means over samples stands for which percentile of the latency."""


@dataclass(frozen=True, slots=True)
class Split:
    """The stages of a picture in order, in ns. ``of`` is ``middle``, ``tail`` or ``mean`` (of the samples' latencies),
    or ``work``: busy time, without waiting.
    """

    of: str
    parts: Mapping[str, float]

    @property
    def total_ns(self) -> float:
        """All of it."""
        return sum(self.parts.values())

    def share(self, name: str) -> Number | None:
        """A stage's share, of both models' where there are two; None where nothing is known of it."""
        if name not in self.parts or self.total_ns <= 0:
            return None
        return Number((self.parts[name] + self.parts.get(f"identify/{name}", 0)) / self.total_ns, "%")


def splits(result: Result) -> list[Split]:
    """How a picture's time splits up, typically and in the slowest hundredth, as far as the result tells.

    In Offline all samples wait from the start, so that latency grows with the run: there, how the work splits up.
    """
    if result.scenario == "Offline":
        found = [Split("work", _numbers(result.cost_ns))]
    else:
        found = [_of_stages(result, key) for key in PERCENTILES]
        if not all(each.parts for each in found):
            found = [_of_stages(result, "mean")]
    return [each for each in found if each.total_ns > 0]


def slowest(result: Result) -> int:
    """How many samples ``tail`` is the mean of."""
    return result.recorded_samples - int(result.recorded_samples * 0.99)


def _of_stages(result: Result, key: str) -> Split:
    return Split(key, _numbers({name: times.get(key) for name, times in whole_stages(result.stages_ns).items()}))


def _numbers(values: Mapping[str, int | None]) -> dict[str, float]:
    """All of them, or none: stages that do not add up are no split."""
    found = {name: each for name, value in values.items() if (each := finite(value)) is not None}
    return found if len(found) == len(values) else {}


def gains(run: Run) -> Pipeline | None:
    """What says how much throughput would rise if a part were free, by Amdahl's law from the busy times.

    None where preprocessing lies outside the clock, or nothing is known.
    """
    result = run.result
    if result.boundary not in TIMED_BOUNDARIES or MODEL not in result.cost_ns or not _numbers(result.cost_ns):
        return None
    return pipeline(result.cost_ns, result.scenario, run.whole("lanes", 1) or 1, run.whole("preprocess_workers", 0))
