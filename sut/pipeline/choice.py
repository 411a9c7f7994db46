"""Lanes, threads and batch that a run is made with, and a good guess where nobody has said."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated

from pydantic import Field

from sut.config import RunConfig

_MOST_LANES = 8
"""Lanes are threads of one Python process: more cores than these are shared among the lanes' own threads."""
_LARGE_BYTES, _HUGE_BYTES = 2**28, 2**30
"""Weights, as they are executed, beyond which a lane for every second core is enough, or one for all."""
_WEIGHTS_ARE = {"bf16": 1 / 2, "fp16": 1 / 2}
"""Of the file's size, where a file in FP32 is executed in less; one in INT8 is as small as it is executed."""
_BATCH, _BATCH_OF_MUCH_WORK = 8, 4
"""In FP32 a batch of 4 leaves the caches less than one of 8: on two busy cores of an EPYC it was 6 % faster with
EfficientNet-Lite0 on ONNX Runtime, 7 % on OpenVINO. In INT8 it was 3 % faster with ResNet-50, 5 % slower with Lite0."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings that a run can be made with, ``threads`` being those of each lane."""

    lanes: Annotated[int, Field(ge=1, le=1024)]
    threads: Annotated[int, Field(ge=1, le=1024)]
    max_batchsize: Annotated[int, Field(ge=1, le=65536)]

    def apply(self, config: RunConfig) -> RunConfig:
        """``config`` with these settings."""
        return config.model_copy(update=asdict(self))

    def seen_by(self, scenario: str) -> Choice:
        """Itself, without what has no effect in the scenario: choices that do the same are equal then."""
        return replace(self, lanes=1, max_batchsize=_BATCH) if scenario == "SingleStream" else self

    def words(self, scenario: str) -> str:
        """Itself in words.

        >>> Choice(2, 1, 16).words("Offline"), Choice(1, 2, 8).words("SingleStream")
        ('2 lanes x 1 thread, batch 16', '1 lane x 2 threads')
        """
        shape = f"{_counted(self.lanes, 'lane')} x {_counted(self.threads, 'thread')}"
        return shape if scenario == "SingleStream" else f"{shape}, batch {self.max_batchsize}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def prior(config: RunConfig, cores: int, model_bytes: int | None) -> Choice:
    """The guess for a config, of which everything that is set stays. ``model_bytes``: of its files; None: no model.

    Where one query follows the other, all cores work on it, in one lane. Offline has work for all at any time: a lane
    per core, as threads that share a batch wait for each other; fewer for a large model, whose weights they would all
    drag through the caches at once. Without a model, or on another device than the CPU, cores are not what is shared.
    Of several devices, or core sets, each has as many lanes as it would have alone. By the rules of the network
    division Server's queries go to the server one by one.
    """
    size = (model_bytes or 0) * _WEIGHTS_ARE.get(config.precision, 1)
    units, lanes, batch = config.units, 1, 1 if config.rules == "network" and config.scenario == "Server" else _BATCH
    if config.scenario == "Offline" and _shares_cores(config, model_bytes):
        is_large = size >= _LARGE_BYTES
        batch = _BATCH_OF_MUCH_WORK if is_large or config.precision == "fp32" else _BATCH
        if size < _HUGE_BYTES:
            lanes = _spread(max(1, cores // units // (config.threads or (2 if is_large else 1))))
    lanes = max(config.lanes or lanes * units, units)
    return Choice(lanes, config.threads or max(1, cores // lanes), config.max_batchsize or batch)


def _shares_cores(config: RunConfig, model_bytes: int | None) -> bool:
    return model_bytes is not None and config.device == "cpu"


def _spread(cores: int) -> int:
    """Lanes for so many cores: one each, or as few as share them evenly.

    >>> [_spread(cores) for cores in (1, 2, 6, 12, 64)]
    [1, 2, 6, 6, 8]
    """
    return cores // -(-cores // _MOST_LANES)
