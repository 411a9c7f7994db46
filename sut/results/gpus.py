"""The GPUs of a run: what they were like before it, and what was seen of them while it went.

Whoever reads a figure of a GPU doubts it where others held its memory, or where its clocks were held back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from plugins.nvml import GpuState

OTHERS_BYTES = 50 * 2**20
"""Of a GPU's memory, in use before a run: what is told. One context of CUDA takes more."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """A GPU that a run works on. Null is what NVML does not tell."""

    # For whoever reads it from a file.
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    device: str
    """``cuda:0``, by CUDA's number."""
    uuid: str
    """Of the GPU, or of the MIG part of one."""
    name: str
    """The model."""
    memory_bytes: int | None
    """All of its memory."""
    highest_sm_mhz: int | None
    """What the multiprocessors' clock can be."""
    power_limit_watts: float | None
    """The limit that is enforced."""
    before: GpuState | None
    """Before the run's process was started; null where the driver did not answer in time."""
    looks: int
    """How often it was looked at in the run."""
    peak_bytes: int | None = None
    """The most memory in use at a look, from loading on, by all processes."""
    lowest_sm_mhz: int | None = None
    """The lowest clock of the multiprocessors in the run."""
    mean_sm_mhz: float | None = None
    """The mean of that clock."""
    mean_memory_mhz: float | None = None
    """The mean of the memory's clock."""
    mean_power_watts: float | None = None
    """The mean of what it drew."""
    hottest_celsius: int | None = None
    """The highest temperature."""
    slowed: Mapping[str, int] = field(default_factory=dict)
    """For each reason that held its clocks back in the run, at how many looks it did."""

    @property
    def held_bytes(self) -> int | None:
        """What was in use of its memory before the run."""
        return None if self.before is None else self.before.used_bytes

    @property
    def added_bytes(self) -> int | None:
        """What the run took of the memory at its peak, if nobody else took any meanwhile."""
        if self.peak_bytes is None or self.held_bytes is None:
            return None
        return max(0, self.peak_bytes - self.held_bytes)

    def warnings(self) -> list[str]:
        """What makes a figure of this GPU doubtful, in words."""
        found = []
        if (held := self.held_bytes or 0) > OTHERS_BYTES:
            found.append(f"{self.device}: others held {held / 2**20:,.0f} MiB of its memory before the run")
        if self.slowed:
            reasons = ", ".join(f"{reason} at {count}" for reason, count in self.slowed.items())
            clocks = ""
            if self.mean_sm_mhz is not None and self.highest_sm_mhz is not None:
                clocks = f", {self.mean_sm_mhz:,.0f} of {self.highest_sm_mhz:,} MHz on average"
            found.append(f"{self.device} was throttled: {reasons} of {self.looks} looks{clocks}")
        return found


def peak_bytes(gpus: Sequence[GpuUse] | None) -> int | None:
    """What a run took of its GPUs' memory at the peak; None where that is not known of all."""
    added = [gpu.added_bytes for gpu in gpus or ()]
    known = [each for each in added if each is not None]
    return sum(known) if known and len(known) == len(added) else None
