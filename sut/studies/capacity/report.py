"""What a plan leaves: tables and sentences, what study.json has, a YAML file for ``--config``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import yaml
from rich.console import RenderableType
from rich.table import Table

from sut.errors import short
from sut.results.machine import named, system_facts
from sut.results.wording import RANDOM_WEIGHTS, milliseconds
from sut.studies.capacity.choice import Needs, Plan, Planned
from sut.studies.capacity.measuring import Doing
from sut.studies.capacity.model import Expected, Layout, Times, throughput
from sut.studies.tuning.report import what_is_set
from sut.studies.tuning.space import tidy


def told(planned: Planned, times: Times) -> dict[str, Any]:
    """What study.json has: a row for each layout, and what came out."""
    wanted, timed = planned.wanted, planned.timed
    return {
        "queries_per_second": wanted.queries_per_second,
        "p99_ns": wanted.bound_ns,
        "rows": [_row(times, layout) for layout in times.layouts()],
        "preprocessing": [_preprocessing(times, count) for count in times.workers()],
        "stages_ns": timed.stages_ns,
        "picture_bytes": timed.picture_bytes,
        "tensor_bytes": timed.tensor_bytes,
        "plan": asdict(planned.plan) if planned.plan is not None else None,
        "threads": timed.threads[planned.plan.layout.lanes] if planned.plan is not None else None,
        "machine": asdict(planned.machine),
        "needs": asdict(planned.needs),
        "quiet": timed.quiet,
        "words": sentences(planned, times),
        "model": planned.model,
        "backend": planned.config.backend,
        "weights": planned.weights,
    }


def _row(times: Times, layout: Layout) -> dict[str, Any]:
    """What is known of a layout. ``batch_ns`` is of a lane that also preprocesses, where preprocessing is timed."""
    lanes, batch = layout.lanes, layout.batch
    alone: Doing = "alone" if lanes > 1 else "fused"
    return {
        "lanes": lanes,
        "preprocess_workers": layout.workers,
        "max_batchsize": batch,
        "batch_ns": {
            "one_lane": times.batch_ns(alone, lanes, batch),
            "all_lanes": times.batch_ns("fused", lanes, batch),
        },
        "samples_per_second": asdict(throughput(times, layout)),
    }


def _preprocessing(times: Times, workers: int) -> dict[str, Any]:
    beside = {str(lanes): workers * 1e9 / times.picture_ns(workers, lanes) for lanes in times.lanes()}
    return {
        "workers": workers,
        "samples_per_second": workers * 1e9 / times.picture_ns(workers),
        "samples_per_second_beside_lanes": beside,
    }


def tables(times: Times) -> Iterator[RenderableType]:
    """What batches took, and what workers made ready."""
    batches = _table("lanes", "batch", "one lane\nms a batch", "all lanes\nms a batch", "expected\nsamples/s")
    for layout in times.layouts():
        if not layout.workers:
            row = _row(times, layout)
            each = [milliseconds(row["batch_ns"][name]) for name in ("one_lane", "all_lanes")]
            batches.add_row(str(layout.lanes), str(layout.batch), *each, interval(throughput(times, layout)))
    yield batches
    if counts := times.workers():
        lanes = times.lanes()
        workers = _table("workers", "pictures/s", *(f"beside {count}\nbusy lanes" for count in lanes))
        for count in counts:
            rates = [count * 1e9 / times.picture_ns(count, beside) for beside in (0, *lanes)]
            workers.add_row(str(count), *map(short, rates))
        yield workers


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def interval(found: Expected) -> str:
    """A figure with its interval.

    >>> interval(Expected(100.0, 90.0, 111.0))
    '100 (90 to 111)'
    """
    most = "no one knows" if found.high is None else short(found.high)
    return f"{short(found.value)} ({short(found.low)} to {most})"


def sentences(planned: Planned, times: Times) -> list[str]:
    """What to take, what it should hold, what limits it, and what else it would need."""
    wanted, plan, machine = planned.wanted, planned.plan, planned.machine
    asked, bound = f"{wanted.queries_per_second:g} queries/s", f"p99 <= {milliseconds(wanted.bound_ns)} ms"
    told = []
    if plan is None:
        least = min(times.batch_ns("fused", lanes, times.sizes(lanes)[0]) for lanes in times.lanes())
        told.append(
            f"no rate is held with {bound}: one picture alone takes {milliseconds(least)} ms, and waiting comes on "
            "top; more devices or cores do not help. Relax --p99, or take a faster model, backend or precision"
        )
    else:
        told += _what_to_take(plan, asked, bound)
    per_device = planned.needs.cores_per_device
    if per_device is not None:
        told.append(f"cores per device = I / P = {interval(per_device)}: so many preprocess for one device kept busy")
    if plan is not None:
        told += _what_it_needs(planned.needs, machine.cores, plan, asked)
    told.append(_bytes(planned))
    if planned.weights == "random":
        told.append(RANDOM_WEIGHTS)
    if planned.timed.quiet is False:
        told.append(
            "the machine had other work meanwhile, so that all of this may be too low; plan again when it has none"
        )
    return told


def _what_to_take(plan: Plan, asked: str, bound: str) -> Iterator[str]:
    layout, rate = plan.layout, plan.rate
    verdict = {
        "yes": f"{asked} with {bound}: yes",
        "open": f"{asked} with {bound}: open, it is within the interval",
        "no": f"{asked} with {bound}: no, not here",
    }[plan.verdict]
    workers = f", {layout.workers} preprocessing" if layout.workers else ""
    take = f"{layout.lanes} lane{'s' if layout.lanes > 1 else ''}, batch {layout.batch} at the most{workers}"
    yield f"{verdict}; with {take} {interval(rate)} queries/s are expected"
    yield (
        f"where there is always work the same makes {interval(plan.samples_per_second)} samples/s, "
        f"and {plan.limit} limits it"
    )


def _what_it_needs(needs: Needs, cores: int, plan: Plan, asked: str) -> Iterator[str]:
    parts = [f"{needs.devices} device{'s' if needs.devices != 1 else ''}"] if needs.devices is not None else []
    if needs.cores is not None:
        what = "to preprocess on" if needs.devices is not None else f"(there are {cores})"
        parts.append(f"{needs.cores} core{'s' if needs.cores != 1 else ''} {what}")
    if parts:
        yield f"by arithmetic, not measured: {asked} take {' and '.join(parts)} like these"


def _bytes(planned: Planned) -> str:
    timed, rate = planned.timed, planned.wanted.queries_per_second
    name, size = ("tensor", timed.tensor_bytes)
    if timed.picture_bytes is not None:
        name, size = "picture's file", timed.picture_bytes
    return f"a {name} has {size / 1000:,.0f} kB: {rate * size / 1e6:,.4g} MB/s at the rate asked for"


def yaml_text(planned: Planned) -> str:
    """The file for ``--config``: the plan's settings, under comments that say what is expected of them.

    Where the rate asked for is too much, it asks the lower end of what is expected; what is expected, where that is 0.
    """
    plan, wanted = planned.plan, planned.wanted
    assert plan is not None
    layout = plan.layout
    config = planned.config.model_copy(
        update={
            "qps": wanted.queries_per_second if plan.verdict == "yes" else tidy(plan.rate.low or plan.rate.value),
            "max_latency_s": wanted.bound_ns / 1e9,
            "lanes": layout.lanes,
            "threads": planned.timed.threads[layout.lanes],
            "max_batchsize": layout.batch,
            "preprocess_workers": layout.workers,
        }
    )
    comments = [
        *_what_to_take(plan, f"{wanted.queries_per_second:g} queries/s", f"p99 <= {milliseconds(wanted.bound_ns)} ms"),
        f"By sut plan on {named(system_facts())}; on another machine plan again.",
        "Run it: ./run_local.sh --config THIS_FILE; without --time MLPerf's own durations apply.",
    ]
    return "".join(f"# {line}\n" for line in comments) + yaml.safe_dump(what_is_set(config), sort_keys=False)
