"""When a claim of the paper holds: pure functions of figures by part and round, as ``parts.py`` names them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise, zip_longest

from sut.results.statistics import Difference
from sut.studies.claims import (
    AbsentError,
    Figures,
    Ours,
    UntestableError,
    Value,
    all_of,
    at_least,
    compared,
    differs,
    in_figures,
    lost,
    share,
    values,
)
from sut.studies.sweeping.curves import sets_in_with_memory
from sut.studies.sweeping.grids import MOST_CONCURRENCY, WAYS

Judge = Callable[[Figures], Ours]
SMALL, LARGE = "mobilenet-v2", "vit-b"
"""Of the paper's models the one with the fewest FLOPs, and the one with the most that serving is studied with."""
SIZES = ("medium", "large")
GPU_RUNG = "GPU decode"
"""Of the ladder's files."""
IN_ALL = 3.7
"""Of the first rung's throughput what the paper's ladder comes to, by its figures."""
DECLINE = 0.05
"""Of the throughput: less is none to ``sut sweep``."""


def share_of_latency(part: str, name: str, limit: float, figures: Figures) -> Ours:
    """Whether a share of the latency is ``limit`` or more."""
    return at_least(limit, share(values(figures, part, name)), " %")


def lost_throughput(part: str, limit: float, figures: Figures) -> Ours:
    """Whether end to end as much of inference's throughput is lost as ``limit``."""
    return at_least(limit, lost(_ratio(figures, part, "infer", "end_to_end")), " %")


def beats_inference(part: str, figures: Figures) -> Ours:
    """Whether end to end is faster than inference alone."""
    return at_least(1, _ratio(figures, part, "infer", "end_to_end")).told("{} of inference alone")


def gain_by_size(figures: Figures) -> Ours:
    """Whether what preprocessing on the GPU gains at zero load is another factor for large pictures than for medium."""
    gains = {
        size: _ratios(*(values(figures, f"latency-{size}{way}", "latency_ns") for way in ("", "-gpu")))
        for size in SIZES
    }
    return differs(compared(*gains.values())).told(f"{_medians(gains, 'x')}: {{}} apart")


def share_grows(figures: Figures) -> Ours:
    """Whether inference's share of the largest model is at least that of the smallest."""
    shares = {name: values(figures, "models", f"share of {name}") for name in (SMALL, LARGE)}
    return at_least(1, compared(*shares.values())).told(f"{_medians(shares, '%', 100)}: {{}}")


def gain_by_model(figures: Figures) -> Ours:
    """Whether preprocessing on the GPU raises the throughput of both models, and by another factor for each."""
    sides = ("models-gpu", "models")
    gains = [_ratios(*(values(figures, part, f"rate of {name}") for part in sides)) for name in (SMALL, LARGE)]
    each, apart = [at_least(1, share(gain)) for gain in gains], differs(compared(*gains))
    told = ", ".join(f"{name} {ours.words}" for name, ours in zip((SMALL, LARGE), each, strict=True))
    return Ours(all_of([*each, apart]), f"{told}; {apart.words} apart", apart.found)


def declines(figures: Figures) -> Ours:
    """Whether throughput has lost as much as a decline is at the highest concurrency."""
    highest, at, _, left = _concurrency(figures)
    if at is None:
        return Ours(False if highest >= MOST_CONCURRENCY else None, f"no decline up to {highest:,.0f} outstanding")
    if not left.pairs:
        return Ours(None, f"it looks lower from {at:,.0f} outstanding on, which was not measured again")
    return at_least(DECLINE, lost(left), " %").told(f"{{}} less, from {at:,.0f} outstanding on")


def by_memory(figures: Figures) -> Ours:
    """Whether a decline sets in where memory is full."""
    _, at, full, left = _concurrency(figures)
    if at is None or left.verdict != "worse":
        raise UntestableError("throughput did not decline here, so there is nothing to explain")
    words = "memory was never full" if full is None else f"memory is full at {full:,.0f} outstanding"
    return Ours(sets_in_with_memory(at, full), f"decline from {at:,.0f} on, {words}")


def _concurrency(figures: Figures) -> tuple[float, Value, Value, Difference]:
    """The highest, where a decline sets in and where memory is full; the throughput at the highest against the best.

    That is of the rounds after the one in which the best was picked.
    """
    highest = _median(values(figures, "concurrency", "highest"))
    found = figures["concurrency"]
    return highest, found["decline_at"][0], found["memory_full_at"][0], compared(found["best"], found["most"])


def energy_by_size(figures: Figures) -> Ours:
    """Whether a large picture takes at least the energy of a medium one."""
    sides, kind = _joules(figures, dict.fromkeys(SIZES, "energy"), SIZES)
    return at_least(1, compared(*sides.values())).told(f"{_medians(sides, 'J')}, {{}}, {kind} meter")


def energy_by_place(figures: Figures) -> Ours:
    """Whether it makes a difference to a medium picture's energy where it is preprocessed."""
    sides, kind = _joules(figures, {"CPU": "energy", "GPU": "energy-gpu"}, ("medium", "medium"))
    found = compared(*sides.values(), higher_is_better=False)
    return differs(found).told(f"{_medians(sides, 'J')}, {{}} less, {kind} meter")


def _joules(figures: Figures, parts: dict[str, str], sizes: Sequence[str]) -> tuple[dict[str, Sequence[Value]], str]:
    """Of each side's part and size the joules by one meter: an external one sees all, else CPU and GPU together."""
    for part in parts.values():
        if part not in figures:
            raise AbsentError(f"no round of {part} was measured")
    for kind in ("external", "CPU and GPU", "CPU", "GPU"):
        names = [(part, f"{size}, {kind}") for part, size in zip(parts.values(), sizes, strict=True)]
        if all(name in figures[part] for part, name in names):
            return dict(zip(parts, (values(figures, *each) for each in names), strict=True)), kind
    raise UntestableError("no meter has measured both")


def more_from_devices(part: str, way: str, figures: Figures) -> Ours:
    """Whether one way to serve large pictures gains more from more devices than preprocessing on the CPU does."""
    gains = {
        name: _ratios(*(values(figures, where, f"{name}, {count}") for count in ("all devices", "one device")))
        for where, name in (("devices", WAYS[0]), (part, way))
    }
    return at_least(1, compared(*gains.values())).told(f"from one device to all {_medians(gains, 'x')}: {{}}")


# ---- the ladder


def in_all(figures: Figures) -> Ours:
    """What the best rung of a ladder has of the first one's throughput."""
    first, *above = _rungs(figures)
    best = max(above, key=lambda name: _median(figures["ladder"][name]))
    return at_least(IN_ALL, _ratio(figures, "ladder", first, best, len(above))).told(f"{{}}: {best} against {first}")


def each_rung(figures: Figures) -> Ours:
    """Whether each rung that runs, but for decoding on the GPU, has at least the throughput of the one below."""
    steps = [(before, name) for before, name in pairwise(_rungs(figures)) if name != GPU_RUNG]
    if not steps:
        raise UntestableError("no two rungs run here")
    found = {name: _ratio(figures, "ladder", before, name) for before, name in steps}
    least = min(found, key=lambda name: found[name].ratio or 0)
    told = f"the least of {len(steps)}: {in_figures(found[least])}, {least}"
    return Ours(all_of([at_least(1, each) for each in found.values()]), told, found[least])


def gpu_rung(figures: Figures) -> Ours:
    """What decoding on the GPU gains on the rung below."""
    for before, name in pairwise(_rungs(figures)):
        if name == GPU_RUNG:
            return at_least(1, _ratio(figures, "ladder", before, name))
    raise UntestableError("it does not run here, or none below it; sut study ladder says why")


def _rungs(figures: Figures) -> list[str]:
    """The rungs that run, from the bottom up: two at least."""
    if "ladder" not in figures:
        raise AbsentError("no round of ladder was measured")
    names = [name for name, rates in figures["ladder"].items() if any(rates)]
    if len(names) < 2:
        raise UntestableError("no two rungs run here")
    return names


# ---- rounds


def _ratio(figures: Figures, part: str, before: str, after: str, verdicts: int = 1) -> Difference:
    return compared(values(figures, part, before), values(figures, part, after), verdicts=verdicts)


def _ratios(above: Sequence[Value], below: Sequence[Value]) -> list[Value]:
    return [one / other if one and other else None for one, other in zip_longest(above, below)]


def _median(rounds: Sequence[Value]) -> float:
    known = [each for each in rounds if each is not None]
    if not known:
        raise AbsentError("no round has a figure for it")
    return statistics.median(known)


def _medians(sides: dict[str, Sequence[Value]] | dict[str, list[Value]], unit: str, factor: float = 1) -> str:
    return ", ".join(f"{name} {factor * _median(each):.3g} {unit}" for name, each in sides.items())
