"""Warm-up: every lane runs every batch size, the largest first, so that what grows with the batch is made once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

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


class Overtaken(Growing):
    """A lane that remembers the threads in which it worked; the first ones are done after the others."""

    made_so_far = 0

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()
        Overtaken.made_so_far += 1
        self.seconds = 0.01 / Overtaken.made_so_far

    def rehearse(self, indices: Sequence[int]) -> list[bytes]:
        if threading.current_thread() is not threading.main_thread():
            self.threads.add(threading.get_ident())
            time.sleep(self.seconds)
        return super().rehearse(indices)


class System:
    staged = False

    def __init__(self, lanes: int, kind: type[Growing] = Growing) -> None:
        self.lanes: Any = [kind() for _ in range(lanes)]
        self.policy = BatchingPolicy(False, 5)

    def ask(self, indices: Sequence[int]) -> None:
        self.lanes[0].rehearse(indices)

    def rehearse(self, indices: Sequence[int]) -> None:
        """It has no workers but its lanes."""


def test_the_largest_batch_is_warmed_first_in_every_lane() -> None:
    system = System(lanes=2)
    measured = calibrate("Server", system, range(3), 1, 0.0, lambda: None)
    first, second = system.lanes
    assert second.seen[:5] == [5, 4, 3, 2, 1]
    assert (first.made, second.made) == ([1, 5], [5])
    assert list(measured.batch_ns) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "measure",
    [
        lambda system: calibrate("Offline", system, range(3), 1, 0.0, lambda: None),
        lambda system: calibrate("Server", system, range(3), 1, 1e-3, lambda: None),
    ],
)
def test_no_thread_does_the_work_of_two_lanes(measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Overtaken, "made_so_far", 0)
    system = System(lanes=3, kind=Overtaken)

    measure(system)

    assert [len(lane.threads) for lane in system.lanes] == [1, 1, 1]
    assert len(set[int]().union(*(lane.threads for lane in system.lanes))) == 3
