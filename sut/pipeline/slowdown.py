"""Stages that take longer than they do, by a factor each: all but one stretched, that one is faster by comparison.

What is slowed down is wrapped when the system is made; without a ``slowdown`` nothing is, and the path of a query is
what it was. A wrapper lets the stage do its work, and then has it go on taking what it took for ``factor - 1`` times as
long, before the stage's end is stamped:

- one that takes no core (the ``simulated`` and ``null`` parts) sleeps;
- one that takes cores goes on taking them, as many threads as the runtime has, without the GIL: each hashes for as much
  of *its own* CPU time as the stage took of its thread's. So what shares a core goes on sharing it. Where the thread
  only slept while others did its work, its CPU time says nothing, and the stage's wall time counts, but for what the
  thread waited for a core;
- a device serves one batch at a time, and a host that waits does not keep it busy: so no other lane may use it.

What cannot be stretched: ``gather``, ``complete`` and LoadGen's own time, which lie between the parts.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from numpy.typing import NDArray

from backends.base import Loaded, Runner, Slot
from plugins.registry import suggest
from plugins.sleep import sleep_until
from preprocess.base import Geometry, Mark, Preprocessor, Target, unmarked
from sut.config import RunConfig
from sut.errors import InputError
from sut.pipeline.lane import Decoder
from sut.qsl.library import Source
from sut.tasks.base import Payloads

Delay = Callable[[float, int, int], None]
"""Called with a share of what a stage took, its wall time in ns without waiting for a core, and the CPU time of its
thread: takes that much more."""

NOT_STRETCHED = ("gather", "complete")
"""Stages between the parts, where nothing can be wrapped."""

_INFERRING = ("h2d", "infer", "d2h")
_BLOCK = bytes(2**16)
"""Hashed in one call: long enough to let go of the GIL, short enough for the caches."""
_thread = threading.local()
_OWN_WORK = 0.5
"""Of a stage's wall time that its thread must have spent on a core for its CPU time to count."""


def check_names(slowdown: Mapping[str, float], stages: Sequence[str]) -> None:
    """Raise ``InputError`` for a stage that is none of ``stages``, or cannot be stretched."""
    for name in slowdown:
        if name in NOT_STRETCHED:
            raise InputError(f"the stage {name} cannot be stretched: it lies between the parts; leave it out")
        if name not in stages:
            able = [stage for stage in stages if stage not in NOT_STRETCHED]
            raise InputError(f"unknown stage '{name}'; {suggest(name, able)}")


def check_as_it_is(config: RunConfig, command: str) -> None:
    """Raise ``InputError`` where a study of the system as it is would measure a stretched one."""
    if config.slowdown:
        raise InputError(f"sut {command} measures the system as it is; leave the setting slowdown out")


class Slowdown:
    """Wraps the parts of one system as its config's ``slowdown`` has it. ``stages`` are all of a sample's, in order."""

    def __init__(
        self, config: RunConfig, backend: Loaded, preprocessor: type[Preprocessor], stages: Sequence[str]
    ) -> None:
        """Raises ``InputError`` for a stage that is unknown or cannot be stretched here."""
        check_names(config.slowdown, stages)
        self._factors = config.slowdown
        filling = [name for name in config.slowdown if name in (*preprocessor.stages, "preprocess")]
        on_gpu = "cuda" in preprocessor.places if config.times_preprocessing else config.boundary == "device"
        if filling and on_gpu:
            raise InputError(
                f"the stage {filling[0]} is on the GPU, where the host cannot stretch it: leave it out, or take a "
                "preprocessor that is on the CPU, such as --preprocess opencv"
            )
        attested = backend.attest()
        idle = attested.provider == "none"
        devices = config.units * int(attested.details.get("devices", 1))
        on_device = (idle and backend.inputs) or not attested.device.startswith("cpu")
        inferring = [name for name in config.slowdown if name in _INFERRING]
        if inferring and on_device and config.lane_count > devices:
            raise InputError(
                f"{config.lane_count} lanes share {devices} device{'s' * (devices > 1)}, which stands idle while one "
                f"of them is stretched: {inferring[0]} cannot be; add --lanes {devices}"
            )
        self._filling = _filling(preprocessor) if config.times_preprocessing else Burn(1)
        self._inferring: Delay = sleep if idle or on_device else Burn(config.threads_per_lane, config.lane_count)

    def runner(self, runner: Runner) -> Runner:
        """A runner whose ``infer`` is stretched, and the copies in it."""
        return _SlowRunner(runner, self._factors, self._inferring)

    def source(self, source: Source) -> Source:
        """A source whose stages are stretched."""
        return _SlowSource(source, self._factors, self._filling)

    def decoder(self, decoder: Decoder) -> Decoder:
        """A task, as a lane sees it, whose stages are stretched."""
        return _SlowDecoder(decoder, self._factors)


def slow_source(source: Source, factors: Mapping[str, float], preprocessor: type[Preprocessor]) -> Source:
    """A source of a preprocessor of that class, with stages stretched by these factors."""
    return _SlowSource(source, factors, _filling(preprocessor))


def _filling(preprocessor: type[Preprocessor]) -> Delay:
    return Burn(1) if preprocessor.computes_pixels else sleep


def sleep(share: float, wall_ns: int, cpu_ns: int) -> None:
    """Take longer without a core. What this thread was woken late by is no stage's: it is taken off the next time."""
    until = time.monotonic_ns() + round(share * wall_ns) - getattr(_thread, "late_ns", 0)
    sleep_until(until)
    _thread.late_ns = time.monotonic_ns() - until


class Burn:
    """Takes longer on ``threads`` cores at once. Used by any number of threads."""

    def __init__(self, threads: int, lanes: int = 1) -> None:
        """``lanes``: how many call it at a time."""
        self._threads = threads
        self._pool = ThreadPoolExecutor(lanes * (threads - 1), "stretch") if threads > 1 else None

    def __call__(self, share: float, wall_ns: int, cpu_ns: int) -> None:
        """See ``Delay``."""
        each_ns = round(share * (cpu_ns if cpu_ns >= _OWN_WORK * wall_ns else wall_ns))
        others = [self._pool.submit(burn, each_ns) for _ in range(self._threads - 1)] if self._pool else ()
        burn(each_ns)
        for other in others:
            other.result()


def burn(cpu_ns: int) -> None:
    """Hash for so much CPU time of this thread, in ns: to some microseconds, mostly without the GIL."""
    until = time.thread_time_ns() + cpu_ns
    per_ns = _bytes_per_ns()
    block = memoryview(_BLOCK)
    while (left := until - time.thread_time_ns()) > 0:
        hashlib.sha256(block[: 1 + int(left * per_ns)], usedforsecurity=False)


@cache
def _bytes_per_ns() -> float:
    """How fast this machine hashes: the best of a few blocks."""
    times = []
    for _ in range(8):
        begin = time.thread_time_ns()
        hashlib.sha256(_BLOCK, usedforsecurity=False)
        times.append(time.thread_time_ns() - begin)
    return len(_BLOCK) / max(1, min(times))


def _now() -> tuple[int, int]:
    """Wall time in ns, without what this thread has waited for a core as far as the kernel tells; and its CPU time."""
    if (file := getattr(_thread, "schedule", None)) is None:
        try:
            # Never closed: lanes live as long as their process.
            file = _thread.schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        except OSError:
            return time.monotonic_ns(), time.thread_time_ns()
    waited_ns = int(os.pread(file, 64, 0).split()[1])
    return time.monotonic_ns() - waited_ns, time.thread_time_ns()


class _Watch:
    """Stretches stages that follow each other in one thread."""

    def __init__(self, factors: Mapping[str, float], delay: Delay) -> None:
        self._factors, self._delay = factors, delay
        self._began = _now()

    def end(self, stage: str) -> None:
        """The stage that began when the last one ended, or when this was made, has ended."""
        if (factor := self._factors.get(stage, 1.0)) > 1:
            wall_ns, cpu_ns = (now - then for now, then in zip(_now(), self._began, strict=True))
            self._delay(factor - 1, wall_ns, cpu_ns)
        self._began = _now()

    def marking(self, mark: Mark) -> Mark:
        """A mark that ends the stage first."""

        def slowly(stage: str) -> None:
            self.end(stage)
            mark(stage)

        return slowly


class _SlowRunner(Runner):
    def __init__(self, runner: Runner, factors: Mapping[str, float], delay: Delay) -> None:
        self._runner, self._delay = runner, delay
        self._up, self._infer, self._down = (factors.get(stage, 1.0) for stage in _INFERRING)

    def slot(self, n: int) -> Slot:
        return self._runner.slot(n)

    def close(self) -> None:
        self._runner.close()

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        began = _now()
        outputs = self._runner.infer(slot)
        wall_ns, cpu_ns = (now - then for now, then in zip(_now(), began, strict=True))
        up, down = self._runner.transfers_ns
        self.transfers_ns = round(self._up * up), round(self._down * down)
        more_ns = (self._up - 1) * up + (self._infer - 1) * (wall_ns - up - down) + (self._down - 1) * down
        if more_ns > 0 and wall_ns > 0:
            self._delay(more_ns / wall_ns, wall_ns, cpu_ns)
        return outputs


class _SlowSource(Source):
    def __init__(self, source: Source, factors: Mapping[str, float], delay: Delay) -> None:
        self._source, self._factors, self._delay = source, factors, delay
        self.stages = source.stages

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        return self._source.fill(indices, target, _Watch(self._factors, self._delay).marking(mark))

    def view(self, index: int) -> tuple[NDArray[Any], list[Geometry]] | None:
        watch = _Watch(self._factors, self._delay)
        found = self._source.view(index)
        if found is not None:
            watch.end(self.stages[0])
        return found

    def counts(self) -> Mapping[str, int]:
        return self._source.counts()

    def close(self) -> None:
        self._source.close()


class _SlowDecoder:
    def __init__(self, decoder: Decoder, factors: Mapping[str, float]) -> None:
        self._decoder, self._factors, self._delay = decoder, factors, Burn(1)
        self.stages = decoder.stages

    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> Payloads:
        watch = _Watch(self._factors, self._delay)
        payloads = self._decoder.decode(outputs, indices, geometries, rows, watch.marking(mark))
        watch.end(self.stages[-1])
        return payloads
