"""What a result says of the second model of a pipeline, and of the channel before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

_TOLD: Mapping[str, Any] = {"extra": "forbid"}
"""For whoever reads it from a file."""


@dataclass(frozen=True, slots=True)
class Carriage:
    """What one direction of a channel carried."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _TOLD

    messages: int
    """Of the run."""
    bytes: int
    """Of their bodies and what is said beside them, without the channel's own headers."""
    depth_mean: float | None
    """Messages that there were to take when one was taken, itself included."""
    depth_most: int | None
    """The most of these."""
    waited_p50_ns: int | None
    """From being sent to being taken."""
    waited_p99_ns: int | None
    """The same of the slowest hundredth."""
    waited_most_ns: int | None
    """The longest."""
    duplicates: int
    """That came twice and were dropped, since the channel was opened."""
    all_messages: int | None
    """Since then, those of the warm-up among them; null where a worker could not tell any more."""
    broker_messages: int | None
    """The same as the broker counted them; null where there is none, or it does not tell."""


@dataclass(frozen=True, slots=True)
class Broker:
    """All bytes of a broker's server since the channel was opened, whoever asked, and ours among them."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _TOLD

    bytes_in: int | None
    """That it read; null where it does not tell."""
    bytes_out: int | None
    """That it wrote."""
    our_bytes_in: int
    """That our ends have sent with messages: what opening a connection takes is not among them."""
    our_bytes_out: int
    """That they have received."""


@dataclass(frozen=True, slots=True)
class Identified:
    """The second model of a run and how crops reached it."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _TOLD

    model: str
    """Its name."""
    model_sha256: str | None
    """Of its file, as ``model_sha256`` is of the first's."""
    weights: str | None
    """As ``weights`` is of the first."""
    backend: str
    """The runtime."""
    backend_version: str
    """As it tells itself."""
    attested: Mapping[str, Any]
    """The runtime's own word for what executed."""
    identified: int
    """Crops that got a label in the run."""
    channel: str
    """``none`` where each lane identifies by itself; else what carries crops and labels."""
    durability: str
    """What of the messages survives the end of the broker, as that says itself."""
    workers: int | None
    """That take crops from the channel; null without one."""
    crops: Carriage | None
    """To the workers; null without a channel."""
    answers: Carriage | None
    """Back from them."""
    broker: Broker | None
    """null where there is no broker."""

    def line(self) -> str:
        """Itself in words, and what its channel carried."""
        what = f"identified by {self.model} on {self.backend}"
        if self.crops is None or not self.crops.messages:
            way = "in the lane" if self.workers is None else f"through {self.channel}"
            return f"{what}, {way}: {self.identified:,} crops"
        crops = self.crops
        size = f"{crops.bytes / crops.messages / 1000:.4g} kB each"
        waited = f"waited {(crops.waited_p50_ns or 0) / 1e6:.3g} ms p50, {(crops.waited_p99_ns or 0) / 1e6:.3g} ms p99"
        return (
            f"{what} through {self.channel} (durability: {self.durability}): {crops.messages:,} crops, {size}, {waited}"
        )
