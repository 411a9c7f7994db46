"""When a claim of the paper holds: pure functions of figures by part and round, as ``parts.py`` names them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
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
    lost,
    share,
    values,
)
from sut.studies.sweeping.curves import sets_in_with_memory
from sut.studies.sweeping.grids import MOST_CONCURRENCY, WAYS

SMALL, LARGE = "mobilenet-v2", "vit-b"
"""Of the paper's models the one with the fewest FLOPs, and the one with the most that serving is studied with."""
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
    return at_least(limit, lost(_end_to_end(part, figures)), " %")


def beats_inference(part: str, figures: Figures) -> Ours:
    """Whether end to end is faster than inference alone."""
    ours = at_least(1, _end_to_end(part, figures))
    return replace(ours, words=f"{ours.words} of inference alone")


def _end_to_end(part: str, figures: Figures) -> Difference:
    return compared(values(figures, part, "infer"), values(figures, part, "end_to_end"))


def gain_by_size(figures: Figures) -> Ours:
    """Whether what preprocessing on the GPU gains at zero load is another factor for large pictures than for medium."""
    gains = [
        _ratios(values(figures, f"latency-{size}", "latency_ns"), values(figures, "latency-gpu", size))
        for size in ("medium", "large")
    ]
    ours = differs(compared(*gains))
    told = ", ".join(f"{size} {_median(each):.3g} x" for size, each in zip(("medium", "large"), gains, strict=True))
    return replace(ours, words=f"{told}: {ours.words} apart")


def share_grows(figures: Figures) -> Ours:
    """Whether inference's share of the largest model is at least that of the smallest."""
    small, large = (values(figures, "models", f"share of {name}") for name in (SMALL, LARGE))
    ours = at_least(1, compared(small, large))
    told = f"{SMALL} {100 * _median(small):.3g} %, {LARGE} {100 * _median(large):.3g} %"
    return replace(ours, words=f"{told}: {ours.words}")


def gain_by_model(figures: Figures) -> Ours:
    """Whether preprocessing on the GPU raises the throughput of both models, and by another factor for each."""
    gains = []
    for name in (SMALL, LARGE):
        sides = (values(figures, "models", f"rate of {name}, {way}") for way in ("cpu", "gpu"))
        gains.append(_ratios(*reversed([*sides])))
    each = [at_least(1, share(gain)) for gain in gains]
    apart = differs(compared(*gains))
    told = ", ".join(f"{name} {ours.words}" for name, ours in zip((SMALL, LARGE), each, strict=True))
    return Ours(all_of([*each, apart]), f"{told}; {apart.words} apart", apart.found)


def declines(figures: Figures) -> Ours:
    """Whether throughput has lost as much as a decline is at the highest concurrency."""
    most = _one(figures, "highest")
    if not _has(figures, "decline_at"):
        return Ours(False if most >= MOST_CONCURRENCY else None, f"no decline up to {most:,.0f} outstanding")
    at = f"from {_one(figures, 'decline_at'):,.0f} outstanding on"
    if not _has(figures, "best"):
        return Ours(None, f"it looks lower {at}, which was not measured again")
    ours = at_least(DECLINE, lost(_left(figures)), " %")
    return replace(ours, words=f"{ours.words} less, {at}")


def by_memory(figures: Figures) -> Ours:
    """Whether a decline sets in where memory is full."""
    _one(figures, "highest")
    if not _has(figures, "decline_at") or _left(figures).verdict != "worse":
        raise UntestableError("throughput did not decline here, so there is nothing to explain")
    at = _one(figures, "decline_at")
    full = _one(figures, "memory_full_at") if _has(figures, "memory_full_at") else None
    words = "memory was never full" if full is None else f"memory is full at {full:,.0f} outstanding"
    return Ours(sets_in_with_memory(at, full), f"decline from {at:,.0f} on, {words}")


def _left(figures: Figures) -> Difference:
    """The throughput at the highest concurrency against the best, by the rounds after that in which it was picked."""
    return compared(*(figures["concurrency"].get(name, ()) for name in ("best", "most")))


def _has(figures: Figures, name: str) -> bool:
    return any(each is not None for each in figures["concurrency"].get(name, ()))


def _one(figures: Figures, name: str) -> float:
    """A figure of the concurrencies that is measured once."""
    return _median(values(figures, "concurrency", name))


def energy_by_size(figures: Figures) -> Ours:
    """Whether a large picture takes at least the energy of a medium one."""
    sides, kind = _joules(figures, ("energy", "medium"), ("energy", "large"))
    ours = at_least(1, compared(*sides))
    return replace(ours, words=f"{_in_joules(sides, ('medium', 'large'))}, {ours.words}, {kind}")


def energy_by_place(figures: Figures) -> Ours:
    """Whether it makes a difference to a medium picture's energy where it is preprocessed."""
    sides, kind = _joules(figures, ("energy", "medium"), ("energy-gpu", "medium"))
    ours = differs(compared(*sides, higher_is_better=False))
    return replace(ours, words=f"{_in_joules(sides, ('CPU', 'GPU'))}, {ours.words} less, {kind}")


def _joules(figures: Figures, *which: tuple[str, str]) -> tuple[list[Sequence[Value]], str]:
    """Of each part and size the joules by one meter: an external one sees all, else that of CPU and GPU together."""
    for kind in ("external", "CPU and GPU", "CPU", "GPU"):
        found = [figures.get(part, {}).get(f"{size}, {kind}", ()) for part, size in which]
        if all(any(each is not None for each in side) for side in found):
            return found, f"{kind} meter"
    for part, size in which:
        if part not in figures:
            raise AbsentError(f"no round of {part} was measured", part)
        if not any(name.startswith(size) for name in figures[part]):
            raise AbsentError(f"no round of {part} has measured {size} pictures", part, size)
    raise UntestableError("no meter has measured both")


def _in_joules(sides: Sequence[Sequence[Value]], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_median(each):.3g} J" for name, each in zip(names, sides, strict=True))


def more_from_devices(part: str, way: str, figures: Figures) -> Ours:
    """Whether one way to serve large pictures gains more from more devices than preprocessing on the CPU does."""
    cpu, other = (
        _ratios(*(values(figures, where, f"{name}, {count}") for count in ("all devices", "one device")))
        for where, name in (("devices", WAYS[0]), (part, way))
    )
    ours = at_least(1, compared(cpu, other))
    words = f"{way} {_median(other):.3g} x of one device, {WAYS[0]} {_median(cpu):.3g} x: {ours.words}"
    return replace(ours, words=words)


# ---- the ladder


def in_all(figures: Figures) -> Ours:
    """What the best rung of a ladder has of the first one's throughput."""
    first, *above = _rungs(figures)
    best = max(above, key=lambda name: _median(figures["ladder"][name]))
    ours = at_least(IN_ALL, compared(figures["ladder"][first], figures["ladder"][best], verdicts=len(above)))
    return replace(ours, words=f"{ours.words}: {best} against {first}")


def each_rung(figures: Figures) -> Ours:
    """Whether each rung that runs, but for decoding on the GPU, has at least the throughput of the one below."""
    steps = [(before, name) for before, name in pairwise(_rungs(figures)) if name != GPU_RUNG]
    if not steps:
        raise UntestableError("no two rungs run here")
    gains = [at_least(1, compared(*(figures["ladder"][name] for name in step))) for step in steps]
    least = min(range(len(steps)), key=lambda at: _ratio(gains[at]))
    words = f"the least of {len(steps)}: {gains[least].words}, {steps[least][1]}"
    return Ours(all_of(gains), words, gains[least].found)


def gpu_rung(figures: Figures) -> Ours:
    """What decoding on the GPU gains on the rung below."""
    values(figures, "ladder", GPU_RUNG)
    below = [before for before, name in pairwise(_rungs(figures)) if name == GPU_RUNG]
    if not below:
        raise UntestableError("no rung below it runs here")
    return at_least(1, compared(figures["ladder"][below[0]], figures["ladder"][GPU_RUNG]))


def _rungs(figures: Figures) -> list[str]:
    """The rungs that run, from the bottom up: two at least."""
    if "ladder" not in figures:
        raise AbsentError("no round of ladder was measured", "ladder")
    names = [name for name, rates in figures["ladder"].items() if any(rates)]
    if len(names) < 2:
        raise UntestableError("no two rungs run here")
    return names


# ---- rounds


def _ratios(above: Sequence[Value], below: Sequence[Value]) -> list[Value]:
    return [one / other if one and other else None for one, other in zip_longest(above, below)]


def _median(rounds: Sequence[Value]) -> float:
    known = [each for each in rounds if each is not None]
    if not known:
        raise AbsentError("no round has a figure for it")
    return statistics.median(known)


def _ratio(ours: Ours) -> float:
    assert ours.found is not None and ours.found.ratio is not None
    return ours.found.ratio
