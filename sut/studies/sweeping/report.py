"""A sweep in words: a line for each point, tables, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sut.errors import short
from sut.results.energy import gross_joules
from sut.results.statistics import Difference, in_words, interval
from sut.results.wording import milliseconds
from sut.studies.sweeping.grids import WAYS
from sut.studies.sweeping.points import Point

_COLUMNS: dict[str, Callable[[Point], str]] = {
    ">samples/s": lambda each: _figure(each.samples_per_second),
    ">mean\nms": lambda each: milliseconds(each.latency_ns.get("mean")),
    ">p50\nms": lambda each: milliseconds(each.latency_ns.get("p50")),
    ">p99\nms": lambda each: milliseconds(each.latency_ns.get("p99")),
    ">queue\n%": lambda each: _percent(each.queueing_share),
    ">batch": lambda each: _figure(each.mean_batch and round(each.mean_batch, 2)),
    ">CPU\nms": lambda each: milliseconds(_times(each.cpu_seconds_per_sample, 1e9)),
    ">host\nMiB": lambda each: _mebibytes(each.host_bytes),
    ">GPU\nMiB": lambda each: _mebibytes(each.gpu_bytes),
    ">CPU\nJ": lambda each: _figure(gross_joules(each.energy, "cpu")),
    ">GPU\nJ": lambda each: _figure(gross_joules(each.energy, "gpu")),
}
_FIRST: dict[str, tuple[str, Callable[[Point], str]]] = {
    "closed": (">out-\nstanding", lambda each: f"{each.concurrency:,}"),
    "zero": ("load", lambda each: each.load),
    "open": (">rate/s", lambda each: each.load if each.rate is None else short(each.rate)),
}
CAPTIONS = {
    "closed": "Closed loop: so many requests outstanding at any time",
    "zero": "One request at a time, and the same rate at random",
    "open": "Open loop: requests at random times; of several rounds the one whose p99 is the median",
    "scaling": "Samples per second by cores and devices",
}
Table = tuple[str, tuple[str, ...], list[list[str]]]
"""Part of the sweep, headings as ``sut.cli.emit.grid`` takes them, and lines."""


def tables(points: Sequence[Point]) -> Iterator[Table]:
    """A table for each part of the sweep, of the points that count; of several rounds the usual one."""
    for part, (heading, first) in _FIRST.items():
        those = _usual([each for each in points if each.part == part and each.ok])
        if those:
            shown = {name: cell for name, cell in _COLUMNS.items() if any(cell(each) != "-" for each in those)}
            yield part, (heading, *shown), [[first(each), *(cell(each) for cell in shown.values())] for each in those]
    if scaling := [each for each in points if each.part == "scaling"]:
        yield _scaling(scaling)


def _usual(points: Sequence[Point]) -> list[Point]:
    """Of each load the round whose p99 is the median, the least load first."""
    by_load: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda each: (each.concurrency or each.rate or 0.0, each.latency_ns["p99"])):
        by_load.setdefault(point.load, []).append(point)
    return [rounds[(len(rounds) - 1) // 2] for rounds in by_load.values()]


def _scaling(points: Sequence[Point]) -> Table:
    """A line for each number of cores and devices, a column for each way and size."""
    points = usual_systems(points)
    systems = sorted({(each.cores or 0, each.devices or 0) for each in points})
    sizes = list(dict.fromkeys(each.pictures for each in points))
    cells = {(each.cores, each.devices, each.way, each.pictures): each for each in points}
    lines = [
        [str(cores), str(devices), *(_rate(cells.get((cores, devices, way, size))) for size in sizes for way in WAYS)]
        for cores, devices in systems
    ]
    names = {WAYS[0]: "CPU", WAYS[1]: "GPU", WAYS[2]: "inference\nonly"}
    return "scaling", (">cores", ">devices", *(f">{size}\n{names[way]}" for size in sizes for way in WAYS)), lines


def usual_systems(points: Iterable[Point]) -> list[Point]:
    """Of each system of the scaling study the round whose throughput is the median."""
    systems: dict[tuple[object, ...], list[Point]] = {}
    for each in sorted(points, key=lambda each: each.samples_per_second or 0.0):
        systems.setdefault((each.pictures, each.way, each.cores, each.devices), []).append(each)
    return [rounds[(len(rounds) - 1) // 2] for rounds in systems.values()]


def _rate(point: Point | None) -> str:
    return "-" if point is None or not point.ok else _figure(point.samples_per_second)


def line_of(point: Point) -> str:
    """A point in one line, as it is told when it is measured."""
    about = [str(each) for each in (point.way, point.pictures) if each]
    about += [f"cores {point.cores}, devices {point.devices}"] if point.devices else []
    what = ", ".join([point.load, *about])
    if point.left_out is not None:
        return f"{what}: left out: {point.left_out}"
    if not point.ok:
        return f"{what}: does not count: {point.first_error}"
    p99 = milliseconds(point.latency_ns.get("p99"))
    return f"{what}: {_figure(point.samples_per_second)} samples/s, p99 {p99} ms"


def words_of(found: Mapping[str, Any]) -> list[str]:
    """What a sweep has found, in sentences."""
    return [*_closed_words(found), *_open_words(found), *_scaling_words(found)]


def _closed_words(found: Mapping[str, Any]) -> Iterator[str]:
    top, limit_ns = found.get("plateau_samples_per_second"), found.get("limit_ns")
    if top is None:
        return
    knee, least = found["knee_concurrency"], found["lowest_concurrency"]
    fewest = ", the fewest that were asked," if knee == least > 1 else ""
    yield (
        f"plateau: {short(top)} samples/s, 95 % of it from {knee:.3g} outstanding{fewest} on; "
        f"the limiting stage is {found['limiting_stage']}"
    )
    if limit_ns is not None:
        best = found["best_under_limit"]
        told = "no point has its p99 within it"
        if best is not None:
            p99 = milliseconds(best["p99_ns"])
            told = f"{short(best['samples_per_second'])} samples/s with {best['concurrency']} outstanding, p99 {p99} ms"
        yield f"best under {milliseconds(limit_ns)} ms: {told}"
    yield _decline_words(found)


def _decline_words(found: Mapping[str, Any]) -> str:
    at, full = found["decline_concurrency"], found["memory_full_concurrency"]
    if at is None:
        return f"no decline up to {found['highest_concurrency']:,} outstanding"
    told = Difference(**found["decline"])
    if told.verdict != "worse":
        return f"throughput looks lower from {at:,.0f} outstanding on, but {in_words(told)}"
    memory = "memory was never full" if full is None else f"memory is full at {full:,.0f}"
    within = "within 10 % of each other" if found["declines_with_memory"] else "so it is not memory that is full"
    return f"throughput declines from {at:,.0f} outstanding on, to {interval(told)}; {memory}, {within}"


def _open_words(found: Mapping[str, Any]) -> Iterator[str]:
    if zero := found.get("zero_load"):
        times = (milliseconds(zero[name]) for name in ("p50_ns", "at_random_p50_ns"))
        alone, little = times
        yield f"zero load, one request at a time: p50 {alone} ms; the same rate at random: {little} ms"
    if "highest_rate" not in found:
        return
    highest, safe, rounds = found["highest_rate"], found["safe_rate"], found["rounds"]
    if highest is None:
        yield "no rate that was asked holds the bound"
        return
    told = f"highest rate within the bound: {short(highest)}/s"
    if highest == found["rate_p99"][-1]["rate"]:
        told += ", the highest that was asked"
    if safe is None:
        yield f"{told}; none is within it in all of {rounds} rounds"
    else:
        yield f"{told}; in all of {rounds} rounds up to {short(safe)}/s, {100 * found['safe_below']:.0f} % below"


def _scaling_words(found: Mapping[str, Any]) -> Iterator[str]:
    for size, cores in found.get("cores_per_device", {}).items():
        if cores is None or cores["ratio"] is None:
            yield f"{size} pictures: cores per device cannot be told: not both of its rates were measured"
            continue
        rates = f"{short(cores['inference_per_device'])} / {short(cores['preprocessing_per_core'])}"
        between = "no interval of so few pairs"
        if cores["low"] is not None:
            between = f"{cores['low']:.3g} to {cores['high']:.3g}"
        here = f"measured on {cores['cores']} core{'s' * (cores['cores'] > 1)}"
        yield f"{size} pictures: cores per device = I / P = {rates} = {cores['ratio']:.3g} ({between}), {here}"
    for size, limit in found.get("limits", {}).items():
        count = limit["devices"] or 1
        system = f"{count} device{'s' * (count > 1)} and {limit['cores']} core{'s' * (limit['cores'] != 1)}"
        yield f"{size} pictures, preprocessed on the CPU: with {system} {limit['limiting_stage']} limits"


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _figure(value: float | None) -> str:
    return "-" if value is None else short(value)


def _mebibytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.0f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"
