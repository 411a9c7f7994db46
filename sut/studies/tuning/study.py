"""What ``sut tune`` does: search a grid of settings, find Server's rate, and write down what is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sut.config import RunConfig
from sut.errors import InputError, writing
from sut.files import write_text
from sut.pipeline.assembly import assemble
from sut.process.cgroup import usable_cores
from sut.process.streams import tell
from sut.results.statistics import FEWEST_PAIRS
from sut.run.planning import EARLY_STOPPING_QUERIES, OVERHEAD_S, check_effect
from sut.run.reporter import Reporter
from sut.studies.kept import header_of, held, study_folder
from sut.studies.tuning import report
from sut.studies.tuning.bench import Bench
from sut.studies.tuning.estimate import estimate
from sut.studies.tuning.rate import TIMES
from sut.studies.tuning.search import round_seconds, round_sizes
from sut.studies.tuning.space import Point, default_points, default_space, parse_space, points_of, with_settings
from sut.studies.tuning.state import Measured, State
from sut.studies.tuning.tuner import MOST_PAIRS, TuneOutcome, Tuner

_TIME_S = 8.0


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a tune has left in ``directory``; ``config`` is the one to go on with, None where nothing was found.

    ``told`` is what is told of it beside its runs, ``rows``.
    """

    directory: Path
    config: RunConfig | None
    outcome: TuneOutcome
    rows: Sequence[Measured]
    told: dict[str, Any]


def run_tune(
    configs: list[RunConfig], words: list[str], space: list[str], limit_s: float, rounds: int | None, console: Reporter
) -> TuneResult:
    """All of it, ``limit_s`` of the search at the most. Raises ``InputError`` for what cannot be tuned."""
    base, time_s = _base_of(configs, words)
    tried, points = _grid(space, base)
    sizes = round_sizes(len(points), rounds)
    with console.working("preparing the model") as progress:
        parts = assemble(base, console.note, progress)
    directory = directory_of(base, tried, rounds)
    with held(directory, "a tune"):
        state = State.open(directory, header_of(parts), overwrite=base.overwrite)
        there = len(state.rows)
        grid = f"{len(points)} point{'s' if len(points) > 1 else ''} ({_listed(tried)})"
        tell(f"tune: {grid}; {_forecast(base, sizes, time_s)}; files: {directory}")
        if there:
            tell(f"{_runs(there)} there already, it goes on behind them; --overwrite starts anew")
        bench = Bench(base, directory / "runs", state, tell, console)
        tuner = Tuner(base, points, bench, estimate, rounds, lambda: bench.spent_s < limit_s, bench.pin)
        try:
            outcome = tuner.run()
        except KeyboardInterrupt:
            tell(f"{_runs(len(state.rows))} kept; the same command without --overwrite goes on behind them")
            raise
        config = _config(base, outcome)
        _write(directory, config, outcome, bench.rows)
    told = {
        "outcome": report.outcome_of(outcome, config),
        "model": parts.spec.name,
        "backend": base.backend,
        "scenario": base.scenario,
        "weights": parts.model.weights if parts.model else None,
    }
    return TuneResult(directory, config, outcome, bench.rows, told)


def _grid(space: list[str], base: RunConfig) -> tuple[dict[str, list[Any]], list[Point]]:
    """What is tried, and the points that makes."""
    tried = parse_space(space, base) if space else default_space(base, usable_cores())
    points = points_of(tried, base) if space else default_points(tried, base)
    check_effect([point.apply(base) for point in points])
    if len(points) == 1 and base.scenario != "Server":
        raise InputError(f"nothing to search: the grid ({_listed(tried)}) is the default alone; --space names more")
    return tried, points


def _base_of(configs: Sequence[RunConfig], words: Sequence[str]) -> tuple[RunConfig, float]:
    """What is tuned, and the seconds of its longest runs. Raises ``InputError`` for what cannot be tuned."""
    if len(configs) != 1 or configs[0].mode != "performance":
        raise InputError("sut tune takes one scenario in performance mode; give one --scenario")
    if len(words) > 3:
        raise InputError(f"sut tune takes BACKEND MODEL DEVICE at the most, got '{' '.join(words)}'")
    given = dict(zip(("backend", "model", "device"), words, strict=False))
    time_s = configs[0].time_s or _TIME_S
    base = with_settings(configs[0], given | {"time_s": time_s})
    for name in given.keys() & configs[0].model_fields_set:
        if (other := getattr(configs[0], name)) != getattr(base, name):
            raise InputError(f"{name} is '{given[name]}' as a word and '{other}' as a setting; leave one of them out")
    return base, time_s


def _runs(count: int) -> str:
    return f"{count} run is" if count == 1 else f"{count} runs are"


def _listed(tried: dict[str, list[Any]]) -> str:
    return " ".join(f"{key}={','.join(map(str, values))}" for key, values in tried.items())


def _forecast(base: RunConfig, sizes: Sequence[int], time_s: float) -> str:
    """What is about to run. Early stopping wants so many queries that a slow system takes longer than ``time_s``."""
    seconds = round_seconds(len(sizes), time_s)
    search_s = sum(size * (each + OVERHEAD_S) for size, each in zip(sizes, seconds, strict=True))
    parts = [f"rounds of {', '.join(map(str, sizes))} runs"] if sizes else []
    runs = [0, 0]
    if base.scenario == "Server":
        parts.append(f"about 6 rates, {TIMES} to confirm")
        runs = [6 + TIMES, 6 + TIMES]
    if sizes:
        parts.append(f"{FEWEST_PAIRS} to {MOST_PAIRS} pairs")
        runs = [runs[0] + 2 * FEWEST_PAIRS, runs[1] + 2 * MOST_PAIRS]
    minutes = [max(1, round((search_s + each * (time_s + OVERHEAD_S)) / 60)) for each in runs]
    told = " to ".join(dict.fromkeys(map(str, minutes)))
    queries = EARLY_STOPPING_QUERIES[base.scenario]
    longer = f", more where {queries} queries take longer than a run's time" if queries > 1 else ""
    return f"{', '.join(parts)}; about {told} min{longer}"


def directory_of(base: RunConfig, tried: dict[str, list[Any]], rounds: int | None) -> Path:
    """Where a tune of this configuration over this space is kept: another one is another tune."""
    return study_folder(base, f"tune-{base.backend}-{base.scenario}", [base.digest(), base.scenario, tried, rounds])


def _config(base: RunConfig, outcome: TuneOutcome) -> RunConfig | None:
    """The config to go on with; None where nothing was found."""
    if outcome.chosen is None:
        return None
    more: dict[str, Any] = {}
    if outcome.rate is not None:
        bound_ns = outcome.confirmations[-1].bound_ns
        more["qps"] = outcome.rate
        if base.relax_server and base.max_latency_s is None and bound_ns:
            more["max_latency_s"] = bound_ns / 1e9
    return outcome.chosen.apply(base, **more)


def _write(directory: Path, config: RunConfig | None, outcome: TuneOutcome, rows: Sequence[Measured]) -> None:
    with writing(directory):
        if config is not None:
            write_text(directory / "tuned.yaml", report.yaml_text(config, outcome, rows))
        else:
            (directory / "tuned.yaml").unlink(missing_ok=True)
        write_text(directory / "search.svg", report.svg(outcome, "sut tune"))
