"""A pipeline is a list of stages: what each is, how it is asked for, and how queries get in.

Every stage hears of every query, the last first: so each knows what will come, and the first takes the samples up. The
fused pipeline is one stage, whose ``put`` is the pipeline's own.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sut.config import RunConfig
from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.deadline import Deadline

Put = Callable[[Sequence[int], Sequence[int], int], None]
"""Takes a query: response ids, data set indices, and the number of its first sample."""

POLL_S = 0.5
GOODBYE_S = 30


@dataclass(frozen=True, slots=True)
class StageSettings:
    """Of one stage: so many ``workers`` at a ``place``, which is the thread of who asks where it is ``caller``.

    Each takes ``batch`` samples at the most; the first of a batch waits up to ``max_wait_ns`` for more.
    """

    name: str
    workers: int
    batch: int
    max_wait_ns: int = 0
    place: Literal["caller", "thread", "process", "ray"] = "thread"


def stages_of(config: RunConfig, policy: BatchingPolicy, has_inputs: bool) -> tuple[StageSettings, ...]:
    """The stages that a config asks for, in order. Where nothing preprocesses by itself, ``infer`` does it too."""
    wait_ns = policy.max_wait_ns
    if not (config.stages_preprocessing and has_inputs):
        place: Literal["caller", "thread"] = "caller" if policy.inline else "thread"
        return (StageSettings("infer", config.lane_count, policy.max_batch, wait_ns, place),)
    workers, place_of_workers = config.preprocess_workers, config.preprocess_place
    return (
        StageSettings("preprocess", workers, min(config.preprocess_batch, policy.max_batch), 0, place_of_workers),
        StageSettings("infer", config.lane_count, policy.max_batch, wait_ns),
    )


class Stage(ABC):
    """Workers that take samples up and hand them on."""

    answers_alone = False
    """Whether a lane answers a query by itself."""

    def start(self) -> None:
        """Start the threads, if that was not done."""

    @abstractmethod
    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """Have a query answered, or know that it will come; its samples are numbered from ``start``."""

    def rehearse(self, indices: Sequence[int]) -> None:
        """Have each worker do its work on these loaded samples before the clock, once it has been started.

        Raises ``RunError`` with the name of the file to blame. Nothing is done by lanes, which are rehearsed by size.
        """

    def expect(self, deadline: Deadline | None) -> None:
        """From now on batch by what can be in time, where that is known. No query waits."""

    def rest(self, lanes: Collection[int]) -> None:
        """Give nothing to the lanes of these numbers from now on, where others than lanes feed them."""

    @property
    def processes(self) -> Mapping[str, int]:
        """Numbers of the processes that its workers are, by name."""
        return {}

    def counts(self) -> Mapping[str, int]:
        """What a reader of the result must know of workers that are processes, once they have ended."""
        return {}

    def close(self) -> None:
        """Answer what was put, or hand it on, and end the threads."""


def entry(stages: Sequence[Stage]) -> Put:
    """How queries get into a pipeline."""
    if len(stages) == 1:
        return stages[0].put
    in_order = tuple(reversed(stages))

    def put(ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        for stage in in_order:
            stage.put(ids, indices, start)

    return put


def started(name: str, target: Callable[..., None], *arguments: object) -> threading.Thread:
    """A thread of that name, which is at work."""
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    thread.start()
    return thread


def joined(threads: list[threading.Thread]) -> None:
    """Wait for all to end, and forget them."""
    for thread in threads:
        thread.join(timeout=GOODBYE_S)
    threads.clear()
