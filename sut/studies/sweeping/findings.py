"""What a sweep has found, as the JSON that is written down: figures without words. Null is what cannot be told."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sut.studies.sweeping.curves import (
    best_under,
    cores_per_device,
    decline,
    decline_by_pairs,
    knee,
    limit_of,
    memory_full,
    pipeline_of,
    plateau,
    rates_within,
    sets_in_with_memory,
)
from sut.studies.sweeping.grids import SIZES, WAYS
from sut.studies.sweeping.points import Point


def closed_findings(points: Sequence[Point], limit_ns: int | None, host_bytes: int | None) -> dict[str, Any]:
    """What the closed loop says; ``host_bytes``: all memory of the host that may be used."""
    counting = _counting(points)
    if not counting:
        return {}
    rounds, counting = counting, [point for point in counting if point.round == 1]
    decline_at, full_at = decline(counting), memory_full(counting, host_bytes)
    busiest = max(counting, key=lambda point: point.concurrency or 0)
    best = None if limit_ns is None else best_under(counting, limit_ns)
    return {
        "plateau_samples_per_second": plateau(counting),
        "knee_concurrency": knee(counting),
        "limiting_stage": limit_of(busiest),
        "limit_ns": limit_ns,
        "best_under_limit": None if best is None else _place(best),
        "lowest_concurrency": min(point.concurrency or 1 for point in counting),
        "highest_concurrency": busiest.concurrency,
        "decline_concurrency": decline_at,
        "decline": None if decline_at is None else asdict(decline_by_pairs(rounds)),
        "memory_full_concurrency": full_at,
        "declines_with_memory": None if decline_at is None else sets_in_with_memory(decline_at, full_at),
    }


def _place(point: Point) -> dict[str, Any]:
    return {
        "concurrency": point.concurrency,
        "samples_per_second": point.samples_per_second,
        "p99_ns": point.latency_ns["p99"],
    }


def open_findings(points: Sequence[Point], limit_ns: int | None) -> dict[str, Any]:
    """What the open loop says: the rate-p99 curve, over all rounds its median and its ends."""
    counting = [point for point in _counting(points) if point.part == "open"]
    if not points:
        return {}
    found: dict[str, Any] = {"zero_load": _zero_load(_counting(points))}
    if limit_ns is not None and any(point.rate is not None for point in counting):
        rates = rates_within(counting, limit_ns)
        found |= {"highest_rate": rates.highest, "safe_rate": rates.safe, "safe_below": rates.below}
    curve = []
    for rate in sorted({point.rate for point in counting if point.rate is not None}):
        p99 = [point.latency_ns["p99"] for point in counting if point.rate == rate]
        curve.append({"rate": rate, "p99_ns": statistics.median(p99), "low_ns": min(p99), "high_ns": max(p99)})
    return found | {"rate_p99": curve, "rounds": max((point.round for point in counting), default=0)}


def _zero_load(points: Sequence[Point]) -> dict[str, Any] | None:
    """Of one request at a time, and of the same rate at random: the median latencies and their ratio."""
    medians = [point.latency_ns["p50"] for point in points if point.part == "zero"]
    if len(medians) != 2:
        return None
    alone, little = medians
    return {"p50_ns": alone, "at_random_p50_ns": little, "ratio": little / alone}


def scaling_findings(points: Sequence[Point]) -> dict[str, Any]:
    """What systems of more cores and devices say: per size of picture the rates, cores per device, and what limits."""
    counting = _counting(points)
    limits = {size: limit for size in SIZES if (limit := _limit(counting, size)) is not None}
    return {"cores_per_device": {size: _cores(counting, size) for size in SIZES}, "limits": limits}


def _limit(points: Sequence[Point], size: str) -> dict[str, Any] | None:
    """What limits the largest system that preprocesses on the CPU."""
    on_cpu = [each for each in points if (each.way, each.pictures) == (WAYS[0], size)]
    if not on_cpu:
        return None
    largest = max(on_cpu, key=lambda each: (each.devices or 1, each.cores or 1))
    return {"devices": largest.devices, "cores": largest.cores, "limiting_stage": limit_of(largest)}


def _cores(points: Sequence[Point], size: str) -> dict[str, Any] | None:
    """Of the systems with the most cores: where the device is the CPU, fewer cores are a smaller device."""
    cpu, alone = (
        {(each.cores, each.devices, each.round): each for each in points if (each.way, each.pictures) == (way, size)}
        for way in (WAYS[0], WAYS[2])
    )
    both = [key for key in alone if key in cpu]
    if not both:
        return None
    most = max(alone[key].cores or 0 for key in both)
    both = [key for key in both if alone[key].cores == most]
    found = cores_per_device([alone[key] for key in both], [cpu[key] for key in both])
    per_device = [(alone[key].samples_per_second or 0.0) / (alone[key].devices or 1) for key in both]
    per_core = [1e9 / busy for key in both if (busy := pipeline_of(cpu[key]).preprocessing_ns)]
    return asdict(found) | {
        "inference_per_device": statistics.median(per_device),
        "cores": most,
        "preprocessing_per_core": statistics.median(per_core) if per_core else None,
    }


def _counting(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if point.ok and point.samples]
