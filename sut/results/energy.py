"""The energy of a run, as its result has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

POWER_LOG = "power log "
"""How notes begin that say why ``--power-log`` was refused."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules per sample of the CPU, of all GPUs of a run, or of what an external meter stands before."""

    # For whoever reads it from a file.
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    source: str
    """What measured it: ``rapl``, ``nvml``, ``nvml_power`` (integrated) or ``power_log``."""
    gross_joules_per_sample: float
    """All that was used while LoadGen asked."""
    net_joules_per_sample: float | None
    """Less what it uses in that time when idle; null where that is not known."""
    idle_watts: float | None
    """What it drew in the seconds before the command's first run."""


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """What stands for CPU or GPU where nothing could be read."""

    # Results of versions that had no meters yet have the joules here, as null.
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "ignore"}

    source: Literal["none"] = "none"
    """Nothing measured it."""


UNMEASURED: Mapping[str, NotMeasured] = {"cpu": NotMeasured(), "gpu": NotMeasured()}


def gross_joules(energy: Mapping[str, Energy] | None, kind: str) -> float | None:
    """All that a sample took by a kind of meter; None where that was not measured."""
    return energy[kind].gross_joules_per_sample if energy and kind in energy else None
