"""Which part limits a system, how far it is from what its parts allow, and what they cost each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from preprocess.base import Recipe
from sut.results.statistics import Difference, difference
from sut.studies.breakdown.alone import (
    IN_TURN,
    INFER,
    INFER_BESIDE,
    INFER_ON_DEVICE,
    PREPROCESS,
    PREPROCESS_BESIDE,
    Rates,
)

END_TO_END = "end_to_end"
"""By the whole pipeline, where preprocessing has workers of its own."""

_PARTS = {"better": "preprocessing", "worse": "inference", "open": None}
_OUTLIER = {"better": "repeated", "worse": "refuted", "open": None}


def judged(rates: Rates, lanes_overlap: bool = False) -> dict[str, Any]:
    """What the rates of the parts say, round by round: element i of each is round i.

    ``limits`` is the slower part, None where the rounds do not tell. ``bound_per_second`` is what the parts allow:
    1 / (1/P + 1/I) where each lane does both in turn, min(P, I) where the two overlap: with workers, and where
    ``lanes_overlap``, as one preprocesses while the device has another's batch. ``of_bound`` is end to end against it.
    ``slowed`` says how many times slower each part is beside the other, ``both_at_once`` how much they do together of
    what each does alone: 1 is what taking turns gives, 2 is two parts that do not feel each other.
    ``outlier`` is about end to end being faster than inference alone: ``repeated``, ``refuted``, or None.
    """
    with_workers = END_TO_END in rates
    overlapped = with_workers or lanes_overlap
    whole = rates[END_TO_END if with_workers else IN_TURN]
    preprocess, infer = rates[PREPROCESS], rates[INFER]
    pairs = list(zip(preprocess, infer, strict=True))
    allowed = [min(each) if overlapped else _in_turn(*each) for each in pairs]
    outlier = difference(infer, whole, higher_is_better=True)
    beside = {PREPROCESS: rates[PREPROCESS_BESIDE], INFER: rates[INFER_BESIDE]}
    return {
        "samples_per_second": {name: median(each) for name, each in rates.items()},
        "rounds": len(infer),
        "limits": _PARTS[difference(preprocess, infer, higher_is_better=True).verdict],
        "overlapped": overlapped,
        "bound_per_second": median(allowed),
        "of_bound": asdict(difference(allowed, whole, higher_is_better=True)),
        "other_bound_per_second": median(_in_turn(*each) if overlapped else min(each) for each in pairs),
        "slowed": {name: asdict(_slowed(rates[name], each)) for name, each in beside.items()},
        "both_at_once": median(
            together_p / alone_p + together_i / alone_i
            for (alone_p, alone_i), together_p, together_i in zip(pairs, *beside.values(), strict=True)
        ),
        "end_to_end_by_inference": asdict(outlier),
        "outlier": _OUTLIER[outlier.verdict],
        "end_to_end_by_inference_on_device": _or_none(rates.get(INFER_ON_DEVICE), whole),
    }


def _in_turn(preprocess: float, infer: float) -> float:
    return 1 / (1 / preprocess + 1 / infer)


def _slowed(alone: Sequence[float], beside: Sequence[float]) -> Difference:
    """How many times slower, over 1: as a rate alone against the rate beside the other."""
    return difference(beside, alone, higher_is_better=True)


def _or_none(infer: Sequence[float] | None, whole: Sequence[float]) -> dict[str, Any] | None:
    return None if infer is None else asdict(difference(infer, whole, higher_is_better=True))


def bytes_moved(recipe: Recipe, sizes: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Bytes of a sample at each of its stations, by arithmetic: mean file, decoded pixels (RGB), tensor.

    ``sizes`` are file bytes and pixels of each picture of the data set.
    """
    itemsize = {"float32": 4, "float16": 2, "uint8": 1}[recipe.dtype]
    return {
        "jpeg": math.fsum(size for size, _ in sizes) / len(sizes),
        "pixels": 3 * math.fsum(pixels for _, pixels in sizes) / len(sizes),
        "tensor": float(math.prod(recipe.sample_shape) * itemsize),
    }
