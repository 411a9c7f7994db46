"""Which points a sweep has: what its words say, and the systems that scaling is measured on."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sut.config import RunConfig, expanded
from sut.errors import InputError, SetupError
from sut.pipeline.choice import prior
from sut.pipeline.loading import load_backend
from sut.process.cgroup import usable_cores
from sut.studies.driving.loads import Bursts, FromFile, OpenLoad, Poisson
from sut.studies.generated import generated_pictures
from sut.studies.tuning.space import tidy, with_settings
from sut.text import Say

MOST_CONCURRENCY = 4096
"""Of the paper's Fig. 5, and where a sweep ends unless told otherwise."""
SHARES = (0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
"""Of the closed loop's plateau, at which the open loop is asked: queues grow where the last tenth begins."""
SIZES = ("medium", "large")
"""Of the pictures that scaling is measured with; sets of ``sut/studies/generated.py``."""
WAYS = ("CPU preprocessing", "GPU preprocessing", "inference only")
_MOST_CORES = 1024
_MOST_DEVICES = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sweep is to do. None of ``concurrency`` or ``rates``: not that loop; an empty one of ``rates``: auto.

    ``cores`` or ``devices``: scaling over them instead of loops. ``seconds`` None: as long as the file of arrivals is,
    else what the budget allows.
    """

    concurrency: tuple[int, ...] | None
    rates: tuple[float, ...] | None
    arrivals: Callable[[float, int], OpenLoad] | FromFile
    seconds: float
    budget_s: float
    cores: tuple[int, ...] | None = None
    devices: tuple[int, ...] | None = None
    limit_ns: int | None = None

    @property
    def is_scaling(self) -> bool:
        """Whether it is over cores and devices."""
        return bool(self.cores or self.devices)


def parse_concurrency(text: str | None) -> tuple[int, ...] | None:
    """``1,2,4..64``: numbers, and every doubling between two; ``none``; without a text every doubling up to 4,096.

    >>> parse_concurrency("1,3,4..32"), parse_concurrency("none")
    ((1, 3, 4, 8, 16, 32), None)
    """
    return _numbers(text or f"1..{MOST_CONCURRENCY}", "--concurrency", lambda low, high: _doublings(low, high))


def parse_range(text: str | None, option: str) -> tuple[int, ...] | None:
    """``1..4`` or ``1,2,4`` of ``--cores`` and ``--devices``. Raises ``InputError``.

    >>> parse_range("1..3,8", "--cores")
    (1, 2, 3, 8)
    """
    most = _MOST_DEVICES if option == "--devices" else _MOST_CORES
    found = _numbers(text, option, lambda low, high: range(low, high + 1)) if text else None
    if found and max(found) > most:
        raise InputError(f"{option} {text}: expected numbers from 1 to {most}")
    return found


def _doublings(low: int, high: int) -> list[int]:
    return [low * 2**power for power in range(int(math.log2(high / low)) + 1)]


def _numbers(text: str, option: str, between: Callable[[int, int], Sequence[int]]) -> tuple[int, ...] | None:
    if text == "none":
        return None
    found: set[int] = set()
    for word in text.split(","):
        low, dots, high = (part.strip() for part in word.partition(".."))
        if not low.isdecimal() or int(low) < 1 or (dots and (not high.isdecimal() or int(high) < int(low))):
            raise InputError(f"{option} takes numbers from 1 and ranges such as 1..4, got '{word}'")
        found |= {*between(int(low), int(high))} if dots else {int(low)}
    return tuple(sorted(found))


def parse_rates(text: str) -> tuple[float, ...] | None:
    """``auto`` (an empty tuple), ``none``, or requests per second.

    >>> parse_rates("20,10.5"), parse_rates("auto"), parse_rates("none")
    ((10.5, 20.0), (), None)
    """
    if text in ("auto", "none"):
        return () if text == "auto" else None
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        found = [0.0]
    if not all(math.isfinite(rate) and rate > 0 for rate in found):
        raise InputError(f"--rates takes auto, none, or requests per second such as 50,100, got '{text}'")
    return tuple(found)


def parse_arrivals(text: str | None) -> Callable[[float, int], OpenLoad] | FromFile:
    """How requests of a rate and a round come: at random, ``burst:K`` at a time, or as a file says."""
    if text is None:
        return Poisson
    kind, colon, size = text.partition(":")
    if kind == "burst" and colon:
        if not size.isdecimal():
            raise InputError(f"--arrivals burst:K takes how many come at once, got '{text}'")
        Bursts(int(size), rate=1.0)  # which refuses a size that cannot be
        return partial(_bursts, int(size))
    return FromFile(expanded(text))


def _bursts(size: int, rate: float, round_: int) -> Bursts:
    return Bursts(size, rate)


def auto_rates(top: float) -> tuple[float, ...]:
    """The rates at which a system is asked whose closed loop comes to ``top``."""
    return tuple(tidy(share * top) for share in SHARES)


def as_offline(config: RunConfig, cores: int, model_bytes: int | None) -> RunConfig:
    """``config`` for Server's queue; lanes, threads and batch that are auto are those that Offline begins with.

    A closed loop has work for all at any time, as Offline has.
    """
    choice = prior(config.model_copy(update={"scenario": "Offline"}), cores, model_bytes)
    return choice.apply(config.model_copy(update={"scenario": "Server"}))


@dataclass(frozen=True, slots=True)
class Cell:
    """A system of the scaling study."""

    way: str
    pictures: str
    cores: int
    devices: int

    def config(self, base: RunConfig, model_bytes: int | None, say: Say) -> RunConfig:
        """``base`` as this system. Raises ``InputError`` for what cannot be had."""
        settings: dict[str, Any] = generated_pictures(self.pictures, say)
        settings |= {"boundary": "tensor" if self.way == WAYS[2] else "jpeg", "preprocess_workers": 0}
        workers = {"preprocess_workers": base.preprocess_workers or self.cores}
        if self.way == WAYS[0]:
            settings |= workers
        elif self.way == WAYS[1]:
            settings |= on_gpu(base) | (workers if base.preprocess == "simulated" else {})
        settings |= _with_devices(base, self.devices)
        return as_offline(with_settings(base, settings), self.cores, model_bytes)


def cells(asked: Asked, base: RunConfig) -> list[Cell]:
    """All systems of the scaling study; ``base`` says how many devices each has where nothing is asked of them."""
    numbers = [*itertools.product(asked.cores or (usable_cores(),), asked.devices or (len(base.devices),))]
    return [Cell(way, size, cores, devices) for size in SIZES for way in WAYS for cores, devices in numbers]


def on_gpu(base: RunConfig) -> dict[str, Any]:
    """The settings that make ``base`` preprocess on a GPU: a simulated one is never busy, so that it takes no time."""
    if base.preprocess == "simulated":
        names = ("decode_ms", "decode_ms_per_megapixel", "resize_ms", "normalize_ms")
        return {f"preprocess_options.{name}": 0 for name in names}
    return {"preprocess": base.preprocess if base.preprocess in ("cuda", "dali-gpu") else "cuda"}


def _with_devices(base: RunConfig, devices: int) -> dict[str, Any]:
    """The first so many devices, each with the lanes that it has in ``base``."""
    lanes = {"lanes": base.lane_count * devices // len(base.devices)} if base.lanes else {}
    return {"device": ",".join(first_devices(base, devices))} | lanes


def first_devices(base: RunConfig, devices: int) -> Sequence[str]:
    """So many of those that ``base`` names; where that is one, it and those of its kind that the backend lists behind.

    Raises ``SetupError`` where there are not so many.
    """
    named = base.devices
    names = named if len(named) > 1 else _from(named[0], load_backend(base.backend).devices())
    if len(names) < devices:
        raise SetupError(
            f"{devices} devices were asked for, {base.backend} has {', '.join(names)}; --device names where they begin"
        )
    return names[:devices]


def _from(device: str, listed: Sequence[str]) -> list[str]:
    """A device and those of its kind behind it.

    >>> _from("cuda:1", ["cpu", "cuda:0", "cuda:1", "cuda:2"]), _from("cpu", ["cpu", "gpu.0"])
    (['cuda:1', 'cuda:2'], ['cpu'])
    """
    own = "cuda:0" if device == "cuda" else device
    kind = re.split("[:.]", own)[0]
    behind = listed[listed.index(own) + 1 :] if own in listed else ()
    return [device, *(each for each in behind if re.split("[:.]", each)[0] == kind)]
