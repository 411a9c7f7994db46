"""Which layout to take for a rate, what limits it, and by how much more of what the rate could be had."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sut.config import RunConfig
from sut.studies.capacity.measuring import ROUNDS, Timed
from sut.studies.capacity.model import (
    Expected,
    Layout,
    Times,
    expected,
    held,
    held_by,
    lanes_alone,
    rate,
    stations,
    throughput,
)

Verdict = Literal["yes", "open", "no"]
"""Whether the rate can be had: the whole interval says so, it is within the interval, or over it."""

_IN_LANES = ("h2d", "infer", "d2h")


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many queries a second, 99 % of them answered within ``bound_ns``."""

    queries_per_second: float
    bound_ns: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured on: ``devices`` that infer, ``cores``; whether inference works on these cores, too."""

    devices: int
    cores: int
    infers_on_cores: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The layout to take: what it holds, what it makes where there is always work, and the stage that limits that."""

    layout: Layout
    verdict: Verdict
    rate: Expected
    samples_per_second: Expected
    limit: str


@dataclass(frozen=True, slots=True)
class Needs:
    """By arithmetic, not measured: so many devices like these, and cores like these, would hold the rate.

    ``devices`` is None where inference works on the cores. ``cores_per_device``: those that preprocess for one device
    that is kept busy, I / P; None where no preprocessing was timed, or inference works on the cores.
    """

    devices: int | None
    cores: int | None
    cores_per_device: Expected | None


@dataclass(frozen=True, slots=True)
class Planned:
    """What came out, in ``directory``. ``plan`` is None where no rate at all is within the bound."""

    directory: Path
    config: RunConfig
    wanted: Wanted
    machine: Machine
    timed: Timed
    plan: Plan | None
    needs: Needs
    model: str
    weights: str | None


def choose(times: Times, wanted: Wanted) -> Plan | None:
    """The layout of fewest threads that holds what is wanted, else the one that holds most; None if none holds any.

    What cannot be better than what is known is not simulated: no layout holds more than it makes under full load.
    """
    most = {layout: stations(times, layout).samples_per_second for layout in times.layouts()}
    best, best_rate = None, 0.0
    for layout in sorted(most, key=lambda each: (each.threads, -most[each])):
        if most[layout] < wanted.queries_per_second:
            continue
        found = held(times, layout, wanted.bound_ns)
        if found >= wanted.queries_per_second and (plan := _plan(times, layout, wanted)).verdict == "yes":
            return plan
        best, best_rate = (layout, found) if found > best_rate else (best, best_rate)
    for layout in sorted(most, key=lambda each: -most[each]):
        if best_rate < most[layout] < wanted.queries_per_second:
            found = held(times, layout, wanted.bound_ns)
            best, best_rate = (layout, found) if found > best_rate else (best, best_rate)
    return _plan(times, best, wanted) if best is not None else None


def _plan(times: Times, layout: Layout, wanted: Wanted) -> Plan:
    found = rate(times, layout, wanted.bound_ns)
    asked = wanted.queries_per_second
    is_open = found.high is None or found.high >= asked
    verdict: Verdict = "yes" if found.low >= asked else "open" if is_open else "no"
    return Plan(layout, verdict, found, throughput(times, layout), limit_of(times, layout))


def limit_of(times: Times, layout: Layout) -> str:
    """The stage that limits a layout: ``infer``, or the longest one of preprocessing."""
    found = stations(times, layout)
    before = {name: took for name, took in times.stages_ns.items() if name not in (*_IN_LANES, "postprocess")}
    if layout.workers:
        is_before = found.prepared_per_second < found.answered_per_second
    else:
        infer_ns = lanes_alone(times, layout).service_ns[-1]
        is_before = found.service_ns[-1] - infer_ns > infer_ns
    return max(before, key=lambda name: before[name]) if is_before and before else "infer"


def needs(times: Times, machine: Machine, wanted: Wanted, plan: Plan | None) -> Needs:
    """How many devices and cores would hold what is wanted, each of them as the ones that were measured.

    Devices: by the highest rate that lanes hold which find each sample ready, within the bound less one picture's
    preprocessing. Cores: by what one worker preprocesses while as many as there were do. Where inference works on the
    cores: by what this plan holds.
    """
    asked = wanted.queries_per_second
    if machine.infers_on_cores:
        cores = math.ceil(machine.cores * asked / plan.rate.value) if plan is not None else None
        return Needs(None, cores, None)
    workers = times.workers()
    picture_ns = times.picture_ns(workers[-1]) if workers else 0.0
    layouts = [lanes_alone(times, each) for each in times.layouts() if not each.workers]
    most = max(held_by(each, round(wanted.bound_ns - picture_ns)) for each in layouts)
    devices = math.ceil(machine.devices * asked / most) if most else None
    cores = math.ceil(asked * picture_ns / 1e9) if workers else None
    return Needs(devices, cores, _cores_per_device(times, machine) if workers else None)


def _cores_per_device(times: Times, machine: Machine) -> Expected:
    """I / P: pictures a second that one device infers at the most, by those that one worker preprocesses."""

    def ratio(number: int | None = None) -> float:
        most = max(lanes_alone(times, each, number).answered_per_second for each in times.layouts() if not each.workers)
        return most / machine.devices * times.picture_ns(times.workers()[-1], number=number) / 1e9

    return expected(ratio(), [ratio(number) for number in range(ROUNDS)])
