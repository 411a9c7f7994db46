"""What ``sut plan`` does: measure what batches and pictures take, choose a layout, write down what it should hold."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict

from sut.config import RunConfig
from sut.errors import InputError, writing
from sut.files import write_text
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.identify.settings import check_one_model
from sut.pipeline.slowdown import check_as_it_is
from sut.process.cgroup import usable_cores
from sut.process.streams import tell
from sut.run.folders import fresh
from sut.run.planning import check_effect
from sut.run.reporter import Reporter
from sut.studies.capacity import report
from sut.studies.capacity.choice import Machine, Planned, Wanted, choose, needs
from sut.studies.capacity.measuring import Orders, measure
from sut.studies.capacity.model import Times
from sut.studies.kept import study_folder
from sut.text import shortened

_SECONDS = 30.0
_MAX_BATCH = 16
"""Where none is set: beyond it, service times of a CPU grow in proportion, and a latency bound seldom bears more."""
_MOST_LANES = 8
_UNITS_NS = {"us": 1e3, "ms": 1e6, "s": 1e9, "": 1e6}


def run_plan(configs: Sequence[RunConfig], rate: float | None, p99: str | None, console: Reporter) -> Planned:
    """All of it. Raises ``InputError`` for what cannot be planned."""
    wanted = Wanted(_rate(rate), _bound_ns(p99))
    [base] = configs
    if base.mode != "performance":
        raise InputError(f"sut plan takes the mode performance, got '{base.mode}'; leave it out")
    check_as_it_is(base, "plan")
    check_one_model(base, "sut plan times the batches of")
    check_effect([base])
    with console.working("preparing the model") as progress:
        parts = assemble(base, console.note, progress)
    asked = [parts.config.digest(), asdict(wanted)]
    directory = fresh(study_folder(parts.config, f"plan-{base.backend}", asked), base.overwrite)
    orders = _orders(parts, wanted)
    tell(f"plan: about {orders.seconds:.0f} s of measuring with {_listed(orders.lanes)} lanes; files: {directory}")
    with console.working("measuring batches and preprocessing") as progress:
        timed = measure(parts, orders, progress)
    times, machine = Times(timed), _machine(parts)
    with console.working("simulating"):
        plan = choose(times, wanted)
        more = needs(times, machine, wanted, plan)
    weights = parts.model.weights if parts.model else None
    planned = Planned(directory, base, wanted, machine, timed, plan, more, parts.spec.name, weights)
    if plan is not None:
        with writing(directory):
            write_text(directory / "plan.yaml", report.yaml_text(planned))
    return planned


def _rate(rate: float | None) -> float:
    if rate is None or not math.isfinite(rate) or rate <= 0:
        got = "nothing" if rate is None else f"{rate:g}"
        raise InputError(f"--rate takes queries a second, more than 0, got {got}; for example --rate 100")
    return rate


def _bound_ns(text: str | None) -> int:
    """The bound in ns.

    >>> _bound_ns("15"), _bound_ns("0.1 s")
    (15000000, 100000000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s|)", (text or "").strip())
    if found is None or not (bound_ns := round(float(found[1]) * _UNITS_NS[found[2]])):
        got = "nothing" if text is None else f"'{shortened(text)}'"
        raise InputError(f"--p99 takes ms, or a time such as 15ms or 0.1s, more than 0, got {got}")
    return bound_ns


def _orders(parts: Assembly, wanted: Wanted) -> Orders:
    """Lanes and workers as set, else doubled from one to as many as there are cores."""
    config, cores = parts.config, usable_cores()
    lanes = (config.lanes,) if config.lanes else _doubled(max(min(cores, _MOST_LANES), _machine(parts).devices))
    workers: tuple[int, ...] = ()
    if config.times_preprocessing:
        workers = (config.preprocess_workers,) if config.preprocess_workers else _doubled(cores)
    return Orders(
        config,
        parts.model,
        lanes,
        workers,
        config.max_batchsize or _MAX_BATCH,
        wanted.bound_ns,
        config.time_s or _SECONDS,
    )


def _doubled(most: int) -> tuple[int, ...]:
    """1, 2, 4, ..., and the most itself.

    >>> _doubled(6)
    (1, 2, 4, 6)
    """
    return tuple(sorted({*(2**n for n in range(most.bit_length())), most}))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _machine(parts: Assembly) -> Machine:
    device = parts.config.device
    on_cores = parts.model is not None and device == "cpu"
    return Machine(len(parts.config.devices), usable_cores(), on_cores)
