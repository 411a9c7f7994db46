"""The parts of the paper's claims: a round of another study each, and the figures that it comes to."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sut.errors import ExitCode, RunError
from sut.pipeline.assembly import Assembly, assemble
from sut.process.cgroup import usable_cores
from sut.results.samples import Samples
from sut.results.stages import inference
from sut.run.energy.metering import opened
from sut.studies.beyond_inference.lab import Found, Lab, Part, not_planted, preprocessing_on_gpu, several_devices
from sut.studies.beyond_inference.predicates import LARGE, SIZES, SMALL
from sut.studies.breakdown import study as breakdown
from sut.studies.breakdown.alone import IN_TURN, INFER
from sut.studies.breakdown.bottleneck import END_TO_END
from sut.studies.breakdown.cells import FIFTH, FULL, LOADED, ZERO, Cell, Plan, drives, outstanding, settled
from sut.studies.breakdown.pictures import Pictures
from sut.studies.breakdown.split import shares
from sut.studies.claims import UntestableError, Value
from sut.studies.driving.drive import drive
from sut.studies.driving.driven import Drive, Driven, Ready, Relative
from sut.studies.driving.loads import Closed, Poisson
from sut.studies.energy.report import METERS, UNMEASURED
from sut.studies.energy.study import run_energy
from sut.studies.generated import generated_pictures
from sut.studies.ladder.study import run_ladder
from sut.studies.models.study import model_rows, run_models
from sut.studies.sweeping.curves import pair_of_decline
from sut.studies.sweeping.grids import WAYS, Asked, parse_concurrency
from sut.studies.sweeping.grids import Cell as System
from sut.studies.sweeping.study import run_sweep

_LOOP_S, _ENERGY_S = 2.0, 5.0
"""Of a closed loop, and of one whose energy is counted, unless ``--time`` says else."""
_FEWEST = {"medium": 24, "large": 8}
"""Requests at zero load, however far apart they come, for a minute at the most."""
_FEWEST_LOADED = 120
"""Of those that come loaded, likewise: the slowest hundredth is of a hundred at least."""
_LONGEST_S = 60.0
_LEAST = 12
"""Samples of a closed loop, however long they take."""
_CONCURRENCY_S, _LADDER_S = 300.0, 540.0


# ---- latency


def _latency(lab: Lab, number: int, pictures: str, way: str = "cpu") -> Found:
    """What of the latency at zero load is not inference, and how much of it is waiting where the system is loaded."""
    loads, parity = _loads(lab, pictures, way, number)
    zero = loads[ZERO]
    # Of each request, and their median: of large pictures a round has a few, too few for those around a percentile.
    inferred = inference(zero.stages_ns)
    assert inferred is not None
    tax = 1 - inferred / zero.latency_ns
    figures: dict[str, list[Value]] = {
        "latency_ns": [float(np.median(zero.latency_ns))],
        "tax": [float(np.median(tax))],
    }
    if LOADED in loads:
        tail = shares(loads[LOADED])["p99"]
        figures["waiting"] = [tail["waiting"] if tail else None]
    return Found(figures, parity=parity)


def _loads(lab: Lab, pictures: str, way: str, number: int) -> tuple[dict[str, Samples], dict[str, str]]:
    """The samples of a breakdown's loads by name, and the preprocessor's parity; loaded only what a claim is of."""
    parts = settled(lab.config(pictures, way), "Server")
    left_out = {FIFTH} if (pictures, way) == ("medium", "cpu") else {FIFTH, FULL, LOADED}
    asked = {name: each for name, each in drives(parts.config, number).items() if name not in left_out}
    for name, to, fewest in ((ZERO, 0, _FEWEST[pictures]), (LOADED, 1, _FEWEST_LOADED)):
        if name in asked:
            asked[name] = replace(asked[name], relative=Relative(to, fewest, _LONGEST_S))
    done, parity = _driven(lab, parts, [*asked.values()])
    return dict(zip(asked, (samples for _, samples in done), strict=True)), parity


def _driven(
    lab: Lab, parts: Assembly, asked: Sequence[Drive], cores: int | None = None
) -> tuple[list[tuple[Driven, Samples]], dict[str, str]]:
    """What a system did under some loads, and its preprocessor's parity. Raises ``RunError`` where a sample failed."""
    loaded: list[Ready] = []
    with tempfile.TemporaryDirectory() as scratch:
        driven = drive(parts, asked, Path(scratch), cores=cores, ready=loaded.append, rest=lab.rest)
        for each in driven:
            if not each.ok:
                raise RunError(each.first_error or f"{each.failed} samples failed")
        done = [(each, each.per_sample()) for each in driven]
    parity = loaded[0].parity
    return done, {parts.config.preprocess: parity.line()} if parity else {}


# ---- throughput


def _throughput(lab: Lab, number: int, pictures: str, other: str | None = None) -> Found:
    """Inference alone, and end to end, in samples per second."""
    config = lab.config(pictures, of=None if other is None else lab.other_model(other))
    cell = Cell(pictures, config.preprocess, config)
    measured = breakdown.Study(Plan([cell]), lab.directory / "runs", lab.console, lab.console.note, math.inf, 1)
    measured.run_parts()
    rates = measured.parts[cell.label]["rates"]
    return Found({"infer": rates[INFER], "end_to_end": rates.get(END_TO_END) or rates[IN_TURN]})


def _models(lab: Lab, number: int, way: str) -> Found:
    """The throughput of a small and a large model, preprocessed on the CPU or a GPU, and inference's share."""
    base = lab.config("medium", way, lab.other_model(SMALL))
    update = {"overwrite": True, "scenario": "Offline", "time_s": base.time_s or 1.0}
    models, names = (SMALL, LARGE), [base.preprocess]
    measured = run_models(base.model_copy(update=update), models, names, 1, math.inf, lab.console)
    if ExitCode.INTERRUPTED in measured.codes:
        raise KeyboardInterrupt
    figures = dict[str, list[Value]]()
    for row in model_rows(measured, models, names):
        if row["reason"]:
            raise RunError(row["reason"]) if ExitCode.FAILED in measured.codes else UntestableError(row["reason"])
        figures[f"rate of {row['model']}"] = [row["samples_per_second"]]
        figures[f"share of {row['model']}"] = [row["inference_share"]]
    return Found(figures)


def _ladder(lab: Lab, number: int) -> Found:
    """The rungs' throughput, in all rounds at once: what a rung is, a search of the first round decides."""
    rows = run_ladder(lab.ladder, lab.ladder_base, lab.rounds, _LADDER_S, lab.console)[0]["rows"]
    if failed := [f"{row['name']}: {row['reason']}" for row in rows if row["failed"]]:
        raise RunError("; ".join(failed))
    return Found({row["name"]: row["by_round"] for row in rows if row["rounds"]})


# ---- concurrency, devices


def _concurrency(lab: Lab, number: int) -> Found:
    """The closed loop up to the paper's concurrency, a decline by pairs: a sweep, which keeps its points itself."""
    asked = Asked(parse_concurrency(None), None, Poisson, lab.base.time_s or _LOOP_S, _CONCURRENCY_S)
    found = run_sweep([lab.config("medium")], asked, lab.console)
    outcome, points = found.told["outcome"], [each for each in found.points if each.part == "closed" and each.ok]
    if not outcome:
        raise RunError("no point of the closed loop counts")
    names = {"highest": "highest", "decline_at": "decline", "memory_full_at": "memory_full"}
    figures: dict[str, list[Value]] = {key: [outcome[f"{name}_concurrency"]] for key, name in names.items()}
    pair = pair_of_decline([each for each in points if each.round == 1])
    for key, concurrency in zip(("best", "most"), pair, strict=True):
        # The best was picked in the first round, so that it is not one of those that count.
        again = {each.round: each for each in points if each.round > 1 and each.concurrency == concurrency}
        figures[key] = [again[number].samples_per_second for number in sorted(again)]
    return Found(figures)


def _devices(lab: Lab, number: int, ways: Sequence[str]) -> Found:
    """Large pictures on one device and on all, in some ways to serve them."""
    figures, parity = dict[str, list[Value]](), dict[str, str]()
    base = lab.config("large", of=lab.on_devices())
    for way in ways:
        for count, name in ((1, "one device"), (lab.devices, "all devices")):
            system = System(way, "large", usable_cores(), count)
            parts = assemble(system.config(base, lab.model_bytes, lab.console.note), lab.console.note)
            enough = outstanding(parts.config) + 2 * parts.config.preprocess_workers
            load = Drive(Closed(enough), lab.base.time_s or _LOOP_S, least=_LEAST)
            [(driven, _)], told = _driven(lab, parts, [load], system.cores)
            figures[f"{way}, {name}"] = [driven.samples_per_second]
            parity |= told
    return Found(figures, parity=parity)


# ---- energy


def _energy(lab: Lab, number: int, way: str) -> Found:
    """What a picture of each size takes by each meter, in joules, gross."""
    base = lab.config("medium", way).model_copy(update={"power_log": lab.base.power_log, "scenario": "Server"})
    sets = [Pictures(name, generated_pictures(name, lab.console.note)) for name in SIZES]
    load = Drive(Closed(outstanding(settled(base, "Server").config)), base.time_s or _ENERGY_S)
    told, code = run_energy(base, sets, [base.preprocess], load, 1, lab.console)
    if code == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    figures = dict[str, list[Value]]()
    for row in told["rows"]:
        if row["reason"]:
            raise RunError(row["reason"]) if row["failed"] else UntestableError(row["reason"])
        if not row["energy"]:
            raise UntestableError("; ".join(row["notes"]) or UNMEASURED)
        joules = {METERS[kind]: each["gross_joules_per_sample"] for kind, each in row["energy"].items()}
        if {"CPU", "GPU"} <= joules.keys():
            joules["CPU and GPU"] = joules["CPU"] + joules["GPU"]
        figures |= {f"{row['pictures']}, {kind}": [value] for kind, value in joules.items()}
    return Found(figures)


# ---- all of them


def _meter(lab: Lab) -> str | None:
    """The need of a meter."""
    if lab.base.power_log is not None:
        return None
    with opened(settled(lab.config("medium"), "Server").gpus) as (meters, _):
        return None if meters else UNMEASURED


def _rungs(lab: Lab) -> str | None:
    """The need of runtimes, which the paper's ladder is one of; rungs of one's own may be anything."""
    return None if lab.own_ladder else not_planted("has no runtimes to climb; --ladder names rungs of your own")(lab)


_MEMORY = not_planted("has no memory that could be full, and takes as long at any concurrency")
_MODELS = not_planted("takes as planted whatever the model is")
_TINYVIT = partial(_throughput, pictures="medium", other="tinyvit")
PARTS = {
    "latency-medium": Part(partial(_latency, pictures="medium"), 20),
    "latency-large": Part(partial(_latency, pictures="large"), 40),
    "throughput-large": Part(partial(_throughput, pictures="large"), 15),
    "latency-medium-gpu": Part(partial(_latency, pictures="medium", way="gpu"), 20, needs=(preprocessing_on_gpu,)),
    "latency-large-gpu": Part(partial(_latency, pictures="large", way="gpu"), 40, needs=(preprocessing_on_gpu,)),
    "concurrency": Part(_concurrency, _CONCURRENCY_S, at_once=True, needs=(_MEMORY,)),
    "models": Part(partial(_models, way="cpu"), 40, needs=(_MODELS,)),
    "models-gpu": Part(partial(_models, way="gpu"), 40, needs=(_MODELS, preprocessing_on_gpu)),
    "devices": Part(partial(_devices, ways=(WAYS[0], WAYS[2])), 40, needs=(several_devices,)),
    "devices-gpu": Part(partial(_devices, ways=(WAYS[1],)), 20, needs=(several_devices, preprocessing_on_gpu)),
    "energy": Part(partial(_energy, way="cpu"), 40, needs=(_meter,)),
    "energy-gpu": Part(partial(_energy, way="gpu"), 40, needs=(preprocessing_on_gpu, _meter)),
    "tinyvit": Part(_TINYVIT, 15, needs=(_MODELS,)),
    "ladder": Part(_ladder, _LADDER_S, at_once=True, needs=(_rungs,)),
}
"""In the order of their worth: what a budget does not reach is from the end."""
