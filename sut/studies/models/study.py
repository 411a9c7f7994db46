"""What ``sut study models`` finds: inference's share and the worth of a preprocessor, against the size of the model."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from plugins.files import known_digest
from sut.config import RunConfig, expanded, is_model_file
from sut.errors import ExitCode, InputError, SutError, one_line, worst
from sut.models.registry import find, for_file, with_folder
from sut.models.size import ModelSize, size_of_file
from sut.pipeline.identify.settings import check_one_model
from sut.pipeline.slowdown import check_as_it_is
from sut.results.schema import Result, used
from sut.results.statistics import Difference, difference
from sut.run.auto import fixed
from sut.run.energy.metering import AtRest
from sut.run.reporter import Reporter
from sut.run.runner import run_experiment

MODELS = (
    *("mobilenet-v2", "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "tinyvit", "resnet-18"),
    *("lraspp", "resnet50", "resnet-101", "vit-b", "dpt", "yolo11"),
)
"""From few FLOPs to many: all whose files are made here."""
HALF = 0.5
_TIME_S = 1.0
"""Of a run: with twelve models and three preprocessors a round is thirty-six."""

Cell = tuple[str, str]
"""A model and a preprocessor."""


@dataclass(frozen=True, slots=True)
class Half:
    """The FLOPs at which inference passes half of a sample's cost, by the medians of all rounds.

    ``low`` and ``high`` are the least and most that single rounds give; None for one round, or where it is not passed
    in each. Without ``flops`` the ``verdict`` is ``not reached``, ``always`` (by the smallest model already), ``not in
    order`` (no larger model passes it where a smaller one does not) or ``not measured``; else ``passed``.
    """

    flops: float | None
    low: float | None
    high: float | None
    verdict: str


@dataclass(slots=True)
class Measured:
    """Results by round, and of each cell that has none, why; ``sizes`` of the models."""

    rounds: list[dict[Cell, Result]] = field(default_factory=list)
    reasons: dict[Cell, str] = field(default_factory=dict)
    sizes: dict[str, ModelSize] = field(default_factory=dict)
    codes: list[ExitCode] = field(default_factory=list)
    rest: AtRest = field(default_factory=AtRest)

    def of(self, cell: Cell) -> list[Result | None]:
        """The cell's results by round."""
        return [each.get(cell) for each in self.rounds]


def chosen_models(text: str) -> tuple[str, ...]:
    """The models of a comma list, each once: known ones by their names, files and folders by their paths.

    Raises ``InputError`` for a name that is none.
    """
    words = [str(with_folder({"model": word.strip()})["model"]) for word in text.split(",")]
    return tuple(dict.fromkeys(word if is_model_file(word) else find(word).name for word in words))


def base_of(configs: Sequence[RunConfig]) -> RunConfig:
    """The config that models and preprocessors are put into. Raises ``InputError`` for one that cannot be."""
    base = configs[0]
    if len(configs) != 1 or base.mode != "performance":
        raise InputError("sut study models runs one scenario in performance mode; give one --scenario")
    check_as_it_is(base, "study models")
    check_one_model(base, "sut study models tells the share of")
    for name, instead in {"model": "--models A,B", "preprocess": "--preprocess A,B", "boundary": None}.items():
        if name in base.model_fields_set:
            way = f"give {instead}" if instead else "it runs at the boundary jpeg"
            raise InputError(f"sut study models does not take the setting {name}: leave it out; {way}")
    return base.model_copy(update={"boundary": "jpeg", "time_s": base.time_s or _TIME_S})


def run_models(
    base: RunConfig,
    models: Sequence[str],
    preprocessors: Sequence[str],
    rounds: int | None,
    budget_s: float,
    console: Reporter,
) -> Measured:
    """Run each model with each preprocessor, there and back again, ``rounds`` times or as often as the budget allows.

    What fails has a reason and is not run again; what the budget does not reach in the first round has that as one.
    """
    measured, begin = Measured(), time.monotonic()
    configs = {name: _config_of(base, name) for name in models}
    cells = [(model, preprocess) for model in models for preprocess in preprocessors]
    while True:
        round_begin, results = time.monotonic(), dict[Cell, Result]()
        measured.rounds.append(results)
        for cell in cells if len(measured.rounds) % 2 else reversed(cells):
            if cell in measured.reasons:
                continue
            if time.monotonic() - begin > budget_s:
                if len(measured.rounds) == 1:
                    measured.reasons[cell] = f"not reached within {budget_s:.0f} s: give a longer --budget"
                continue
            if _run(cell, configs, results, measured, console):
                return measured
        now = time.monotonic()
        console.note(f"round {len(measured.rounds)}: {len(results)} runs in {now - round_begin:.0f} s")
        is_last = rounds is None and now - begin + now - round_begin > budget_s
        if len(measured.rounds) == rounds or is_last or not results:
            return measured


def _config_of(base: RunConfig, name: str) -> RunConfig:
    """With the weights that are made here, where nobody has said which."""
    makes = () if is_model_file(name) else find(name).makes
    made = {} if "weights" in base.model_fields_set or "random" not in makes else {"weights": "random"}
    return base.model_copy(update={"model": name, **made})


def _run(
    cell: Cell, configs: dict[str, RunConfig], results: dict[Cell, Result], measured: Measured, console: Reporter
) -> bool:
    """One run; returns whether it ends all of them."""
    model, preprocess = cell
    config = configs[model].model_copy(update={"preprocess": preprocess})
    try:
        if model not in measured.sizes:
            measured.sizes[model] = _size(config, console)
        ran = run_experiment([config], console, "sut study models", rest=measured.rest)
    except (SutError, ModuleNotFoundError) as error:
        measured.reasons[cell] = one_line(error)
        return False
    measured.codes += ran.codes
    if ran.code == ExitCode.INTERRUPTED:
        return True
    [result] = ran.results
    if ran.code not in (ExitCode.OK, ExitCode.INVALID) or share_of(result) is None:
        measured.reasons[cell] = result.first_error or "the run failed"
        return False
    results[cell] = result
    # What a model's first run chose: it is to be the same work with each preprocessor.
    configs[model] = configs[model].model_copy(update=fixed(used(result), config.scenario))
    return False


def _size(config: RunConfig, console: Reporter) -> ModelSize:
    """Of the model's ONNX file, whatever the backend makes of it."""
    spec = for_file(expanded(config.model), None) if config.is_file else find(config.model)
    path = spec.build(config.weights, console.note)
    return size_of_file(path, spec.recipe.sample_shape, known_digest(path))


# ---- what the results say


def share_of(result: Result) -> float | None:
    """Inference's part of a sample's busy time, 0 to 1; None where the ledger has none."""
    total = sum(result.cost_ns.values())
    return result.cost_ns["infer"] / total if total and "infer" in result.cost_ns else None


def half_flops(points: Sequence[tuple[float, float]]) -> float | None:
    """The FLOPs at which the share of (FLOPs, share) points passes a half from below, between neighbours by FLOPs.

    Where it does so more than once, the first time. Linear in the share over the logarithm of the FLOPs.

    >>> round(half_flops([(1e9, 0.25), (4e9, 0.75)]))
    2000000000
    """
    ordered = sorted(points)
    for (flops, share), (more, larger) in itertools.pairwise(ordered):
        if share < HALF <= larger:
            return math.exp(math.log(flops) + (HALF - share) / (larger - share) * (math.log(more) - math.log(flops)))
    return None


def half_of(rounds: Sequence[Mapping[str, float]], sizes: Mapping[str, float]) -> Half:
    """Where inference passes a half, by its share in each round and the FLOPs, both by model."""
    shares = {
        model: statistics.median(each[model] for each in rounds if model in each)
        for model in sizes
        if any(model in each for each in rounds)
    }
    points = [(sizes[model], share) for model, share in shares.items()]
    found = half_flops(points)
    if found is None:
        return Half(None, None, None, _not_passed(points))
    single = [half_flops([(sizes[model], share) for model, share in each.items() if model in sizes]) for each in rounds]
    passed = [each for each in single if each is not None]
    if len(rounds) < 2 or len(passed) < len(rounds):
        return Half(found, None, None, "passed")
    return Half(found, min(passed), max(passed), "passed")


def _not_passed(points: Sequence[tuple[float, float]]) -> str:
    shares = [share for _, share in points]
    if not shares:
        return "not measured"
    if max(shares) < HALF:
        return "not reached"
    return "always" if min(shares) >= HALF else "not in order"


def model_rows(measured: Measured, models: Sequence[str], preprocessors: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each model and preprocessor, from few FLOPs to many; figures are medians of the rounds.

    ``gain`` is against the first preprocessor, by the rounds in which both ran: over 1 it is faster.
    """
    rows = []
    for model in sorted(models, key=lambda name: (_flops(measured, name) or math.inf, models.index(name))):
        size = measured.sizes.get(model)
        for preprocess in preprocessors:
            runs = [each for each in measured.of((model, preprocess)) if each is not None]
            shares = [share for each in runs if (share := share_of(each)) is not None]
            row: dict[str, Any] = {
                "model": model,
                "weights": runs[0].weights if runs else None,
                "model_parameters": size.parameters if size else None,
                "model_flops": size.flops if size else None,
                "preprocess": preprocess,
                "rounds": len(runs),
                "valid": all(each.valid for each in runs) if runs else None,
                "samples_per_second": _median([each.samples_per_second for each in runs]),
                "infer_ns": _median([each.cost_ns["infer"] for each in runs]),
                "cost_ns": _median([sum(each.cost_ns.values()) for each in runs]),
                "inference_share": _median(shares),
                "inference_share_range": [min(shares), max(shares)] if shares else None,
                "gain": None,
                "reason": measured.reasons.get((model, preprocess)) if not runs else None,
            }
            if preprocess != preprocessors[0] and runs:
                row["gain"] = asdict(_gain(measured, model, preprocessors[0], preprocess))
            rows.append(row)
    return rows


def _gain(measured: Measured, model: str, against: str, preprocess: str) -> Difference:
    before, after = (
        [each.samples_per_second if each else None for each in measured.of((model, name))]
        for name in (against, preprocess)
    )
    return difference(before, after, higher_is_better=True)


def _flops(measured: Measured, model: str) -> int | None:
    size = measured.sizes.get(model)
    return size.flops if size else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return statistics.median(known) if known else None


def summary_of(measured: Measured, rows: Sequence[Mapping[str, Any]], preprocessors: Sequence[str]) -> dict[str, Any]:
    """What holds over all models: by preprocessor ``half``, as ``Half`` has it, and ``gains``: mean, low and high."""
    halves, gains = {}, {}
    sizes = {model: float(size.flops) for model, size in measured.sizes.items() if size.flops}
    for name in preprocessors:
        shares = [
            {model: share for (model, other), result in each.items() if other == name and (share := share_of(result))}
            for each in measured.rounds
        ]
        halves[name] = asdict(half_of([each for each in shares if each], sizes))
        ratios = {row["model"]: row["gain"]["ratio"] for row in rows if row["preprocess"] == name and row["gain"]}
        known = {model: ratio for model, ratio in ratios.items() if ratio is not None}
        if known:
            low, high = (pick(known, key=known.__getitem__) for pick in (min, max))
            gains[name] = {
                "mean": statistics.fmean(known.values()),
                "models": len(known),
                "low": known[low],
                "high": known[high],
                "low_model": low,
                "high_model": high,
            }
    return {"half": halves, "gains": gains, "against": preprocessors[0]}


def code_of(measured: Measured) -> ExitCode:
    """The worst of all runs; what did not run is told in the rows. Raises ``InputError`` where nothing has a figure."""
    if measured.codes and ExitCode.INTERRUPTED in measured.codes:
        return ExitCode.INTERRUPTED
    if not any(measured.rounds):
        raise InputError(f"no model ran: {next(iter(measured.reasons.values()), 'there is none')}")
    return worst(measured.codes)
