"""``sut tune``: search the settings, find Server's highest VALID rate, write them down."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console as RichConsole
from rich.text import Text

from sut.cli.console import BriefConsole
from sut.cli.options import configs_of
from sut.cli.parameters import like_run
from sut.config import RunConfig, model_stem, usable_cores
from sut.config.words import parse_budget
from sut.errors import ExitCode, InputError, writing
from sut.files import write_text
from sut.models.content import content_digest
from sut.pipeline.assembly import Assembly, assemble
from sut.process.streams import print_json, tell, tell_error
from sut.results.machine import named, system_facts
from sut.results.statistics import FEWEST_PAIRS
from sut.run.planning import EARLY_STOPPING_QUERIES, OVERHEAD_S, check_effect
from sut.studies.tuning import report
from sut.studies.tuning.bench import Bench
from sut.studies.tuning.estimate import estimate
from sut.studies.tuning.rate import TIMES
from sut.studies.tuning.search import round_seconds, round_sizes
from sut.studies.tuning.space import EFFECTS, default_points, default_space, parse_space, points_of, with_settings
from sut.studies.tuning.state import State, held
from sut.studies.tuning.tuner import MOST_PAIRS, Outcome, Tuner
from sut.text import printable

HELP = """Find the settings that are best here, and Server's highest VALID rate.

Example: ./run_local.sh tune onnxruntime efficientnet-lite0 cpu --scenario Offline --time 8

Takes the options of sut run, in one scenario (default SingleStream), and up to three words: backend, model, device.
Short runs over a grid of settings, the better half longer and so on; the best against the default in interleaved pairs,
until they are told apart or more would not help; what is not is no gain. Server: brackets and bisects to the highest
VALID rate, confirms it, and says why the next one fails. --time is the length of the longest runs (default 8).
Interrupted, the same command goes on where it was; --overwrite starts anew. Writes tuned.yaml for --config, search.svg,
and the state runs.jsonl.

Exit code: that of sut run; 4 where no run was VALID.
"""

_TIME_S = 8.0
_DIGITS = 16
"""Of a model file's hash: enough to tell files apart, and few enough to be read."""


def register(app: typer.Typer) -> None:
    """Add the command ``tune`` to ``app``."""
    app.command(cls=like_run("demo", "accuracy", "find_peak_performance"), help=HELP)(tune)


def tune(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="BACKEND MODEL DEVICE", show_default=False)] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help=f"KEY=V1,V2: what to try (repeatable): {', '.join(EFFECTS)}, backend_options.NAME; default: what has "
            "an effect in the scenario, without precision."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Time for the search: 90s, 5m, 1h, or minutes; finding the rate and confirming come on top."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds of halving at most; default: until two are left.")
    ] = None,
) -> None:
    """See HELP."""
    raise typer.Exit(_tune(configs_of(context.obj), context.obj.as_json, words, space, budget, rounds))


def _tune(
    configs: Sequence[RunConfig],
    as_json: bool,
    words: list[str] | None = None,
    space: list[str] | None = None,
    budget: str | None = None,
    rounds: int | None = None,
) -> ExitCode:
    limit_s = _budget_s(budget) if budget is not None else math.inf
    base, time_s = _base_of(configs, words or [])
    tried = parse_space(space, base) if space else default_space(base, usable_cores())
    points = points_of(tried, base) if space else default_points(tried, base)
    check_effect([point.apply(base) for point in points])
    if len(points) == 1 and base.scenario != "Server":
        raise InputError(f"nothing to search: the grid ({_listed(tried)}) is the default alone; --space names more")
    sizes = round_sizes(len(points), rounds)
    console = BriefConsole()
    with console.working("preparing the model") as progress:
        parts = assemble(base, console.note, progress)
    directory = _directory(base, tried, rounds)
    with held(directory):
        state = State.open(directory, _header(parts), overwrite=base.overwrite)
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
        _write(directory, config, outcome, bench)
        _show(directory, config, outcome, bench, as_json)
    return outcome.code


def _budget_s(text: str) -> float:
    """The seconds of ``--budget``, where a bare number is minutes."""
    return 60 * float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else parse_budget(text)


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


def _directory(base: RunConfig, tried: dict[str, list[Any]], rounds: int | None) -> Path:
    """Where a tune of this configuration over this space is kept: another one is another tune."""
    words = json.dumps([base.digest(), base.scenario, tried, rounds], sort_keys=True)
    digest = hashlib.sha256(words.encode()).hexdigest()[:8]
    model = base.model_name or model_stem(base.model)
    return base.output / model / f"tune-{base.backend}-{base.scenario}-{digest}"


def _header(parts: Assembly) -> dict[str, Any]:
    """What all runs of a tune have in common, beside the words of its config."""
    digest = f", sha256 {content_digest(parts.model.source)[:_DIGITS]}" if parts.model is not None else ""
    return {
        "machine": named(system_facts()),
        "backend": f"{parts.config.backend} {parts.backend.version()}",
        "model": f"{parts.spec.name}{digest}",
    }


def _config(base: RunConfig, outcome: Outcome) -> RunConfig | None:
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


def _write(directory: Path, config: RunConfig | None, outcome: Outcome, bench: Bench) -> None:
    with writing(directory):
        if config is not None:
            write_text(directory / "tuned.yaml", report.yaml_text(config, outcome, bench.rows))
        else:
            (directory / "tuned.yaml").unlink(missing_ok=True)
        write_text(directory / "search.svg", report.svg(outcome, "sut tune"))


def _show(directory: Path, config: RunConfig | None, outcome: Outcome, bench: Bench, as_json: bool) -> None:
    if as_json:
        print_json("tune", report.rows_of(bench.rows), outcome=report.outcome_of(outcome, config))
    else:
        out = RichConsole(highlight=False)
        out.print(report.picture(outcome))
        for line in outcome.words if outcome.code == ExitCode.OK else ():
            out.print(Text(line))
        if config is not None:
            out.print(Text(printable(f"run it: ./run_local.sh --config {directory / 'tuned.yaml'}")), soft_wrap=True)
    if outcome.code != ExitCode.OK:
        tell_error(outcome.words[-1])
