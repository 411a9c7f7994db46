"""What the threads of a staged pipeline share in tests, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.base import TensorSpec
from preprocess.base import Geometry, Recipe
from sut.models.registry import MODELS
from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.channel import Channel
from sut.pipeline.lane import Failures, Recorder, Surroundings, lane_stages
from sut.pipeline.ledger import Ledger, LedgerShape
from sut.pipeline.process_channel import ProcessChannel
from sut.pipeline.trays import Filled
from sut.tasks.classification import Classification

RECIPE = Recipe(name="dot", size=1, fit="stretch", interpolation="linear")
WHERE = Geometry(4, 3, 0.5, 0.25, 1, 2)
STAGES = ("decode", "resize")
FILES = ("cat.jpg", "dog.jpg", "cow.jpg", "hen.jpg")


@dataclass
class Bench:
    """What the threads of a run share, and what came of it."""

    completed: list[tuple[list[int], bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = LedgerShape.of(100, stages=("gather", *lane_stages(False)), before=STAGES)
        self.ledger = Ledger(shape)
        self.failures = Failures(lambda index: FILES[index])
        self.shared = Surroundings(
            task=Classification.of(MODELS["efficientnet-lite0"], [TensorSpec("label", "int64", (None,), "N")]),
            policy=BatchingPolicy(False, 4),
            recorder=Recorder(self.ledger),
            failures=self.failures,
            complete=self.complete,
            clock=time.time_ns,
        )

    def complete(self, ids: Sequence[int], payloads: Any) -> int:
        self.completed.append((list(ids), payloads is not None))
        return time.time_ns()


def taken(channel: Channel | ProcessChannel, count: int) -> list[Filled]:
    """So many samples out of a channel."""
    found: list[Filled] = []
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        found += channel.take(0)
    return found
