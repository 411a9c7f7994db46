"""Warm-up: every lane runs every batch size, the largest first, so that what grows with the batch is made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sut.pipeline.batching import BatchingPolicy
from sut.run.timing import calibrate


class Growing:
    """A lane that makes something anew for each batch larger than any before."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.made: list[int] = []

    def rehearse(self, indices: Sequence[int]) -> list[bytes]:
        if len(indices) > max(self.seen, default=0):
            self.made.append(len(indices))
        self.seen.append(len(indices))
        return [b""] * len(indices)


class System:
    staged = False

    def __init__(self, lanes: int) -> None:
        self.lanes: Any = [Growing() for _ in range(lanes)]
        self.policy = BatchingPolicy(False, 5)

    def ask(self, indices: Sequence[int]) -> None:
        self.lanes[0].rehearse(indices)


def test_the_largest_batch_is_warmed_first_in_every_lane() -> None:
    system = System(lanes=2)
    measured = calibrate("Server", system, range(3), 1, 0.0, lambda: None)
    first, second = system.lanes
    assert second.seen[:5] == [5, 4, 3, 2, 1]
    assert (first.made, second.made) == ([1, 5], [5])
    assert list(measured.batch_ns) == [1, 2, 3, 4, 5]
