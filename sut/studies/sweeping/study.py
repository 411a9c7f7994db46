"""What ``sut sweep`` does: loops over how much is asked, or systems of more cores and devices."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sut.config import RunConfig, model_stem
from sut.errors import InputError, SutError, writing
from sut.files import write_text
from sut.pipeline.assembly import Assembly, assemble
from sut.process.cgroup import bytes_told, memory_limit, usable_cores
from sut.process.streams import tell
from sut.results.schema import Parity
from sut.results.statistics import FEWEST_PAIRS
from sut.run.planning import check_effect
from sut.run.reporter import Reporter
from sut.studies.driving.driven import Drive
from sut.studies.driving.loads import Alone, Closed, FromFile, Poisson, arrivals_ns
from sut.studies.kept import Kept, header_of, held
from sut.studies.sweeping.bench import Bench
from sut.studies.sweeping.curves import decline, pair_of_decline, plateau
from sut.studies.sweeping.findings import closed_findings, open_findings, scaling_findings
from sut.studies.sweeping.grids import Asked, as_offline, auto_rates, cells
from sut.studies.sweeping.points import Job, Point, point_of_line
from sut.studies.sweeping.report import line_of, words_of
from sut.studies.tuning.space import tidy, with_settings

FILE = "points.jsonl"
_CLOSED_SHARE = 0.6
"""Of the budget, for the closed loop."""
_ROUNDS = 3
"""Of the open loop, with other times of arrival: how far apart they lie is the spread."""
_BETWEEN_S = 0.5
"""Between two loads of the open loop: until all are answered."""
_ZERO_SHARE = 0.2
"""Of the rate of one request after another: where zero load, and little load, are looked at."""
_ZERO_SAMPLES = 30
_ZERO_BUDGET = 0.05


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep has left in ``directory``: its points, what they say, and the words of it."""

    directory: Path
    points: list[Point]
    findings: dict[str, Any]
    words: list[str]
    parity: Parity | None


def run_sweep(configs: Sequence[RunConfig], asked: Asked, console: Reporter) -> SweepResult:
    """All of it. Raises ``InputError`` for what cannot be swept."""
    base = _base_of(configs, asked)
    with console.working("preparing the model") as progress:
        parts = assemble(base, console.note, progress)
    directory = directory_of(base)
    with held(directory, "a sweep"):
        kept = Kept.read(directory / FILE, header_of(parts), point_of_line, "a sweep", overwrite=base.overwrite)
        there = len(kept.rows)
        tell(f"sweep: files: {directory}")
        if there:
            tell(f"{there} points are there already, it goes on behind them; --overwrite starts anew")
        study = _Study(parts, asked, Bench(kept, lambda point: tell(line_of(point))), console)
        try:
            found = study.run()
        except KeyboardInterrupt:
            tell(f"{len(kept.rows)} points are kept; the same command without --overwrite goes on behind them")
            raise
        points = list(study.bench.points.values())
        words = [*study.notes, *words_of(found)]
        told = {"schema": 1, "command": "sweep", "rows": [asdict(each) for each in points], "outcome": found}
        with writing(directory):
            write_text(directory / "sweep.json", json.dumps(told | {"words": words}) + "\n")
    return SweepResult(directory, points, found, words, study.bench.parity)


def _base_of(configs: Sequence[RunConfig], asked: Asked) -> RunConfig:
    config = configs[0]
    if len(configs) != 1 or config.mode != "performance":
        raise InputError("sut sweep asks by itself, in no scenario and mode of LoadGen's; leave them out")
    base = config.model_copy(update={"scenario": "Server"})
    if asked.is_scaling:
        for name in ("boundary", "dataset", "dataset_path", "dataset_list"):
            if name in config.model_fields_set:
                raise InputError(f"--cores and --devices choose boundaries and pictures themselves; leave {name} out")
        base = with_settings(base, {"boundary": "jpeg"})
    check_effect([base])
    return base


def directory_of(base: RunConfig) -> Path:
    """Where the sweeps of this configuration are kept."""
    digest = hashlib.sha256(json.dumps([base.digest(), "sweep"]).encode()).hexdigest()[:8]
    return base.output / (base.model_name or model_stem(base.model)) / f"sweep-{base.backend}-{digest}"


@dataclass(slots=True)
class _Study:
    """One sweep while it goes on."""

    parts: Assembly
    asked: Asked
    bench: Bench
    console: Reporter
    notes: list[str] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Measure everything; returns what was found."""
        asked, limit_ns = self.asked, self.asked.limit_ns
        if asked.is_scaling:
            return scaling_findings(list(self._scaling()))
        closed = self._closed()
        opened = self._open(closed)
        host_bytes = memory_limit(Path("/")) or bytes_told(Path("/proc/meminfo"), "MemTotal")
        return closed_findings(closed, limit_ns, host_bytes) | open_findings(opened, limit_ns)

    def _loaded(self, **settings: Any) -> Assembly:
        config = as_offline(self.parts.config, usable_cores(), self.parts.model_bytes)
        return replace(self.parts, config=config.model_copy(update=settings))

    def _closed(self) -> list[Point]:
        """The closed loop, up to the concurrency that the budget allows."""
        if self.asked.concurrency is None or isinstance(self.asked.arrivals, FromFile):
            return []
        parts = self._loaded(max_latency_s=None)
        config = parts.config
        enough = 2 * config.lane_count * config.largest_batch
        jobs = [self._job("closed", Closed(n)) for n in self.asked.concurrency]
        few = [n for n in self.asked.concurrency if n <= 2 * enough] or [self.asked.concurrency[0]]
        points = self.bench(parts, jobs[: len(few)])
        top = plateau([point for point in points if point.ok])
        more = self._affordable(self.asked.concurrency[len(few) :], top) if top else 0
        if more:
            points += self.bench(parts, jobs[len(few) : len(few) + more])
        counting = [point for point in points if point.ok]
        if top and decline(counting) is not None:
            points += self._decline_again(parts, pair_of_decline(counting), top)
        return points

    def _decline_again(self, parts: Assembly, pair: Sequence[int], top: float) -> list[Point]:
        """What looks like a decline, measured until the statistics may call it one, if the budget allows that."""
        needed_s = (FEWEST_PAIRS - 1) * sum(self.asked.seconds + 2 * n / top for n in pair)
        if self.bench.spent_s + needed_s > self.asked.budget_s:
            self.notes.append(f"the decline was not measured again: {needed_s:.0f} s more; --budget allows more")
            return []
        rounds = range(2, FEWEST_PAIRS + 1)
        return self.bench(parts, [self._job("closed", Closed(n), number) for number in rounds for n in pair])

    def _affordable(self, concurrency: Sequence[int], top: float) -> int:
        """How many more of the closed loops the budget allows; tells which it does not."""
        spent_s, limit_s = self.bench.spent_s, _CLOSED_SHARE * self.asked.budget_s
        for number, n in enumerate(concurrency):
            # All of the first requests are answered before it is measured, and all of the last ones after it.
            spent_s += self.asked.seconds + 2 * n / top
            if spent_s > limit_s:
                note = f"from {n} outstanding on left out: with it the closed loop takes {spent_s:,.0f} s, more than"
                self.notes.append(f"{note} its {_CLOSED_SHARE:.0%} of the budget; --budget allows more")
                return number
        return len(concurrency)

    def _open(self, closed: Sequence[Point]) -> list[Point]:
        """The open loop, as often as the budget allows, and what a request takes that nobody stands in the way of."""
        asked = self.asked
        limit_ns = asked.limit_ns
        parts = self._loaded(max_latency_s=None if limit_ns is None else limit_ns / 1e9)
        if isinstance(asked.arrivals, FromFile):
            seconds = arrivals_ns(asked.arrivals, math.inf)[-1] / 1e9 + 1e-3
            return self.bench(parts, [self._job("open", asked.arrivals, seconds=seconds)])
        counting = [point for point in closed if point.ok]
        top = plateau(counting)
        if asked.rates is None or (not asked.rates and top is None):
            if asked.rates is not None:
                self.notes.append("no open loop: --rates auto needs a closed loop to know what the system can do")
            return []
        rates = asked.rates or auto_rates(top or 0.0)
        alone = [point.samples_per_second or 0.0 for point in counting if point.concurrency == 1]
        zero = [kind(tidy(_ZERO_SHARE * each)) for each in alone if each for kind in (Alone, Poisson)]
        each_s = asked.seconds + _BETWEEN_S
        left_s = asked.budget_s - self.bench.spent_s - sum(self._zero_s(load.rate) for load in zero)
        rounds = max(1, min(_ROUNDS, int(left_s / (len(rates) * each_s))))
        jobs = [self._job("zero", load, seconds=self._zero_s(load.rate)) for load in zero]
        jobs += [self._job("open", asked.arrivals(rate, at), at) for at in range(1, rounds + 1) for rate in rates]
        return self.bench(parts, jobs)

    def _zero_s(self, rate: float) -> float:
        """Long enough for a median, where that does not take long."""
        return max(self.asked.seconds, min(_ZERO_SAMPLES / rate, _ZERO_BUDGET * self.asked.budget_s))

    def _scaling(self) -> Iterator[Point]:
        """Systems of more cores and devices, each with more outstanding than it can work on at once."""
        for cell in cells(self.asked):
            config = cell.config(self.parts.config, self.parts.model_bytes, self.console.note)
            enough = 2 * config.lane_count * config.largest_batch + 2 * config.preprocess_workers
            job = self._job("scaling", Closed(enough), **asdict(cell))
            try:
                [point] = self.bench(assemble(config, self.console.note), [job], cores=cell.cores)
            except (SutError, ModuleNotFoundError) as error:
                point = Point.without(job, error)
                self.bench.take(point)
            yield point

    def _job(self, part: Any, load: Any, round_: int = 1, seconds: float | None = None, **about: Any) -> Job:
        limit_ns = self.asked.limit_ns
        return Job(part, Drive(load, seconds or self.asked.seconds), about, round_, limit_ns)
